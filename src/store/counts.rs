//! Counts of the stanzas in each spool, in memory: one entry for each spool that has stanzas, or had some while its session is
//! open. The store checks its bounds and reports its metrics from [`SpoolCounts`].
//!
//! Only the writer thread changes the counts. A write is counted before its commit, so that the bounds hold for all writes of
//! a group; if the commit fails, the count is taken back.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use super::error::{SpoolBound, StoreError};
use super::op::CountChange;
use super::schema::Count;
use super::values::{Backlog, SpoolId, SpoolLimits};
use crate::jid::BareJid;
use crate::push::account::LoginId;
use crate::seq::Seq;
use crate::sync::lock;

/// The counts of all spools.
#[derive(Debug, Default)]
pub(super) struct SpoolCounts(Mutex<CountedSpools>);

#[derive(Debug, Default)]
struct CountedSpools {
    /// By account, then by login.
    accounts: HashMap<BareJid, Vec<(LoginId, Count)>>,
    stanzas: u64,
    bytes: u64,
    /// The part of both that is not committed yet.
    uncommitted: Backlog,
}

impl CountedSpools {
    fn get(&self, spool: &SpoolId) -> Option<&Count> {
        self.accounts.get(&spool.account)?.iter().find(|(login, _)| *login == spool.login).map(|(_, count)| count)
    }

    /// Changes the count of a spool and the totals.
    fn change(&mut self, spool: &SpoolId, change: impl FnOnce(&mut Count)) {
        let spools = match self.accounts.get_mut(&spool.account) {
            Some(spools) => spools,
            None => self.accounts.entry(spool.account.clone()).or_default(),
        };
        let mut count = match spools.iter().find(|(login, _)| *login == spool.login) {
            Some((_, count)) => *count,
            None => Count::default(),
        };
        let before = count.backlog;
        change(&mut count);
        let after = count.backlog;
        match spools.iter_mut().find(|(login, _)| *login == spool.login) {
            Some((_, known)) => *known = count,
            None => spools.push((spool.login, count)),
        }
        self.stanzas = self.stanzas.saturating_sub(before.count).saturating_add(after.count);
        self.bytes = self.bytes.saturating_sub(before.bytes).saturating_add(after.bytes);
    }

    fn settle(&mut self, added: Count) {
        self.uncommitted.count = self.uncommitted.count.saturating_sub(added.backlog.count);
        self.uncommitted.bytes = self.uncommitted.bytes.saturating_sub(added.backlog.bytes);
    }

    fn remove(&mut self, spool: &SpoolId) {
        self.change(spool, |count| *count = Count::default());
        if let Some(spools) = self.accounts.get_mut(&spool.account) {
            spools.retain(|(login, _)| *login != spool.login);
            if spools.is_empty() {
                self.accounts.remove(&spool.account);
            }
        }
    }
}

impl SpoolCounts {
    pub(super) fn new(counts: Vec<(SpoolId, Count)>) -> Self {
        let mut spools = CountedSpools::default();
        for (spool, count) in counts {
            spools.change(&spool, |known| *known = count);
        }
        Self(Mutex::new(spools))
    }

    fn spools(&self) -> MutexGuard<'_, CountedSpools> {
        lock(&self.0)
    }

    /// Returns the count of a spool.
    pub(super) fn of(&self, spool: &SpoolId) -> Count {
        self.spools().get(spool).copied().unwrap_or_default()
    }

    /// Returns the spools of an account with their counts.
    pub(super) fn of_account(&self, account: &BareJid) -> Vec<(LoginId, Count)> {
        self.spools().accounts.get(account).cloned().unwrap_or_default()
    }

    /// Returns the number of stanzas in all spools and their bytes, including those of the group that is being committed.
    pub(super) fn all(&self) -> (u64, u64) {
        let spools = self.spools();
        (spools.stanzas, spools.bytes)
    }

    /// Returns the number of stanzas in all spools and their bytes, as far as they are on disk.
    pub(super) fn on_disk(&self) -> (u64, u64) {
        let spools = self.spools();
        let Backlog { count, bytes, .. } = spools.uncommitted;
        (spools.stanzas.saturating_sub(count), spools.bytes.saturating_sub(bytes))
    }

    /// Forgets the spools of an account.
    pub(super) fn forget(&self, account: &BareJid) {
        let mut spools = self.spools();
        let own = spools.accounts.get(account).into_iter().flatten().map(|(login, _)| *login);
        let own: Vec<SpoolId> = own.map(|login| SpoolId { account: account.clone(), login }).collect();
        own.iter().for_each(|spool| spools.remove(spool));
    }

    /// Counts stanzas that are added to a spool, or refuses them if they exceed a bound.
    pub(super) fn admit(&self, spool: &SpoolId, added: Count, limits: &SpoolLimits) -> Result<(), StoreError> {
        let mut spools = self.spools();
        let own = spools.get(spool).map_or(0, |count| count.backlog.bytes);
        let account = spools.accounts.get(&spool.account).into_iter().flatten();
        let account = account.fold(0u64, |sum, (_, count)| sum.saturating_add(count.backlog.bytes));
        let bounds = [
            (SpoolBound::PerSession, own, limits.per_session),
            (SpoolBound::PerAccount, account, limits.of_account()),
            (SpoolBound::All, spools.bytes, limits.all),
        ];
        let bytes = added.backlog.bytes;
        if let Some((which, _, limit)) = bounds.into_iter().find(|(_, held, limit)| held.saturating_add(bytes) > *limit)
        {
            return Err(StoreError::SpoolFull { limit, which });
        }
        spools.change(spool, |count| add(count, added));
        spools.uncommitted = spools.uncommitted.and(added.backlog);
        Ok(())
    }

    /// Notes that admitted stanzas are on disk.
    pub(super) fn on_committed(&self, added: Count) {
        self.spools().settle(added);
    }

    /// Takes back admitted stanzas, which restores the count of the spool.
    pub(super) fn take_back(&self, spool: &SpoolId, added: Count, last_seq: Seq) {
        let mut spools = self.spools();
        spools.settle(added);
        spools.change(spool, |count| {
            count.subtract(added);
            count.backlog.last_seq = last_seq;
        });
    }

    /// Applies a change that an engine reports.
    pub(super) fn note(&self, spool: &SpoolId, counted: CountChange) {
        let mut spools = self.spools();
        match counted {
            CountChange::Added(added) => spools.change(spool, |count| add(count, added)),
            CountChange::Removed(removed) => spools.change(spool, |count| count.subtract(removed)),
            CountChange::Emptied => spools.change(spool, |count| {
                let last_seq = count.backlog.last_seq;
                *count = Count::default();
                count.backlog.last_seq = last_seq;
            }),
            CountChange::Gone => spools.remove(spool),
        }
    }

    /// Sets the result of a recount. The last sequence number never decreases.
    pub(super) fn set(&self, spool: &SpoolId, counted: Count) {
        self.spools().change(spool, |count| {
            let last_seq = count.backlog.last_seq.max(counted.backlog.last_seq);
            *count = counted;
            count.backlog.last_seq = last_seq;
        });
    }
}

fn add(count: &mut Count, added: Count) {
    count.backlog = count.backlog.and(added.backlog);
    count.shared = count.shared.saturating_add(added.shared);
}
