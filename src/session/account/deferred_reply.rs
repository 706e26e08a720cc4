//! Replies to the client that wait for the store.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::push::registration::Target;
use crate::session::event::{Event, Token};

/// The number of requests of one session that may wait for the store. Others are refused with a temporary error.
const OPEN_REQUESTS: usize = 32;

/// The bytes of their replies.
const BYTES: usize = 64 * 1024;

/// A reply that waits for the store.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct DeferredReply {
    token: Token,
    /// The registration that is being stored; `None` if registrations are being removed.
    enabled: Option<Target>,
    on_success: Bytes,
    on_failure: Bytes,
}

impl DeferredReply {
    fn bytes(&self) -> usize {
        self.on_success.len() + self.on_failure.len()
    }

    /// Returns whether a registration is being stored.
    pub(super) fn enables(&self) -> bool {
        self.enabled.is_some()
    }

    /// The reply and the event to report, once the change is on disk.
    pub(super) fn into_success(self) -> (Bytes, Event) {
        (self.on_success, self.enabled.map_or(Event::PushDisabled, Event::PushEnabled))
    }

    /// The reply if the change failed.
    pub(super) fn into_failure(self) -> Bytes {
        self.on_failure
    }
}

/// The replies that wait, oldest first.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct DeferredReplies {
    open: VecDeque<DeferredReply>,
    next_token: u64,
}

impl DeferredReplies {
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &DeferredReply> {
        self.open.iter()
    }

    /// The bytes of memory in use.
    pub(super) fn memory(&self) -> usize {
        self.open.iter().map(DeferredReply::bytes).sum()
    }

    /// Returns whether another request with an id of this length may wait. Its replies repeat the id.
    pub(super) fn has_room(&self, id: usize) -> bool {
        self.open.len() < OPEN_REQUESTS && self.memory().saturating_add(2 * id) <= BYTES
    }

    /// Adds a reply that waits.
    pub(super) fn add(&mut self, enabled: Option<Target>, on_success: Bytes, on_failure: Bytes) -> Token {
        let token = Token(self.next_token);
        self.next_token = self.next_token.wrapping_add(1);
        self.open.push_back(DeferredReply { token, enabled, on_success, on_failure });
        token
    }

    /// Takes the reply that waits for this answer of the store.
    pub(super) fn take(&mut self, token: Token) -> Option<DeferredReply> {
        let at = self.open.iter().position(|deferred| deferred.token == token)?;
        let deferred = self.open.remove(at);
        if self.open.is_empty() {
            self.open = VecDeque::new();
        }
        deferred
    }
}
