//! The rows that say what each slot holds.

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::StoreError;
use super::record::{self, Reader};
use super::spool::{Backlog, Slot};
use crate::jid::BareJid;

/// Bare JID, device → what its slot holds.
pub(super) const SLOTS: TableDefinition<'static, (&'static str, u64), &'static [u8]> = TableDefinition::new("slots");

/// What a slot's row says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) backlog: Backlog,
    /// How many of the stanzas are shared.
    pub(super) shared: u64,
}

impl Row {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut record = record::start(32);
        let Backlog { count, bytes, last_seq } = self.backlog;
        for number in [last_seq, count, bytes, self.shared] {
            record.extend_from_slice(&number.to_be_bytes());
        }
        record
    }

    pub(super) fn decode(account: &BareJid, record: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new(account, record)?;
        let (last_seq, count, bytes, shared) = (reader.u64()?, reader.u64()?, reader.u64()?, reader.u64()?);
        Ok(Self { backlog: Backlog { count, bytes, last_seq }, shared })
    }

    pub(super) fn add(&mut self, cost: u64, shared: bool) {
        self.backlog.count = self.backlog.count.saturating_add(1);
        self.backlog.bytes = self.backlog.bytes.saturating_add(cost);
        self.shared = self.shared.saturating_add(u64::from(shared));
    }

    pub(super) fn subtract(&mut self, cost: u64, shared: bool) {
        self.backlog.count = self.backlog.count.saturating_sub(1);
        self.backlog.bytes = self.backlog.bytes.saturating_sub(cost);
        self.shared = self.shared.saturating_sub(u64::from(shared));
    }
}

/// A slot's row in an open table.
pub(super) fn load(
    table: &impl ReadableTable<(&'static str, u64), &'static [u8]>,
    slot: &Slot,
) -> Result<Row, StoreError> {
    match table.get(slot.key())? {
        Some(record) => Row::decode(&slot.account, record.value()),
        None => Ok(Row::default()),
    }
}

/// Bytes of the whole spool, as of the last commit.
pub(super) fn held(database: &Database) -> Result<u64, StoreError> {
    total(&database.begin_read()?.open_table(SLOTS)?)
}

/// Bytes of the whole spool.
pub(super) fn total(table: &impl ReadableTable<(&'static str, u64), &'static [u8]>) -> Result<u64, StoreError> {
    let mut total = 0u64;
    for entry in table.iter()? {
        let (key, record) = entry?;
        let Ok(account) = BareJid::new(key.value().0) else { continue };
        match Row::decode(&account, record.value()) {
            Ok(row) => total = total.saturating_add(row.backlog.bytes),
            Err(error) => tracing::error!(%error, "stanzas on disk cannot be counted"),
        }
    }
    Ok(total)
}
