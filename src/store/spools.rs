//! What sessions ask of their spools.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use tokio::sync::oneshot;

use super::Store;
use super::error::StoreError;
use super::op::{Effect, Op};
use super::query::{HeldContents, Query, QueryAnswer};
use super::tasks::{Job, TaskScope, TaskWait, What};
use super::values::{Backlog, InheritedSpool, Slot, SpoolId};
use crate::jid::BareJid;
use crate::push::account::{Account, DeviceId, LoginId};
use crate::seq::Seq;
use crate::session::queue::Spooled;

impl Store {
    /// The id of the next login. It is higher than all that were given out before, in this process or an earlier one, as far
    /// as anything of them is on disk. Does not wait.
    pub fn next_login(&self) -> LoginId {
        self.shared.logins.next()
    }

    /// The newest login that was given an id.
    pub fn newest_login(&self) -> LoginId {
        self.shared.logins.highest()
    }

    /// Puts stanzas into the spool of a session, all or none, and returns once they are on disk. `device` is the session's.
    /// Each `seq` must be higher than the one before and than [`Backlog::last_seq`]; a stanza that is there already, equal in
    /// everything, is passed over, so that a call whose outcome is unknown can be repeated. While many calls come, they wait
    /// for each other, 40 ms at most.
    ///
    /// Not cancel safe: dropped while waiting, the stanzas may be on disk or not.
    ///
    /// # Errors
    /// [`StoreError::SpoolFull`], [`StoreError::SequenceTaken`], [`StoreError::AccountRemoved`], [`StoreError::UnknownVersion`],
    /// [`StoreError::Corrupt`]: none is stored. [`StoreError::NoAnswer`]: none is read by anybody, until the same are handed over
    /// again. [`StoreError::Database`]: unknown. [`StoreError::Closed`] after [`Store::shutdown`].
    pub async fn spool(&self, spool: &SpoolId, device: DeviceId, items: Vec<Spooled>) -> Result<(), StoreError> {
        let weight = items.iter().map(|item| item.bytes.len()).fold(0, usize::saturating_add);
        let seqs: Vec<Seq> = items.iter().map(|item| item.seq).collect();
        let what = What::Write(Op::Spool { spool: spool.clone(), device, items, known: Seq::ZERO });
        let outcome = self.ask(what, weight, TaskWait::Sometime, Some(spool.clone())).await;
        if let Err(StoreError::NoAnswer { .. }) = outcome {
            // They may come into the spool after all, when their session has done something else with them.
            self.shared.deletions.give_up(spool, &seqs);
        }
        outcome.map(drop)
    }

    /// The stanzas of a spool behind the number `after`, in order: one at least if there is any, then up to so much
    /// [`Spooled::weight`]. Those that cannot be read are lost: they are passed over, counted in [`Store::lost`], and deleted.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::NoAnswer`]; [`StoreError::Closed`] if the runtime is shutting down.
    pub async fn spooled(&self, spool: &SpoolId, after: Seq, weight: usize) -> Result<Vec<Spooled>, StoreError> {
        let hidden = self.shared.deletions.of(spool);
        let query = Query::Stanzas { spool: spool.clone(), hidden, after, weight };
        let QueryAnswer::Stanzas(items, unreadable) = self.read(query).await? else { return Err(StoreError::Mistaken) };
        if !unreadable.seqs.is_empty() {
            self.shared.note_unreadable(&unreadable);
            // This process does not show them again, whatever becomes of that.
            if let Err(error) = self.discard(spool, unreadable.seqs).await {
                tracing::warn!(%error, "unreadable stanzas not deleted yet");
            }
        }
        Ok(items)
    }

