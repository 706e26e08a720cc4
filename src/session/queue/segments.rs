//! The stanzas that memory has, in two segments: those written to the current attachment, then those that are not.

use std::collections::VecDeque;
use std::num::NonZeroU64;

use super::number::FIRST;
use super::queued::Queued;
use super::unsaved::Unsaved;

/// Room for so many stanzas is kept while none is there.
const FEW: usize = 4;

/// [`Segments::check`] looks at each stanza of at most so many, so that the time of a debug build stays in proportion.
pub(super) const CHECKED: usize = 64;

/// How many stanzas at the front need not be looked at again.
#[derive(Clone, Copy, Debug, Default)]
struct Prefixes {
    /// The server need not keep them.
    settled: usize,
    /// The spool was asked to take them, or need not have them.
    handed: usize,
}

impl Prefixes {
    /// The first stanza was removed.
    fn on_first_removed(&mut self) {
        (self.settled, self.handed) = (self.settled.saturating_sub(1), self.handed.saturating_sub(1));
    }

    /// From this index on, stanzas were inserted, removed or changed.
    fn on_changed_from(&mut self, at: usize) {
        (self.settled, self.handed) = (self.settled.min(at), self.handed.min(at));
    }
}

/// The written and the unwritten stanzas, by ascending number. One deque has both, so that no stanza is moved when it is written.
#[derive(Debug)]
pub(super) struct Segments {
    items: VecDeque<Queued>,
    /// The length of the written segment.
    written: usize,
    prefixes: Prefixes,
    /// How many unwritten stanzas cannot be spilled, as far as it is known.
    stayed: usize,
    /// What was handed to the spool up to this number is on disk.
    committed: u64,
    /// The highest number that the client has acknowledged.
    passed: u64,
    bytes: usize,
    notifying: usize,
    unsaved: Unsaved,
}

impl Default for Segments {
    fn default() -> Self {
        Self {
            items: VecDeque::new(),
            written: 0,
            prefixes: Prefixes::default(),
            stayed: 0,
            committed: FIRST - 1,
            passed: 0,
            bytes: 0,
            notifying: 0,
            unsaved: Unsaved::default(),
        }
    }
}

/// Questions.
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

    /// What the stanzas count for.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many stanzas are of a kind that may notify.
    pub(super) fn notifying(&self) -> usize {
        self.notifying
    }

    pub(super) fn unsaved(&self) -> Unsaved {
        self.unsaved
    }

    /// What was handed to the spool up to this number is on disk.
    pub(super) fn committed(&self) -> u64 {
        self.committed
    }

    /// The highest number that the client has acknowledged.
    pub(super) fn passed(&self) -> u64 {
        self.passed
    }

    /// The stanza with this number.
    pub(super) fn find(&self, seq: u64) -> Option<&Queued> {
        self.items.binary_search_by_key(&seq, |item| item.seq).ok().and_then(|at| self.items.get(at))
    }

    /// The number of the newest stanza that was written, or acknowledged.
    pub(super) fn last_written(&self) -> u64 {
        let last = self.written.checked_sub(1).and_then(|at| self.items.get(at));
        last.map_or(self.passed, |item| item.seq.max(self.passed))
    }

    /// The oldest durable stanza that the spool was not asked to take.
    pub(super) fn oldest_unspooled(&self) -> Option<&Queued> {
        self.items.iter().skip(self.prefixes.handed).find(|item| item.durable && !item.spooled)
    }

    /// The number of the oldest stanza that neither the client nor the disk has.
    pub(super) fn first_unsaved(&self) -> Option<u64> {
        self.items.iter().find(|item| item.is_unsaved(self.committed)).map(|item| item.seq)
    }

    /// The number, on the server's leg, of the first stanza that the server has to keep.
    pub(super) fn first_unsettled(&self) -> Option<NonZeroU64> {
        let mut behind = self.items.iter().skip(self.prefixes.settled);
        behind.find(|item| !item.is_settled(self.committed)).and_then(|item| item.ordinal)
    }

    /// Returns whether the stanzas are in order, and what is counted agrees with them. Only debug builds ask.
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

