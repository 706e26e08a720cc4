//! Stanzas that are on their way to the disk and not in the segments. Their bytes stay here until the disk has them.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use super::queued::Queued;
use super::unsaved::Unsaved;
use crate::seq::{Seq, ServerSeq};
use crate::xml::HeaderPool;

/// An entry that only the disk will hold.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
enum InFlight {
    /// A stanza.
    Stanza(Queued),
    /// Numbers that are reserved for adopted stanzas, up to this one.
    Reserved(Seq),
}

impl InFlight {
    fn seq(&self) -> Seq {
        match self {
            Self::Stanza(item) => item.seq,
            Self::Reserved(last) => *last,
        }
    }

    fn stanza(&self) -> Option<&Queued> {
        match self {
            Self::Stanza(item) => Some(item),
            Self::Reserved(_) => None,
        }
    }

    fn weight(&self) -> usize {
        self.stanza().map_or(0, Queued::weight)
    }
}

/// Stanzas on their way to the disk, oldest first.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Flight {
    waiting: VecDeque<InFlight>,
    #[serde(skip)]
    bytes: usize,
    /// The ranges of adopted stanzas. None of these stanzas has a server number.
    reserved: Vec<RangeInclusive<Seq>>,
}

/// Queries.
impl Flight {
    /// Returns whether nothing is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The memory charge of the stanzas, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn stanzas(&self) -> impl Iterator<Item = &Queued> {
        self.waiting.iter().filter_map(InFlight::stanza)
    }

    /// The first entry, if it is a stanza.
    pub(super) fn first(&self) -> Option<&Queued> {
        self.waiting.front().and_then(InFlight::stanza)
    }

    pub(super) fn unsaved(&self) -> Unsaved {
        Unsaved { stanzas: self.stanzas().count(), bytes: self.bytes }
    }

    /// The server's number of the first stanza that the server has to keep.
    pub(super) fn first_unsettled(&self) -> Option<ServerSeq> {
        self.stanzas().find_map(|item| item.server_seq)
    }

    /// Returns whether this is the number of an adopted stanza.
    pub(super) fn is_adopted(&self, seq: Seq) -> bool {
        self.reserved.iter().any(|places| places.contains(&seq))
    }

    /// Returns whether there are adopted stanzas after `after` and before `before`.
    pub(super) fn has_adopted_between(&self, after: Seq, before: Seq) -> bool {
        self.reserved.iter().any(|places| *places.start() < before && after < *places.end())
    }

    /// The number ranges from `first` on that do not belong to adopted stanzas.
    pub(super) fn not_adopted_from(&self, first: Seq) -> Vec<RangeInclusive<Seq>> {
        let (mut start, mut places) = (first, Vec::new());
        for reserved in self.reserved.iter().filter(|reserved| *reserved.end() >= first) {
            if start < *reserved.start() {
                places.push(start..=reserved.start().previous());
            }
            start = reserved.end().next();
        }
        places.push(start..=Seq::MAX);
        places
    }

    /// Returns whether the stanzas are in order and the byte count is correct. Only debug builds call it.
    pub(super) fn check(&self) -> bool {
        self.waiting.len() > super::segments::CHECKED
            || self.bytes == self.waiting.iter().map(InFlight::weight).sum::<usize>()
                && self.waiting.iter().is_sorted_by(|one, next| one.seq() < next.seq())
    }
}

/// Changes.
impl Flight {
    /// Completes and counts the stanzas after they were read from a record.
    pub(super) fn restore(&mut self, headers: &mut HeaderPool<'_>) {
        for waiting in &mut self.waiting {
            if let InFlight::Stanza(item) = waiting {
                item.element.share_header(headers);
            }
        }
        self.bytes = self.waiting.iter().map(InFlight::weight).sum();
    }

    pub(super) fn push(&mut self, item: Queued) {
        self.bytes += item.weight();
        self.waiting.push_back(InFlight::Stanza(item));
    }

    /// Reserves these numbers for adopted stanzas.
    pub(super) fn reserve(&mut self, places: RangeInclusive<Seq>) {
        self.waiting.push_back(InFlight::Reserved(*places.end()));
        self.reserved.push(places);
    }

    /// Removes the first entry, if it is a stanza.
    pub(super) fn take_first(&mut self) -> Option<Queued> {
        self.first()?;
        self.take(0)
    }

    /// Removes the oldest stanza.
    pub(super) fn take_oldest(&mut self) -> Option<Queued> {
        let at = self.waiting.iter().position(|waiting| waiting.stanza().is_some())?;
        self.take(at)
    }

    fn take(&mut self, at: usize) -> Option<Queued> {
        let taken = self.waiting.remove(at)?;
        self.bytes = self.bytes.saturating_sub(taken.weight());
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        match taken {
            InFlight::Stanza(item) => Some(item),
            InFlight::Reserved(_) => None,
        }
    }

    /// Passes the stanzas that were not handed to the spool to `take`, until it refuses one.
    pub(super) fn hand_over(&mut self, take: &mut impl FnMut(&mut Queued) -> bool) {
        // Entries that were handed over come before those that were not.
        let asked = self.waiting.partition_point(|waiting| waiting.stanza().is_none_or(|item| item.spooled));
        for waiting in self.waiting.iter_mut().skip(asked) {
            if let InFlight::Stanza(item) = waiting
                && !take(item)
            {
                break;
            }
        }
    }

    /// Notes that everything up to this number is on disk.
    pub(super) fn on_committed(&mut self, seq: Seq) {
        while self.waiting.front().is_some_and(|first| first.seq() <= seq) {
            self.take(0);
        }
    }

    /// Notes that the spool refused the stanzas. Those that were committed before stay. Returns whether numbers were
    /// reserved for adopted stanzas; those are not moved in this case.
    pub(super) fn on_refused(&mut self, committed: Seq) -> bool {
        let waiting = self.waiting.len();
        self.waiting.retain(|waiting| matches!(waiting, InFlight::Stanza(_)));
        for waiting in &mut self.waiting {
            if let InFlight::Stanza(item) = waiting {
                (item.spooled, item.doubtful) = (false, item.doubtful || item.spooled);
            }
        }
        self.reserved.retain(|reserved| *reserved.end() <= committed);
        waiting != self.waiting.len()
    }

    /// Removes the stanzas that need not get to the disk.
    pub(super) fn remove_where(&mut self, unwanted: impl Fn(&Queued) -> bool) {
        self.waiting.retain(|waiting| !waiting.stanza().is_some_and(&unwanted));
        self.bytes = self.waiting.iter().map(InFlight::weight).sum();
    }
}
