//! Compaction: what a file that is mostly free holds is copied into a fresh one, which then takes its place.
//!
//! redb's own compaction moves pages inside the file, in transactions that cannot be cut short and take seconds where much
//! is free. A copy costs only what is left, can be given up at any step, and leaves readers alone. It is good only if
//! nothing is written meanwhile: the writer thread makes it, and what it is asked for waits, [`BUDGET`] at most.

use std::time::Duration;

use redb::{
    Database, Durability, Key, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition, Value,
};
use tokio::time::Instant;

use super::disk::Disk;
use crate::store::error::StoreError;
use crate::store::schema::{ACCOUNTS, BURIED, DOOMED, META, SPOOLS, STANZAS, TABLES, TOMBSTONES, WAKES};

/// Bytes from which on a file is worth it.
pub(in crate::store) const LARGE: u64 = 64 << 20;
/// How long nothing may have been committed before.
const QUIET: Duration = Duration::from_secs(1);
/// Where there is no such pause, it is done after this long all the same.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long jobs wait for a copy; one that takes longer is given up once a job waits.
pub(in crate::store) const BUDGET: Duration = Duration::from_millis(250);
/// The time until the next attempt: the first is the least, and each that fails doubles it.
const PAUSES: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(60 * 60)];
/// Bytes of records that are copied between two looks at what waits.
const CHUNK: u64 = 2 << 20;

/// Whether a file of so many bytes is mostly free, if its records need so many.
pub(in crate::store) fn is_sparse(len: u64, held: u64) -> bool {
    len >= LARGE && held < len / 4
}

/// Whether a copy of so many bytes is too large to be worth it.
pub(in crate::store) fn is_vain(len: u64, copied: u64) -> bool {
    copied > len / 2
}

/// When the file is to be compacted.
#[derive(Debug)]
pub(in crate::store) struct Compaction {
    /// Since when it is sparse.
    since: Option<Instant>,
    /// When something was last committed.
    committed: Instant,
    not_before: Instant,
    pause: Duration,
    /// Bytes that are known to be needed beside the spool.
    floor: u64,
}

impl Compaction {
    pub(in crate::store) fn new(now: Instant) -> Self {
        Self { since: None, committed: now, not_before: now, pause: PAUSES[0], floor: 0 }
    }

    /// Something was committed, after which the file has `len` bytes and the spool counts for `held`.
    pub(in crate::store) fn committed(&mut self, now: Instant, len: u64, held: u64) {
        self.committed = now;
        let sparse = is_sparse(len, held.saturating_add(self.floor));
        self.since = sparse.then(|| self.since.unwrap_or(now));
    }

    /// When it is to be done, as far as is known now.
    pub(in crate::store) fn deadline(&self) -> Option<Instant> {
        let since = self.since?;
        Some((self.committed + QUIET).min(since + PATIENCE).max(self.not_before))
    }

    /// It was done.
    pub(in crate::store) fn succeeded(&mut self, now: Instant) {
        self.since = None;
        self.pause = PAUSES[0];
        self.not_before = now + self.pause;
    }

    /// It was given up. `vain`: so much of these bytes is needed that it is not worth it.
    pub(in crate::store) fn failed(&mut self, now: Instant, vain: Option<u64>) {
        if let Some(len) = vain {
            self.floor = len / 2;
            self.since = None;
        }
        self.not_before = now + self.pause;
        self.pause = (self.pause * 2).min(PAUSES[1]);
    }
}

/// Compacts the file, unless `go_on` gives it up; returns whether it was. Blocks, and is to be called while nobody writes.
pub(in crate::store) fn shrink(disk: &Disk, go_on: &mut dyn FnMut(u64) -> bool) -> bool {
    let (began, before) = (Instant::now(), disk.len());
    let compacted = disk.compact(go_on);
    let duration = began.elapsed();
    match (compacted, before.and_then(|before| Ok((before, disk.len()?)))) {
        (Ok(true), Ok((before, after))) => tracing::info!(before, after, ?duration, "the database's file was renewed"),
        (Ok(true), Err(error)) => tracing::warn!(%error, "how large the database's file is cannot be found out"),
        (Ok(false), _) => {
            tracing::debug!(?duration, "the database's file was not renewed");
            return false;
        }
        (Err(error), _) => {
            tracing::warn!(%error, ?duration, "the database's file stays as large as it is");
            return false;
        }
    }
    true
}

