//! What waits for the client's ack, in the order the server sent it: written stanzas in front, unwritten ones behind, and
//! behind those the ones that live in the spool only.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::xml::{Element, Kind};

/// What a queued stanza costs beside its bytes.
const OVERHEAD: usize = 160;

/// A stanza that waits on disk. Its bytes are self-contained: they mean the same on any stream.
#[derive(Clone, PartialEq, Eq)]
pub struct Spooled {
    /// Its place among all stanzas for the device, ascending, never reused.
    pub seq: u64,
    /// When it came, Unix milliseconds.
    pub received: u64,
    /// Addressed to the account itself, so that another device may have it.
    pub shared: bool,
    /// The server's archive has it: `<stanza-id/>` (XEP-0359) by the own bare JID.
    pub archived: bool,
    /// The stanza.
    pub bytes: Bytes,
}

impl std::fmt::Debug for Spooled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spooled").field("seq", &self.seq).field("len", &self.bytes.len()).finish_non_exhaustive()
    }
}

/// One stanza on its way to the client.
#[derive(Clone, Debug)]
pub struct Queued {
    /// The stanza as the server sent it.
    pub element: Element,
    /// When it came, Unix milliseconds.
    pub received: u64,
    /// Its place among all stanzas for the device.
    pub seq: u64,
    /// Its number on the server's stream management leg, if it has one.
    pub ordinal: Option<u64>,
    /// Of a kind that must not be lost (invariant 2).
    pub durable: bool,
    /// It waited, so it is written with its delay.
    pub waited: bool,
}

/// Where a pushed stanza went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Into memory.
    Memory(u64),
    /// There is no room in front of it: it is to be spooled, and read back when its turn comes.
    SpoolOnly(u64),
}

/// A stanza that only the spool has, or will have.
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
    /// How many at the front need not be looked at again: settled for the server.
    settled: usize,
    messages: usize,
    bytes: usize,
    limit: usize,
    next_seq: u64,
    /// Durable stanzas up to here were handed to the spool.
    requested: u64,
    /// Stanzas up to here that were handed to the spool are on disk.
    committed: u64,
    /// The spool has stanzas after this place that are to be read back.
    tail: Option<u64>,
    in_flight: VecDeque<InFlight>,
    in_flight_bytes: usize,
}

impl Queue {
    /// An empty queue that holds up to `limit` bytes, and gives places from `next_seq`. The spool has `backlog` stanzas of
    /// the device from before.
    pub fn new(limit: usize, next_seq: u64, backlog: bool) -> Self {
        let before = next_seq.saturating_sub(1);
        Self {
            items: VecDeque::new(),
            written: 0,
            settled: 0,
            messages: 0,
            bytes: 0,
            limit,
            next_seq,
            requested: before,
            committed: before,
            tail: backlog.then_some(0),
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
        }
    }

    /// Appends a stanza.
    pub fn push(&mut self, element: Element, received: u64, ordinal: Option<u64>, durable: bool) -> Place {
        let seq = self.next_seq;
        self.next_seq += 1;
        let len = element.bytes().len();
        if self.tail.is_some() || self.bytes + len + OVERHEAD > self.limit {
            self.tail.get_or_insert(seq - 1);
            self.in_flight.push_back(InFlight { seq, ordinal, len });
            self.in_flight_bytes += len;
            return Place::SpoolOnly(seq);
        }
        self.append(Queued { element, received, seq, ordinal, durable, waited: false });
        Place::Memory(seq)
    }

    fn append(&mut self, item: Queued) {
        self.bytes += item.element.bytes().len() + OVERHEAD;
        self.messages += usize::from(item.element.kind() == Kind::Message);
        self.items.push_back(item);
    }

    /// Appends a stanza that was read back from the spool.
    pub fn push_loaded(&mut self, seq: u64, element: Element, received: u64) {
        self.tail = Some(seq);
        self.append(Queued { element, received, seq, ordinal: None, durable: true, waited: true });
    }

    /// From which place on, and how many bytes, are to be read back from the spool now.
    pub fn wants_load(&self) -> Option<(u64, usize)> {
        let room = (self.limit / 2).checked_sub(self.bytes).filter(|room| *room > 0)?;
        self.tail.map(|after| (after, room))
    }

    /// All that the spool had was read back: newer stanzas may go to memory again, unless some are on their way to the spool.
    pub fn loaded_all(&mut self) {
        if self.in_flight.is_empty() {
            self.tail = None;
        }
    }

    /// Whether older stanzas wait in the spool, behind which newer ones must join.
    pub fn has_tail(&self) -> bool {
        self.tail.is_some()
    }

    /// Whether more stanzas may come from the server: else the spool is too slow for them.
    pub fn has_room(&self) -> bool {
        self.in_flight_bytes < self.limit
    }

    /// Takes the next unwritten stanza for writing; it stays until acknowledged.
    pub fn write_next(&mut self) -> Option<&Queued> {
        let next = self.items.get(self.written)?;
        self.written += 1;
        Some(next)
    }

