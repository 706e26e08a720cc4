//! How much a queue may have in memory: its own bound, and what all queues share.

use std::sync::Arc;

use super::{Budget, Queue, Share};
use crate::push::account::LoginId;

/// What has no room any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The memory of the session.
    Session,
    /// The memory that all sessions share.
    All,
}

/// What is to be read back from a spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// The session that wrote the spool; `None` for the own one.
    pub spool: Option<LoginId>,
    /// Behind this place.
    pub after: u64,
    /// Stanzas of so much [`Spooled::weight`](super::Spooled::weight), one at least.
    pub weight: usize,
}

/// Bytes that a session may have on their way to the disk where the memory for all is full.
const IN_FLIGHT: usize = 64 << 10;

impl Queue {
    /// Lets the queue share memory with others, from its beginning.
    pub fn share(&mut self, budget: Arc<Budget>) {
        self.share = Share::of(budget);
    }

    /// Lets the queues that share memory know how much of it this one has now.
    pub fn tell_share(&mut self) {
        self.share.tell();
    }

    /// The store works on so many bytes: they are memory that all queues share, until it is done.
    pub fn charge_store(&mut self, bytes: usize) {
        self.share.take(bytes);
        self.share.give_back(std::mem::replace(&mut self.at_store, bytes));
    }

    /// Why stanzas go to the spool only, once for each time that they begin to.
    pub fn take_full(&mut self) -> Option<Full> {
        self.full.take()
    }

    /// What has no room for so much more.
    pub(super) fn no_room(&self, weight: usize) -> Option<Full> {
        if self.bytes + weight > self.limit {
            Some(Full::Session)
        } else if self.share.has_room(weight) {
            None
        } else {
            Some(Full::All)
        }
    }

    /// What is to be read back now.
    pub fn wants_load(&self) -> Option<Load> {
        let (spool, after) = self.next_load()?;
        let room = (self.limit / 2).saturating_sub(self.held()).min(self.share.room());
        // One stanza at a time goes on even where others have taken all.
        let comes_first = spool.is_some() || self.resting.is_some();
        // What was read and not acknowledged is written again first.
        let none_written = self.written == 0 && self.next_unwritten().is_none();
        let none_to_acknowledge = if comes_first { none_written } else { self.items.is_empty() };
        let weight = room.max(usize::from(none_to_acknowledge));
        (weight > 0).then_some(Load { spool, after, weight })
    }

    /// The spool to read back from, and behind which place.
    fn next_load(&self) -> Option<(Option<LoginId>, u64)> {
        let tail = || self.tail.filter(|after| *after < self.committed).map(|after| (None, after));
        let resting = self.resting.as_ref().and_then(|resting| resting.first());
        let gap = self.gap();
        if let Some(first) = resting.filter(|first| gap.is_none_or(|before| *first < before)) {
            return Some((None, first - 1));
        }
        match gap {
            Some(before) if !self.has_adopted_before(before) => {
                self.next_earlier().map(|(spool, after)| (Some(spool), after))
            }
            _ => tail(),
        }
    }

    /// What the stanzas in memory count for.
    fn held(&self) -> usize {
        self.bytes - self.resting.as_ref().map_or(0, |resting| resting.weight())
    }

    /// Whether more stanzas may come from the server: else the disk is too slow for them.
    pub fn has_room(&self) -> bool {
        self.flight.bytes < self.room_for_unsaved()
    }

    /// Bytes that may be neither the client's nor on disk while the disk is late or refuses.
    pub(super) fn room_for_unsaved(&self) -> usize {
        if self.share.has_room(1) { self.limit } else { self.limit.min(IN_FLIGHT) }
    }

    /// Whether more can be read back before the client acknowledges something.
    pub fn is_full(&self) -> bool {
        self.held() >= self.limit / 2 || !self.share.has_room(1) && !self.items.is_empty()
    }
}
