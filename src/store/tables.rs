//! The tables, and their records: one byte of version, then JSON.

use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition};
use serde_json::error::Category;

use super::StoreError;
use crate::jid::BareJid;
use crate::push::registration::Registration;

/// Bare JID → its registrations. An account without any has no record.
pub(super) const REGISTRATIONS: TableDefinition<'static, &'static str, &'static [u8]> =
    TableDefinition::new("registrations");

/// The version of the records that are written. A change of [`Registration`] that serde cannot bridge needs a new one.
const VERSION: u8 = 1;

/// Makes the tables of a new database.
pub(super) fn create(database: &Database) -> Result<(), StoreError> {
    if database.begin_read()?.open_table(REGISTRATIONS).is_ok() {
        return Ok(());
    }
    let transaction = database.begin_write()?;
    transaction.open_table(REGISTRATIONS)?;
    transaction.commit()?;
    Ok(())
}

/// An account's registrations as of the last commit.
pub(super) fn read(database: &Database, account: &BareJid) -> Result<Vec<Registration>, StoreError> {
    load(&database.begin_read()?.open_table(REGISTRATIONS)?, account)
}

/// An account's registrations in an open table.
pub(super) fn load(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    account: &BareJid,
) -> Result<Vec<Registration>, StoreError> {
    match table.get(account.as_str())? {
        Some(record) => decode(account, record.value()),
        None => Ok(Vec::new()),
    }
}

/// Replaces an account's record.
pub(super) fn save(
    table: &mut Table<'_, &'static str, &'static [u8]>,
    account: &BareJid,
    list: &[Registration],
) -> Result<(), StoreError> {
    if list.is_empty() {
        table.remove(account.as_str())?;
    } else {
        table.insert(account.as_str(), encode(account, list)?.as_slice())?;
    }
    Ok(())
}

fn encode(account: &BareJid, list: &[Registration]) -> Result<Vec<u8>, StoreError> {
    let mut record = vec![VERSION];
    match serde_json::to_writer(&mut record, list) {
        Ok(()) => Ok(record),
        Err(error) => Err(corrupt(account, &error, record.len())),
    }
}

fn decode(account: &BareJid, record: &[u8]) -> Result<Vec<Registration>, StoreError> {
    match record.split_first() {
        Some((&VERSION, json)) => serde_json::from_slice(json).map_err(|error| corrupt(account, &error, record.len())),
        Some((&version, _)) => Err(StoreError::UnknownVersion { account: account.clone(), version }),
        None => Err(StoreError::Corrupt { account: account.clone(), reason: "empty record", at: 0, len: 0 }),
    }
}

/// serde's own message may quote values, which are secrets.
fn corrupt(account: &BareJid, error: &serde_json::Error, len: usize) -> StoreError {
    let reason = match error.classify() {
        Category::Io => "unwritable",
        Category::Syntax => "not JSON",
        Category::Data => "not registrations",
        Category::Eof => "cut short",
    };
    StoreError::Corrupt { account: account.clone(), reason, at: error.column(), len }
}