    /// Deletes the stanzas of a spool up to the number `up_to`, behind all earlier calls. Returns as soon as no reader of this
    /// process sees them any more; on disk they end with the next commits, the first at the latest after a second. A crash
    /// before that brings them back. What is spooled later under such a number may be deleted too.
    ///
    /// # Errors
    /// [`StoreError::Closed`] after [`Store::shutdown`].
    pub async fn unspool(&self, spool: &SpoolId, up_to: Seq) -> Result<(), StoreError> {
        let (accepted, answered) = oneshot::channel();
        self.jobs.send(Job::Unspool { spool: spool.clone(), up_to, accepted }).map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)
    }

    /// Deletes stanzas of a spool, behind all earlier calls, and returns once they are gone from the disk. No reader sees any of
    /// them from the moment on in which the call is in order. Many stanzas are deleted in several transactions: a crash before
    /// the call returns may bring some of them back.
    ///
    /// Dropped while waiting, it goes on.
    ///
    /// # Errors
    /// As [`Store::account`]; this process shows none of them again all the same, and tries once more with its next commits.
    pub async fn discard(&self, spool: &SpoolId, seqs: Vec<RangeInclusive<Seq>>) -> Result<(), StoreError> {
        let what = What::Discard(spool.clone(), seqs);
        self.ask(what, 0, TaskWait::Commit, None).await.map(drop)
    }

    /// Makes a session the owner of the spools that ended sessions of its device have left, and returns them, in the order of
    /// their logins, once that is on disk: every spool of the device in which something is, other than `to`'s own, whose owner
    /// is `to` or is not among the account's open logins. If the account cannot be read, only what is `to`'s already. No stanza
    /// moves. Can be repeated: what is left of the spools that `to` owns already is returned again.
    ///
    /// # Errors
    /// As [`Store::account`]; [`StoreError::AccountRemoved`].
    pub async fn take_over(
        &self,
        account: &BareJid,
        device: DeviceId,
        to: LoginId,
    ) -> Result<Vec<InheritedSpool>, StoreError> {
        let session = SpoolId { account: account.clone(), login: to };
        let what = What::Write(Op::TakeOver { account: account.clone(), device, to });
        let Effect::TookOver(spools) = self.ask(what, 0, TaskWait::Commit, Some(session)).await? else {
            return Err(StoreError::Mistaken);
        };
        let of = |spool| self.shared.counts.of(&SpoolId { account: account.clone(), login: spool }).backlog;
        Ok(spools.into_iter().map(|spool| InheritedSpool { spool, backlog: of(spool) }).collect())
    }

    /// Moves stanzas that are addressed to the account itself from the spools that ended sessions of another device have left
    /// into `to`, to the first of these numbers, in their order: at most 256, and as many as there are numbers. Returns how many
    /// moved, once that is on disk; the caller repeats the call with the next numbers until it is 0. The bounds of the spool are
    /// not checked, since nothing is added.
    ///
    /// # Errors
    /// As [`Store::spool`].
    pub async fn adopt_shared(
        &self,
        account: &BareJid,
        from: DeviceId,
        to: &SpoolId,
        device: DeviceId,
        seqs: RangeInclusive<Seq>,
    ) -> Result<u64, StoreError> {
        let spools = self.shared.counts.of_account(account).into_iter();
        let without = spools.filter(|(_, count)| count.shared == 0).map(|(login, _)| login).collect();
        let (account, to, session) = (account.clone(), to.clone(), to.clone());
        let what = What::Write(Op::Adopt { account, from, to, device, seqs, without, search: None });
        let Effect::Adopted(moved) = self.ask(what, 0, TaskWait::Commit, Some(session)).await? else {
            return Err(StoreError::Mistaken);
        };
        Ok(moved)
    }

    /// The other devices of an account that have stanzas waiting and no open session.
    ///
    /// # Errors
    /// As [`Store::account`].
    pub async fn orphans(&self, account: &BareJid, not: DeviceId) -> Result<Vec<(DeviceId, Backlog)>, StoreError> {
        let (state, spools) = self.spools_of(account).await?;
        let state = state?;
        let mut orphans = Vec::<(DeviceId, Backlog)>::new();
        for (device, backlog) in spools {
            let is_here = state.device(device).is_some_and(|device| device.is_open());
            if device == not || backlog.count == 0 || is_here {
                continue;
            }
            match orphans.iter_mut().find(|(known, _)| *known == device) {
                Some((_, sum)) => *sum = sum.and(backlog),
                None => orphans.push((device, backlog)),
            }
        }
        Ok(orphans)
    }

    /// What all spools of a device hold.
    ///
    /// # Errors
    /// As [`Store::account`].
    pub async fn backlog(&self, slot: &Slot) -> Result<Backlog, StoreError> {
        let (_, spools) = self.spools_of(&slot.account).await?;
        let own = spools.into_iter().filter(|(device, _)| *device == slot.device);
        Ok(own.fold(Backlog::default(), |sum, (_, backlog)| sum.and(backlog)))
    }

    /// What waits for each device for which something does. Looks at every row.
    ///
    /// # Errors
    /// As [`Store::account`].
    pub async fn backlogs(&self) -> Result<HashMap<Slot, Backlog>, StoreError> {
        let QueryAnswer::Devices(spools) = self.read(Query::Devices).await? else { return Err(StoreError::Mistaken) };
        let mut backlogs = HashMap::<Slot, Backlog>::new();
        for (spool, device) in spools {
            let backlog = self.shared.counts.of(&spool).backlog;
            if backlog.count > 0 {
                let sum = backlogs.entry(Slot { account: spool.account, device }).or_default();
                *sum = sum.and(backlog);
            }
        }
        Ok(backlogs)
    }

    /// Bytes that wait in all.
    ///
    /// # Errors
    /// None: they are counted in memory.
    pub async fn spool_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.shared.counts.all().1)
    }

    /// An account, and the devices of its spools with what is in each, once nothing of them is hidden.
    async fn spools_of(
        &self,
        account: &BareJid,
    ) -> Result<(Result<Account, StoreError>, Vec<(DeviceId, Backlog)>), StoreError> {
        self.settle(account).await?;
        let query = Query::Spools { account: account.clone(), hidden: HashMap::new() };
        let QueryAnswer::Spools { account: state, spools } = self.read(query).await? else {
            return Err(StoreError::Mistaken);
        };
        let counts = self.shared.counts.of_account(account);
        let count = |login| counts.iter().find(|(known, _)| *known == login).map(|(_, count)| count.backlog);
        let with_counts = |HeldContents { login, device, .. }: HeldContents| (device, count(login).unwrap_or_default());
        Ok((state, spools.into_iter().map(with_counts).collect()))
    }

    /// Returns once what is hidden of an account's spools is gone from the disk.
    pub(super) async fn settle(&self, account: &BareJid) -> Result<(), StoreError> {
        if self.shared.deletions.spools_of(account).is_empty() {
            return Ok(());
        }
        self.ask(What::Settle(TaskScope::Account(account.clone())), 0, TaskWait::Commit, None).await.map(drop)
    }
}
