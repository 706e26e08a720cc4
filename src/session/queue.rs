//! What waits for the client's ack, in the order it is delivered: written stanzas in front, unwritten ones behind, and behind
//! those the ones that only the spool has.

mod aside;
mod budget;
mod earlier;
mod flight;
mod leg;
mod number;
mod queued;
mod spilled;
mod room;
mod spooled;
mod notes;

use std::collections::VecDeque;

use crate::push::account::LoginId;
use crate::xml::Element;
use aside::SetAside;
pub(super) use budget::Aside;
pub use budget::Budget;
use budget::Share;
use earlier::Earlier;
pub use earlier::Inherited;
pub use flight::Unsaved;
use flight::{Flight, Waiting};
pub use number::STRIDE;
pub use queued::{Company, Queued};
pub use spilled::NoStanza;
use spilled::Resting;
pub use room::{Full, Load};
pub use spooled::Spooled;
use spooled::weight;
use notes::Tail;

/// Room for so many stanzas is kept while none is there.
const FEW: usize = 4;

/// Where a pushed stanza went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Into memory.
    Memory(u64),
    /// There is no room, or older ones are before it: only the spool is to have it until its turn comes.
    SpoolOnly(u64),
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
    notifying: usize,
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
    /// What is on its way to the disk and not in `items`.
    flight: Flight,
    /// What is left of earlier sessions.
    earlier: Option<Box<Earlier>>,
    /// Bytes that the store works on.
    at_store: usize,
    /// The highest number that the client has acknowledged.
    passed: u64,
    /// Durable stanzas among `items` that no disk has.
    unsaved: Unsaved,
    /// What the client breaks on.
    aside: Option<Box<SetAside>>,
}

impl Queue {
    /// An empty queue that holds up to `limit` bytes.
    pub fn new(limit: usize) -> Self {
        let base = STRIDE;
        Self {
            items: VecDeque::new(),
            written: 0,
            settled: 0,
            considered: 0,
            notifying: 0,
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
            flight: Flight::default(),
            earlier: None,
            at_store: 0,
            passed: 0,
            unsaved: Unsaved::default(),
            aside: None,
        }
    }

    /// Holds up to `limit` bytes from now on; what is more already stays.
    pub fn change_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    fn take_number(&mut self) -> u64 {
        let seq = self.next_seq;
        self.next_seq = seq.saturating_add(STRIDE);
        seq
    }

    /// Whether the numbers come to their end.
    pub fn is_exhausted(&self) -> bool {
        number::is_last(self.next_seq)
    }

