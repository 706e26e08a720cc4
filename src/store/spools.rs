//! What sessions ask of their spools.

use std::ops::RangeInclusive;

use tokio::sync::oneshot;

use super::embedded::transaction::Batch;
use super::row::{self, SPOOLS, Totals};
use super::spool::{self, Backlog, Slot, SpoolId, Spooled};
use super::writer::{Job, Work};
use super::{Store, StoreError, meta};
use crate::jid::BareJid;
use crate::push::account::{DeviceId, LoginId};

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
    /// [`StoreError::SpoolFull`], [`StoreError::PlaceTaken`], [`StoreError::AccountRemoved`], [`StoreError::UnknownVersion`],
    /// [`StoreError::Corrupt`]: none is stored. [`StoreError::Database`]: unknown. [`StoreError::Closed`] after
    /// [`Store::shutdown`].
    pub async fn spool(&self, spool: &SpoolId, device: DeviceId, items: Vec<Spooled>) -> Result<(), StoreError> {
        let spool = spool.clone();
        let weight = items.iter().map(|item| item.bytes.len()).fold(0, usize::saturating_add);
        self.write_patiently(weight, move |batch| batch.spool(&spool, device, &items)).await
    }

    /// The stanzas of a spool behind the place `after`, in order: one at least if there is any, then up to so much
    /// [`Spooled::weight`]. Those that cannot be read are lost: they are passed over, counted in [`Store::lost`], and deleted.
    ///
    /// # Errors
    /// [`StoreError::Database`]; [`StoreError::Closed`] if the runtime is shutting down.
    pub async fn spooled(&self, spool: &SpoolId, after: u64, weight: usize) -> Result<Vec<Spooled>, StoreError> {
        let (hidden, read) = (self.shared.pending.of(spool), spool.clone());
        let read = self.read(move |transaction| spool::read(transaction, (&read, &hidden), after, weight));
        let (items, unreadable) = read.await?;
        self.set_aside(spool, unreadable).await;
        Ok(items)
    }

    /// Deletes the stanzas of a spool up to the place `up_to`, behind all earlier calls. Returns as soon as no reader of this
    /// process sees them any more; on disk they end with the next commits, the first at the latest after a second. A crash
    /// before that brings them back. What is spooled later at such a place may be deleted too.
    ///
    /// # Errors
    /// [`StoreError::Closed`] after [`Store::shutdown`].
    pub async fn unspool(&self, spool: &SpoolId, up_to: u64) -> Result<(), StoreError> {
        let (accepted, answered) = oneshot::channel();
        self.send(Job::Unspool { spool: spool.clone(), up_to, accepted })?;
        answered.await.map_err(|_| StoreError::Closed)
    }

    /// Deletes places of a spool, behind all earlier calls, and returns once they are gone from the disk. No reader sees any of
    /// them from the moment on in which the call is in order. Many stanzas are deleted in several transactions: a crash before
    /// the call returns may bring some of them back.
    ///
    /// Dropped while waiting, it goes on.
    ///
    /// # Errors
    /// As [`Store::account`]; this process shows none of them again all the same, and tries once more with its next commits.
    pub async fn discard(&self, spool: &SpoolId, places: Vec<RangeInclusive<u64>>) -> Result<(), StoreError> {
        let (spool, mut places) = (spool.clone(), Some(places));
        let work = Work::in_pieces(move |batch| {
            if let Some(places) = places.take() {
                batch.hide(&spool, &places);
            }
            Ok(batch.sweep(&spool)?.then_some(()))
        });
        self.ask(work).await
    }

    /// What all spools of a device hold.
    ///
    /// # Errors
    /// As [`Store::account`].
    pub async fn backlog(&self, slot: &Slot) -> Result<Backlog, StoreError> {
        self.settle(&slot.account).await?;
        let slot = slot.clone();
        self.read(move |transaction| {
            let rows = row::of(&transaction.open_table(SPOOLS)?, &slot.account)?;
            let own = rows.iter().filter(|(_, row)| row.device == slot.device);
            Ok(own.fold(Backlog::default(), |sum, (_, row)| sum.and(row.backlog)))
        })
        .await
    }

    /// Bytes that wait on disk in all, as of the last commit. Looks at every row.
    ///
    /// # Errors
    /// As [`Store::account`].
    pub async fn spool_bytes(&self) -> Result<u64, StoreError> {
        self.read(|transaction| Ok(Totals::count(&transaction.open_table(SPOOLS)?)?.all())).await
    }

    /// Returns once what is hidden of an account's spools is gone from the disk.
    pub(super) async fn settle(&self, account: &BareJid) -> Result<(), StoreError> {
        if self.shared.pending.spools_of(account).is_empty() {
            return Ok(());
        }
        let account = account.clone();
        let work = Work::in_pieces(move |batch| {
            let mut swept = true;
            for spool in batch.pending.spools_of(&account) {
                swept &= batch.sweep_if_readable(&spool)?;
            }
            Ok(swept.then_some(()))
        });
        self.ask(work).await
    }
}

impl Batch<'_> {
    /// One device turns out to be another, which has just been in contact, so that only the newcomer's wake counts. Its spools
    /// become the other's.
    pub(super) fn merge_slots(&mut self, newcomer: &Slot, known: &Slot) -> Result<(), StoreError> {
        for (spool, row) in row::of(&self.spools, &newcomer.account)? {
            if row.device == newcomer.device {
                self.differs = true;
                self.set_row(&spool, row::Row { device: known.device, ..row })?;
            }
        }
        self.move_wake(newcomer, known)
    }

    /// Deletes what depends on a device that is forgotten.
    pub(super) fn delete_slot(&mut self, slot: &Slot) -> Result<(), StoreError> {
        self.doom_device(&slot.account, slot.device)?;
        self.delete_wake(&slot.account, slot.device)
    }

    /// Whether anything waits for a device in other spools than that of this login.
    pub(super) fn waits(&self, slot: &Slot, login: LoginId) -> Result<bool, StoreError> {
        for (spool, row) in row::of(&self.spools, &slot.account)? {
            if row.device == slot.device && spool.login != login && self.has_any(&spool, &row)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Stores the highest login that was used, if this one is.
    pub(super) fn note_login(&mut self, login: LoginId) -> Result<(), StoreError> {
        self.logins.saw(login);
        meta::raise(&mut self.meta, login)
    }
}
