//! What waits for the client's ack, in the order it is delivered: written stanzas in front, unwritten ones behind, and behind
//! those the ones that only the spool has.

mod budget;
mod leg;
mod queued;
mod resting;
mod room;
mod spooled;
mod tail;

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use crate::xml::{Element, Kind};
pub(super) use budget::Aside;
pub use budget::Budget;
use budget::Share;
pub use queued::Queued;
use resting::Resting;
pub use room::Full;
pub use spooled::Spooled;
use spooled::weight;
use tail::Tail;

/// Room for so many stanzas is kept while none is there.
const FEW: usize = 4;

/// How many places are given away at once.
const RESERVED: u64 = 1 << 20;

/// Where a pushed stanza went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Into memory.
    Memory(u64),
    /// There is no room, or older ones are before it: only the spool is to have it until its turn comes.
    SpoolOnly(u64),
}

/// A stanza that is on its way to the spool and not in memory.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    seq: u64,
    ordinal: Option<u64>,
    len: usize,
}

/// The unacknowledged stanzas of a session. Memory is bounded; what exceeds it lives in the spool.
#[derive(Debug)]
pub struct Queue {
    items: VecDeque<Queued>,
    /// How many at the front were written to the current attachment.
    written: usize,
    /// How many at the front are settled for the server.
    settled: usize,
    /// How many at the front the spool has, or need not have.
    considered: usize,
    messages: usize,
    bytes: usize,
    limit: usize,
    share: Share,
    /// Why what comes goes to the spool only, until it is asked for.
    full: Option<Full>,
    /// The first place of this session.
    base: u64,
    next_seq: u64,
    /// Places up to here that were handed to the spool are on disk.
    committed: u64,
    /// What is to be read back begins behind this place.
    tail: Option<u64>,
    resting: Option<Box<Resting>>,
    /// How many unwritten stanzas are to stay in memory, as they were last looked at.
    stayed: usize,
    noted: Option<Box<Tail>>,
    /// Places of what the spool had before: nothing there came on the server's leg.
    reserved: Vec<RangeInclusive<u64>>,
    in_flight: VecDeque<InFlight>,
    in_flight_bytes: usize,
}

impl Queue {
    /// An empty queue that holds up to `limit` bytes, and gives places from `base`.
    pub fn new(limit: usize, base: u64) -> Self {
        Self {
            items: VecDeque::new(),
            written: 0,
            settled: 0,
            considered: 0,
            messages: 0,
            bytes: 0,
            limit,
            share: Share::default(),
            full: None,
            base,
            next_seq: base,
            committed: base.saturating_sub(1),
            tail: None,
            resting: None,
            stayed: 0,
            noted: None,
            reserved: Vec::new(),
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
        }
    }

    /// Holds up to `limit` bytes from now on; what is more already stays.
    pub fn change_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// The first place of this session.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Gives away places for stanzas that the spool has under others: they come before all that is pushed from now on.
    /// Returns the first place and the last; [`Queue::committed`] with the last one says that they are there.
    pub fn reserve(&mut self) -> RangeInclusive<u64> {
        let (first, last) = (self.next_seq, self.next_seq + RESERVED - 1);
        self.next_seq = last + 1;
        self.tail.get_or_insert(first - 1);
        self.in_flight.push_back(InFlight { seq: last, ordinal: None, len: 0 });
        self.reserved.push(first..=last);
        first..=last
    }

    /// Whether this is a place of what the spool had under another.
    pub fn is_adopted(&self, seq: u64) -> bool {
        self.reserved.iter().any(|places| places.contains(&seq))
    }

    /// The place of a stanza of so many bytes that came now. If it is [`Place::Memory`], [`Queue::hold`] must follow.
    pub fn place(&mut self, len: usize, ordinal: Option<u64>) -> Place {
        let seq = self.next_seq;
        self.next_seq += 1;
        let full = self.no_room(weight(len));
        if self.tail.is_some() || full.is_some() {
            if self.tail.is_none() {
                self.tail = Some(seq - 1);
                self.full = full;
            }
            self.in_flight.push_back(InFlight { seq, ordinal, len });
            self.in_flight_bytes += len;
            self.share.take(len);
            return Place::SpoolOnly(seq);
        }
        Place::Memory(seq)
    }

