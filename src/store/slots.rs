//! What is asked of the slots.

use std::ops::RangeInclusive;

use redb::{ReadTransaction, ReadableTable};
use tokio::sync::oneshot;

use super::batch::Batch;
use super::row::{self, Row, SLOTS};
use super::spool::{self, Backlog, Slot, Spooled};
use super::writer::Job;
use super::{Store, StoreError, accounts};
use crate::jid::BareJid;
use crate::push::account::DeviceId;

impl Store {
    /// Puts stanzas into a slot, all or none, and returns once they are on disk. Each `seq` must be higher than the one
    /// before and than [`Backlog::last_seq`]; a stanza that is there already, equal in everything, is passed over, so that a
    /// call whose outcome is unknown can be repeated. While many calls come, they wait for each other, 40 ms at most.
    ///
    /// Not cancel safe: dropped while waiting, the stanzas may be on disk or not.
    ///
    /// # Errors
    /// [`StoreError::SpoolFull`], [`StoreError::PlaceTaken`], [`StoreError::UnknownVersion`], [`StoreError::Corrupt`]: none is
    /// stored. [`StoreError::Database`]: unknown. [`StoreError::Closed`] after [`Store::shutdown`].
    pub async fn spool(&self, slot: &Slot, items: Vec<Spooled>) -> Result<(), StoreError> {
        let slot = slot.clone();
        let weight = items.iter().map(|item| item.bytes.len()).fold(0, usize::saturating_add);
        self.write_patiently(weight, move |batch| batch.spool(&slot, &items)).await
    }

    /// The stanzas of a slot behind the place `after`, in order: one at least if there is any, then up to so much
    /// [`Spooled::weight`].
    ///
    /// # Errors
    /// As [`Store::account`].
    pub async fn spooled(&self, slot: &Slot, after: u64, weight: usize) -> Result<Vec<Spooled>, StoreError> {
        let slot = slot.clone();
        let fading = self.shared.fading.lock().get(&slot).copied().unwrap_or(0);
        self.read(move |transaction| spool::read(transaction, &slot, after.max(fading), weight)).await
    }

    /// Deletes the stanzas of a slot up to the place `up_to`, behind all earlier calls. Returns as soon as no reader of this
    /// process sees them any more; on disk they end with the next commit, at the latest after a second. A crash before that
    /// brings them back.
    ///
    /// # Errors
    /// [`StoreError::Closed`] after [`Store::shutdown`].
    pub async fn unspool(&self, slot: &Slot, up_to: u64) -> Result<(), StoreError> {
        let (accepted, answered) = oneshot::channel();
        let job = Job::Unspool { slot: slot.clone(), up_to, accepted };
        self.jobs.send(job).await.map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)
    }

    /// What a slot holds.
    ///
    /// # Errors
    /// As [`Store::account`].
    pub async fn backlog(&self, slot: &Slot) -> Result<Backlog, StoreError> {
        let waits = self.shared.fading.lock().contains_key(slot);
        if waits {
            self.settle().await?;
        }
        let slot = slot.clone();
        self.read(move |transaction| Ok(row::load(&transaction.open_table(SLOTS)?, &slot)?.backlog)).await
    }

    /// Bytes that wait on disk in all, as of the last commit. Looks at every slot.
    ///
    /// # Errors
    /// As [`Store::account`].
    pub async fn spool_bytes(&self) -> Result<u64, StoreError> {
        self.read(|transaction| row::total(&transaction.open_table(SLOTS)?)).await
    }

    /// The other devices of an account that have stanzas waiting and no open session.
    ///
    /// # Errors
    /// As [`Store::account`].
    pub async fn orphans(&self, account: &BareJid, not: DeviceId) -> Result<Vec<(DeviceId, Backlog)>, StoreError> {
        let waits = self.shared.fading.lock().keys().any(|slot| slot.account == *account);
        if waits {
            self.settle().await?;
        }
        let account = account.clone();
        self.read(move |transaction| orphans(transaction, &account, not)).await
    }

    /// Deletes the stanzas of a slot that may go to another device and returns them once they are gone from the disk, in
    /// order: one at least if there is any, then up to so many bytes. So nobody gets them twice: what is returned is lost
    /// if it is lost by the caller, as is what a call returned that was dropped while waiting.
    ///
    /// # Errors
    /// As [`Store::spool`]; after [`StoreError::Database`] they may be gone.
    pub async fn take_shared(&self, slot: &Slot, bytes: usize) -> Result<Vec<Spooled>, StoreError> {
        let slot = slot.clone();
        self.write(0, move |batch| batch.take_shared(&slot, bytes)).await
    }

    /// Has the deletions that wait committed.
    async fn settle(&self) -> Result<(), StoreError> {
        self.write(0, |batch| {
            batch.settle();
            Ok(())
        })
        .await
    }
}

fn orphans(
    transaction: &ReadTransaction,
    account: &BareJid,
    not: DeviceId,
) -> Result<Vec<(DeviceId, Backlog)>, StoreError> {
    let state = accounts::read(transaction, account)?;
    let table = transaction.open_table(SLOTS)?;
    let mut orphans = Vec::new();
    for entry in table.range(of(account))? {
        let (key, record) = entry?;
        let device = DeviceId(key.value().1);
        let Row { backlog, .. } = Row::decode(account, record.value())?;
        if device != not && backlog.count > 0 && state.device(device).is_none_or(|device| !device.is_open()) {
            orphans.push((device, backlog));
        }
    }
    Ok(orphans)
}

/// The keys of what belongs to the devices of an account.
pub(super) fn of(account: &BareJid) -> RangeInclusive<(&str, u64)> {
    (account.as_str(), 0)..=(account.as_str(), u64::MAX)
}

impl Batch<'_> {
    /// One device turns out to be another, which has just been in contact, so that only the newcomer's wake counts.
    pub(super) fn merge_slots(&mut self, newcomer: &Slot, known: &Slot) -> Result<(), StoreError> {
        self.append_slot(newcomer, known)?;
        self.move_wake(newcomer, known)
    }

    /// Deletes what depends on a device.
    pub(super) fn delete_slot(&mut self, slot: &Slot) -> Result<(), StoreError> {
        self.clear_slot(slot)?;
        self.delete_wake(&slot.account, slot.device)
    }

    /// Deletes what waits for the devices of an account, known or not.
    pub(super) fn delete_slots(&mut self, account: &BareJid) -> Result<(), StoreError> {
        let mut devices = Vec::new();
        for entry in self.slots.range(of(account))? {
            devices.push(DeviceId(entry?.0.value().1));
        }
        for device in devices {
            self.clear_slot(&Slot { account: account.clone(), device })?;
        }
        Ok(())
    }
}
