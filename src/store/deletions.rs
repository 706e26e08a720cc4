//! Deletions that were ordered and are not on disk yet, and removals of accounts. Both are known in memory only.

use std::collections::{BTreeMap, HashMap};
use std::ops::{Bound, RangeInclusive};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::spool::SpoolId;
use crate::jid::BareJid;
use crate::push::account::LoginId;

/// Removals that are remembered. One that is forgotten leaves the refusal of old sessions to the sessions themselves, which
/// learn of the removal by another way.
const REMOVALS: usize = 1 << 16;

/// Places of a spool whose stanzas are deleted for every reader, though they may still be on disk: start → end, neither
/// overlapping nor adjacent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hidden(BTreeMap<u64, u64>);

impl Hidden {
    pub(super) fn insert(&mut self, places: &RangeInclusive<u64>) {
        let (mut start, mut end) = (*places.start(), *places.end());
        if start > end {
            return;
        }
        if let Some((&before, &last)) = self.0.range(..=start).next_back()
            && last.saturating_add(1) >= start
        {
            (start, end) = (before, end.max(last));
        }
        while let Some((&next, &last)) = self.0.range(start..=end.saturating_add(1)).next() {
            self.0.remove(&next);
            end = end.max(last);
        }
        self.0.insert(start, end);
    }

    /// The last of the hidden places that follow each other from this one on, if it is hidden.
    pub(super) fn end_of(&self, place: u64) -> Option<u64> {
        self.0.range(..=place).next_back().map(|(_, end)| *end).filter(|end| *end >= place)
    }

    /// The first hidden ranges from a place on.
    pub(super) fn first(&self, from: u64, at_most: usize) -> Vec<RangeInclusive<u64>> {
        let within = self.end_of(from).map(|end| from..=end);
        let behind = (Bound::Excluded(from), Bound::Unbounded);
        within.into_iter().chain(self.0.range(behind).map(|(start, end)| *start..=*end)).take(at_most).collect()
    }

    /// Forgets everything below a place.
    fn forget_below(&mut self, place: u64) {
        while let Some(first) = self.0.first_entry() {
            let (start, end) = (*first.key(), *first.get());
            if start >= place {
                return;
            }
            first.remove();
            if end >= place {
                self.0.insert(place, end);
            }
        }
    }
}

/// What is known in memory of deletions and removals.
#[derive(Debug, Default)]
pub(super) struct Pending {
    hidden: Mutex<HashMap<SpoolId, Hidden>>,
    removals: Mutex<HashMap<BareJid, Removal>>,
}

/// The newest removal of an account.
#[derive(Clone, Debug)]
struct Removal {
    /// The highest login that had been given out.
    up_to: LoginId,
    /// Those that were entered again since then, because their sessions go on.
    again: Vec<LoginId>,
}

impl Pending {
    fn hidden(&self) -> MutexGuard<'_, HashMap<SpoolId, Hidden>> {
        self.hidden.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn removals(&self) -> MutexGuard<'_, HashMap<BareJid, Removal>> {
        self.removals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn hide(&self, spool: &SpoolId, places: &[RangeInclusive<u64>]) {
        let mut all = self.hidden();
        if !all.contains_key(spool) {
            all.insert(spool.clone(), Hidden::default());
        }
        if let Some(hidden) = all.get_mut(spool) {
            places.iter().for_each(|places| hidden.insert(places));
        }
    }

    /// What is hidden of a spool.
    pub(super) fn of(&self, spool: &SpoolId) -> Hidden {
        self.hidden().get(spool).cloned().unwrap_or_default()
    }

    /// The first hidden ranges of a spool from a place on.
    pub(super) fn first(&self, spool: &SpoolId, from: u64, at_most: usize) -> Vec<RangeInclusive<u64>> {
        self.hidden().get(spool).map(|hidden| hidden.first(from, at_most)).unwrap_or_default()
    }

    /// The spools of which something is hidden.
    pub(super) fn spools(&self) -> Vec<SpoolId> {
        self.hidden().keys().cloned().collect()
    }

    /// The spools of an account of which something is hidden.
    pub(super) fn spools_of(&self, account: &BareJid) -> Vec<SpoolId> {
        self.hidden().keys().filter(|spool| spool.account == *account).cloned().collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.hidden().is_empty()
    }

    /// What is hidden of a spool below a place is gone from the disk.
    pub(super) fn gone(&self, spool: &SpoolId, below: Option<u64>) {
        let mut all = self.hidden();
        match (below, all.get_mut(spool)) {
            (Some(below), Some(hidden)) => hidden.forget_below(below),
            (None, Some(_)) => drop(all.remove(spool)),
            (_, None) => {}
        }
    }

    /// Whether a login's account was removed since.
    pub(super) fn is_removed(&self, account: &BareJid, login: LoginId) -> bool {
        let removals = self.removals();
        removals.get(account).is_some_and(|removal| login <= removal.up_to && !removal.again.contains(&login))
    }

    /// An account is removed, for all logins up to this one.
    pub(super) fn removed(&self, account: &BareJid, up_to: LoginId) {
        let mut removals = self.removals();
        removals.insert(account.clone(), Removal { up_to, again: Vec::new() });
        if removals.len() > REMOVALS {
            let oldest = removals.iter().min_by_key(|(_, removal)| removal.up_to).map(|(account, _)| account.clone());
            oldest.map(|account| removals.remove(&account));
        }
    }

    /// A login is entered again after its account was removed.
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
        let mut hidden = Hidden::default();
        for places in [5..=7, 20..=30, 8..=9, 1..=2, 3..=3, 40..=u64::MAX, 25..=35] {
            hidden.insert(&places);
        }
        assert_eq!(hidden.first(0, 9), [1..=3, 5..=9, 20..=35, 40..=u64::MAX]);
        for (place, end) in [(0, None), (1, Some(3)), (4, None), (20, Some(35)), (36, None), (u64::MAX, Some(u64::MAX))]
        {
            assert_eq!(hidden.end_of(place), end, "{place}");
        }
        assert_eq!(hidden.first(6, 2), [6..=9, 20..=35]);
        hidden.forget_below(22);
        assert_eq!(hidden.first(0, 9), [22..=35, 40..=u64::MAX]);
        hidden.insert(&(0..=100));
        assert_eq!(hidden.first(0, 9), [0..=u64::MAX]);
    }

    #[test]
    fn a_removal_refuses_old_logins_unless_they_are_entered_again() {
        let (pending, account) = (Pending::default(), "romeo@example.org".parse().unwrap());
        assert!(!pending.is_removed(&account, LoginId(1)));
        pending.removed(&account, LoginId(7));
        pending.entered(&account, LoginId(3));
        let removed = [1, 3, 7, 8].map(|login| pending.is_removed(&account, LoginId(login)));
        assert_eq!(removed, [true, false, true, false]);
    }
}
