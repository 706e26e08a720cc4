//! The calls of [`Store`] for spools. The sessions make them.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Store;
use super::error::StoreError;
use super::op::{Effect, Op};
use super::query::{HeldContents, Query, QueryAnswer};
use super::tasks::{Job, TaskKind, TaskScope, TaskWait};
use super::values::{Backlog, InheritedSpool, Slot, SpoolId};
use crate::jid::BareJid;
use crate::push::account::{Account, DeviceId, LoginId};
use crate::seq::Seq;
use crate::session::queue::Spooled;

impl Store {
    /// Returns the id of the next login. It is higher than all earlier ones, of this process or a previous one, as far as
    /// anything of them is on disk. Does not wait.
    pub fn next_login(&self) -> LoginId {
        self.shared.logins.next()
    }

    /// Returns the highest login id that was given out.
    pub fn newest_login(&self) -> LoginId {
        self.shared.logins.highest()
    }

    /// Puts stanzas into the spool of a session, all or none, and returns once they are on disk. `device` is the session's.
    /// Each `seq` must be higher than the one before and than [`Backlog::last_seq`]; a stanza that is already there and equal
    /// in everything is skipped, so a call whose outcome is unknown can be repeated. While many calls arrive, they wait for
    /// each other, 40 ms at most.
    ///
    /// Not cancel safe: if the future is dropped while waiting, the stanzas may or may not be on disk.
    ///
    /// # Errors
    /// [`StoreError::SpoolFull`], [`StoreError::SequenceTaken`], [`StoreError::AccountRemoved`],
    /// [`StoreError::UnknownVersion`], [`StoreError::Corrupt`]: none is stored. [`StoreError::NoAnswer`]: no read returns them
    /// until the same stanzas are handed over again. [`StoreError::Database`]: unknown. [`StoreError::Closed`] after
    /// [`Store::shutdown`].
    pub async fn spool(&self, spool: &SpoolId, device: DeviceId, items: Vec<Spooled>) -> Result<(), StoreError> {
        let weight = items.iter().map(|item| item.bytes.len()).fold(0, usize::saturating_add);
        let seqs: Vec<Seq> = items.iter().map(|item| item.seq).collect();
        let kind = TaskKind::Write(Op::Spool { spool: spool.clone(), device, items, known: Seq::ZERO });
        let outcome = self.ask(kind, weight, TaskWait::Sometime, Some(spool.clone())).await;
        if let Err(StoreError::NoAnswer { .. }) = outcome {
            // They may still be stored later, after their session has handled them in another way.
            self.shared.deletions.give_up(spool, &seqs);
        }
        outcome.map(drop)
    }

    /// Returns the stanzas of a spool after the number `after`, in order: at least one if there is any, then up to `weight`
    /// (the sum of [`Spooled::weight`]). Those that cannot be read are lost: they are skipped, counted in [`Store::lost`], and
    /// deleted.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::NoAnswer`]; [`StoreError::Closed`] if the runtime is shutting down.
    pub async fn spooled(&self, spool: &SpoolId, after: Seq, weight: usize) -> Result<Vec<Spooled>, StoreError> {
        let hidden = self.shared.deletions.of(spool);
        let query = Query::Stanzas { spool: spool.clone(), hidden, after, weight };
        let QueryAnswer::Stanzas(items, unreadable) = self.read(query).await? else {
            return Err(StoreError::WrongAnswer);
        };
        if !unreadable.seqs.is_empty() {
            self.shared.note_unreadable(&unreadable);
            // This process does not return them again, even if the deletion fails.
            if let Err(error) = self.discard(spool, unreadable.seqs).await {
                tracing::warn!(%error, "unreadable stanzas not deleted yet");
            }
        }
        Ok(items)
    }

    /// Deletes the stanzas of a spool up to the number `up_to`, after all earlier calls. Returns as soon as no read of this
    /// process returns them. The next commits delete them on disk, the first after one second at the latest. A crash before
    /// that brings them back. Stanzas that are spooled later under such a number may be deleted too.
    ///
    /// # Errors
    /// [`StoreError::Closed`] after [`Store::shutdown`]; [`StoreError::NoAnswer`] if the writer is busy for longer than `[store]
    /// patience`: it will delete them all the same.
    pub async fn unspool(&self, spool: &SpoolId, up_to: Seq) -> Result<(), StoreError> {
        let (accepted, answered) = oneshot::channel();
        self.jobs.send(Job::Unspool { spool: spool.clone(), up_to, accepted }).map_err(|_| StoreError::Closed)?;
        let within = self.shared.patience();
        let answer = timeout(within, answered).await.map_err(|_| StoreError::NoAnswer { within })?;
        answer.map_err(|_| StoreError::Closed)
    }

