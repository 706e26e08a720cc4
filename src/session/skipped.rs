//! Stanzas of the server that were passed over, because no client could have read them: what is left of them is answered.

use std::time::Instant;

use bytes::Bytes;

use super::Session;
use super::answer::{iq_error, message_error};
use crate::jid::Jid;
use crate::xml::{Element, Kind, Node, Skipped, XmlWriter, ns};

impl Session {
    /// The server has sent what is not passed on. Stanzas count for its stream management all the same.
    pub(super) fn upstream_skipped(&mut self, now: Instant, skipped: &Skipped) {
        let element = &skipped.element;
        if element.kind() == Kind::Other {
            return;
        }
        let ordinal = self.server.on_received();
        if self.gives_back() {
            // The server sends it elsewhere.
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

    /// An answer was passed over. To a request of our own, what is left of it is enough; the client has to know that its own
    /// remains without one.
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

    /// Whether a message was meant for this client alone, by somebody else: else another one may have it, and an answer would
    /// tell strangers who is online.
    fn is_for_this_client(&self, message: &Node<'_>) -> bool {
        let address = |name: &str| message.attr(name).map(|jid| Jid::new(&jid));
        let (from, to) = (address("from"), address("to"));
        to.is_some_and(|to| to == self.bound.jid) && from.is_some_and(|from| from.to_bare() != self.account)
    }
}

/// An answer to a client's iq in the place of one that no client could have read (RFC 6120 §8.3).
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
