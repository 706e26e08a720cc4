//! Deletions that are ordered but not on disk yet, and removals of accounts, both in memory only. Reads and the writer use
//! [`Deletions`] to hide deleted stanzas and to refuse calls of logins whose account was removed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::{Bound, RangeInclusive};
use std::sync::{Mutex, MutexGuard};

use super::op::Deletion;
use super::values::SpoolId;
use crate::jid::BareJid;
use crate::push::account::LoginId;
use crate::seq::Seq;
use crate::sync::lock;

/// The number of removals that are remembered. If one is forgotten, the store no longer refuses old sessions; those learn of
/// the removal in another way.
const REMOVALS: usize = 1 << 16;

/// The most ranges of a spool that one deletion lists.
const RANGES: usize = 1024;

/// Sequence numbers of a spool whose stanzas count as deleted for every reader, though they may still be on disk: start → end,
/// neither overlapping nor adjacent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct HiddenRanges(BTreeMap<Seq, Seq>);

impl HiddenRanges {
    pub(super) fn insert(&mut self, seqs: &RangeInclusive<Seq>) {
        let (mut start, mut end) = (*seqs.start(), *seqs.end());
        if start > end {
            return;
        }
        if let Some((&before, &last)) = self.0.range(..=start).next_back()
            && last.next() >= start
        {
            (start, end) = (before, end.max(last));
        }
        while let Some((&next, &last)) = self.0.range(start..=end.next()).next() {
            self.0.remove(&next);
            end = end.max(last);
        }
        self.0.insert(start, end);
    }

    /// Returns the last sequence number of the hidden range that contains this one, if it is hidden.
    pub(super) fn end_of(&self, seq: Seq) -> Option<Seq> {
        self.0.range(..=seq).next_back().map(|(_, end)| *end).filter(|end| *end >= seq)
    }

    /// Returns the first hidden ranges from a sequence number on.
    pub(super) fn first(&self, from: Seq, at_most: usize) -> Vec<RangeInclusive<Seq>> {
        let within = self.end_of(from).map(|end| from..=end);
        let behind = (Bound::Excluded(from), Bound::Unbounded);
        within.into_iter().chain(self.0.range(behind).map(|(start, end)| *start..=*end)).take(at_most).collect()
    }

    /// Makes sequence numbers visible again.
    fn show_all(&mut self, seqs: &RangeInclusive<Seq>) {
        let (first, last) = (*seqs.start(), *seqs.end());
        let within = |(start, end): (&Seq, &Seq)| (*end >= first && *start <= last).then_some((*start, *end));
        let touched: Vec<_> = self.0.range(..=last).rev().map_while(within).collect();
        for (start, end) in touched {
            self.0.remove(&start);
            if let Some(before) = first.checked_minus(1).filter(|before| *before >= start) {
                self.0.insert(start, before);
            }
            if let Some(behind) = last.checked_next().filter(|behind| *behind <= end) {
                self.0.insert(behind, end);
            }
        }
    }
}

/// The deletions and removals that are known in memory.
#[derive(Debug, Default)]
pub(super) struct Deletions {
    spools: Mutex<DeletedSpools>,
    removals: Mutex<HashMap<BareJid, RemovedAccount>>,
}

#[derive(Debug, Default)]
struct DeletedSpools {
    hidden: HashMap<SpoolId, HiddenRanges>,
    /// Stanzas whose callers stopped waiting for the commit. Callers may hand them over again under the same numbers.
    given_up: HashMap<SpoolId, BTreeSet<Seq>>,
}

impl DeletedSpools {
    fn hide(&mut self, spool: &SpoolId, seqs: impl IntoIterator<Item = RangeInclusive<Seq>>) {
        if !self.hidden.contains_key(spool) {
            self.hidden.insert(spool.clone(), HiddenRanges::default());
        }
        if let Some(hidden) = self.hidden.get_mut(spool) {
            seqs.into_iter().for_each(|seqs| hidden.insert(&seqs));
        }
    }

