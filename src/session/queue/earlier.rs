//! The spools of earlier sessions of the device, as the queue reads them.
//!
//! Their stanzas come before those not written yet: a gap opens there, and nothing after it is written until all spools
//! have been read. The stanzas stay in their spools, so the queue remembers the spool of each.

use std::collections::VecDeque;

use super::number::{inherited, is_inherited, next_own};
use crate::push::account::LoginId;
use crate::seq::Seq;

/// A spool of an earlier session that belongs to this session now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inherited {
    /// The session that wrote it.
    pub spool: LoginId,
    /// The number of its last stanza.
    pub last_seq: Seq,
}

/// The progress of reading a spool.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
struct Reading {
    spool: LoginId,
    after: Seq,
    last_seq: Seq,
}

impl Reading {
    fn is_done(&self) -> bool {
        self.after >= self.last_seq
    }
}

/// The origin of an inherited stanza: its number in the queue, its spool, and its number there.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
struct Origin {
    seq: Seq,
    spool: LoginId,
    place: Seq,
}

#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
struct EarlierSpools {
    spools: Vec<Reading>,
    origins: VecDeque<Origin>,
    /// The number of stanzas that were read.
    read: u64,
    /// The first number after the gap, while it is open.
    before: Option<Seq>,
    /// Requests for the list of spools that are not answered yet.
    asked: u32,
}

/// The spools of earlier sessions; most sessions have none.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Earlier(Option<Box<EarlierSpools>>);

impl Earlier {
    /// Opens the gap after this number. Call it when the store is asked for the spools.
    pub(super) fn open_gap(&mut self, last_written: Seq) {
        let earlier = self.0.get_or_insert_default();
        earlier.before.get_or_insert(next_own(last_written));
        earlier.asked = earlier.asked.saturating_add(1);
    }

    /// Sets the list of all spools of earlier sessions, those named before included.
    pub(super) fn on_taken_over(&mut self, spools: &[Inherited]) {
        let Some(earlier) = &mut self.0 else { return };
        earlier.asked = earlier.asked.saturating_sub(1);
        let known = |spool: LoginId| earlier.spools.iter().find(|reading| reading.spool == spool);
        let reading = |new: &Inherited| Reading {
            spool: new.spool,
            after: known(new.spool).map_or(Seq::ZERO, |reading| reading.after),
            last_seq: new.last_seq,
        };
        earlier.spools = spools.iter().map(reading).collect();
        self.close_gap();
    }

    /// Notes that the store could not list the spools.
    pub(super) fn on_not_taken_over(&mut self) {
        if let Some(earlier) = &mut self.0 {
            earlier.asked = earlier.asked.saturating_sub(1);
        }
    }

    /// Returns whether the list of spools is not known yet.
    pub(super) fn is_asked(&self) -> bool {
        self.0.as_ref().is_some_and(|earlier| earlier.asked > 0)
    }

    /// The first number after the gap, if it is open.
    pub(super) fn gap(&self) -> Option<Seq> {
        self.0.as_ref().and_then(|earlier| earlier.before)
    }

    /// The spool to read next, and the number after which to read.
    pub(super) fn next(&self) -> Option<(LoginId, Seq)> {
        let earlier = self.0.as_ref().filter(|earlier| earlier.asked == 0)?;
        let next = earlier.spools.iter().find(|reading| !reading.is_done())?;
        Some((next.spool, next.after))
    }

    /// Notes that a stanza was read. Returns its number in the queue, `None` if no number is left.
    pub(super) fn on_read(&mut self, spool: LoginId, place: Seq) -> Option<Seq> {
        let earlier = self.0.as_mut()?;
        let seq = inherited(earlier.before?, earlier.read)?;
        earlier.read += 1;
        let at = earlier.origins.partition_point(|origin| origin.seq < seq);
        earlier.origins.insert(at, Origin { seq, spool, place });
        self.skip(spool, place);
        Some(seq)
    }

    /// Notes that a spool was read up to this number.
    pub(super) fn skip(&mut self, spool: LoginId, place: Seq) {
        if let Some(earlier) = &mut self.0
            && let Some(reading) = earlier.spools.iter_mut().find(|reading| reading.spool == spool)
        {
            reading.after = reading.after.max(place);
        }
    }

    /// Closes the gap if all spools have been read.
    pub(super) fn close_gap(&mut self) {
        if let Some(earlier) = self.0.as_mut().filter(|earlier| earlier.asked == 0)
            && earlier.spools.iter().all(Reading::is_done)
        {
            earlier.before = None;
            if earlier.origins.is_empty() && earlier.spools.is_empty() {
                earlier.origins = VecDeque::new();
            }
        }
    }

    /// The spool and the number there of the inherited stanza with this number.
    pub(super) fn origin(&self, seq: Seq) -> Option<(LoginId, Seq)> {
        let origins = &self.0.as_ref().filter(|_| is_inherited(seq))?.origins;
        let at = origins.binary_search_by_key(&seq, |origin| origin.seq).ok()?;
        origins.get(at).map(|origin| (origin.spool, origin.place))
    }

    /// Forgets the origins up to this number, except those that are needed. The queue has no other stanza up to there.
    pub(super) fn forget_origins(&mut self, up_to: Seq, is_needed: impl Fn(Seq) -> bool) {
        let Some(earlier) = &mut self.0 else { return };
        let passed = earlier.origins.partition_point(|origin| origin.seq <= up_to);
        let needed: Vec<Origin> = earlier.origins.drain(..passed).filter(|origin| is_needed(origin.seq)).collect();
        needed.into_iter().rev().for_each(|origin| earlier.origins.push_front(origin));
    }
}
