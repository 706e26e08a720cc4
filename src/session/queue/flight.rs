//! Stanzas that are on their way to the disk and not among those in memory: their bytes stay here until the disk has them.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use super::spooled::weight;
use super::{Place, Queue, Queued};

/// What only the disk will have.
#[derive(Debug)]
pub(super) enum Waiting {
    /// A stanza.
    Stanza(Queued),
    /// Numbers that are set aside for adopted stanzas, up to this one.
    Reserved(u64),
}

impl Waiting {
    pub(super) fn seq(&self) -> u64 {
        match self {
            Self::Stanza(item) => item.seq,
            Self::Reserved(last) => *last,
        }
    }

    pub(super) fn stanza(&self) -> Option<&Queued> {
        match self {
            Self::Stanza(item) => Some(item),
            Self::Reserved(_) => None,
        }
    }

    fn weight(&self) -> usize {
        self.stanza().map_or(0, |item| weight(item.element.bytes().len()))
    }
}

/// Stanzas on their way to the disk, oldest first.
#[derive(Debug, Default)]
pub(super) struct Flight {
    pub(super) waiting: VecDeque<Waiting>,
    pub(super) bytes: usize,
    /// Ranges of adopted stanzas: nothing there came on the server's leg.
    pub(super) reserved: Vec<RangeInclusive<u64>>,
}

/// What is neither the client's nor on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unsaved {
    /// Stanzas.
    pub stanzas: usize,
    /// What they count for, in bytes.
    pub bytes: usize,
}

impl Queue {
    /// Lets a stanza that was given [`Place::SpoolOnly`] wait for the disk.
    pub fn hold_for_spool(&mut self, item: Queued) {
        let bytes = weight(item.element.bytes().len());
        self.flight.bytes += bytes;
        self.share.take(bytes);
        self.flight.waiting.push_back(Waiting::Stanza(item));
    }

    pub(super) fn take_from_flight(&mut self, at: usize) -> Option<Waiting> {
        let taken = self.flight.waiting.remove(at)?;
        let bytes = taken.weight();
        self.flight.bytes = self.flight.bytes.saturating_sub(bytes);
        self.share.give_back(bytes);
        if self.flight.waiting.is_empty() {
            self.flight.waiting = VecDeque::new();
        }
        Some(taken)
    }

    /// Moves stanzas that wait for the disk into memory, as far as it has room and nothing that is on disk comes before them.
    /// Returns whether there were any.
    pub fn promote(&mut self) -> bool {
        let mut promoted = false;
        while self.tail.is_some_and(|after| after >= self.committed)
            && let Some(Waiting::Stanza(item)) = self.flight.waiting.front()
        {
            let weight = weight(item.element.bytes().len());
            if !self.items.is_empty() && self.bytes + weight > self.limit {
                break;
            }
            let Some(Waiting::Stanza(item)) = self.take_from_flight(0) else { break };
            self.skip_loaded(item.seq);
            self.hold(Queued { waited: true, ..item });
            promoted = true;
        }
        self.end_tail();
        promoted
    }

    /// The durable stanzas that the spool was not asked to take yet, up to so much weight and one at least; it is now. Those
    /// that only the disk will have are taken of every kind.
    pub fn take_unspooled(&mut self, at_most: usize) -> Vec<Queued> {
        // Their places are in front, so that they do not come behind a trial.
        let aside = if at_most == usize::MAX { self.take_unspooled_aside() } else { Vec::new() };
        let mut taken = self.take_unspooled_of_all(at_most);
        if !aside.is_empty() {
            taken.extend(aside);
            taken.sort_unstable_by_key(|item| item.seq);
        }
        taken
    }

    fn take_unspooled_of_all(&mut self, at_most: usize) -> Vec<Queued> {
        let (mut taken, mut left) = (Vec::new(), at_most);
        let mut take = |item: &mut Queued| {
            let weight = weight(item.element.bytes().len());
            if !taken.is_empty() && weight > left {
                return false;
            }
            left = left.saturating_sub(weight);
            item.spooled = true;
            taken.push(item.clone());
            true
        };
        for item in self.items.iter_mut().skip(self.considered) {
            if item.durable && !item.spooled && !take(item) {
                return taken;
            }
            self.considered += 1;
        }
        // What is asked for is in front of what is not.
        let asked = self.flight.waiting.partition_point(|waiting| waiting.stanza().is_none_or(|item| item.spooled));
        for waiting in self.flight.waiting.iter_mut().skip(asked) {
            if let Waiting::Stanza(item) = waiting
                && !take(item)
            {
                break;
            }
        }
        taken
    }

