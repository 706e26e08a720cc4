//! Wakes: devices that are to be woken by a push as soon as there is a way to send it.

use redb::{ReadTransaction, ReadableTable, TableDefinition};

use super::embedded::transaction::Batch;
use super::record::{self, Reader};
use super::{Slot, Store, StoreError, accounts};
use crate::jid::BareJid;
use crate::push::account::DeviceId;

/// Bare JID, device → why it is to be woken.
pub(super) const WAKES: TableDefinition<'static, (&'static str, u64), &'static [u8]> = TableDefinition::new("wakes");

/// That a device is to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wake {
    /// Since when, in unix seconds.
    pub since: u64,
    /// Why.
    pub reason: WakeReason,
}

/// Why a device is to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WakeReason {
    /// Its session is or was held for as long as sessions are.
    Expired,
    /// The server ended its session.
    UpstreamLost,
    /// Its session was lost with the process.
    Restart,
}

impl Wake {
    fn encode(self) -> Vec<u8> {
        let mut record = record::start(9);
        record.push(match self.reason {
            WakeReason::Expired => 0,
            WakeReason::UpstreamLost => 1,
            WakeReason::Restart => 2,
        });
        record.extend_from_slice(&self.since.to_be_bytes());
        record
    }

    fn decode(account: &BareJid, record: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new(account, record)?;
        let reason = match reader.byte()? {
            0 => WakeReason::Expired,
            1 => WakeReason::UpstreamLost,
            2 => WakeReason::Restart,
            _ => return Err(reader.corrupt("not a reason")),
        };
        Ok(Self { since: reader.u64()?, reason })
    }
}

impl Store {
    /// Notes that a device is to be woken, in place of an earlier note, and returns once that is on disk. A login of the
    /// device undoes it, as does the loss of its last registration.
    ///
    /// # Errors
    /// [`StoreError::Database`], and it may be noted or not; [`StoreError::Closed`] after [`Store::shutdown`].
    pub async fn wake(&self, slot: &Slot, wake: Wake) -> Result<(), StoreError> {
        let slot = slot.clone();
        self.write(0, move |batch| batch.wake(&slot, wake)).await
    }

    /// The devices that are to be woken. A note that cannot be read is replaced: the device is woken too.
    ///
    /// # Errors
    /// [`StoreError::Database`]; [`StoreError::Closed`] if the runtime is shutting down.
    pub async fn wakes(&self) -> Result<Vec<(Slot, Wake)>, StoreError> {
        let noted = self.read(noted).await?;
        let mut wakes = Vec::with_capacity(noted.len());
        for (slot, wake) in noted {
            let wake = match wake {
                Some(wake) => wake,
                None => self.replace_wake(&slot).await?,
            };
            wakes.push((slot, wake));
        }
        Ok(wakes)
    }

    /// Writes a note that cannot be read again, as far as its key says what it was.
    async fn replace_wake(&self, slot: &Slot) -> Result<Wake, StoreError> {
        let wake = Wake { since: accounts::unix_ms() / 1000, reason: WakeReason::Restart };
        tracing::error!(account = %slot.account, "the note that a device is to be woken could not be read: it is replaced");
        self.wake(slot, wake).await?;
        Ok(wake)
    }

    /// Notes that a device needs not to be woken any more.
    ///
    /// # Errors
    /// As [`Store::wake`].
    pub async fn woken(&self, slot: &Slot) -> Result<(), StoreError> {
        let slot = slot.clone();
        self.write(0, move |batch| batch.delete_wake(&slot.account, slot.device)).await
    }
}

/// The devices that are to be woken, and why, if that can be read.
fn noted(transaction: &ReadTransaction) -> Result<Vec<(Slot, Option<Wake>)>, StoreError> {
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

impl Batch<'_> {
    fn wake(&mut self, slot: &Slot, wake: Wake) -> Result<(), StoreError> {
        let record = wake.encode();
        let old = self.wakes.insert(slot.key(), record.as_slice())?;
        self.differs |= old.is_none_or(|old| old.value() != record.as_slice());
        Ok(())
    }

    /// As [`Store::wake`], unless an earlier note stands.
    pub(super) fn wake_unless_noted(&mut self, slot: &Slot, wake: Wake) -> Result<(), StoreError> {
        let noted = self.wakes.get(slot.key())?.is_some();
        if noted { Ok(()) } else { self.wake(slot, wake) }
    }

    /// Gives one device's wake to another, or none.
    pub(super) fn move_wake(&mut self, from: &Slot, to: &Slot) -> Result<(), StoreError> {
        let record = self.wakes.remove(from.key())?.map(|record| record.value().to_vec());
        self.delete_wake(&to.account, to.device)?;
        if let Some(record) = record {
            self.wakes.insert(to.key(), record.as_slice())?;
            self.differs = true;
        }
        Ok(())
    }

    pub(super) fn delete_wake(&mut self, account: &BareJid, device: DeviceId) -> Result<(), StoreError> {
        self.differs |= self.wakes.remove((account.as_str(), device.0))?.is_some();
        Ok(())
    }

    /// Deletes the wakes of devices of an account.
    pub(super) fn delete_wakes(
        &mut self,
        account: &BareJid,
        which: impl Fn(DeviceId) -> bool,
    ) -> Result<(), StoreError> {
        let mut devices = Vec::new();
        for entry in self.wakes.range((account.as_str(), 0)..=(account.as_str(), u64::MAX))? {
            devices.push(DeviceId(entry?.0.value().1));
        }
        devices.into_iter().filter(|device| which(*device)).try_for_each(|device| self.delete_wake(account, device))
    }
}