/// Stanzas that come and go.
impl Segments {
    /// Appends a stanza.
    pub(super) fn push(&mut self, item: Queued) {
        self.count(&item);
        if self.items.len() == self.items.capacity() {
            // Less than twice as much: many sessions hold few stanzas each, for long.
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

    /// Removes the first written stanza: the client has it.
    pub(super) fn acknowledge(&mut self) -> Option<Queued> {
        self.written.checked_sub(1)?;
        let item = self.items.pop_front()?;
        self.uncount(&item);
        self.written -= 1;
        self.prefixes.on_first_removed();
        self.passed = self.passed.max(item.seq);
        Some(item)
    }

    /// Moves all written stanzas to the unwritten segment. All say from now on since when they wait.
    pub(super) fn rewind(&mut self) {
        self.written = 0;
        for item in &mut self.items {
            item.waited = true;
        }
    }

    /// Removes an unwritten stanza.
    pub(super) fn remove_unwritten(&mut self, seq: u64) -> Option<Queued> {
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
    pub(super) fn remove_written(&mut self, seq: u64) -> Option<Queued> {
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

    /// Removes stanzas that need not be kept, in either segment.
    pub(super) fn remove_where(&mut self, unwanted: impl Fn(&Queued) -> bool) -> Vec<Queued> {
        let written = self.written().filter(|item| !unwanted(item)).count();
        let (given, kept): (Vec<_>, Vec<_>) = self.items.drain(..).partition(|item| unwanted(item));
        self.items = kept.into();
        (self.written, self.prefixes) = (written, Prefixes::default());
        for item in &given {
            self.uncount(item);
        }
        given
    }

    /// Removes unwritten stanzas that the disk has, of which `spill` says that they go there alone; those of the server's leg
    /// only if the server has been told so, which is up to `acked`.
    pub(super) fn spill(&mut self, acked: u64, mut spill: impl FnMut(&Queued) -> bool) {
        let unwritten = self.items.len() - self.written;
        // Those that stay need not be looked at for each that comes.
        self.stayed = self.stayed.min(unwritten);
        if unwritten <= self.stayed + self.stayed / 8 {
            return;
        }
        let (mut at, mut stayed) = (0, 0);
        let (mut bytes, mut notifying) = (0, 0);
        let (written, committed) = (self.written, self.committed);
        self.items.retain(|item| {
            at += 1;
            let on_disk = item.is_on_disk(committed) && item.ordinal.is_none_or(|ordinal| ordinal.get() <= acked);
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

    /// Gives back the room of a queue that was long.
    pub(super) fn shrink_if_empty(&mut self) {
        if self.items.is_empty() {
            self.items.shrink_to(FEW);
        }
    }

    /// From now on the stanzas keep no more alive than themselves.
    pub(super) fn compact(&mut self) {
        for item in &mut self.items {
            item.element = item.element.compact();
        }
    }

    /// The newest stanza is held: once written it says since when it waits.
    pub(super) fn delay(&mut self, seq: u64) {
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

/// What the disk has of the stanzas.
impl Segments {
    /// Hands the durable stanzas that the spool was not asked to take to `take`, until it refuses one. Returns whether it took
    /// all.
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

    /// What was handed to the spool up to this number is on disk.
    pub(super) fn on_committed(&mut self, seq: u64) {
        let before = self.committed;
        self.committed = before.max(seq);
        let from = self.items.partition_point(|item| item.seq <= before);
        let newly = self.items.iter().skip(from).take_while(|item| item.seq <= seq);
        let newly = newly.filter(|item| item.is_unsaved(before) && item.spooled);
        let saved = newly.fold(Unsaved::default(), |sum, item| sum.plus(item));
        self.on_saved(saved);
    }

    /// The spool has refused what it was asked to take.
    pub(super) fn on_refused(&mut self) {
        for item in &mut self.items {
            item.on_refused(self.committed);
        }
        self.prefixes.handed = 0;
    }

    /// Notes up to which stanza all are settled for the server.
    pub(super) fn pass_settled(&mut self) {
        let committed = self.committed;
        while self.items.get(self.prefixes.settled).is_some_and(|item| item.is_settled(committed)) {
            self.prefixes.settled += 1;
        }
    }
}
