//! The stanzas in memory, in two segments: those written to the current attachment, then those not written yet.

use std::collections::VecDeque;

use super::number::FIRST;
use super::prefixes::Prefixes;
use super::queued::Queued;
use super::unsaved::Unsaved;
use crate::seq::{Seq, ServerSeq};
use crate::xml::HeaderPool;

/// The capacity that is kept while there are no stanzas.
const FEW: usize = 4;

/// The number of stanzas up to which [`Segments::check`] looks at each one, so that debug builds stay fast.
pub(super) const CHECKED: usize = 64;

/// The written and the unwritten stanzas, by ascending number. One deque holds both, so that writing a stanza does not move
/// it.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Segments {
    items: VecDeque<Queued>,
    /// The length of the written segment.
    written: usize,
    prefixes: Prefixes,
    /// The number of unwritten stanzas known to be impossible to spill.
    stayed: usize,
    /// The number up to which everything handed to the spool is on disk.
    committed: Seq,
    /// The highest number that the client has acknowledged.
    passed: Seq,
    #[serde(skip)]
    bytes: usize,
    #[serde(skip)]
    notifying: usize,
    #[serde(skip)]
    unsaved: Unsaved,
}

impl Default for Segments {
    fn default() -> Self {
        Self {
            items: VecDeque::new(),
            written: 0,
            prefixes: Prefixes::default(),
            stayed: 0,
            committed: FIRST.previous(),
            passed: Seq::ZERO,
            bytes: 0,
            notifying: 0,
            unsaved: Unsaved::default(),
        }
    }
}

/// Queries.
impl Segments {
    /// All stanzas, placeholders included.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Queued> {
        self.items.iter()
    }

    /// The written segment.
    pub(super) fn written(&self) -> impl Iterator<Item = &Queued> {
        self.items.iter().take(self.written)
    }

    /// The first unwritten stanza.
    pub(super) fn next_unwritten(&self) -> Option<&Queued> {
        self.items.get(self.written)
    }

    pub(super) fn has_written(&self) -> bool {
        self.written > 0
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The memory charge of the stanzas, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The number of stanzas of a kind that may notify.
    pub(super) fn notifying(&self) -> usize {
        self.notifying
    }

    pub(super) fn unsaved(&self) -> Unsaved {
        self.unsaved
    }

    /// The number up to which everything handed to the spool is on disk.
    pub(super) fn committed(&self) -> Seq {
        self.committed
    }

    /// The highest number that the client has acknowledged.
    pub(super) fn passed(&self) -> Seq {
        self.passed
    }

    /// The stanza with this number.
    pub(super) fn find(&self, seq: Seq) -> Option<&Queued> {
        self.items.binary_search_by_key(&seq, |item| item.seq).ok().and_then(|at| self.items.get(at))
    }

    /// The number of the newest stanza that was written or acknowledged.
    pub(super) fn last_written(&self) -> Seq {
        let last = self.written.checked_sub(1).and_then(|at| self.items.get(at));
        last.map_or(self.passed, |item| item.seq.max(self.passed))
    }

    /// The oldest durable stanza that was not handed to the spool.
    pub(super) fn oldest_unspooled(&self) -> Option<&Queued> {
        self.items.iter().skip(self.prefixes.handed).find(|item| item.durable && !item.spooled)
    }

    /// The number of the oldest stanza that neither the client nor the disk has.
    pub(super) fn first_unsaved(&self) -> Option<Seq> {
        self.items.iter().find(|item| item.is_unsaved(self.committed)).map(|item| item.seq)
    }

    /// The server's number of the first stanza that the server has to keep.
    pub(super) fn first_unsettled(&self) -> Option<ServerSeq> {
        let mut behind = self.items.iter().skip(self.prefixes.settled);
        behind.find(|item| !item.is_settled(self.committed)).and_then(|item| item.server_seq)
    }

    /// Returns whether the stanzas are in order and the counts agree with them. Only debug builds call it.
    pub(super) fn check(&self) -> bool {
        let Prefixes { settled, handed } = self.prefixes;
        let len = self.items.len();
        let short = len <= CHECKED;
        let sum = |of: fn(&Queued) -> usize| self.items.iter().map(of).sum::<usize>();
        let unsaved = || self.items.iter().filter(|item| item.is_unsaved(self.committed));
        [self.written, settled, handed].into_iter().all(|prefix| prefix <= len)
            && (!short
                || self.items.iter().is_sorted_by(|one, next| one.seq < next.seq)
                    && self.bytes == sum(Queued::weight)
                    && self.notifying == sum(|item| usize::from(item.notifies))
                    && self.unsaved.stanzas == unsaved().count()
                    && self.unsaved.bytes == unsaved().map(Queued::weight).sum::<usize>()
                    && self.items.iter().take(settled).all(|item| item.is_settled(self.committed))
                    && self.items.iter().take(handed).all(|item| !item.durable || item.spooled))
    }
}

