//! The memory that the queues of all sessions share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A bound for all queues together. It may be passed by what several sessions take in the same moment, never by more than one
/// stanza of each.
#[derive(Debug)]
pub struct Budget {
    limit: AtomicUsize,
    used: AtomicUsize,
}

impl Default for Budget {
    /// No bound.
    fn default() -> Self {
        Self { limit: AtomicUsize::new(usize::MAX), used: AtomicUsize::default() }
    }
}

impl Budget {
    /// Another bound, in bytes, for what comes.
    pub fn update(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Bytes that wait in all queues.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn room(&self) -> usize {
        self.limit.load(Ordering::Relaxed).saturating_sub(self.used())
    }
}

/// What one queue has of it; given back when dropped.
#[derive(Debug, Default)]
pub(super) struct Share {
    budget: Arc<Budget>,
    taken: usize,
}

impl Share {
    pub(super) fn of(budget: Arc<Budget>) -> Self {
        Self { budget, taken: 0 }
    }

    /// Whether there is room for so many bytes.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.room() >= bytes
    }

    /// Bytes that are left.
    pub(super) fn room(&self) -> usize {
        self.budget.room()
    }

    pub(super) fn take(&mut self, bytes: usize) {
        self.taken += bytes;
        self.budget.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn give_back(&mut self, bytes: usize) {
        let bytes = bytes.min(self.taken);
        self.taken -= bytes;
        self.budget.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back(self.taken);
    }
}