/// Copies all records, as of the last commit, and returns whether it came to the end: it is asked at each step, and told how
/// many bytes were copied. What it returns `true` for is on disk.
pub(in crate::store) fn copy(
    from: &Database,
    to: &Database,
    go_on: &mut dyn FnMut(u64) -> bool,
) -> Result<bool, StoreError> {
    let from = from.begin_read()?;
    if from.list_tables()?.count() != TABLES {
        tracing::warn!("the database has tables of another version, and stays as large as it is");
        return Ok(false);
    }
    let mut copy = Copy { from, to, copied: 0, go_on };
    let whole = copy.table(ACCOUNTS)?
        && copy.table(META)?
        && copy.table(SPOOLS)?
        && copy.table(DOOMED)?
        && copy.table(WAKES)?
        && copy.table(TOMBSTONES)?
        && copy.table(BURIED)?
        && copy.table(STANZAS)?;
    if whole {
        to.begin_write()?.commit()?;
    }
    Ok(whole)
}

struct Copy<'a> {
    from: ReadTransaction,
    to: &'a Database,
    /// Bytes of keys and values.
    copied: u64,
    go_on: &'a mut dyn FnMut(u64) -> bool,
}

impl Copy<'_> {
    /// Copies a table, and returns whether it came to the end.
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
                // The last transaction of all is synced, and these with it.
                transaction.set_durability(Durability::None)?;
            }
            transaction.commit()?;
            if !same {
                tracing::error!(table = redb::TableHandle::name(&definition), count, "not copied wholly");
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

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_sparse_file_is_compacted_in_the_first_pause_or_after_a_minute() {
        let begin = Instant::now();
        let mut compaction = Compaction::new(begin);
        let at = |seconds| begin + Duration::from_secs(seconds);
        compaction.committed(at(0), 200 * MIB, 100 * MIB);
        assert_eq!(compaction.deadline(), None);
        compaction.committed(at(1), 200 * MIB, 10 * MIB);
        assert_eq!(compaction.deadline(), Some(at(1) + QUIET));
        compaction.committed(at(50), 200 * MIB, 10 * MIB);
        assert_eq!(compaction.deadline(), Some(at(50) + QUIET));
        compaction.committed(at(61), 200 * MIB, 10 * MIB);
        assert_eq!(compaction.deadline(), Some(at(1) + PATIENCE));
        compaction.committed(at(61), 200 * MIB, 100 * MIB);
        assert_eq!(compaction.deadline(), None);
    }

    #[test]
    fn small_files_are_left_alone() {
        let now = Instant::now();
        let mut compaction = Compaction::new(now);
        compaction.committed(now, LARGE - 1, 0);
        assert_eq!(compaction.deadline(), None);
    }

    #[test]
    fn attempts_that_fail_become_rarer_and_vain_ones_wait_for_a_larger_file() {
        let now = Instant::now();
        let mut compaction = Compaction::new(now);
        compaction.committed(now, 200 * MIB, 0);
        for pause in [60, 120, 240] {
            compaction.failed(now, None);
            assert_eq!(compaction.deadline(), Some(now + Duration::from_secs(pause)));
        }
        compaction.failed(now, Some(200 * MIB));
        compaction.committed(now, 399 * MIB, 0);
        assert_eq!(compaction.deadline(), None);
        compaction.committed(now, 401 * MIB, 0);
        assert!(compaction.deadline().is_some());
        compaction.succeeded(now);
        assert_eq!(compaction.deadline(), None);
    }
}
