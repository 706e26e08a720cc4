//! What waits for the client's ack, in the order it is delivered: written stanzas in front, unwritten ones behind, and behind
//! those the ones that only the spool has.
//!
//! ```text
//!           segments                   tail
//!  ┌──────────┬────────────┐  ┌──────────────────┬──────────┐
//!  │ written  │ unwritten  │  │ on disk          │ flight ──┼──▶ disk
//!  └──────────┴─▲──────▲───┘  └──────────────────┴──────────┘
//!               │      └── spill: messages between them that only the spool has
//!               └── gap: where stanzas of earlier sessions come
//! ```
//!
//! | file | contents |
//! |---|---|
//! | `queue` | [`Queue`]: what the client gets, what the server has to keep, what earlier sessions have left |
//! | `setting_aside` | [`Queue`]: stanzas that are set aside and go back |
//! | `spooling` | [`Queue`] between memory and the disk |
//! | `segments` | the stanzas in memory, written and unwritten |
//! | `spilled`, `tail`, `notes` | the stanzas that only the spool has |
//! | `flight` | the stanzas on their way to the disk |
//! | `earlier` | the spools of earlier sessions |
//! | `aside` | the stanzas that are set aside |
//! | `room`, `budget` | bounds of memory |
//! | `number`, `queued`, `spooled`, `unsaved` | numbers; a stanza in memory, and on disk; what no disk has |

mod aside;
mod budget;
mod earlier;
mod flight;
mod notes;
mod number;
mod queued;
mod room;
mod segments;
mod setting_aside;
mod spilled;
mod spooled;
mod spooling;
mod tail;
mod unsaved;

use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::push::account::LoginId;
use crate::xml::Element;

use aside::SetAside;
use earlier::Earlier;
use flight::Flight;
use number::Numbers;
use room::QueueRoom;
use segments::Segments;
use spilled::Spill;
use tail::Tail;

pub(super) use budget::AsideMemory;
pub use budget::Budget;
pub use earlier::Inherited;
pub use number::STRIDE;
pub use queued::{Company, Queued};
pub use room::Full;
pub use spilled::NoStanza;
pub use spooled::{Load, Spooled};
pub use unsaved::Unsaved;

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
    numbers: Numbers,
    segments: Segments,
    spill: Spill,
    tail: Tail,
    flight: Flight,
    earlier: Earlier,
    aside: SetAside,
    room: QueueRoom,
}

impl Queue {
    /// An empty queue that holds up to `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            numbers: Numbers::default(),
            segments: Segments::default(),
            spill: Spill::default(),
            tail: Tail::default(),
            flight: Flight::default(),
            earlier: Earlier::default(),
            aside: SetAside::default(),
            room: QueueRoom::new(limit),
        }
    }

    /// Holds up to `limit` bytes from now on; what is more already stays.
    pub fn change_limit(&mut self, limit: usize) {
        self.room.change_limit(limit);
    }

    /// Lets the queue share memory with others, from its beginning.
    pub fn share(&mut self, budget: Arc<Budget>) {
        self.room.share(budget);
        self.on_changed();
    }

    /// Lets the queues that share memory know how much of it this one has now.
    pub fn tell_share(&mut self) {
        self.room.tell();
    }

    /// The store works on so many bytes: they are memory that all queues share, until it is done.
    pub fn charge_store(&mut self, bytes: usize) {
        self.room.charge_store(bytes);
    }

    /// Why stanzas go to the spool only, once for each time that they begin to.
    pub fn take_full(&mut self) -> Option<Full> {
        self.room.take_full()
    }

    /// Whether the numbers come to their end.
    pub fn is_exhausted(&self) -> bool {
        self.numbers.is_exhausted()
    }

    /// The number of the newest stanza, or of none that came yet.
    pub fn newest(&self) -> u64 {
        self.numbers.newest()
    }

    /// How many stanzas in memory are of a kind that may notify.
    pub fn notifying(&self) -> usize {
        self.segments.notifying()
    }

    /// How many stanzas wait, of those with their place in memory.
    pub fn len(&self) -> usize {
        self.segments.len() + self.spill.len()
    }

    /// What they count for, in bytes.
    pub fn bytes(&self) -> usize {
        self.segments.bytes() + self.aside.bytes() + self.spill.bytes()
    }

    /// Whether nothing waits that has its place in memory.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All stanzas in memory, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Queued> {
        self.segments.iter().filter(|item| !item.gone)
    }

    /// The stanza at this place, if memory has it.
    pub fn find(&self, seq: u64) -> Option<&Queued> {
        self.segments.find(seq)
    }

    /// From now on the stanzas keep no more alive than themselves.
    pub fn compact(&mut self) {
        self.segments.compact();
    }

    /// Accounts for the memory that is in use now. Each change ends with it.
    fn on_changed(&mut self) {
        self.room.set(self.bytes() + self.flight.bytes());
        debug_assert!(self.check(), "{self:?}");
    }

    /// Returns whether the parts agree with each other. Only debug builds ask.
    fn check(&self) -> bool {
        let own = |item: &&Queued| !number::is_inherited(item.seq);
        let newest = self.segments.iter().rev().find(own);
        self.segments.check()
            && self.flight.check()
            && self.aside.check()
            && self.room.check(self.bytes() + self.flight.bytes())
            // The tail is behind all that memory has, and what is on its way to the disk belongs to it.
            && newest.is_none_or(|newest| !self.tail.has(newest.seq))
            && (self.flight.is_empty() || self.tail.is_open())
            && self.spill.first().is_none_or(|first| !self.tail.has(first) && self.segments.find(first).is_none())
    }
}

