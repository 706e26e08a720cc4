//! The stanzas that wait for the client's acknowledgement, in delivery order: written stanzas first, then unwritten ones,
//! then those that only the spool holds. [`Queue`] is the entry point; the session's `delivery` owns it.
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
//! | `queue` | [`Queue`]: stanzas for the client, stanzas the server has to keep, stanzas of earlier sessions |
//! | `setting_aside` | [`Queue`]: stanzas that are set aside, and their return to the queue |
//! | `spooling` | [`Queue`] between memory and the disk |
//! | `segments` | the stanzas in memory, written and unwritten |
//! | `spilled`, `tail`, `notes` | the stanzas that only the spool has |
//! | `flight` | the stanzas on their way to the disk |
//! | `earlier` | the spools of earlier sessions |
//! | `aside` | the stanzas that are set aside |
//! | `room`, `budget` | bounds of memory |
//! | `number`, `queued`, `spooled`, `unsaved` | sequence numbers; a stanza in memory, and on disk; a count of unsaved stanzas |

mod aside;
mod budget;
mod earlier;
mod flight;
mod notes;
mod number;
mod prefixes;
mod queued;
mod room;
mod segments;
mod setting_aside;
mod spilled;
mod spooled;
mod spooling;
mod tail;
mod unsaved;

use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::clock::UnixMillis;
use crate::push::account::LoginId;
use crate::seq::{Seq, ServerSeq};
use crate::xml::{Element, HeaderPool};

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
pub use queued::{OnlineClients, Queued};
pub use room::Full;
pub use spilled::{ArchiveCopy, NoStanza};
pub use spooled::{Load, Spooled};
pub use unsaved::Unsaved;

/// The storage of a stanza that was added to the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// In memory.
    Memory(Seq),
    /// In the spool only, until the stanza's turn comes: memory has no room, or older stanzas there come first.
    SpoolOnly(Seq),
}

/// The unacknowledged stanzas of a session. Memory is bounded; what exceeds it lives in the spool.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
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
    /// Creates an empty queue that holds up to `limit` bytes.
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

    /// Completes a queue that was read from a record. Returns whether it is consistent.
    pub(super) fn restore(&mut self, headers: &mut HeaderPool<'_>) -> bool {
        self.segments.restore(headers);
        self.flight.restore(headers);
        self.aside.restore(headers);
        self.spill.restore(headers);
        self.tail.restore();
        self.room.set(self.bytes() + self.flight.bytes());
        self.check()
    }

    /// Changes the limit, in bytes. Stanzas that exceed a lower limit stay.
    pub fn change_limit(&mut self, limit: usize) {
        self.room.change_limit(limit);
    }

    /// Makes the queue share memory with other queues. Call it before the first stanza.
    pub fn share(&mut self, budget: Arc<Budget>) {
        self.room.share(budget);
        self.on_changed();
        self.room.publish();
    }

    /// Publishes the queue's memory use to the queues that share memory with it.
    pub fn publish_use(&mut self) {
        self.room.publish();
    }

    /// Charges the bytes that the store is working on to the shared memory, until the store is done.
    pub fn charge_store(&mut self, bytes: usize) {
        self.room.charge_store(bytes);
    }

    /// Returns why stanzas go to the spool only, once each time this begins.
    pub fn take_full(&mut self) -> Option<Full> {
        self.room.take_full()
    }

    /// Returns whether the sequence numbers are nearly used up.
    pub fn is_exhausted(&self) -> bool {
        self.numbers.is_exhausted()
    }

    /// The number of the newest stanza, or the number before the first one.
    pub fn newest(&self) -> Seq {
        self.numbers.newest()
    }

    /// The number of stanzas in memory that are of a kind that may notify.
    pub fn notifying(&self) -> usize {
        self.segments.notifying()
    }

    /// The number of waiting stanzas in memory, spilled ones included.
    pub fn len(&self) -> usize {
        self.segments.len() + self.spill.len()
    }

    /// The memory charge of these stanzas and of those set aside, in bytes.
    pub fn bytes(&self) -> usize {
        self.segments.bytes() + self.aside.bytes() + self.spill.bytes()
    }

    /// Returns whether no stanza waits in memory and none is spilled.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All stanzas in memory, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Queued> {
        self.segments.iter().filter(|item| !item.gone)
    }

    /// The stanza with this number, if it is in memory.
    pub fn find(&self, seq: Seq) -> Option<&Queued> {
        self.segments.find(seq)
    }

    /// Makes each stanza own its bytes, so that it keeps no larger buffer alive.
    pub fn compact(&mut self) {
        self.segments.compact();
    }

    /// Updates the account of used memory. Every change of the queue ends with this call.
    fn on_changed(&mut self) {
        self.room.set(self.bytes() + self.flight.bytes());
        debug_assert!(self.check(), "{self:?}");
    }

    /// Returns whether the parts agree with each other. Called for a record, and by debug builds.
    fn check(&self) -> bool {
        let own = |item: &&Queued| !number::is_inherited(item.seq);
        let newest = self.segments.iter().rev().find(own);
        self.segments.check()
            && self.flight.check()
            && self.aside.check()
            && self.room.check(self.bytes() + self.flight.bytes())
            // All stanzas of the tail come after those in memory, and stanzas on their way to the disk belong to the tail.
            && newest.is_none_or(|newest| !self.tail.has(newest.seq))
            && (self.flight.is_empty() || self.tail.is_open())
            && self.spill.first().is_none_or(|first| !self.tail.has(first) && self.segments.find(first).is_none())
    }
}