/// Changes.
impl Segments {
    /// Completes and counts the stanzas after they were read from a record.
    pub(super) fn restore(&mut self, headers: &mut HeaderPool<'_>) {
        let mut items = std::mem::take(&mut self.items);
        for item in &mut items {
            item.element.share_header(headers);
            self.count(item);
        }
        self.items = items;
    }

    /// Appends a stanza.
    pub(super) fn push(&mut self, item: Queued) {
        self.count(&item);
        if self.items.len() == self.items.capacity() {
            // The capacity grows by less than a factor of two: many sessions hold few stanzas each, for a long time.
            self.items.reserve_exact((self.items.len() / 2).max(FEW));
        }
        self.items.push_back(item);
    }

    /// Inserts a stanza among the unwritten ones.
    pub(super) fn insert(&mut self, item: Queued) {
        let at = self.items.partition_point(|other| other.seq < item.seq).max(self.written);
        self.count(&item);
        self.items.insert(at, item);
        self.prefixes.on_changed_from(at);
    }

    /// Moves the first unwritten stanza to the written segment.
    pub(super) fn write_next(&mut self) -> Option<&Queued> {
        let next = self.items.get(self.written)?;
        self.written += 1;
        Some(next)
    }

    /// Notes the time at which the last stanza was written.
    pub(super) fn note_written(&mut self, at: u32) {
        if let Some(last) = self.written.checked_sub(1).and_then(|last| self.items.get_mut(last)) {
            last.written = at;
        }
    }

    /// Removes the first written stanza, which the client has acknowledged.
    pub(super) fn acknowledge(&mut self) -> Option<Queued> {
        self.written.checked_sub(1)?;
        let item = self.items.pop_front()?;
        self.uncount(&item);
        self.written -= 1;
        self.prefixes.on_first_removed();
        self.passed = self.passed.max(item.seq);
        Some(item)
    }

    /// Moves all written stanzas to the unwritten segment. Each gets a delay stamp when it is written.
    pub(super) fn rewind(&mut self) {
        self.written = 0;
        for item in &mut self.items {
            item.waited = true;
        }
    }

    /// Removes an unwritten stanza.
    pub(super) fn remove_unwritten(&mut self, seq: Seq) -> Option<Queued> {
        let at = self.items.iter().rposition(|item| item.seq == seq).filter(|at| *at >= self.written)?;
        self.remove(at)
    }

    /// Removes the first unwritten stanza.
    pub(super) fn remove_next(&mut self) -> Option<Queued> {
        self.remove(self.written)
    }

    fn remove(&mut self, at: usize) -> Option<Queued> {
        let item = self.items.remove(at)?;
        self.uncount(&item);
        self.prefixes.on_changed_from(at);
        Some(item)
    }

    /// Removes a written stanza. A placeholder stays, because the client may count the stanza.
    pub(super) fn remove_written(&mut self, seq: Seq) -> Option<Queued> {
        let at = self.written().position(|item| item.seq == seq)?;
        self.replace(at)
    }

    fn replace(&mut self, at: usize) -> Option<Queued> {
        let placeholder = self.items.get(at)?.gone();
        self.count(&placeholder);
        let item = std::mem::replace(self.items.get_mut(at)?, placeholder);
        self.uncount(&item);
        Some(item)
    }

    /// Removes the oldest stanza that neither the client nor the disk has.
    pub(super) fn remove_oldest_unsaved(&mut self) -> Option<Queued> {
        if self.unsaved.stanzas == 0 {
            return None;
        }
        let at = self.items.iter().position(|item| item.is_unsaved(self.committed))?;
        if at < self.written { self.replace(at) } else { self.remove(at) }
    }

    /// Removes the stanzas that need not be kept, from both segments.
    pub(super) fn remove_where(&mut self, mut unwanted: impl FnMut(&Queued) -> bool) -> Vec<Queued> {
        let (written, mut at) = (self.written, 0);
        let (given, kept): (Vec<_>, Vec<_>) = self.items.drain(..).partition(|item| {
            at += 1;
            let is_given = unwanted(item);
            self.written -= usize::from(is_given && at <= written);
            is_given
        });
        (self.items, self.prefixes) = (kept.into(), Prefixes::default());
        for item in &given {
            self.uncount(item);
        }
        given
    }

    /// Removes the unwritten stanzas on disk for which `spill` returns `true`. Stanzas with a server number are removed
    /// only up to `acked`, the number that the server has received as an acknowledgement.
    pub(super) fn spill(&mut self, acked: ServerSeq, mut spill: impl FnMut(&Queued) -> bool) {
        let unwritten = self.items.len() - self.written;
        // Skips the scan until enough stanzas came: those that stay need not be checked again for each new one.
        self.stayed = self.stayed.min(unwritten);
        if unwritten <= self.stayed + self.stayed / 8 {
            return;
        }
        let (mut at, mut stayed) = (0, 0);
        let (mut bytes, mut notifying) = (0, 0);
        let (written, committed) = (self.written, self.committed);
        self.items.retain(|item| {
            at += 1;
            let on_disk = item.is_on_disk(committed) && item.server_seq.is_none_or(|seq| seq <= acked);
            if at <= written || !on_disk && item.durable {
                return true;
            }
            if !on_disk || !spill(item) {
                stayed += 1;
                return true;
            }
            (bytes, notifying) = (bytes + item.weight(), notifying + usize::from(item.notifies));
            false
        });
        self.stayed = stayed;
        self.prefixes.on_changed_from(written);
        (self.bytes, self.notifying) = (self.bytes - bytes, self.notifying - notifying);
        if self.items.capacity() > 2 * (self.items.len() + FEW) {
            self.items.shrink_to(self.items.len() + FEW);
        }
    }

