//! The part of a [`ServerStream`] that recognizes answers of the server.

use super::ServerStream;
use super::answered::AnsweredRequest;
use crate::clock::Instant;
use crate::xml::Node;

impl ServerStream {
    /// Notes that the client requested the features of its account.
    pub(in crate::session) fn on_features_request(&mut self, id: &str) {
        self.pending.query(id);
    }

    /// Notes that the client requested the removal of its account.
    pub(in crate::session) fn on_removal_request(&mut self, now: Instant, id: &str) {
        self.pending.removal(now, id);
    }

    /// Notes that the client requested another password for its account.
    pub(in crate::session) fn on_password_request(&mut self, id: &str) {
        self.pending.password(id);
    }

    /// Returns whether no answer of the server can concern Pushward.
    pub(in crate::session) fn awaits_nothing(&self) -> bool {
        self.pending.is_idle()
    }

    /// Returns whether an answer with this id belongs to a request of Pushward.
    pub(in crate::session) fn is_ours(&self, id: &str) -> bool {
        self.pending.is_ours(id)
    }

    /// Returns the request that an iq of the server answers. An iq request answers none that Pushward knows.
    pub(in crate::session) fn on_answer(&mut self, node: &Node<'_>) -> AnsweredRequest {
        let is_server = self.identity.is_server(node.attr("from").as_deref());
        let answered = self.pending.on_answer(node, is_server);
        let id = || node.attr("id").unwrap_or_default();
        let is_ping = is_server && answered.is_late() && self.confirmation.ping_answered(&id());
        if is_ping { AnsweredRequest::Ping } else { answered }
    }
}
