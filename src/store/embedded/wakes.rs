//! The table of the wakes: devices that are to be woken by a push as soon as it can be sent.

use redb::{ReadTransaction, ReadableTable, Table, WriteTransaction};

use crate::jid::BareJid;
use crate::push::account::DeviceId;
use crate::store::error::StoreError;
use crate::store::schema::WAKES;
use crate::store::values::{Slot, Wake};

/// The wakes, in one transaction.
pub(super) struct Wakes<'t> {
    table: Table<'t, (&'static str, u64), &'static [u8]>,
    differs: bool,
}

impl<'t> Wakes<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self { table: transaction.open_table(WAKES)?, differs: false })
    }

    /// Returns whether there is anything to commit.
    pub(super) fn differs(&self) -> bool {
        self.differs
    }

    /// Saves a wake, replacing an earlier one.
    pub(super) fn save(&mut self, slot: &Slot, wake: Wake) -> Result<(), StoreError> {
        let record = wake.encode();
        let old = self.table.insert(slot.key(), record.as_slice())?;
        self.differs |= old.is_none_or(|old| old.value() != record.as_slice());
        Ok(())
    }

    /// Saves a wake, unless there is an earlier one.
    pub(super) fn save_unless_noted(&mut self, slot: &Slot, wake: Wake) -> Result<(), StoreError> {
        let is_noted = self.table.get(slot.key())?.is_some();
        if is_noted { Ok(()) } else { self.save(slot, wake) }
    }

    /// Moves the wake of one device to another, or deletes the other's if there is none to move.
    pub(super) fn shift(&mut self, from: &Slot, to: &Slot) -> Result<(), StoreError> {
        let record = self.table.remove(from.key())?.map(|record| record.value().to_vec());
        self.delete(&to.account, to.device)?;
        if let Some(record) = record {
            self.table.insert(to.key(), record.as_slice())?;
            self.differs = true;
        }
        Ok(())
    }

    pub(super) fn delete(&mut self, account: &BareJid, device: DeviceId) -> Result<(), StoreError> {
        self.differs |= self.table.remove((account.as_str(), device.0))?.is_some();
        Ok(())
    }

    /// Deletes the wakes of some devices of an account.
    pub(super) fn delete_of(&mut self, account: &BareJid, which: impl Fn(DeviceId) -> bool) -> Result<(), StoreError> {
        let mut devices = Vec::new();
        for entry in self.table.range((account.as_str(), 0)..=(account.as_str(), u64::MAX))? {
            devices.push(DeviceId(entry?.0.value().1));
        }
        devices.into_iter().filter(|device| which(*device)).try_for_each(|device| self.delete(account, device))
    }
}

/// Returns the devices that are to be woken, each with its wake if that can be read.
pub(super) fn all(transaction: &ReadTransaction) -> Result<Vec<(Slot, Option<Wake>)>, StoreError> {
    let mut noted = Vec::new();
    for entry in transaction.open_table(WAKES)?.iter()? {
        let (key, record) = entry?;
        let (account, device) = key.value();
        let Ok(account) = BareJid::new(account) else { continue };
        let wake = Wake::decode(&account, record.value()).ok();
        noted.push((Slot { account, device: DeviceId(device) }, wake));
    }
    Ok(noted)
}
