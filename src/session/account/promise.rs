//! Replies to the client that wait for the store.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::session::event::{Event, Token};

/// Requests of one session that wait for the store; more are asked to come back later.
const OPEN_REQUESTS: usize = 32;

/// Bytes of their answers.
const BYTES: usize = 64 * 1024;

/// A reply that waits for the store.
#[derive(Debug)]
pub(super) struct Promise {
    token: Token,
    event: Event,
    on_success: Bytes,
    on_failure: Bytes,
}

impl Promise {
    fn bytes(&self) -> usize {
        self.on_success.len() + self.on_failure.len()
    }

    pub(super) fn event(&self) -> &Event {
        &self.event
    }

    /// The reply and what is to be reported, once the change is on disk.
    pub(super) fn kept(self) -> (Bytes, Event) {
        (self.on_success, self.event)
    }

    /// The reply if the change failed.
    pub(super) fn broken(self) -> Bytes {
        self.on_failure
    }
}

/// The replies that wait, oldest first.
#[derive(Debug, Default)]
pub(super) struct Promises {
    open: VecDeque<Promise>,
    next_token: u64,
}

impl Promises {
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Promise> {
        self.open.iter()
    }

    /// Bytes of memory in use.
    pub(super) fn memory(&self) -> usize {
        self.open.iter().map(Promise::bytes).sum()
    }

    /// Whether another request with an id of this length may wait: its answers repeat the id.
    pub(super) fn has_room(&self, id: usize) -> bool {
        self.open.len() < OPEN_REQUESTS && self.memory().saturating_add(2 * id) <= BYTES
    }

    /// Promises a reply.
    pub(super) fn add(&mut self, event: Event, on_success: Bytes, on_failure: Bytes) -> Token {
        let token = Token(self.next_token);
        self.next_token = self.next_token.wrapping_add(1);
        self.open.push_back(Promise { token, event, on_success, on_failure });
        token
    }

    /// Takes the promise whose change the store has answered.
    pub(super) fn take(&mut self, token: Token) -> Option<Promise> {
        let at = self.open.iter().position(|promise| promise.token == token)?;
        let promise = self.open.remove(at);
        if self.open.is_empty() {
            self.open = VecDeque::new();
        }
        promise
    }
}
