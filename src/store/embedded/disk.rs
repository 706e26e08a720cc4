//! The database on a disk that may fail, and its recovery where that is safe.
//!
//! redb refuses everything after the first failed write, which may have been no more than a disk that was full for a
//! minute. Opening the database again heals that: it falls back to the last commit. After a failed *sync* it would not:
//! the system may have given up what it could not write and still show it to readers, so that a later commit would
//! build on data that no disk holds. Then the store stays failed until the process is restarted.

use std::fmt;
use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::thread;

use redb::{BackendError, Database, DatabaseError, StorageBackend, StorageError};

use super::copy;
use super::paths::Location;
use crate::limits::Seldom;
use crate::store::error::StoreError;
use crate::sync::{read, write};

/// Bytes of the database that are kept in memory.
const CACHE: usize = 4 << 20;

/// The database, or the error that keeps it from being opened.
pub(in crate::store) struct Disk {
    location: Box<dyn Location>,
    held: RwLock<OpenDatabase>,
    /// Lines about a disk that has failed: each change that is tried causes one.
    failures: Seldom,
}

struct OpenDatabase {
    database: Result<Database, StoreError>,
    /// True if the database's file ever failed to sync.
    sync_failed: Arc<AtomicBool>,
}

impl Disk {
    /// Opens the database.
    pub(in crate::store) fn new(location: impl Location + 'static) -> Result<Self, StoreError> {
        let sync_failed = Arc::new(AtomicBool::new(false));
        let database = database(location.open()?, &sync_failed)?;
        // What an earlier process began, while it had the database.
        location.discard();
        let held = RwLock::new(OpenDatabase { database: Ok(database), sync_failed });
        Ok(Self { location: Box::new(location), held, failures: Seldom::default() })
    }

    /// Does something with the database, unless it could not be opened again.
    pub(in crate::store) fn with<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match &read(&self.held).database {
            Ok(database) => work(database),
            Err(error) => Err(error.clone()),
        }
    }

    /// Closes the database, once nobody reads any more. After a failed sync it stays open: closing it would mark as whole what
    /// may not be on disk, and the next start would not repair it.
    pub(in crate::store) fn close(&self) {
        let database = {
            let mut held = write(&self.held);
            if held.sync_failed.load(Ordering::Acquire) {
                return;
            }
            std::mem::replace(&mut held.database, Err(StoreError::Closed))
        };
        drop(database);
    }

    /// Whether changes cannot be stored until the process is restarted.
    pub(in crate::store) fn has_failed(&self) -> bool {
        read(&self.held).sync_failed.load(Ordering::Acquire)
    }

    /// Bytes of the database's file.
    pub(in crate::store) fn len(&self) -> io::Result<u64> {
        self.location.len()
    }

    /// Tries once more to open a database that could not be opened again.
    pub(in crate::store) fn ensure_open(&self) {
        if let Err(error) = self.with(|_| Ok(())) {
            self.recover(&error);
        }
    }

    /// Copies what the database holds into a fresh file, which replaces the old one; returns whether it did. `go_on` is asked at
    /// each step, with the number of bytes that were copied. To be called while nobody else writes; others may read.
    pub(in crate::store) fn compact(&self, go_on: &mut dyn FnMut(u64) -> bool) -> Result<bool, StoreError> {
        // Whether the copy can be synced is nothing to the store until it is the database.
        let sync_failed = Arc::new(AtomicBool::new(false));
        let mut copy = || {
            let fresh = database(self.location.fresh()?, &sync_failed)?;
            Ok(self.with(|current| copy::copy(current, &fresh, go_on))?.then_some(fresh))
        };
        let fresh = match copy() {
            Ok(Some(fresh)) => fresh,
            other => {
                self.location.discard();
                return other.map(|_| false);
            }
        };
        let mut held = write(&self.held);
        if let Err(error) = self.location.replace() {
            drop(held);
            drop(fresh);
            self.location.discard();
            return Err(StorageError::Io(error).into());
        }
        // After a crash either may be there, so that nothing can be promised until only the fresh one can.
        let settled = self.location.settle().map_err(|error| StoreError::from(StorageError::Io(error)));
        if settled.is_err() {
            sync_failed.store(true, Ordering::Release);
        }
        let database = settled.clone().map(|()| fresh);
        let old = std::mem::replace(&mut *held, OpenDatabase { database, sync_failed });
        drop(held);
        // The system takes its time to free a large file, and nobody needs to wait; if no thread can be had, it ends here.
        drop(thread::Builder::new().name("store-old".to_owned()).spawn(move || drop(old)));
        settled.map(|()| true)
    }

    /// Opens the database again after this error, where that is safe.
    pub(in crate::store) fn recover(&self, error: &StoreError) {
        let mut held = write(&self.held);
        if held.sync_failed.load(Ordering::Acquire) {
            if let Some(suppressed) = self.failures.next() {
                tracing::error!(suppressed, "disk sync failed: nothing can be stored until pushward is restarted");
            }
            return;
        }
        // The old one must release its lock first.
        held.database = Err(error.clone());
        held.database = self.location.open().and_then(|backend| database(backend, &held.sync_failed));
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("failed", &self.has_failed()).finish_non_exhaustive()
    }
}

fn database(backend: Box<dyn StorageBackend>, sync_failed: &Arc<AtomicBool>) -> Result<Database, StoreError> {
    let watched = Watched { inner: backend, sync_failed: Arc::clone(sync_failed) };
    match Database::builder().set_cache_size(CACHE).create_with_backend(watched) {
        Ok(database) => Ok(database),
        Err(DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch) => Err(StoreError::InUse),
        Err(error) => Err(error.into()),
    }
}

/// A backend that remembers whether it ever failed to sync.
#[derive(Debug)]
struct Watched {
    inner: Box<dyn StorageBackend>,
    sync_failed: Arc<AtomicBool>,
}

impl StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data().inspect_err(|_| self.sync_failed.store(true, Ordering::Release))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}