    /// The spool has refused what it was asked to take, or was not asked in the end. Returns whether numbers were set aside for
    /// adopted stanzas, which are not moved then.
    pub fn refused(&mut self) -> bool {
        let (base, committed) = (self.base, self.committed);
        for item in self.items.iter_mut().filter(|item| item.is_asked(base, committed)) {
            (item.spooled, item.doubtful) = (false, true);
        }
        self.aside_refused();
        self.considered = 0;
        let waiting = self.flight.waiting.len();
        self.flight.waiting.retain(|waiting| matches!(waiting, Waiting::Stanza(_)));
        let reserved = waiting != self.flight.waiting.len();
        for waiting in &mut self.flight.waiting {
            if let Waiting::Stanza(item) = waiting {
                (item.spooled, item.doubtful) = (false, item.doubtful || item.spooled);
            }
        }
        self.flight.reserved.retain(|reserved| *reserved.end() <= committed);
        self.end_tail();
        reserved
    }

    /// The stanzas on their way to the disk.
    pub fn in_flight(&self) -> impl Iterator<Item = &Queued> {
        self.flight.waiting.iter().filter_map(Waiting::stanza)
    }

    /// What is neither the client's nor on disk.
    pub fn unsaved(&self) -> Unsaved {
        let flying = self.flight.waiting.iter().filter(|waiting| waiting.stanza().is_some()).count();
        Unsaved { stanzas: self.unsaved.stanzas + flying, bytes: self.unsaved.bytes + self.flight.bytes }
    }

    /// Whether more is neither the client's nor on disk than memory may hold for long.
    pub fn has_too_much_unsaved(&self) -> bool {
        self.unsaved.bytes + self.flight.bytes > self.room_for_unsaved()
    }

    /// Takes the oldest stanza that is neither the client's nor on disk.
    pub fn take_oldest_unsaved(&mut self) -> Option<Queued> {
        if self.unsaved.stanzas > 0
            && let Some(at) = self.items.iter().position(|item| item.is_unsaved(self.committed))
            && let Some(item) = self.items.get(at).cloned()
        {
            self.forget(&item);
            if at < self.written {
                // The client may have it, and counts it if so.
                if let Some(there) = self.items.get_mut(at) {
                    *there = there.gone();
                    let bytes = weight(there.element.bytes().len());
                    self.gain_memory(bytes);
                }
            } else {
                self.items.remove(at);
                self.settled = self.settled.min(at);
                self.considered = self.considered.min(at);
            }
            return Some(item);
        }
        let at = self.flight.waiting.iter().position(|waiting| waiting.stanza().is_some())?;
        let Waiting::Stanza(item) = self.take_from_flight(at)? else { return None };
        self.forget_note(item.seq);
        self.end_tail();
        Some(item)
    }

    /// Forgets the stanzas on their way to the disk that need not get there.
    pub fn drop_from_flight(&mut self, unwanted: impl Fn(&Queued) -> bool) {
        self.flight.waiting.retain(|waiting| !waiting.stanza().is_some_and(&unwanted));
        let bytes = self.flight.waiting.iter().map(Waiting::weight).sum();
        self.share.give_back(self.flight.bytes.saturating_sub(bytes));
        self.flight.bytes = bytes;
        self.end_tail();
    }

    /// Gives away numbers for stanzas that the spool will have: they come before all that is pushed from now on. Returns the
    /// first and the last; [`Queue::committed`] with the last one says that they are there.
    pub fn reserve(&mut self) -> RangeInclusive<u64> {
        let first = self.take_number();
        let last = first + (super::number::RESERVED - 1);
        self.tail.get_or_insert(first - 1);
        self.flight.waiting.push_back(Waiting::Reserved(last));
        self.flight.reserved.push(first..=last);
        first..=last
    }

    /// Whether this is the number of an adopted stanza.
    pub fn is_adopted(&self, seq: u64) -> bool {
        self.flight.reserved.iter().any(|places| places.contains(&seq))
    }

    /// Whether adopted stanzas on disk come before this number.
    pub(super) fn has_adopted_before(&self, seq: u64) -> bool {
        let after = self.tail;
        self.flight
            .reserved
            .iter()
            .any(|places| *places.start() < seq && after.is_some_and(|after| after < *places.end()))
    }

    /// The place of a stanza of so many bytes that came now. [`Queue::hold`] or [`Queue::hold_for_spool`] must follow.
    pub fn place(&mut self, len: usize) -> Place {
        let seq = self.take_number();
        let full = self.no_room(weight(len));
        if self.tail.is_none() && full.is_none() {
            return Place::Memory(seq);
        }
        if self.tail.is_none() {
            self.tail = Some(seq - 1);
            self.full = full;
        }
        Place::SpoolOnly(seq)
    }
}
