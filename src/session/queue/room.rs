//! The memory that a queue may have: its own bound, and what all queues share.

use std::sync::Arc;

use super::budget::{Budget, Share};

/// What has no room any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The memory of the session.
    Session,
    /// The memory that all sessions share.
    All,
}

/// Bytes that a session may have on their way to the disk where the memory for all is full.
const IN_FLIGHT: usize = 64 << 10;

/// The bounds of a queue's memory, and what is taken of the shared memory.
#[derive(Debug)]
pub(super) struct QueueRoom {
    limit: usize,
    share: Share,
    /// Bytes that the store works on.
    at_store: usize,
    /// What had no room when stanzas began to go to the spool only, until it is asked for.
    full: Option<Full>,
}

impl QueueRoom {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, share: Share::default(), at_store: 0, full: None }
    }

    /// Shares memory with others, from the beginning of the queue.
    pub(super) fn share(&mut self, budget: Arc<Budget>) {
        self.share = Share::of(budget);
    }

    /// Changes the bound; what is more already stays.
    pub(super) fn change_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// The bound, in bytes.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Lets the other queues know how much this one has now.
    pub(super) fn tell(&mut self) {
        self.share.tell();
    }

    /// The store works on so many bytes.
    pub(super) fn charge_store(&mut self, bytes: usize) {
        let queued = self.share.taken() - self.at_store;
        self.at_store = bytes;
        self.set(queued);
    }

    /// The queue has so many bytes now.
    pub(super) fn set(&mut self, bytes: usize) {
        self.share.set(bytes + self.at_store);
    }

    /// Returns whether the queue is known to have so many bytes. Only debug builds ask.
    pub(super) fn check(&self, bytes: usize) -> bool {
        self.share.taken() == bytes + self.at_store
    }

    /// What has no room for `more` bytes in memory beside `bytes`.
    pub(super) fn shortage(&self, bytes: usize, more: usize) -> Option<Full> {
        if bytes + more > self.limit {
            Some(Full::Session)
        } else if self.share.has_room(more) {
            None
        } else {
            Some(Full::All)
        }
    }

    /// From now on stanzas go to the spool only, because of this.
    pub(super) fn on_full(&mut self, full: Option<Full>) {
        self.full = full;
    }

    /// Returns why stanzas go to the spool only, once for each time that they begin to.
    pub(super) fn take_full(&mut self) -> Option<Full> {
        self.full.take()
    }

    /// Bytes that may be neither the client's nor on disk while the disk is late or refuses.
    pub(super) fn for_unsaved(&self) -> usize {
        if self.share.has_room(1) { self.limit } else { self.limit.min(IN_FLIGHT) }
    }

    /// Bytes that may be read back where stanzas of `held` bytes are in memory.
    pub(super) fn for_load(&self, held: usize) -> usize {
        (self.limit / 2).saturating_sub(held).min(self.share.room())
    }

    /// Returns whether stanzas of `held` bytes leave no room to read back more.
    pub(super) fn is_full_for_load(&self, held: usize) -> bool {
        held >= self.limit / 2
    }

    /// Returns whether the memory for all is full.
    pub(super) fn is_exhausted(&self) -> bool {
        !self.share.has_room(1)
    }
}
