//! [`ConnectionSlots`]: limits the concurrent connections of an operator's listener. If all slots are taken, the oldest
//! connection is closed for the newest.
//!
//! A request takes milliseconds, so the oldest connection is one that sends no request, or does not read. So any number of
//! idle connections cannot block a probe.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::sync::lock;
use tokio_util::sync::CancellationToken;

/// The slots of one listener.
#[derive(Clone, Debug)]
pub(super) struct ConnectionSlots(Arc<SlotTable>);

#[derive(Debug)]
struct SlotTable {
    most: usize,
    taken: Mutex<TakenSlots>,
}

#[derive(Debug, Default)]
struct TakenSlots {
    next: u64,
    /// The connections in the order in which they arrived.
    connections: VecDeque<(u64, CancellationToken)>,
}

/// One slot. Dropping it frees the slot.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    shared: Arc<SlotTable>,
    number: u64,
    evicted: CancellationToken,
}

impl ConnectionSlots {
    /// Creates `most` slots, at least one.
    pub(super) fn new(most: usize) -> Self {
        Self(Arc::new(SlotTable { most: most.max(1), taken: Mutex::default() }))
    }

    /// Takes a slot. If all are taken, takes that of the oldest connection.
    pub(super) fn enter(&self) -> ConnectionSlot {
        let evicted = CancellationToken::new();
        let mut taken = self.0.taken();
        if taken.connections.len() >= self.0.most
            && let Some((_, oldest)) = taken.connections.pop_front()
        {
            oldest.cancel();
        }
        let number = taken.next;
        taken.next += 1;
        taken.connections.push_back((number, evicted.clone()));
        drop(taken);
        ConnectionSlot { shared: Arc::clone(&self.0), number, evicted }
    }
}

impl ConnectionSlot {
    /// Runs a future to its end, unless the slot is given to another connection first.
    pub(super) async fn run<F: Future>(&self, work: F) -> Option<F::Output> {
        self.evicted.run_until_cancelled(work).await
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut taken = self.shared.taken();
        if let Ok(at) = taken.connections.binary_search_by_key(&self.number, |(number, _)| *number) {
            taken.connections.remove(at);
        }
    }
}

impl SlotTable {
    fn taken(&self) -> MutexGuard<'_, TakenSlots> {
        lock(&self.taken)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn the_oldest_makes_room_and_a_place_comes_back() {
        let slots = ConnectionSlots::new(2);
        let (first, second) = (slots.enter(), slots.enter());
        assert_eq!(second.run(ready(1)).await, Some(1));
        let third = slots.enter();
        assert_eq!(first.run(pending::<()>()).await, None);
        drop(first);
        drop(third);
        let fourth = slots.enter();
        assert_eq!(second.run(ready(2)).await, Some(2), "there was a free place");
        let _fifth = slots.enter();
        assert_eq!(second.run(pending::<()>()).await, None);
        assert_eq!(fourth.run(ready(4)).await, Some(4));
    }
}
