//! The tables of the tombstones: the number of stanzas that each ended session had handled (XEP-0198 §5, `h` of `<failed/>`).

use redb::{ReadableTable, Table, WriteTransaction};

use crate::clock::UnixSecs;
use crate::jid::BareJid;
use crate::store::error::StoreError;
use crate::store::schema::{ACCOUNT_TOMBSTONES, TOMBSTONES};
use crate::store::values::Tombstone;

/// The tombstones, in one transaction.
pub(super) struct Tombstones<'t> {
    records: Table<'t, &'static str, &'static [u8]>,
    by_account: Table<'t, (&'static str, &'static str), ()>,
    differs: bool,
}

impl<'t> Tombstones<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, StoreError> {
        let (records, by_account) = (transaction.open_table(TOMBSTONES)?, transaction.open_table(ACCOUNT_TOMBSTONES)?);
        Ok(Self { records, by_account, differs: false })
    }

    /// Returns whether there is anything to commit.
    pub(super) fn differs(&self) -> bool {
        self.differs
    }

    pub(super) fn save(&mut self, sm_id: &str, tombstone: &Tombstone) -> Result<(), StoreError> {
        self.delete(sm_id)?;
        self.records.insert(sm_id, tombstone.encode().as_slice())?;
        self.by_account.insert((tombstone.account.as_str(), sm_id), ())?;
        self.differs = true;
        Ok(())
    }

    pub(super) fn delete(&mut self, sm_id: &str) -> Result<(), StoreError> {
        let Some(old) = self.records.remove(sm_id)? else { return Ok(()) };
        self.differs = true;
        if let Some(old) = Tombstone::decode(old.value()) {
            self.by_account.remove((old.account.as_str(), sm_id))?;
        }
        Ok(())
    }

    /// Deletes those of the given tombstones that are older than `before` or cannot be read. Returns their number.
    pub(super) fn expire(&mut self, sm_ids: &[String], before: UnixSecs) -> Result<u64, StoreError> {
        let mut count = 0u64;
        for sm_id in sm_ids {
            let young = self.records.get(sm_id.as_str())?.and_then(|record| Tombstone::decode(record.value()));
            if young.is_none_or(|tombstone| tombstone.at < before) {
                self.delete(sm_id)?;
                count = count.saturating_add(1);
            }
        }
        Ok(count)
    }

    /// Returns the resumption ids of an account's tombstones.
    pub(super) fn of(&self, account: &BareJid) -> Result<Vec<String>, StoreError> {
        let mut ids = Vec::new();
        for entry in self.by_account.range((account.as_str(), "")..)? {
            let (key, _) = entry?;
            let (owner, sm_id) = key.value();
            if owner != account.as_str() {
                break;
            }
            ids.push(sm_id.to_owned());
        }
        Ok(ids)
    }
}
