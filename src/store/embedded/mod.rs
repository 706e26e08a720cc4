//! The embedded engine: one redb database in the state directory.
//!
//! | file | content |
//! |---|---|
//! | `open` | creation of missing tables, conversion of older versions (`convert`), counting |
//! | `transaction` | the writes of a group, one after the other |
//! | `tables` | all tables, open in one transaction |
//! | `accounts`, `spools`, `tombstones`, `wakes` | the tables of each kind of record |
//! | `change`, `deliver`, `inherit`, `ageing` | the writes that involve several of them |
//! | `queries` | reads |
//! | `disk`, `paths` | the file, its recovery after errors, its replacement |
//! | `compact`, `copy` | copying of a file that is mostly free into a new one |
//! | `peek` | read-only access to the database while no daemon runs |
//!
//! **Deletions** run in pieces of at most 256 stanzas, and other writes are performed between two pieces. A spool that is
//! deleted as a whole is *doomed*: its row is deleted at once, and a record says up to which sequence number its stanzas are
//! to be deleted. Logins are never given out twice, so no other stanzas can be stored there meanwhile. After a crash before
//! the last piece the record is still there, and the next start continues.
//!
//! **Records that cannot be read** never block others. The row of a spool is rebuilt. A tombstone counts as absent. The record
//! of an account is kept unchanged, and calls for it are refused. Stanzas are reported, and the store deletes them.

mod accounts;
mod ageing;
mod change;
pub(super) mod compact;
mod convert_version_1;
mod copy;
mod deliver;
pub(super) mod disk;
mod inherit;
mod open;
pub(super) mod paths;
pub(super) mod peek;
mod queries;
mod spools;
mod tables;
mod tombstones;
mod transaction;
mod wakes;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::{Database, ReadableDatabase, ReadableTableMetadata};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::engine::{Committed, Engine, Failure, OpGroup, OpeningState};
use super::error::StoreError;
use super::lease::Lease;
use super::query::{Query, QueryAnswer};
use super::schema::{Count, DOOMED, WAKES};
use super::values::SpoolId;
use crate::sync::lock;
use compact::Compaction;
use disk::Disk;
use tables::Tables;

/// The embedded engine. [`Engines`](super::engines::Engines) selects it.
#[derive(Debug)]
pub(super) struct Embedded {
    disk: Arc<Disk>,
    compaction: Mutex<Compaction>,
}

impl Embedded {
    /// Prepares a database for use.
    ///
    /// # Errors
    /// [`StoreError::NewerSchema`], [`StoreError::Database`].
    pub(super) fn new(disk: Disk) -> Result<Self, StoreError> {
        disk.with(open::prepare)?;
        Ok(Self { disk: Arc::new(disk), compaction: Mutex::new(Compaction::new(Instant::now())) })
    }

    /// Compacts the file if it is large and mostly free.
    ///
    /// # Errors
    /// An I/O error of the database file.
    pub(super) fn compact_if_sparse(&self, opening: &OpeningState) -> io::Result<()> {
        let len = self.disk.len()?;
        let held = opening.counts.iter().fold(0u64, |sum, (_, count)| sum.saturating_add(count.backlog.bytes));
        let doomed = self.disk.with(|database| Ok(database.begin_read()?.open_table(DOOMED)?.len()?));
        // The size that is needed is unknown while more is to be deleted.
        if doomed.is_ok_and(|doomed| doomed == 0) && compact::is_sparse(len, held) {
            compact::shrink(&self.disk, &mut |copied| !compact::is_too_large(len, copied));
        }
        Ok(())
    }

    /// Returns the database file.
    #[cfg(test)]
    pub(super) fn disk(&self) -> &Disk {
        &self.disk
    }

    fn compaction(&self) -> MutexGuard<'_, Compaction> {
        lock(&self.compaction)
    }

    fn transact(&self, database: &Database, group: &OpGroup<'_>) -> Result<Committed, StoreError> {
        let transaction = database.begin_write()?;
        let mut tables = Tables::open(&transaction)?;
        let mut committed = tables.perform(group)?;
        let differs = tables.differs();
        drop(tables);
        if !differs {
            transaction.abort()?;
            return Ok(committed);
        }
        let began = std::time::Instant::now();
        transaction.commit()?;
        committed.took = Some(began.elapsed());
        // While more is to be deleted, a copy would include that too. A database that cannot be measured is not compacted.
        let held = if committed.more { u64::MAX } else { group.held };
        self.compaction().committed(Instant::now(), self.disk.len().unwrap_or_default(), held);
        Ok(committed)
    }
}

impl Engine for Embedded {
    fn opening(&self) -> Result<OpeningState, StoreError> {
        self.disk.with(open::opening)
    }

    /// Commits a group. A disk error refuses the group: the database falls back to the last commit, or is closed until the
    /// next start ([`Disk::recover`]). So the outcome is always known.
    fn commit(&self, group: &OpGroup<'_>) -> Result<Committed, Failure> {
        self.disk.ensure_open();
        self.disk.with(|database| self.transact(database, group)).map_err(|error| {
            self.disk.recover(&error);
            Failure::Refused(error)
        })
    }

    async fn read(&self, query: Query) -> Result<QueryAnswer, StoreError> {
        let disk = Arc::clone(&self.disk);
        let read = move || disk.with(|database| queries::answer(&database.begin_read()?, query));
        spawn_blocking(read).await.map_err(|_| StoreError::Closed)?
    }

    async fn health(&self) -> Result<(), StoreError> {
        let disk = Arc::clone(&self.disk);
        // Both checks wait for locks that are held while the database is opened again.
        let check = move || {
            if disk.has_failed() {
                let error = io::Error::other("disk sync failed: nothing can be stored until pushward is restarted");
                return Err(StoreError::Database(Arc::new(error.into())));
            }
            disk.with(|database| Ok(database.begin_read()?.open_table(WAKES)?.len()?))?;
            // The read may come from memory, so the disk is checked too.
            disk.len().map(drop).map_err(|error| StoreError::from(redb::StorageError::Io(error)))
        };
        spawn_blocking(check).await.map_err(|_| StoreError::Closed)?
    }

    fn lease(&self) -> Option<&Arc<Lease>> {
        None
    }

    fn maintenance(&self) -> Option<Instant> {
        self.compaction().deadline()
    }

    /// Compacts the file; stops if writes wait for too long.
    fn maintain(&self, is_wanted: &dyn Fn() -> bool) {
        let began = Instant::now();
        let len = self.disk.len().unwrap_or_default();
        let mut too_large = None;
        let done = compact::shrink(&self.disk, &mut |copied| {
            too_large = compact::is_too_large(len, copied).then_some(len);
            too_large.is_none() && (began.elapsed() < compact::BUDGET || !is_wanted())
        });
        if done {
            self.compaction().succeeded(Instant::now());
        } else {
            self.compaction().failed(Instant::now(), too_large);
        }
    }

    fn close(&self, counts: &[(SpoolId, Count)]) {
        let save = |database: &Database| {
            let transaction = database.begin_write()?;
            let mut tables = Tables::open(&transaction)?;
            let mut save = |(spool, count): &(SpoolId, Count)| deliver::save_count(&mut tables, spool, *count);
            counts.iter().try_for_each(&mut save)?;
            drop(tables);
            Ok(transaction.commit()?)
        };
        if !counts.is_empty()
            && let Err(error) = self.disk.with(save)
        {
            tracing::warn!(%error, "cannot save stanza counts: recounting at next start");
        }
        self.disk.close();
    }
}
