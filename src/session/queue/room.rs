//! The memory limits of a queue: its own limit, and the memory that all queues share.

use std::sync::Arc;

use super::budget::{Budget, Share};

/// The memory that has no room left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Full {
    /// The memory of the session.
    Session,
    /// The memory that all sessions share.
    All,
}

/// The bytes that a session may have on their way to the disk while the shared memory is full.
const IN_FLIGHT: usize = 64 << 10;

/// The limits of a queue's memory, and its share of the common memory.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct QueueRoom {
    #[serde(skip)]
    limit: usize,
    #[serde(skip)]
    share: Share,
    /// The bytes that the store is working on.
    #[serde(skip)]
    at_store: usize,
    /// The bytes that are on their way from the disk, at most.
    reading: usize,
    /// The memory that was full when stanzas began to go to the spool only. Taken by the first reader.
    full: Option<Full>,
}

impl QueueRoom {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, share: Share::default(), at_store: 0, reading: 0, full: None }
    }

    /// Makes the queue share memory with other queues. Call it before the first stanza.
    pub(super) fn share(&mut self, budget: Arc<Budget>) {
        self.share = Share::of(budget);
    }

    /// Changes the limit, in bytes. Stanzas that exceed a lower limit stay.
    pub(super) fn change_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// The limit, in bytes.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Publishes the queue's memory use to the other queues.
    pub(super) fn publish(&mut self) {
        self.share.publish();
    }

    /// Sets the bytes that the store is working on.
    pub(super) fn charge_store(&mut self, bytes: usize) {
        let queued = self.share.taken() - self.at_store;
        self.at_store = bytes;
        self.set(queued);
    }

    /// Sets the bytes that the queue has.
    pub(super) fn set(&mut self, bytes: usize) {
        self.share.set(bytes + self.at_store);
    }

    /// Returns whether the recorded bytes are correct. Only debug builds call it.
    pub(super) fn check(&self, bytes: usize) -> bool {
        self.share.taken() == bytes + self.at_store
    }

    /// Keeps room in the session's memory for the stanzas that are read from the disk.
    pub(super) fn reserve_for_load(&mut self, bytes: usize) {
        self.reading = bytes;
    }

    /// Returns whether the session's memory has room for `more` bytes in addition to `bytes`.
    pub(super) fn has_room(&self, bytes: usize, more: usize) -> bool {
        bytes + self.reading + more <= self.limit
    }

    /// The memory that has no room for `more` bytes in addition to `bytes`.
    pub(super) fn shortage(&self, bytes: usize, more: usize) -> Option<Full> {
        if !self.has_room(bytes, more) {
            Some(Full::Session)
        } else if self.share.has_room(more) {
            None
        } else {
            Some(Full::All)
        }
    }

    /// Notes that stanzas go to the spool only from now on, and why.
    pub(super) fn on_full(&mut self, full: Option<Full>) {
        self.full = full;
    }

    /// Returns why stanzas go to the spool only, once each time this begins.
    pub(super) fn take_full(&mut self) -> Option<Full> {
        self.full.take()
    }

    /// The bytes that neither the client nor the disk may have while the disk is slow or refuses.
    pub(super) fn for_unsaved(&self) -> usize {
        if self.share.has_room(1) { self.limit } else { self.limit.min(IN_FLIGHT) }
    }

    /// The bytes that may be read back while `held` bytes are in memory.
    pub(super) fn for_load(&self, held: usize) -> usize {
        (self.limit / 2).saturating_sub(held).min(self.share.room())
    }

    /// Returns whether `held` bytes in memory leave no room to read back more.
    pub(super) fn is_full_for_load(&self, held: usize) -> bool {
        held >= self.limit / 2
    }

    /// Returns whether the shared memory is full.
    pub(super) fn is_exhausted(&self) -> bool {
        !self.share.has_room(1)
    }
}