    /// Appends a stanza that was read back from the spool.
    pub fn push_loaded(&mut self, seq: u64, element: Element, received: u64) {
        self.skip_loaded(seq);
        self.hold(Queued { durable: true, waited: true, spooled: true, ..Queued::new(element, seq, received) });
    }

    /// Appends a stanza that was given a place.
    pub fn hold(&mut self, item: Queued) {
        self.count(&item);
        if self.items.len() == self.items.capacity() {
            // Less than twice as much: many sessions hold few stanzas each, for long.
            self.items.reserve_exact((self.items.len() / 2).max(FEW));
        }
        self.items.push_back(item);
    }

    /// From now on the stanzas keep no more alive than themselves.
    pub fn compact(&mut self) {
        for item in &mut self.items {
            item.element = item.element.compact();
        }
    }

    fn count(&mut self, item: &Queued) {
        self.gain_memory(weight(item.element.bytes().len()));
        self.messages += usize::from(item.element.kind() == Kind::Message);
    }

    fn forget(&mut self, item: &Queued) {
        self.lose_memory(weight(item.element.bytes().len()));
        self.messages -= usize::from(item.element.kind() == Kind::Message);
    }

    fn gain_memory(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.share.take(bytes);
    }

    fn lose_memory(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.share.give_back(bytes);
    }

    /// A stanza that was read back is not for the client.
    pub fn skip_loaded(&mut self, seq: u64) {
        self.tail = Some(seq);
        self.forget_notes(seq);
    }

    /// The last place that was given away.
    pub fn last_seq(&self) -> u64 {
        self.next_seq.saturating_sub(1)
    }

    /// All that was on disk when it was asked for has been read back.
    pub fn loaded_all(&mut self, committed: u64) {
        self.tail = self.tail.map(|after| after.max(committed));
        self.forget_resting();
        self.forget_notes(committed);
        self.end_tail();
    }

    /// A batch was read back: if it was the last one, newer stanzas go to memory again.
    pub fn loaded_some(&mut self) {
        self.end_tail();
    }

    fn end_tail(&mut self) {
        if self.in_flight.is_empty() && self.tail.is_some_and(|after| after >= self.committed) {
            self.tail = None;
        }
    }

    /// What was handed to the spool up to here is on disk.
    pub fn last_committed(&self) -> u64 {
        self.committed
    }

    /// What is noted about stanzas that only the spool has.
    pub fn noted(&mut self) -> &mut Tail {
        self.noted.get_or_insert_default()
    }

    fn forget_notes(&mut self, up_to: u64) {
        if let Some(noted) = &mut self.noted {
            noted.forget(up_to);
        }
    }

    /// Whether stanzas wait in the spool alone, behind which newer ones join.
    pub fn has_tail(&self) -> bool {
        self.tail.is_some() || self.resting.is_some()
    }

    /// Takes the next unwritten stanza for writing, unless one that rests comes first; it stays until acknowledged.
    pub fn write_next(&mut self) -> Option<&Queued> {
        let next = self.items.get(self.written)?;
        if self.resting.as_ref().and_then(|resting| resting.first()).is_some_and(|first| first < next.seq) {
            return None;
        }
        self.written += 1;
        Some(next)
    }

    /// Forgets the first `count` written stanzas: the client has them. Returns the places that the spool need not keep.
    pub fn acknowledge(&mut self, count: usize) -> Option<RangeInclusive<u64>> {
        let mut last = None;
        for _ in 0..count.min(self.written) {
            let Some(item) = self.items.pop_front() else { break };
            self.forget(&item);
            self.written -= 1;
            self.settled = self.settled.saturating_sub(1);
            self.considered = self.considered.saturating_sub(1);
            if item.spooled {
                last = Some(item.seq);
            }
        }
        if self.items.is_empty() {
            self.items.shrink_to(FEW);
        }
        last.map(|last| self.base..=last)
    }

