//! The queue as the server's stream management sees it.

use std::num::NonZeroU64;
use std::ops::RangeInclusive;

use super::{Queue, Queued};

impl Queue {
    /// The number of the first stanza on the server's leg that is neither the client's nor the disk's; `None` if all are.
    pub fn first_unsettled(&mut self) -> Option<u64> {
        let committed = self.committed;
        while self.items.get(self.settled).is_some_and(|item| item.is_settled(committed)) {
            self.settled += 1;
        }
        self.find_unsettled()
    }

    /// The same without noting how far it was looked for.
    pub fn find_unsettled(&self) -> Option<u64> {
        let mut behind = self.items.iter().skip(self.settled);
        let in_memory = behind.find(|item| !item.is_settled(self.committed)).and_then(|item| item.ordinal);
        let in_flight =
            || self.flight.waiting.iter().find_map(|waiting| waiting.stanza().and_then(|item| item.ordinal));
        let first = in_memory.or_else(in_flight);
        first.into_iter().chain(self.unsettled_aside()).min().map(NonZeroU64::get)
    }

    /// Forgets the stanzas beyond this number on the server's leg: the server has them still, and sends them elsewhere. Returns
    /// the places that the spool must not keep.
    pub fn give_back(&mut self, acked: u64) -> Vec<RangeInclusive<u64>> {
        let theirs = |item: &Queued| item.ordinal.is_some_and(|ordinal| ordinal.get() > acked);
        let given = self.remove_where(theirs);
        let in_memory = given.iter().filter(|item| item.is_spooled()).map(|item| item.seq);
        let in_flight = self.flight.waiting.iter().filter_map(|waiting| waiting.stanza());
        let in_flight: Vec<u64> = in_flight.filter(|item| theirs(item)).map(|item| item.seq).collect();
        self.drop_from_flight(theirs);
        let Some(first) = in_memory.chain(in_flight).min() else { return Vec::new() };
        let (mut start, mut places) = (first, Vec::new());
        for reserved in self.flight.reserved.iter().filter(|reserved| *reserved.end() >= first) {
            if start < *reserved.start() {
                places.push(start..=reserved.start() - 1);
            }
            start = reserved.end() + 1;
        }
        places.push(start..=u64::MAX);
        places
    }
}