    fn deletion(&self, spool: &SpoolId) -> Option<Deletion> {
        Some(Deletion { spool: spool.clone(), ranges: self.hidden.get(spool)?.first(Seq::ZERO, RANGES) })
    }
}

/// The newest removal of an account.
#[derive(Clone, Debug)]
struct RemovedAccount {
    /// The highest login that had been given out at the removal.
    up_to: LoginId,
    /// Logins that were entered again since then, because their sessions continue.
    again: Vec<LoginId>,
}

impl Deletions {
    fn spools(&self) -> MutexGuard<'_, DeletedSpools> {
        lock(&self.spools)
    }

    fn removals(&self) -> MutexGuard<'_, HashMap<BareJid, RemovedAccount>> {
        lock(&self.removals)
    }

    /// Hides stanzas from all readers until they are gone from the disk.
    pub(super) fn hide(&self, spool: &SpoolId, seqs: &[RangeInclusive<Seq>]) {
        self.spools().hide(spool, seqs.iter().cloned());
    }

    /// Hides stanzas that may still be stored later, after their caller stopped waiting.
    pub(super) fn give_up(&self, spool: &SpoolId, seqs: &[Seq]) {
        let mut spools = self.spools();
        spools.hide(spool, seqs.iter().map(|seq| *seq..=*seq));
        spools.given_up.entry(spool.clone()).or_default().extend(seqs);
    }

    /// Makes stanzas visible again that the caller had given up and now hands over again. Returns their numbers: older copies
    /// of them are to be deleted first.
    pub(super) fn take_back(&self, spool: &SpoolId, seqs: impl Iterator<Item = Seq>) -> Vec<Seq> {
        let mut spools = self.spools();
        let DeletedSpools { hidden, given_up } = &mut *spools;
        let Some(known) = given_up.get_mut(spool) else { return Vec::new() };
        let taken: Vec<Seq> = seqs.filter(|seq| known.remove(seq)).collect();
        if known.is_empty() {
            given_up.remove(spool);
        }
        if let Some(hidden) = hidden.get_mut(spool) {
            taken.iter().for_each(|seq| hidden.show_all(&(*seq..=*seq)));
        }
        taken
    }

    /// Forgets the given-up stanzas of a spool: none is handed over again.
    pub(super) fn forget_given_up(&self, spool: &SpoolId) {
        self.spools().given_up.remove(spool);
    }

    /// Returns the hidden stanzas of a spool.
    pub(super) fn of(&self, spool: &SpoolId) -> HiddenRanges {
        self.spools().hidden.get(spool).cloned().unwrap_or_default()
    }

    /// Returns the hidden stanzas of each spool of an account.
    pub(super) fn of_account(&self, account: &BareJid) -> HashMap<SpoolId, HiddenRanges> {
        let spools = self.spools();
        let own = spools.hidden.iter().filter(|(spool, _)| spool.account == *account);
        own.map(|(spool, hidden)| (spool.clone(), hidden.clone())).collect()
    }

    /// Returns the deletion that is due for a spool, if any.
    pub(super) fn deletion(&self, spool: &SpoolId) -> Option<Deletion> {
        self.spools().deletion(spool)
    }

    /// Returns the deletions that are due for all spools.
    pub(super) fn all(&self) -> Vec<Deletion> {
        let spools = self.spools();
        spools.hidden.keys().filter_map(|spool| spools.deletion(spool)).collect()
    }

    /// Returns the spools of an account that have hidden stanzas.
    pub(super) fn spools_of(&self, account: &BareJid) -> Vec<SpoolId> {
        self.spools().hidden.keys().filter(|spool| spool.account == *account).cloned().collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.spools().hidden.is_empty()
    }

    /// Returns whether a stanza is hidden.
    pub(super) fn is_hidden(&self, spool: &SpoolId, seq: Seq) -> bool {
        self.spools().hidden.get(spool).is_some_and(|hidden| hidden.end_of(seq).is_some())
    }

    /// Returns whether no stanza of a spool is hidden.
    pub(super) fn is_settled(&self, spool: &SpoolId) -> bool {
        !self.spools().hidden.contains_key(spool)
    }

    /// Notes that a deletion is done on disk; with `below`, only for the numbers below it.
    pub(super) fn gone(&self, deletion: &Deletion, below: Option<Seq>) {
        let mut spools = self.spools();
        let Some(hidden) = spools.hidden.get_mut(&deletion.spool) else { return };
        for range in &deletion.ranges {
            let end = match below {
                Some(below) if *range.start() >= below => break,
                Some(below) => (*range.end()).min(below.previous()),
                None => *range.end(),
            };
            hidden.show_all(&(*range.start()..=end));
        }
        if hidden.0.is_empty() {
            spools.hidden.remove(&deletion.spool);
        }
    }

    /// Returns whether the account was removed after this login.
    pub(super) fn is_removed(&self, account: &BareJid, login: LoginId) -> bool {
        let removals = self.removals();
        removals.get(account).is_some_and(|removal| login <= removal.up_to && !removal.again.contains(&login))
    }

    /// Notes that an account is removed, for all logins up to this one.
    pub(super) fn removed(&self, account: &BareJid, up_to: LoginId) {
        let mut removals = self.removals();
        removals.insert(account.clone(), RemovedAccount { up_to, again: Vec::new() });
        if removals.len() > REMOVALS {
            let oldest = removals.iter().min_by_key(|(_, removal)| removal.up_to).map(|(account, _)| account.clone());
            oldest.map(|account| removals.remove(&account));
        }
    }

    /// Notes that a login is entered again after its account was removed.
    pub(super) fn entered(&self, account: &BareJid, login: LoginId) {
        if let Some(removal) = self.removals().get_mut(account)
            && login <= removal.up_to
            && !removal.again.contains(&login)
        {
            removal.again.push(login);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_ranges_are_merged_and_forgotten_from_the_front() {
        let mut hidden = HiddenRanges::default();
        for seqs in [5..=7, 20..=30, 8..=9, 1..=2, 3..=3, 40..=u64::MAX, 25..=35] {
            hidden.insert(&Seq::range(seqs));
        }
        assert_eq!(
            hidden.first(Seq::new(0), 9),
            [Seq::range(1..=3), Seq::range(5..=9), Seq::range(20..=35), Seq::range(40..=u64::MAX)]
        );
        for (seq, end) in [(0, None), (1, Some(3)), (4, None), (20, Some(35)), (36, None), (u64::MAX, Some(u64::MAX))] {
            assert_eq!(hidden.end_of(Seq::new(seq)), end.map(Seq::new), "{seq}");
        }
        assert_eq!(hidden.first(Seq::new(6), 2), [Seq::range(6..=9), Seq::range(20..=35)]);
        hidden.show_all(&Seq::range(0..=21));
        assert_eq!(hidden.first(Seq::new(0), 9), [Seq::range(22..=35), Seq::range(40..=u64::MAX)]);
        hidden.insert(&Seq::range(0..=100));
        assert_eq!(hidden.first(Seq::new(0), 9), [Seq::range(0..=u64::MAX)]);
        hidden.show_all(&Seq::range(7..=7));
        hidden.show_all(&Seq::range(90..=u64::MAX));
        assert_eq!(hidden.first(Seq::new(0), 9), [Seq::range(0..=6), Seq::range(8..=89)]);
    }

    #[test]
    fn a_removal_refuses_old_logins_unless_they_are_entered_again() {
        let (deletions, account) = (Deletions::default(), "romeo@example.org".parse().unwrap());
        assert!(!deletions.is_removed(&account, LoginId(1)));
        deletions.removed(&account, LoginId(7));
        deletions.entered(&account, LoginId(3));
        let removed = [1, 3, 7, 8].map(|login| deletions.is_removed(&account, LoginId(login)));
        assert_eq!(removed, [true, false, true, false]);
    }
}