    /// Removes an unwritten stanza that a newer one makes obsolete.
    pub fn remove_unwritten(&mut self, seq: u64) -> bool {
        let Some(at) = self.items.iter().rposition(|item| item.seq == seq).filter(|at| *at >= self.written) else {
            return false;
        };
        let Some(item) = self.items.remove(at) else { return false };
        self.forget(&item);
        self.settled = self.settled.min(at);
        self.considered = self.considered.min(at);
        true
    }

    /// The newest stanza is held: once written it says since when it waits.
    pub fn delay(&mut self, seq: u64) {
        if let Some(item) = self.items.back_mut().filter(|item| item.seq == seq) {
            item.waited = true;
        }
    }

    /// Whether the client was sent something that it has not acknowledged.
    pub fn awaits_ack(&self) -> bool {
        self.written > 0
    }

    /// Everything is to be written again, to a new attachment, and says since when it waits.
    pub fn rewind(&mut self) {
        self.written = 0;
        for item in &mut self.items {
            item.waited = true;
        }
    }

    /// The durable stanzas in memory that the spool was not asked to take yet; it is now.
    pub fn take_unspooled(&mut self) -> Vec<Queued> {
        let mut taken = Vec::new();
        for item in self.items.iter_mut().skip(self.considered).filter(|item| item.durable && !item.spooled) {
            item.spooled = true;
            taken.push(item.clone());
        }
        self.considered = self.items.len();
        taken
    }

    /// The oldest durable stanza that the spool was not asked to take.
    pub fn oldest_unspooled(&self) -> Option<&Queued> {
        self.items.iter().skip(self.considered).find(|item| item.durable && !item.spooled)
    }

    /// What was handed to the spool up to this place is on disk.
    pub fn committed(&mut self, seq: u64) {
        self.committed = self.committed.max(seq);
        while let Some(first) = self.in_flight.front().copied().filter(|first| first.seq <= seq) {
            self.in_flight.pop_front();
            self.in_flight_bytes -= first.len;
            self.share.give_back(first.len);
        }
        self.end_tail();
    }

    /// Whether all that was handed to the spool is on disk.
    pub fn is_committed(&self) -> bool {
        let last = self.items.iter().rev().find(|item| item.spooled);
        self.in_flight.is_empty() && last.is_none_or(|item| item.seq <= self.committed)
    }

    /// Drops stanzas that need not be kept, and returns them.
    pub fn remove_where(&mut self, mut unwanted: impl FnMut(&Queued) -> bool) -> Vec<Queued> {
        let (given, kept): (Vec<_>, Vec<_>) = self.items.drain(..).partition(|item| unwanted(item));
        self.items = kept.into();
        (self.written, self.settled, self.considered) = (self.written.min(self.items.len()), 0, 0);
        for item in &given {
            self.forget(item);
        }
        given
    }

    /// All stanzas in memory, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Queued> {
        self.items.iter()
    }

    /// The stanza at this place, if memory has it.
    pub fn find(&self, seq: u64) -> Option<&Queued> {
        self.items.binary_search_by_key(&seq, |item| item.seq).ok().and_then(|at| self.items.get(at))
    }

    /// Whether the stanza at this place is not in memory, as far as it waits.
    pub fn is_on_disk_only(&self, seq: u64) -> bool {
        self.tail.is_some_and(|after| seq > after) || self.resting.as_ref().is_some_and(|resting| resting.has(seq))
    }

    /// How many messages are in memory.
    pub fn messages(&self) -> usize {
        self.messages
    }

    /// How many stanzas wait, of those with their place in memory.
    pub fn len(&self) -> usize {
        self.items.len() + self.resting.as_ref().map_or(0, |resting| resting.len())
    }

    /// What they count for, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits that has its place in memory.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
