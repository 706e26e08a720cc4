//! The memory that the queues of all sessions share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A bound for all queues together. It may be passed by what several sessions take in the same moment, never by more than
/// 16 KiB and one stanza of each.
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

/// So many bytes a queue may take or give back before the others know of it. All processors would else write to the same memory
/// for each stanza.
const UNTOLD: usize = 16 << 10;

/// What one queue has of it; given back when dropped.
#[derive(Debug, Default)]
pub(super) struct Share {
    budget: Arc<Budget>,
    taken: usize,
    /// What the others know of.
    told: usize,
}

impl Share {
    pub(super) fn of(budget: Arc<Budget>) -> Self {
        Self { budget, taken: 0, told: 0 }
    }

    /// Whether there is room for so many bytes.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.room() >= bytes
    }

    /// Bytes that are left.
    pub(super) fn room(&self) -> usize {
        (self.budget.room() + self.told).saturating_sub(self.taken)
    }

    /// The queue has so many bytes now.
    pub(super) fn set(&mut self, bytes: usize) {
        self.taken = bytes;
        if self.taken.abs_diff(self.told) > UNTOLD {
            self.tell();
        }
    }

    /// Bytes that the queue has.
    pub(super) fn taken(&self) -> usize {
        self.taken
    }

    /// Lets the others know, at the latest when the session has nothing more to do.
    pub(super) fn tell(&mut self) {
        if self.taken > self.told {
            self.budget.used.fetch_add(self.taken - self.told, Ordering::Relaxed);
        } else if self.taken < self.told {
            self.budget.used.fetch_sub(self.told - self.taken, Ordering::Relaxed);
        }
        self.told = self.taken;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.taken = 0;
        self.tell();
    }
}

/// What a session has of the shared memory beside its queue: presence, rooms, contacts, open requests.
#[derive(Debug, Default)]
pub(in crate::session) struct AsideMemory(Share);

impl AsideMemory {
    pub(in crate::session) fn of(budget: Arc<Budget>) -> Self {
        Self(Share::of(budget))
    }

    /// The session has so many bytes now.
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
    fn what_a_queue_takes_counts_for_itself_at_once_and_for_others_when_it_is_much_or_told() {
        let (budget, [mut one, mut other]) = shares(4 * UNTOLD);
        one.set(UNTOLD);
        assert_eq!((budget.used(), one.room(), other.room()), (0, 3 * UNTOLD, 4 * UNTOLD));
        one.set(UNTOLD + 1);
        assert_eq!((budget.used(), other.room()), (UNTOLD + 1, 3 * UNTOLD - 1));
        other.set(5);
        other.tell();
        assert_eq!(one.room(), 3 * UNTOLD - 6);
        one.set(0);
        assert_eq!((budget.used(), one.room()), (5, 4 * UNTOLD - 5));
    }

    #[test]
    fn what_a_session_has_beside_its_queue_is_taken_from_the_same_memory() {
        let (budget, [queue, _]) = shares(4 * UNTOLD);
        let mut aside = AsideMemory::of(Arc::clone(&budget));
        aside.set(3 * UNTOLD);
        assert_eq!(queue.room(), UNTOLD);
        aside.set(5);
        assert_eq!(queue.room(), 4 * UNTOLD - 5);
        drop(aside);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn what_a_queue_that_is_gone_had_is_free() {
        let (budget, [mut one, mut other]) = shares(usize::MAX);
        one.set(100);
        one.tell();
        other.set(7);
        one.set(40);
        drop((one, other));
        assert_eq!(budget.used(), 0);
    }
}
