//! The queue as the server's stream management sees it.

use std::num::NonZeroU64;
use std::ops::RangeInclusive;

use super::{Queue, Queued};

impl Queue {
    /// The number of the first stanza on the server's leg that is neither the client's nor the disk's; `None` if all are.
    pub fn first_unsettled(&mut self) -> Option<u64> {
        let committed = self.committed;
        let settled = |item: &Queued| !item.durable || item.ordinal.is_none() || item.spooled && item.seq <= committed;
        while self.items.get(self.settled).is_some_and(settled) {
            self.settled += 1;
        }
        let in_memory = self.items.get(self.settled).and_then(|item| item.ordinal);
        in_memory.map(NonZeroU64::get).or_else(|| self.in_flight.iter().find_map(|f| f.ordinal))
    }

    /// Forgets the stanzas beyond this number on the server's leg: the server has them still, and sends them elsewhere. Returns
    /// the places that the spool must not keep.
    pub fn give_back(&mut self, acked: u64) -> Vec<RangeInclusive<u64>> {
        let theirs = |ordinal: Option<u64>| ordinal.is_some_and(|ordinal| ordinal > acked);
        let given = self.remove_where(|item| theirs(item.ordinal.map(NonZeroU64::get)));
        let in_memory = given.iter().filter(|item| item.spooled).map(|item| item.seq);
        let in_flight = self.in_flight.iter().filter(|f| theirs(f.ordinal)).map(|f| f.seq);
        let Some(first) = in_memory.chain(in_flight).min() else { return Vec::new() };
        let (mut start, mut places) = (first, Vec::new());
        for reserved in self.reserved.iter().filter(|reserved| *reserved.end() >= first) {
            if start < *reserved.start() {
                places.push(start..=reserved.start() - 1);
            }
            start = reserved.end() + 1;
        }
        places.push(start..=u64::MAX);
        places
    }
}