/// Stanzas for the client.
impl Queue {
    /// Appends a stanza that has a sequence number.
    pub fn hold(&mut self, item: Queued) {
        self.segments.push(item);
        self.on_changed();
    }

    /// The next stanza to write. `None` if a stanza that only the disk holds comes first.
    pub fn next_unwritten(&self) -> Option<&Queued> {
        let next = self.segments.next_unwritten()?;
        let first_elsewhere = self.spill.first().into_iter().chain(self.earlier.gap()).min();
        first_elsewhere.is_none_or(|first| first > next.seq).then_some(next)
    }

    /// Takes the next unwritten stanza for writing, unless one that is not in memory comes first. It stays in the queue
    /// until the client acknowledges it.
    pub fn write_next(&mut self) -> Option<&Queued> {
        self.next_unwritten()?;
        self.segments.write_next()
    }

    /// Notes the time at which the last stanza was written.
    pub fn note_written(&mut self, at: u32) {
        self.segments.note_written(at);
    }

    /// Returns whether the client was sent a stanza that it has not acknowledged.
    pub fn awaits_ack(&self) -> bool {
        self.segments.has_written()
    }

    /// The first stanza that was written and is not acknowledged.
    pub fn first_unacked(&self) -> Option<&Queued> {
        self.segments.written().find(|item| !item.gone)
    }

    /// Removes the first `count` written stanzas, which the client has acknowledged. Returns the spools that hold some of
    /// them, each with the number of the last one: the spool may delete everything up to it. `None` is the session's own
    /// spool.
    pub fn acknowledge(&mut self, count: usize) -> Vec<(Option<LoginId>, Seq)> {
        let mut spools: Vec<(Option<LoginId>, Seq)> = Vec::new();
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
        // A stanza that was put back may come before the acknowledged ones.
        let first = self.segments.iter().next().map_or(Seq::MAX, |item| item.seq);
        let passed = self.segments.passed().min(first.previous());
        self.earlier.forget_origins(passed, |seq| self.aside.has(seq));
        self.on_changed();
        spools
    }

    /// Marks all stanzas as unwritten, for a new attachment; each gets a delay stamp when it is written. Placeholders of
    /// returned stanzas are removed, because the client has reported its count.
    pub fn rewind(&mut self) {
        self.segments.rewind();
        if self.segments.iter().any(|item| item.gone) {
            self.segments.remove_where(|item| item.gone);
        }
        self.on_changed();
    }

    /// Removes an unwritten stanza that a newer one makes obsolete.
    pub fn remove_unwritten(&mut self, seq: Seq) -> bool {
        let removed = self.segments.remove_unwritten(seq).is_some();
        self.on_changed();
        removed
    }

