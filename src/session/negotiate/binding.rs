//! Binding (RFC 6120 §7): the full JID in the server's result is whose session begins.

use std::sync::Arc;

use super::{Negotiation, Output, Proof, State};
use crate::jid::{self, FullJid};
use crate::session::Bound;
use crate::session::sender::is_host;
use crate::session::sm::nonza;
use crate::xml::{Element, Kind, Node, StanzaCondition, ns};

impl Negotiation {
    pub(super) fn client_binds(&mut self, element: &Element) {
        let node = element.node();
        if node.is("resume", ns::SM) {
            return self.client_resumes(&node);
        }
        if node.is("resume", ns::CLIENT) {
            // QXmpp 1.4 asks so before its first bind, with an empty `previd`, and goes on once it is refused.
            return self.reply(nonza::failed(StanzaCondition::ItemNotFound, None));
        }
        if node.is("enable", ns::SM) {
            return self.reply(nonza::failed(StanzaCondition::UnexpectedRequest, None));
        }
        if node.is("r", ns::SM) || node.is("a", ns::SM) {
            return;
        }
        if element.kind() == Kind::Other {
            return self.refuse_element(element);
        }
        let bind = node.child("bind", ns::BIND).filter(|_| element.kind() == Kind::Iq);
        let resource =
            bind.and_then(|bind| bind.child("resource", ns::BIND)).map(|r| jid::resource(&r.text()).into_owned());
        if let (Some(proof), Some(resource)) = (self.proof(), resource) {
            self.out(Output::Release(proof, resource));
        }
        self.out(Output::ToUpstream(element.bytes().clone()));
        if bind.is_some() {
            self.state = State::BindSent(node.attr("id").unwrap_or_default().into_owned());
        }
    }

    pub(super) fn bind_answered(&mut self, element: &Element, node: &Node<'_>) {
        self.answered();
        self.write_client(element.bytes().clone());
        self.state = State::Binding;
        if let Some(bound) = bound_jid(node).and_then(|jid| self.bound(jid)) {
            self.become_session(bound);
        }
    }

    /// What is known of a session with this JID.
    pub(super) fn bound(&mut self, jid: FullJid) -> Option<Box<Bound>> {
        let (client, server) = (self.client_header.as_ref()?, self.server_header.as_ref()?);
        Some(Box::new(Bound {
            jid,
            identity: self.identity.take(),
            client_header: Arc::clone(client),
            server_header: Arc::clone(server),
            presented: self.presented.take(),
            agent: self.agent.take(),
            enabled: None,
            inactive: false,
            server_csi: false,
            server_sm: false,
        }))
    }

    /// The connection is a session of its own, on a server that offers this.
    pub(super) fn become_session(&mut self, mut bound: Box<Bound>) {
        (bound.server_csi, bound.server_sm) = (self.server_csi, self.server_sm);
        self.out(Output::Bound(bound));
        self.state = State::Done;
    }

    /// Whether this is the server's answer to a bind with this iq id. RFC 6120 §8.1.3 wants an id, but there are clients without:
    /// Prosody binds them, and copies what they sent.
    pub(super) fn is_bind_answer(&self, element: &Element, node: &Node<'_>, id: &str) -> bool {
        let jid = bound_jid(node).map(|jid| jid.to_bare());
        element.kind() == Kind::Iq
            && node.attr("id").unwrap_or_default() == id
            && matches!(node.attr("type").as_deref(), Some("result" | "error"))
            && is_host(node.attr("from").as_deref(), &self.host, jid.as_ref().or(self.account.as_ref()))
    }

    fn proof(&self) -> Option<Proof> {
        let login = || self.identity.clone().map(Proof::Login);
        self.account.clone().map(Proof::Account).or_else(login)
    }
}

/// The full JID in a bind result.
pub(super) fn bound_jid(answer: &Node<'_>) -> Option<FullJid> {
    let jid = answer.child("bind", ns::BIND)?.child("jid", ns::BIND)?.text();
    FullJid::new(&jid).ok()
}
