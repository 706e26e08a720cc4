//! The memory that the queues of all sessions share. The daemon owns one [`Budget`]; each queue has a `Share` of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A limit for all queues together. Sessions that allocate at the same moment may exceed it, each by at most 16 KiB and one
/// stanza, or by the stanzas that it reads back at that moment: at most half of its own limit.
#[derive(Debug)]
pub struct Budget {
    limit: AtomicUsize,
    used: AtomicUsize,
}

impl Default for Budget {
    /// Creates a budget without a limit.
    fn default() -> Self {
        Self { limit: AtomicUsize::new(usize::MAX), used: AtomicUsize::default() }
    }
}

impl Budget {
    /// Changes the limit, in bytes, for new stanzas.
    pub fn update(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// The bytes in all queues.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn room(&self) -> usize {
        self.limit.load(Ordering::Relaxed).saturating_sub(self.used())
    }
}

/// The number of bytes that a queue may take or give back before it updates the shared counter. Without this, all
/// processors would write to the same memory for each stanza.
const UNPUBLISHED: usize = 16 << 10;

/// The memory that one queue takes from the budget. Dropping it gives the memory back.
#[derive(Debug, Default)]
pub(super) struct Share {
    budget: Arc<Budget>,
    taken: usize,
    /// The bytes that the shared counter includes.
    published: usize,
}

impl Share {
    pub(super) fn of(budget: Arc<Budget>) -> Self {
        Self { budget, taken: 0, published: 0 }
    }

    /// Returns whether there is room for this many bytes.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.room() >= bytes
    }

    /// The bytes that are left.
    pub(super) fn room(&self) -> usize {
        (self.budget.room() + self.published).saturating_sub(self.taken)
    }

    /// Sets the bytes that the queue has.
    pub(super) fn set(&mut self, bytes: usize) {
        self.taken = bytes;
        if self.taken.abs_diff(self.published) > UNPUBLISHED {
            self.publish();
        }
    }

    /// The bytes that the queue has.
    pub(super) fn taken(&self) -> usize {
        self.taken
    }

    /// Updates the shared counter. Called at the latest when the session has nothing more to do.
    pub(super) fn publish(&mut self) {
        if self.taken > self.published {
            self.budget.used.fetch_add(self.taken - self.published, Ordering::Relaxed);
        } else if self.taken < self.published {
            self.budget.used.fetch_sub(self.published - self.taken, Ordering::Relaxed);
        }
        self.published = self.taken;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.taken = 0;
        self.publish();
    }
}

/// The shared memory that a session takes beside its queue: presence, rooms, contacts, pending requests.
#[derive(Debug, Default)]
pub(in crate::session) struct AsideMemory(Share);

impl AsideMemory {
    pub(in crate::session) fn of(budget: Arc<Budget>) -> Self {
        Self(Share::of(budget))
    }

    /// Sets the bytes that the session has.
    pub(in crate::session) fn set(&mut self, bytes: usize) {
        self.0.set(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(limit: usize) -> (Arc<Budget>, [Share; 2]) {
        let budget = Arc::new(Budget::default());
        budget.update(limit);
        let share = || Share::of(Arc::clone(&budget));
        let shares = [share(), share()];
        (budget, shares)
    }

    #[test]
    fn what_a_queue_takes_counts_for_itself_at_once_and_for_others_when_it_is_much_or_published() {
        let (budget, [mut one, mut other]) = shares(4 * UNPUBLISHED);
        one.set(UNPUBLISHED);
        assert_eq!((budget.used(), one.room(), other.room()), (0, 3 * UNPUBLISHED, 4 * UNPUBLISHED));
        one.set(UNPUBLISHED + 1);
        assert_eq!((budget.used(), other.room()), (UNPUBLISHED + 1, 3 * UNPUBLISHED - 1));
        other.set(5);
        other.publish();
        assert_eq!(one.room(), 3 * UNPUBLISHED - 6);
        one.set(0);
        assert_eq!((budget.used(), one.room()), (5, 4 * UNPUBLISHED - 5));
    }

    #[test]
    fn what_a_session_has_beside_its_queue_is_taken_from_the_same_memory() {
        let (budget, [queue, _]) = shares(4 * UNPUBLISHED);
        let mut aside = AsideMemory::of(Arc::clone(&budget));
        aside.set(3 * UNPUBLISHED);
        assert_eq!(queue.room(), UNPUBLISHED);
        aside.set(5);
        assert_eq!(queue.room(), 4 * UNPUBLISHED - 5);
        drop(aside);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn what_a_queue_that_is_gone_had_is_free() {
        let (budget, [mut one, mut other]) = shares(usize::MAX);
        one.set(100);
        one.publish();
        other.set(7);
        one.set(40);
        drop((one, other));
        assert_eq!(budget.used(), 0);
    }
}
