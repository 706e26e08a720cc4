//! The database file on a disk that may fail, and its recovery where that is safe. The embedded engine does all its work
//! through [`Disk`].
//!
//! redb refuses everything after the first failed write, even if the disk was only full for a minute. Opening the database
//! again fixes that: it falls back to the last commit. After a failed *sync* that is not safe: the system may have dropped
//! data that it could not write and still show it to readers, so that a later commit would build on data that is not on disk.
//! Then the store stays failed until the process is restarted.

use std::fmt;
use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::thread;

use redb::{BackendError, Database, DatabaseError, StorageBackend, StorageError};

use super::copy;
use super::paths::Location;
use crate::limits::RateLimitedLog;
use crate::store::error::StoreError;
use crate::sync::{read, write};

/// The size of redb's cache, in bytes.
const CACHE: usize = 4 << 20;

/// The database, or the error that prevents opening it.
pub(in crate::store) struct Disk {
    location: Box<dyn Location>,
    held: RwLock<OpenDatabase>,
    /// Limits the log lines about a failed disk: each attempted change causes one.
    failures: RateLimitedLog,
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
        // An earlier process may have left an unfinished copy.
        location.discard();
        let held = RwLock::new(OpenDatabase { database: Ok(database), sync_failed });
        Ok(Self { location: Box::new(location), held, failures: RateLimitedLog::default() })
    }

    /// Runs `work` on the database, unless it could not be opened again.
    pub(in crate::store) fn with<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match &read(&self.held).database {
            Ok(database) => work(database),
            Err(error) => Err(error.clone()),
        }
    }

    /// Closes the database once all reads have ended. After a failed sync it stays open: closing would mark data as complete
    /// that may not be on disk, and the next start would not repair it.
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

    /// Returns whether changes cannot be stored until the process is restarted.
    pub(in crate::store) fn has_failed(&self) -> bool {
        read(&self.held).sync_failed.load(Ordering::Acquire)
    }

    /// Returns the size of the database file.
    pub(in crate::store) fn len(&self) -> io::Result<u64> {
        self.location.len()
    }

    /// Tries again to open a database that could not be opened.
    pub(in crate::store) fn ensure_open(&self) {
        if let Err(error) = self.with(|_| Ok(())) {
            self.recover(&error);
        }
    }

    /// Copies the content of the database into a new file, which replaces the old one; returns whether it did. Calls `go_on`
    /// at each step with the number of bytes copied. Call it only while nothing else writes; reads may go on.
    pub(in crate::store) fn compact(&self, go_on: &mut dyn FnMut(u64) -> bool) -> Result<bool, StoreError> {
        // A failed sync of the copy does not matter until the copy is the database.
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
        // After a crash either file may be there. Commits are durable only once the rename is.
        let settled = self.location.settle().map_err(|error| StoreError::from(StorageError::Io(error)));
        if settled.is_err() {
            sync_failed.store(true, Ordering::Release);
        }
        let database = settled.clone().map(|()| fresh);
        let old = std::mem::replace(&mut *held, OpenDatabase { database, sync_failed });
        drop(held);
        // Freeing a large file takes time, so a thread does it. If no thread can be started, it happens here.
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
        // The old database must release its lock first.
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

/// A backend that records whether a sync ever failed.
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