    /// Releases the capacity of a queue that was long.
    pub(super) fn shrink_if_empty(&mut self) {
        if self.items.is_empty() {
            self.items.shrink_to(FEW);
        }
    }

    /// Makes each stanza own its bytes, so that it keeps no larger buffer alive.
    pub(super) fn compact(&mut self) {
        for item in &mut self.items {
            item.element = item.element.compact();
        }
    }

    /// Marks the newest stanza as delayed: it gets a delay stamp when it is written.
    pub(super) fn delay(&mut self, seq: Seq) {
        if let Some(item) = self.items.back_mut().filter(|item| item.seq == seq) {
            item.waited = true;
        }
    }

    fn count(&mut self, item: &Queued) {
        self.bytes += item.weight();
        self.notifying += usize::from(item.notifies);
        if item.is_unsaved(self.committed) {
            self.unsaved = self.unsaved.plus(item);
        }
    }

    fn uncount(&mut self, item: &Queued) {
        self.bytes -= item.weight();
        self.notifying -= usize::from(item.notifies);
        if item.is_unsaved(self.committed) {
            self.on_saved(Unsaved::default().plus(item));
        }
    }

    fn on_saved(&mut self, saved: Unsaved) {
        self.unsaved.stanzas = self.unsaved.stanzas.saturating_sub(saved.stanzas);
        self.unsaved.bytes = self.unsaved.bytes.saturating_sub(saved.bytes);
    }
}

/// The stanzas' state on disk.
impl Segments {
    /// Passes the durable stanzas that were not handed to the spool to `take`, until it refuses one. Returns whether it
    /// took all.
    pub(super) fn hand_over(&mut self, take: &mut impl FnMut(&mut Queued) -> bool) -> bool {
        let (committed, mut saved, mut all) = (self.committed, Unsaved::default(), true);
        for item in self.items.iter_mut().skip(self.prefixes.handed) {
            let is_unsaved = item.is_unsaved(committed);
            if item.durable && !item.spooled && !take(item) {
                all = false;
                break;
            }
            if is_unsaved && !item.is_unsaved(committed) {
                saved = saved.plus(item);
            }
            self.prefixes.handed += 1;
        }
        self.on_saved(saved);
        all
    }

    /// Notes that everything handed to the spool up to this number is on disk.
    pub(super) fn on_committed(&mut self, seq: Seq) {
        let before = self.committed;
        self.committed = before.max(seq);
        let from = self.items.partition_point(|item| item.seq <= before);
        let newly = self.items.iter().skip(from).take_while(|item| item.seq <= seq);
        let newly = newly.filter(|item| item.is_unsaved(before) && item.spooled);
        let saved = newly.fold(Unsaved::default(), |sum, item| sum.plus(item));
        self.on_saved(saved);
    }

    /// Notes that the spool refused the stanzas.
    pub(super) fn on_refused(&mut self) {
        for item in &mut self.items {
            item.on_refused(self.committed);
        }
        self.prefixes.handed = 0;
    }

    /// Advances the prefix of stanzas that are settled for the server.
    pub(super) fn pass_settled(&mut self) {
        let committed = self.committed;
        while self.items.get(self.prefixes.settled).is_some_and(|item| item.is_settled(committed)) {
            self.prefixes.settled += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::STRIDE;
    use super::*;
    use crate::clock::UnixMillis;
    use crate::xml::{Element, Header};

    #[test]
    fn a_removed_stanza_that_was_written_does_not_count_an_unwritten_one_as_written() {
        let own = |place: u64| Seq::new(place * STRIDE);
        let mut segments = Segments::default();
        for place in 1..=4 {
            let element = Element::parse("<message/>".into(), &Header::bare()).unwrap();
            segments.push(Queued::new(element, own(place), UnixMillis::new(0)).durable());
        }
        segments.write_next();
        segments.write_next();
        let removed = segments.remove_where(|item| [own(1), own(4)].contains(&item.seq));
        assert_eq!(removed.iter().map(|item| item.seq).collect::<Vec<_>>(), [own(1), own(4)]);
        assert_eq!(segments.written().map(|item| item.seq).collect::<Vec<_>>(), [own(2)]);
        assert_eq!(segments.next_unwritten().map(|item| item.seq), Some(own(3)));
    }
}
