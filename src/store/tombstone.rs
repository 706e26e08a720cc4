//! Tombstones: how far sessions that ended had come (XEP-0198 §5, `h` of `<failed/>`).

use redb::TableDefinition;

use super::embedded::transaction::Batch;
use super::record::{self, Reader};
use super::{Store, StoreError};
use crate::jid::BareJid;
use crate::push::account::{DeviceId, LoginId};

/// Resumption id → the tombstone of its session.
pub(super) const TOMBSTONES: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("tombstones");
/// Bare JID, resumption id: which are an account's.
pub(super) const BURIED: TableDefinition<'static, (&'static str, &'static str), ()> = TableDefinition::new("buried");

/// What is left of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// Whose session it was.
    pub account: BareJid,
    /// The device's.
    pub device: DeviceId,
    /// How many of the client's stanzas it had handled: XEP-0198's `h`.
    pub h: u32,
    /// When it ended, in unix seconds.
    pub at: u64,
}

impl Tombstone {
    fn encode(&self) -> Vec<u8> {
        let mut record = record::start(64);
        record.extend_from_slice(&self.device.0.to_be_bytes());
        record.extend_from_slice(&self.h.to_be_bytes());
        record.extend_from_slice(&self.at.to_be_bytes());
        record.extend_from_slice(self.account.as_str().as_bytes());
        record
    }

    /// An unreadable one says as little as none, which is safe: a wrong `h` would not be.
    pub(super) fn decode(record: &[u8]) -> Option<Self> {
        /// Version, device, h and time.
        const HEADER: usize = 21;
        let account = BareJid::new(std::str::from_utf8(record.get(HEADER..)?).ok()?).ok()?;
        let mut reader = Reader::new(&account, record).ok()?;
        let (device, h, at) = (DeviceId(reader.u64().ok()?), reader.u32().ok()?, reader.u64().ok()?);
        Some(Self { account, device, h, at })
    }
}

impl Store {
    /// Writes a session's tombstone and returns once it is on disk. `sm_id` is the resumption id that the session had.
    ///
    /// # Errors
    /// [`StoreError::Database`], and it may be there or not; [`StoreError::Closed`] after [`Store::shutdown`].
    pub async fn bury(&self, sm_id: &str, tombstone: Tombstone) -> Result<(), StoreError> {
        let sm_id = sm_id.to_owned();
        self.write(0, move |batch| batch.bury(&sm_id, &tombstone)).await
    }

    /// As [`Store::bury`], unless the account was removed since the session's login: nothing is kept of it.
    ///
    /// # Errors
    /// As [`Store::bury`].
    pub async fn bury_known(&self, login: LoginId, sm_id: &str, tombstone: Tombstone) -> Result<(), StoreError> {
        let sm_id = sm_id.to_owned();
        self.write(0, move |batch| match batch.refuse_removed(&tombstone.account, login) {
            Ok(()) => batch.bury(&sm_id, &tombstone),
            Err(_) => Ok(()),
        })
        .await
    }

    /// The tombstone of the session that had this resumption id. The caller compares the account.
    ///
    /// # Errors
    /// [`StoreError::Database`]; [`StoreError::Closed`] if the runtime is shutting down.
    pub async fn tombstone(&self, sm_id: &str) -> Result<Option<Tombstone>, StoreError> {
        let sm_id = sm_id.to_owned();
        self.read(move |transaction| {
            let record = transaction.open_table(TOMBSTONES)?.get(sm_id.as_str())?;
            Ok(record.and_then(|record| Tombstone::decode(record.value())))
        })
        .await
    }
}

impl Batch<'_> {
    fn bury(&mut self, sm_id: &str, tombstone: &Tombstone) -> Result<(), StoreError> {
        self.exhume(sm_id)?;
        self.tombstones.insert(sm_id, tombstone.encode().as_slice())?;
        self.buried.insert((tombstone.account.as_str(), sm_id), ())?;
        self.differs = true;
        Ok(())
    }

    /// Deletes a tombstone.
    pub(super) fn exhume(&mut self, sm_id: &str) -> Result<(), StoreError> {
        let Some(old) = self.tombstones.remove(sm_id)? else { return Ok(()) };
        self.differs = true;
        if let Some(old) = Tombstone::decode(old.value()) {
            self.buried.remove((old.account.as_str(), sm_id))?;
        }
        Ok(())
    }

    /// The resumption ids of an account's tombstones.
    pub(super) fn graves(&self, account: &BareJid) -> Result<Vec<String>, StoreError> {
        let mut ids = Vec::new();
        for entry in redb::ReadableTable::range(&self.buried, (account.as_str(), "")..)? {
            let (key, _) = entry?;
            let (owner, sm_id) = key.value();
            if owner != account.as_str() {
                break;
            }
            ids.push(sm_id.to_owned());
        }
        Ok(ids)
    }

    /// Deletes the last of these tombstones, as far as the budget goes, and takes them off the list. Returns whether none is
    /// left.
    pub(super) fn clear_some_graves(&mut self, sm_ids: &mut Vec<String>) -> Result<bool, StoreError> {
        while !sm_ids.is_empty() && self.budget.spend(0) {
            let Some(sm_id) = sm_ids.pop() else { break };
            self.exhume(&sm_id)?;
        }
        Ok(sm_ids.is_empty())
    }
}