    /// Forgets the first `count` written stanzas: the client has them. Returns the last one's place, if the spool may have it.
    pub fn acknowledge(&mut self, count: usize) -> Option<u64> {
        let mut last = None;
        for _ in 0..count.min(self.written) {
            let Some(item) = self.items.pop_front() else { break };
            self.forget(&item);
            self.written -= 1;
            self.settled = self.settled.saturating_sub(1);
            last = Some(item.seq);
        }
        if self.items.is_empty() {
            self.items.shrink_to(16);
        }
        last.filter(|seq| *seq <= self.requested)
    }

    fn forget(&mut self, item: &Queued) {
        self.bytes -= item.element.bytes().len() + OVERHEAD;
        self.messages -= usize::from(item.element.kind() == Kind::Message);
    }

    /// Removes an unwritten stanza that a newer one makes obsolete.
    pub fn remove_unwritten(&mut self, seq: u64) -> bool {
        let Ok(at) = self.items.binary_search_by_key(&seq, |item| item.seq) else { return false };
        if at < self.written {
            return false;
        }
        let Some(item) = self.items.remove(at) else { return false };
        self.forget(&item);
        self.settled = self.settled.min(at);
        true
    }

    /// Everything is to be written again, to a new attachment, and says since when it waits.
    pub fn rewind(&mut self) {
        self.written = 0;
        for item in &mut self.items {
            item.waited = true;
        }
    }

    /// The durable stanzas that the spool was not asked to take yet; it is now.
    pub fn take_unspooled(&mut self) -> Vec<Queued> {
        let from = self.items.partition_point(|item| item.seq <= self.requested);
        let taken: Vec<_> = self.items.iter().skip(from).filter(|item| item.durable).cloned().collect();
        if let Some(last) = taken.last() {
            self.requested = last.seq;
        }
        taken
    }

    /// When the oldest durable stanza came that the spool was not asked to take, Unix milliseconds.
    pub fn oldest_unspooled(&self) -> Option<u64> {
        let from = self.items.partition_point(|item| item.seq <= self.requested);
        self.items.iter().skip(from).find(|item| item.durable).map(|item| item.received)
    }

    /// A stanza that only the spool has was handed to it.
    pub fn spool_only_requested(&mut self, seq: u64) {
        self.requested = self.requested.max(seq);
    }

    /// What was handed to the spool up to this place is on disk.
    pub fn committed(&mut self, seq: u64) {
        self.committed = self.committed.max(seq);
        while let Some(first) = self.in_flight.front().copied().filter(|first| first.seq <= seq) {
            self.in_flight.pop_front();
            self.in_flight_bytes -= first.len;
        }
    }

    /// Whether all that was handed to the spool is on disk.
    pub fn is_committed(&self) -> bool {
        self.requested <= self.committed
    }

    /// The number of the first stanza on the server's leg that is neither the client's nor the disk's; `None` if all are.
    pub fn first_unsettled(&mut self) -> Option<u64> {
        let committed = self.committed;
        let settled = |item: &Queued| !item.durable || item.ordinal.is_none() || item.seq <= committed;
        while self.items.get(self.settled).is_some_and(settled) {
            self.settled += 1;
        }
        let in_memory = self.items.get(self.settled).and_then(|item| item.ordinal);
        in_memory.or_else(|| self.in_flight.iter().find_map(|f| f.ordinal))
    }

    /// Forgets the stanzas beyond this number on the server's leg: the server has them still. Returns the first one's place,
    /// if the spool may have it.
    pub fn give_back(&mut self, acked: u64) -> Option<u64> {
        let theirs = |item: &Queued| item.ordinal.is_some_and(|ordinal| ordinal > acked);
        let first = self.items.iter().find(|item| theirs(item) && item.durable).map(|item| item.seq);
        let (kept, given): (VecDeque<_>, VecDeque<_>) = self.items.drain(..).partition(|item| !theirs(item));
        self.items = kept;
        self.written = self.written.min(self.items.len());
        self.settled = 0;
        for item in &given {
            self.forget(item);
        }
        let in_flight = self.in_flight.iter().find(|f| f.ordinal.is_some_and(|o| o > acked)).map(|f| f.seq);
        first.into_iter().chain(in_flight).min().filter(|seq| *seq <= self.requested)
    }

    /// Drops queued stanzas that need not be kept, and returns them.
    pub fn remove_where(&mut self, mut unwanted: impl FnMut(&Queued) -> bool) -> Vec<Queued> {
        let (given, kept): (Vec<_>, VecDeque<_>) = {
            let (given, kept): (VecDeque<_>, VecDeque<_>) = self.items.drain(..).partition(|item| unwanted(item));
            (given.into(), kept)
        };
        self.items = kept;
        self.written = self.written.min(self.items.len());
        self.settled = 0;
        for item in &given {
            self.forget(item);
        }
        given
    }

    /// All stanzas in memory, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Queued> {
        self.items.iter()
    }

    /// How many of them are messages.
    pub fn messages(&self) -> usize {
        self.messages
    }

    /// How many stanzas wait in memory.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing waits in memory.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}