    /// Marks the newest stanza as delayed: it gets a delay stamp when it is written.
    pub fn delay(&mut self, seq: Seq) {
        self.segments.delay(seq);
    }

    /// Removes the stanzas that need not be kept, and returns them.
    pub fn remove_where(&mut self, unwanted: impl FnMut(&Queued) -> bool) -> Vec<Queued> {
        let removed = self.segments.remove_where(unwanted);
        self.on_changed();
        removed
    }
}

/// Stanzas that the server has to keep.
impl Queue {
    /// The server's number of the first stanza that neither the client nor the disk has, `None` if there is none.
    pub fn first_unsettled(&mut self) -> Option<ServerSeq> {
        self.segments.pass_settled();
        self.find_unsettled()
    }

    /// The same as [`Queue::first_unsettled`], without noting how far the search got.
    pub fn find_unsettled(&self) -> Option<ServerSeq> {
        let first = self.segments.first_unsettled().or_else(|| self.flight.first_unsettled());
        first.into_iter().chain(self.aside.first_unsettled(self.last_committed())).min()
    }

    /// Removes the stanzas above this server number: the server still holds them and delivers them elsewhere. Returns the
    /// numbers that the spool must delete.
    pub fn give_back(&mut self, acked: ServerSeq) -> Vec<RangeInclusive<Seq>> {
        let theirs = |item: &Queued| item.server_seq.is_some_and(|seq| seq > acked);
        let given = self.remove_where(theirs);
        let in_memory = given.iter().filter(|item| item.is_spooled()).map(|item| item.seq).min();
        let in_flight = self.flight.stanzas().filter(|item| theirs(item)).map(|item| item.seq).min();
        self.drop_from_flight(theirs);
        let first = in_memory.into_iter().chain(in_flight).min();
        first.map(|first| self.flight.not_adopted_from(first)).unwrap_or_default()
    }
}

/// Stanzas of earlier sessions of the device.
impl Queue {
    /// Opens the gap. Call it when the store is asked for the spools of earlier sessions.
    pub fn open_gap(&mut self) {
        self.earlier.open_gap(self.segments.last_written());
    }

    /// Adds the spools of earlier sessions, which now belong to this session. `spools` lists all of them, those named
    /// before included.
    pub fn on_taken_over(&mut self, spools: &[Inherited]) {
        self.earlier.on_taken_over(spools);
    }

    /// Notes that the store could not list the spools. They must be requested again.
    pub fn on_not_taken_over(&mut self) {
        self.earlier.on_not_taken_over();
    }

    /// Returns whether the gap is open.
    pub fn has_gap(&self) -> bool {
        self.earlier.gap().is_some()
    }

    /// Returns whether the list of spools is not known yet.
    pub fn awaits_spools(&self) -> bool {
        self.earlier.is_asked()
    }

    /// Inserts a stanza that was read from an earlier spool.
    pub fn push_inherited(&mut self, spool: LoginId, place: Seq, element: Element, received: UnixMillis) {
        match self.earlier.on_read(spool, place) {
            Some(seq) => self.segments.insert(Queued::read_back(element, seq, received)),
            // The stanza stays on disk, for a later session.
            None => self.read_all_of(spool),
        }
        self.on_changed();
    }

    /// Notes that an earlier spool was read up to this number.
    pub fn skip_inherited(&mut self, spool: LoginId, place: Seq) {
        self.earlier.skip(spool, place);
    }

    /// Notes that an earlier spool was read completely.
    pub fn read_all_of(&mut self, spool: LoginId) {
        self.earlier.skip(spool, Seq::MAX);
        self.close_gap();
    }

    /// Closes the gap if all spools have been read.
    pub fn close_gap(&mut self) {
        self.earlier.close_gap();
    }

    /// The spool that holds the inherited stanza with this number, and its number there.
    pub fn origin(&self, seq: Seq) -> Option<(LoginId, Seq)> {
        self.earlier.origin(seq)
    }
}
