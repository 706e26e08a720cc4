//! Copies a database into another file, in chunks, until it is done or abandoned. Compaction uses it.

use redb::{
    Database, Durability, Key, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition, Value,
};

use crate::store::error::StoreError;
use crate::store::schema::{ACCOUNT_TOMBSTONES, ACCOUNTS, DOOMED, META, SPOOLS, STANZAS, TABLES, TOMBSTONES, WAKES};

/// The bytes of records that are copied between two calls of `go_on`.
const CHUNK: u64 = 2 << 20;

/// Copies all records as of the last commit and returns whether the copy is complete. Calls `go_on` at each step with the
/// number of bytes copied so far, and stops if it returns false. A complete copy is synced to disk.
pub(super) fn copy(from: &Database, to: &Database, go_on: &mut dyn FnMut(u64) -> bool) -> Result<bool, StoreError> {
    let from = from.begin_read()?;
    if from.list_tables()?.count() != TABLES {
        tracing::warn!("database not compacted: it has tables of an unknown version");
        return Ok(false);
    }
    let mut copy = FileCopy { from, to, copied: 0, go_on };
    let whole = copy.table(ACCOUNTS)?
        && copy.table(META)?
        && copy.table(SPOOLS)?
        && copy.table(DOOMED)?
        && copy.table(WAKES)?
        && copy.table(TOMBSTONES)?
        && copy.table(ACCOUNT_TOMBSTONES)?
        && copy.table(STANZAS)?;
    if whole {
        to.begin_write()?.commit()?;
    }
    Ok(whole)
}

struct FileCopy<'a> {
    from: ReadTransaction,
    to: &'a Database,
    /// Bytes of keys and values.
    copied: u64,
    go_on: &'a mut dyn FnMut(u64) -> bool,
}

impl FileCopy<'_> {
    /// Copies a table and returns whether the copy is complete.
    fn table<K: Key, V: Value>(&mut self, definition: TableDefinition<'static, K, V>) -> Result<bool, StoreError> {
        let table = self.from.open_table(definition)?;
        let mut rows = table.iter()?;
        let mut count = 0u64;
        loop {
            let mut transaction = self.to.begin_write()?;
            let (begin, mut at_end) = (self.copied, false);
            let mut copy = transaction.open_table(definition)?;
            while !at_end && self.copied.saturating_sub(begin) < CHUNK {
                let Some(row) = rows.next() else {
                    at_end = true;
                    continue;
                };
                let (key, value) = row?;
                let (key, value) = (key.value(), value.value());
                let len = K::as_bytes(&key).as_ref().len().saturating_add(V::as_bytes(&value).as_ref().len());
                copy.insert(key, value)?;
                self.copied = self.copied.saturating_add(len as u64);
                count = count.saturating_add(1);
            }
            let same = !at_end || copy.len()? == table.len()?;
            drop(copy);
            if at_end {
                // The final, synced transaction makes these durable too.
                transaction.set_durability(Durability::None)?;
            }
            transaction.commit()?;
            if !same {
                tracing::error!(table = redb::TableHandle::name(&definition), count, "table copied incompletely");
                return Ok(false);
            }
            if !(self.go_on)(self.copied) {
                return Ok(false);
            }
            if at_end {
                return Ok(true);
            }
        }
    }
}