/// What the client gets.
impl Queue {
    /// Appends a stanza that was given a place.
    pub fn hold(&mut self, item: Queued) {
        self.segments.push(item);
        self.on_changed();
    }

    /// The next stanza to be written; `None` if one comes first that is only on disk.
    pub fn next_unwritten(&self) -> Option<&Queued> {
        let next = self.segments.next_unwritten()?;
        let first_elsewhere = self.spill.first().into_iter().chain(self.earlier.gap()).min();
        first_elsewhere.is_none_or(|first| first > next.seq).then_some(next)
    }

    /// Takes the next unwritten stanza for writing, unless one that memory does not have comes first; it stays until acknowledged.
    pub fn write_next(&mut self) -> Option<&Queued> {
        self.next_unwritten()?;
        self.segments.write_next()
    }

    /// Notes the time at which the last stanza was written.
    pub fn note_written(&mut self, at: u32) {
        self.segments.note_written(at);
    }

    /// Whether the client was sent something that it has not acknowledged.
    pub fn awaits_ack(&self) -> bool {
        self.segments.has_written()
    }

    /// The first stanza that was written and is not acknowledged.
    pub fn first_unacked(&self) -> Option<&Queued> {
        self.segments.written().find(|item| !item.gone)
    }

    /// The first `count` written stanzas, including those that were set aside after they were written.
    pub fn first_written(&self, count: usize) -> impl Iterator<Item = &Queued> {
        let written = self.segments.written().take(count);
        written.filter_map(|item| if item.gone { self.aside.find(item.seq) } else { Some(item) })
    }

    /// Forgets the first `count` written stanzas: the client has them. Returns the spools that have some of them, each with its
    /// last one: the spools need not keep what is up to there. The own spool is `None`.
    pub fn acknowledge(&mut self, count: usize) -> Vec<(Option<LoginId>, u64)> {
        let mut spools: Vec<(Option<LoginId>, u64)> = Vec::new();
        for _ in 0..count {
            let Some(item) = self.segments.acknowledge() else { break };
            let (spool, place) = self.origin(item.seq).map_or((None, item.seq), |(spool, place)| (Some(spool), place));
            if !item.is_spooled() {
                continue;
            }
            match spools.iter_mut().find(|(known, _)| *known == spool) {
                Some((_, last)) => *last = place.max(*last),
                None => spools.push((spool, place)),
            }
        }
        self.segments.shrink_if_empty();
        // One that took its place again may come before what has passed.
        let first = self.segments.iter().next().map_or(u64::MAX, |item| item.seq);
        let passed = self.segments.passed().min(first.saturating_sub(1));
        self.earlier.forget_origins(passed, |seq| self.aside.has(seq));
        self.on_changed();
        spools
    }