    /// Deletes stanzas of a spool, after all earlier calls, and returns once they are gone from the disk. No read returns any
    /// of them from the moment the writer has received the call. Many stanzas are deleted in several transactions: after a
    /// crash before the call returns, some of them may be back.
    ///
    /// If the future is dropped while waiting, the deletion continues.
    ///
    /// # Errors
    /// As [`Store::account`]. Even then, this process returns none of them again and retries the deletion with its next
    /// commits.
    pub async fn discard(&self, spool: &SpoolId, seqs: Vec<RangeInclusive<Seq>>) -> Result<(), StoreError> {
        let kind = TaskKind::Discard(spool.clone(), seqs);
        self.ask(kind, 0, TaskWait::Commit, None).await.map(drop)
    }

    /// Makes a session the owner of the spools that ended sessions of its device have left, and returns these spools, ordered
    /// by login, once that is on disk. They are all non-empty spools of the device, other than `to`'s own, whose owner is `to`
    /// or is not among the account's open logins. If the account cannot be read, only those that `to` owns already. No stanza
    /// moves. May be repeated: what is left of the spools that `to` owns already is returned again.
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
        let kind = TaskKind::Write(Op::TakeOver { account: account.clone(), device, to });
        let Effect::TookOver(spools) = self.ask(kind, 0, TaskWait::Commit, Some(session)).await? else {
            return Err(StoreError::WrongAnswer);
        };
        let of = |spool| self.shared.counts.of(&SpoolId { account: account.clone(), login: spool }).backlog;
        Ok(spools.into_iter().map(|spool| InheritedSpool { spool, backlog: of(spool) }).collect())
    }

    /// Moves stanzas that are addressed to the bare JID from the spools that ended sessions of another device have left into
    /// `to`, under the first of these numbers and in order: at most 256, and as many as there are numbers. Returns the number
    /// of moved stanzas once that is on disk; the caller repeats the call with the next numbers until it is 0. The bounds of
    /// the spool are not checked, since nothing is added.
    ///
    /// Waits until the outcome is known, without [`StoreError::NoAnswer`]: stanzas that were moved after the caller had given up
    /// would lie under numbers that it does not read.
    ///
    /// # Errors
    /// As [`Store::spool`], apart from that.
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
        let kind = TaskKind::Write(Op::Adopt { account, from, to, device, seqs, without, search: None });
        let Effect::Adopted(moved) = self.ask_until_known(kind, session).await? else {
            return Err(StoreError::WrongAnswer);
        };
        Ok(moved)
    }

    /// Returns the other devices of an account that have waiting stanzas and no open session.
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

    /// Returns the sum of all spools of a device.
    ///
    /// # Errors
    /// As [`Store::account`].
    pub async fn backlog(&self, slot: &Slot) -> Result<Backlog, StoreError> {
        let (_, spools) = self.spools_of(&slot.account).await?;
        let own = spools.into_iter().filter(|(device, _)| *device == slot.device);
        Ok(own.fold(Backlog::default(), |sum, (_, backlog)| sum.and(backlog)))
    }

    /// Returns the backlog of each device that has one. Reads every row.
    ///
    /// # Errors
    /// As [`Store::account`].
    pub async fn backlogs(&self) -> Result<HashMap<Slot, Backlog>, StoreError> {
        let QueryAnswer::Devices(spools) = self.read(Query::Devices).await? else {
            return Err(StoreError::WrongAnswer);
        };
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

    /// Returns the bytes of all waiting stanzas.
    ///
    /// # Errors
    /// None: they are counted in memory.
    pub async fn spool_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.shared.counts.all().1)
    }

    /// Returns an account, and the device and backlog of each of its spools, once no stanza of them is hidden.
    async fn spools_of(
        &self,
        account: &BareJid,
    ) -> Result<(Result<Account, StoreError>, Vec<(DeviceId, Backlog)>), StoreError> {
        let _owned = self.claim(account).await?;
        self.settle(account).await?;
        let query = Query::Spools { account: account.clone(), hidden: HashMap::new() };
        let QueryAnswer::Spools { account: state, spools } = self.read(query).await? else {
            return Err(StoreError::WrongAnswer);
        };
        let counts = self.shared.counts.of_account(account);
        let count = |login| counts.iter().find(|(known, _)| *known == login).map(|(_, count)| count.backlog);
        let with_counts = |HeldContents { login, device, .. }: HeldContents| (device, count(login).unwrap_or_default());
        Ok((state, spools.into_iter().map(with_counts).collect()))
    }

    /// Returns once the hidden stanzas of an account's spools are gone from the disk.
    pub(super) async fn settle(&self, account: &BareJid) -> Result<(), StoreError> {
        if self.shared.deletions.spools_of(account).is_empty() {
            return Ok(());
        }
        self.ask(TaskKind::Settle(TaskScope::Account(account.clone())), 0, TaskWait::Commit, None).await.map(drop)
    }
}