    /// The number of the newest stanza that was written, or acknowledged.
    fn last_written(&self) -> u64 {
        let last = self.written.checked_sub(1).and_then(|at| self.items.get(at));
        last.map_or(self.passed, |item| item.seq.max(self.passed))
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

    /// Inserts a stanza where its number belongs.
    fn put_in_order(&mut self, item: Queued) {
        let at = self.items.partition_point(|other| other.seq < item.seq).max(self.written);
        self.count(&item);
        self.items.insert(at, item);
        (self.settled, self.considered) = (self.settled.min(at), self.considered.min(at));
    }

    fn count(&mut self, item: &Queued) {
        let bytes = weight(item.element.bytes().len());
        self.gain_memory(bytes);
        self.notifying += usize::from(item.notifies);
        if item.is_unsaved(self.committed) {
            self.unsaved.stanzas += 1;
            self.unsaved.bytes += bytes;
        }
    }

    fn forget(&mut self, item: &Queued) {
        let bytes = weight(item.element.bytes().len());
        self.lose_memory(bytes);
        self.notifying -= usize::from(item.notifies);
        if item.is_unsaved(self.committed) {
            self.saved(bytes);
        }
    }

    fn saved(&mut self, bytes: usize) {
        self.unsaved.stanzas = self.unsaved.stanzas.saturating_sub(1);
        self.unsaved.bytes = self.unsaved.bytes.saturating_sub(bytes);
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
        if self.flight.waiting.is_empty() && self.tail.is_some_and(|after| after >= self.committed) {
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

    fn forget_note(&mut self, seq: u64) {
        if let Some(noted) = &mut self.noted {
            noted.remove(seq);
        }
    }

    /// Whether stanzas wait in the spool alone, behind which newer ones join.
    pub fn has_tail(&self) -> bool {
        self.tail.is_some() || self.resting.is_some() || self.has_gap()
    }

    /// Takes the next unwritten stanza for writing, unless one that memory does not have comes first; it stays until acknowledged.
    pub fn write_next(&mut self) -> Option<&Queued> {
        self.next_unwritten()?;
        self.written += 1;
        self.items.get(self.written - 1)
    }

    /// Forgets the first `count` written stanzas: the client has them. Returns the spools that have some of them, each with its
    /// last one: the spools need not keep what is up to there. The own spool is `None`.
    pub fn acknowledge(&mut self, count: usize) -> Vec<(Option<LoginId>, u64)> {
        let mut spools: Vec<(Option<LoginId>, u64)> = Vec::new();
        for _ in 0..count.min(self.written) {
            let Some(item) = self.items.pop_front() else { break };
            self.forget(&item);
            self.written -= 1;
            self.settled = self.settled.saturating_sub(1);
            self.considered = self.considered.saturating_sub(1);
            self.passed = self.passed.max(item.seq);
            let (spool, place) = self.origin(item.seq).map_or((None, item.seq), |(spool, place)| (Some(spool), place));
            if !item.is_spooled() {
                continue;
            }
            match spools.iter_mut().find(|(known, _)| *known == spool) {
                Some((_, last)) => *last = place.max(*last),
                None => spools.push((spool, place)),
            }
        }
        if self.items.is_empty() {
            self.items.shrink_to(FEW);
        }
        // One that took its place again may come before what has passed.
        let first = self.items.front().map_or(u64::MAX, |item| item.seq);
        self.forget_origins(self.passed.min(first.saturating_sub(1)));
        spools
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
        self.drop_returned();
        for item in &mut self.items {
            item.waited = true;
        }
    }

    /// The client has told how far it is: what was returned in its absence need not be counted any more.
    fn drop_returned(&mut self) {
        if self.items.iter().any(|item| item.gone) {
            self.remove_where(|item| item.gone);
        }
    }

    /// The oldest durable stanza that the spool was not asked to take.
    pub fn oldest_unspooled(&self) -> Option<&Queued> {
        self.items.iter().skip(self.considered).find(|item| item.durable && !item.spooled)
    }

    /// What was handed to the spool up to this place is on disk.
    pub fn committed(&mut self, seq: u64) {
        let before = self.committed;
        self.committed = before.max(seq);
        let from = self.items.partition_point(|item| item.seq <= before);
        let newly = self.items.iter().skip(from).take_while(|item| item.seq <= seq);
        let newly = newly.filter(|item| item.is_unsaved(before) && item.spooled);
        let (count, bytes) = newly.fold((0, 0), |(n, sum), item| (n + 1, sum + weight(item.element.bytes().len())));
        self.unsaved.stanzas = self.unsaved.stanzas.saturating_sub(count);
        self.unsaved.bytes = self.unsaved.bytes.saturating_sub(bytes);
        while self.flight.waiting.front().is_some_and(|first| first.seq() <= seq) {
            self.take_from_flight(0);
        }
        self.end_tail();
    }

    /// Whether all that must not be lost is on disk.
    pub fn is_committed(&self) -> bool {
        self.unsaved().stanzas == 0
    }

    /// The same for what came up to this number.
    pub fn is_committed_to(&self, seq: u64) -> bool {
        let in_memory = self.items.iter().find(|item| item.is_unsaved(self.committed)).map(|item| item.seq);
        let flying = self.flight.waiting.iter().find_map(Waiting::stanza).map(|item| item.seq);
        let aside = self.aside().filter(|item| item.is_unsaved(self.committed)).map(|item| item.seq).min();
        in_memory.into_iter().chain(flying).chain(aside).all(|unsaved| unsaved > seq)
    }

    /// The number of the newest stanza, or of none that came yet.
    pub fn newest(&self) -> u64 {
        self.next_seq.saturating_sub(1)
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
        self.items.iter().filter(|item| !item.gone)
    }

    /// The stanza at this place, if memory has it.
    pub fn find(&self, seq: u64) -> Option<&Queued> {
        self.items.binary_search_by_key(&seq, |item| item.seq).ok().and_then(|at| self.items.get(at))
    }

    /// Whether the stanza at this place is not in memory, as far as it waits.
    pub fn is_on_disk_only(&self, seq: u64) -> bool {
        self.tail.is_some_and(|after| seq > after) || self.resting.as_ref().is_some_and(|resting| resting.has(seq))
    }

    /// How many stanzas in memory are of a kind that may notify.
    pub fn notifying(&self) -> usize {
        self.notifying
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