    /// Everything is to be written again, to a new attachment, and says since when it waits. What was returned to its sender
    /// need not be counted any more: the client has told how far it is.
    pub fn rewind(&mut self) {
        self.segments.rewind();
        if self.segments.iter().any(|item| item.gone) {
            self.segments.remove_where(|item| item.gone);
        }
        self.on_changed();
    }

    /// Removes an unwritten stanza that a newer one makes obsolete.
    pub fn remove_unwritten(&mut self, seq: u64) -> bool {
        let removed = self.segments.remove_unwritten(seq).is_some();
        self.on_changed();
        removed
    }

    /// The newest stanza is held: once written it says since when it waits.
    pub fn delay(&mut self, seq: u64) {
        self.segments.delay(seq);
    }

    /// Drops stanzas that need not be kept, and returns them.
    pub fn remove_where(&mut self, unwanted: impl Fn(&Queued) -> bool) -> Vec<Queued> {
        let removed = self.segments.remove_where(unwanted);
        self.on_changed();
        removed
    }
}

/// What the server has to keep.
impl Queue {
    /// The number of the first stanza on the server's leg that is neither the client's nor the disk's; `None` if all are.
    pub fn first_unsettled(&mut self) -> Option<u64> {
        self.segments.pass_settled();
        self.find_unsettled()
    }

    /// The same without noting how far it was looked for.
    pub fn find_unsettled(&self) -> Option<u64> {
        let first = self.segments.first_unsettled().or_else(|| self.flight.first_unsettled());
        first.into_iter().chain(self.aside.first_unsettled(self.last_committed())).min().map(NonZeroU64::get)
    }

    /// Forgets the stanzas beyond this number on the server's leg: the server has them still, and sends them elsewhere. Returns
    /// the places that the spool must not keep.
    pub fn give_back(&mut self, acked: u64) -> Vec<RangeInclusive<u64>> {
        let theirs = |item: &Queued| item.ordinal.is_some_and(|ordinal| ordinal.get() > acked);
        let given = self.remove_where(theirs);
        let in_memory = given.iter().filter(|item| item.is_spooled()).map(|item| item.seq).min();
        let in_flight = self.flight.stanzas().filter(|item| theirs(item)).map(|item| item.seq).min();
        self.drop_from_flight(theirs);
        let first = in_memory.into_iter().chain(in_flight).min();
        first.map(|first| self.flight.not_adopted_from(first)).unwrap_or_default()
    }
}

/// What earlier sessions of the device have left.
impl Queue {
    /// Opens the gap: the spools of earlier sessions were asked for.
    pub fn open_gap(&mut self) {
        self.earlier.open_gap(self.segments.last_written());
    }

    /// These spools belong to the session: all that earlier sessions have left, those included that were named before.
    pub fn took_over(&mut self, spools: &[Inherited]) {
        self.earlier.on_taken_over(spools);
    }

    /// The spools could not be asked for; they have to be asked for again.
    pub fn not_taken_over(&mut self) {
        self.earlier.on_not_taken_over();
    }

    /// Whether the gap is open.
    pub fn has_gap(&self) -> bool {
        self.earlier.gap().is_some()
    }

    /// Whether it is not known yet which spools there are.
    pub fn awaits_spools(&self) -> bool {
        self.earlier.is_asked()
    }

    /// A stanza of an earlier spool was read, and is for the client.
    pub fn push_inherited(&mut self, spool: LoginId, place: u64, element: Element, received: u64) {
        match self.earlier.on_read(spool, place) {
            Some(seq) => self.segments.insert(Queued::read_back(element, seq, received)),
            // It stays on disk, for a later session.
            None => self.read_all_of(spool),
        }
        self.on_changed();
    }

    /// An earlier spool was read up to this place.
    pub fn skip_inherited(&mut self, spool: LoginId, place: u64) {
        self.earlier.skip(spool, place);
    }

    /// An earlier spool has no more.
    pub fn read_all_of(&mut self, spool: LoginId) {
        self.earlier.skip(spool, u64::MAX);
        self.close_gap();
    }

    /// Closes the gap if all spools have been read.
    pub fn close_gap(&mut self) {
        self.earlier.close_gap();
    }

    /// Where the inherited stanza with this number lies.
    pub fn origin(&self, seq: u64) -> Option<(LoginId, u64)> {
        self.earlier.origin(seq)
    }
}
