//! How much a queue may have in memory: its own bound, and what all queues share.

use std::sync::Arc;

use super::{Budget, Queue, Share};

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

impl Queue {
    /// Lets the queue share memory with others, from its beginning.
    pub fn share(&mut self, budget: Arc<Budget>) {
        self.share = Share::of(budget);
    }

    /// Lets the queues that share memory know how much of it this one has now.
    pub fn tell_share(&mut self) {
        self.share.tell();
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

    /// Behind which place, and stanzas of how much [`Spooled::weight`](super::Spooled::weight), are to be read back from the spool now.
    pub fn wants_load(&self) -> Option<(u64, usize)> {
        let resting = self.resting.as_ref().and_then(|resting| resting.first());
        let tail = || self.tail.filter(|after| *after < self.committed);
        let after = resting.map(|first| first - 1).or_else(tail)?;
        let room = (self.limit / 2).saturating_sub(self.held()).min(self.share.room());
        // One stanza at a time goes on even where others have taken all.
        let none_to_acknowledge = if resting.is_some() { self.written == 0 } else { self.items.is_empty() };
        let room = room.max(usize::from(none_to_acknowledge));
        (room > 0).then_some((after, room))
    }

    /// What the stanzas in memory count for.
    fn held(&self) -> usize {
        self.bytes - self.resting.as_ref().map_or(0, |resting| resting.weight())
    }

    /// Whether more stanzas may come from the server: else the disk is too slow for them.
    pub fn has_room(&self) -> bool {
        let limit = if self.share.has_room(1) { self.limit } else { self.limit.min(IN_FLIGHT) };
        self.in_flight_bytes < limit
    }

    /// Whether more can be read back before the client acknowledges something.
    pub fn is_full(&self) -> bool {
        self.held() >= self.limit / 2 || !self.share.has_room(1) && !self.items.is_empty()
    }
}
