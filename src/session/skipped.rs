//! Answers to stanzas of the server that were skipped ([`Skipped`]): name, kind, `type`, `id`, `from` and `to` are left of them.

use std::time::Instant;

use bytes::Bytes;

use super::Session;
use super::answer::{iq_error, message_error};
use crate::jid::Jid;
use crate::xml::{Element, Kind, Node, Skipped, XmlWriter, ns};

impl Session {
    /// Handles a skipped element. Stanzas count for the server's stream management like all others.
    pub(super) fn upstream_skipped(&mut self, now: Instant, skipped: &Skipped) {
        let element = &skipped.element;
        if element.kind() == Kind::Other {
            return;
        }
        let ordinal = self.server.on_received();
        if self.gives_back() {
            // The server sends it elsewhere, since it is not acknowledged.
            return;
        }
        let node = element.node();
        let answer = match (element.kind(), node.attr("type").as_deref()) {
            (Kind::Iq, Some("get" | "set")) => Some(iq_error(&node, "modify", "not-acceptable")),
            (Kind::Iq, Some("result" | "error")) => {
                self.answer_skipped(now, element, ordinal);
                None
            }
            (Kind::Message, Some("error" | "groupchat" | "headline")) => None,
            (Kind::Message, _) if self.is_for_this_client(&node) => {
                Some(message_error(&node, "wait", "resource-constraint"))
            }
            (Kind::Message | Kind::Presence | Kind::Iq | Kind::Other, _) => None,
        };
        if let Some(answer) = answer.filter(|_| self.can_answer()) {
            self.answer_upstream(now, answer);
        }
    }

    /// Handles a skipped iq result or error. A request of our own is answered by what is left of it. The client gets an error in
    /// place of the answer to its request.
    fn answer_skipped(&mut self, now: Instant, element: &Element, ordinal: Option<u64>) {
        let node = element.node();
        let is_ours = node.attr("id").is_some_and(|id| self.pending.is_ours(&id));
        if is_ours && self.upstream_answer(now, element, ordinal) {
            return;
        }
        if let Ok(error) = Element::parse(unreadable(&node), element.header()) {
            self.upstream_stanza(now, error, ordinal);
        }
    }

    /// Returns whether a message from another account is addressed to the full JID of this client. Other messages get no error:
    /// another client may have them, and an error would show strangers who is online.
    fn is_for_this_client(&self, message: &Node<'_>) -> bool {
        let address = |name: &str| message.attr(name).map(|jid| Jid::new(&jid));
        let (from, to) = (address("from"), address("to"));
        to.is_some_and(|to| to == self.bound.jid) && from.is_some_and(|from| from.to_bare() != self.account)
    }
}

/// Returns the error (RFC 6120 §8.3) that a client gets in place of a skipped answer to its iq.
pub(super) fn unreadable(answer: &Node<'_>) -> Bytes {
    let mut xml = XmlWriter::new();
    xml.start("iq").attr("type", "error");
    for name in ["id", "from", "to"] {
        if let Some(value) = answer.attr(name) {
            xml.attr(name, &value);
        }
    }
    xml.start("error").attr("type", "modify").start("not-acceptable").attr("xmlns", ns::STANZA_ERRORS);
    xml.finish()
}
