//! What earlier sessions of the device have left in their spools, as the queue reads it.
//!
//! The stanzas come before what has not been written yet: a gap opens there, behind which nothing is written until all spools
//! have been read. They stay in their spools, so the queue remembers where each of them lies.

use std::collections::VecDeque;

use super::number::{inherited, is_inherited, next_own};
use super::{Queue, Queued};
use crate::push::account::LoginId;
use crate::xml::Element;

/// A spool of an earlier session that belongs to this session now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inherited {
    /// The session that wrote it.
    pub spool: LoginId,
    /// The number of its last stanza.
    pub last_seq: u64,
}

/// How far a spool has been read.
#[derive(Clone, Copy, Debug)]
struct Reading {
    spool: LoginId,
    after: u64,
    last_seq: u64,
}

impl Reading {
    fn is_done(&self) -> bool {
        self.after >= self.last_seq
    }
}

/// A stanza of an earlier spool in memory: its number in the queue, and where it lies.
#[derive(Clone, Copy, Debug)]
struct Origin {
    seq: u64,
    spool: LoginId,
    place: u64,
}

/// The spools of earlier sessions.
#[derive(Debug, Default)]
pub(super) struct Earlier {
    spools: Vec<Reading>,
    origins: VecDeque<Origin>,
    /// How many stanzas were read.
    read: u64,
    /// The first number behind the gap, while it is open.
    before: Option<u64>,
    /// Questions for the spools that are not answered.
    asked: u32,
}

impl Queue {
    /// Opens the gap: the spools of earlier sessions were asked for.
    pub fn open_gap(&mut self) {
        let before = next_own(self.last_written());
        let earlier = self.earlier.get_or_insert_default();
        earlier.before.get_or_insert(before);
        earlier.asked = earlier.asked.saturating_add(1);
    }

    /// These spools belong to the session: all that earlier sessions have left, those included that were named before.
    pub fn took_over(&mut self, spools: &[Inherited]) {
        let Some(earlier) = &mut self.earlier else { return };
        earlier.asked = earlier.asked.saturating_sub(1);
        let known = |spool: LoginId| earlier.spools.iter().find(|reading| reading.spool == spool);
        let reading = |new: &Inherited| Reading {
            spool: new.spool,
            after: known(new.spool).map_or(0, |reading| reading.after),
            last_seq: new.last_seq,
        };
        earlier.spools = spools.iter().map(reading).collect();
        self.close_gap();
    }

    /// The spools could not be asked for; they have to be asked for again.
    pub fn not_taken_over(&mut self) {
        if let Some(earlier) = &mut self.earlier {
            earlier.asked = earlier.asked.saturating_sub(1);
        }
    }

    /// Whether the gap is open.
    pub fn has_gap(&self) -> bool {
        self.gap().is_some()
    }

    /// Whether it is not known yet which spools there are.
    pub fn awaits_spools(&self) -> bool {
        self.earlier.as_ref().is_some_and(|earlier| earlier.asked > 0)
    }

    /// The first number behind the gap, if it is open.
    pub(super) fn gap(&self) -> Option<u64> {
        self.earlier.as_ref().and_then(|earlier| earlier.before)
    }

    /// The spool that is to be read next, and behind which place.
    pub(super) fn next_earlier(&self) -> Option<(LoginId, u64)> {
        let earlier = self.earlier.as_ref().filter(|earlier| earlier.asked == 0)?;
        let next = earlier.spools.iter().find(|reading| !reading.is_done())?;
        Some((next.spool, next.after))
    }

    /// A stanza of an earlier spool was read, and is for the client.
    pub fn push_inherited(&mut self, spool: LoginId, place: u64, element: Element, received: u64) {
        let Some(earlier) = &mut self.earlier else { return };
        let Some(seq) = earlier.before.and_then(|before| inherited(before, earlier.read)) else {
            // No number is left: it stays on disk, for a later session.
            return self.read_all_of(spool);
        };
        earlier.read += 1;
        let at = earlier.origins.partition_point(|origin| origin.seq < seq);
        earlier.origins.insert(at, Origin { seq, spool, place });
        self.skip_inherited(spool, place);
        let queued = Queued::new(element, seq, received);
        self.put_in_order(Queued { durable: true, waited: true, spooled: true, ..queued });
    }

    /// An earlier spool was read up to this place.
    pub fn skip_inherited(&mut self, spool: LoginId, place: u64) {
        if let Some(earlier) = &mut self.earlier
            && let Some(reading) = earlier.spools.iter_mut().find(|reading| reading.spool == spool)
        {
            reading.after = reading.after.max(place);
        }
    }

    /// An earlier spool has no more.
    pub fn read_all_of(&mut self, spool: LoginId) {
        self.skip_inherited(spool, u64::MAX);
        self.close_gap();
    }

    /// Closes the gap if all spools have been read.
    pub fn close_gap(&mut self) {
        if let Some(earlier) = self.earlier.as_mut().filter(|earlier| earlier.asked == 0)
            && earlier.spools.iter().all(Reading::is_done)
        {
            earlier.before = None;
            if earlier.origins.is_empty() && earlier.spools.is_empty() {
                earlier.origins = VecDeque::new();
            }
        }
    }

    /// Where the inherited stanza with this number lies.
    pub fn origin(&self, seq: u64) -> Option<(LoginId, u64)> {
        let origins = &self.earlier.as_ref().filter(|_| is_inherited(seq))?.origins;
        let at = origins.binary_search_by_key(&seq, |origin| origin.seq).ok()?;
        origins.get(at).map(|origin| (origin.spool, origin.place))
    }

    /// The queue has no stanza up to this number any more.
    pub(super) fn forget_origins(&mut self, up_to: u64) {
        let Some(earlier) = &mut self.earlier else { return };
        let aside = self.aside.as_deref();
        let is_needed = |origin: &Origin| aside.is_some_and(|aside| aside.has(origin.seq));
        let passed = earlier.origins.partition_point(|origin| origin.seq <= up_to);
        let needed: Vec<Origin> = earlier.origins.drain(..passed).filter(is_needed).collect();
        needed.into_iter().rev().for_each(|origin| earlier.origins.push_front(origin));
    }
}
