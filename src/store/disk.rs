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
use std::sync::{Arc, PoisonError, RwLock};

use redb::{BackendError, Database, DatabaseError, StorageBackend};

use super::StoreError;

/// Bytes of the database that are kept in memory.
const CACHE: usize = 4 << 20;

/// Opens the backend of the database; called again for every recovery.
type Open = dyn Fn() -> Result<Box<dyn StorageBackend>, StoreError> + Send + Sync;

/// The database, or why there is none.
pub(super) struct Disk {
    open: Box<Open>,
    sync_failed: Arc<AtomicBool>,
    database: RwLock<Result<Database, StoreError>>,
}

impl Disk {
    /// Opens the database.
    pub(super) fn new(
        open: impl Fn() -> Result<Box<dyn StorageBackend>, StoreError> + Send + Sync + 'static,
    ) -> Result<Self, StoreError> {
        let open = Box::new(open);
        let sync_failed = Arc::new(AtomicBool::new(false));
        let database = database(&*open, &sync_failed)?;
        Ok(Self { open, sync_failed, database: RwLock::new(Ok(database)) })
    }

    /// Does something with the database, unless it could not be opened again.
    pub(super) fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, StoreError>) -> Result<T, StoreError> {
        match &*self.database.read().unwrap_or_else(PoisonError::into_inner) {
            Ok(database) => work(database),
            Err(error) => Err(error.clone()),
        }
    }

    /// Whether changes cannot be stored until the process is restarted.
    pub(super) fn has_failed(&self) -> bool {
        self.sync_failed.load(Ordering::Acquire)
    }

    /// Tries once more to open a database that could not be opened again.
    pub(super) fn ensure_open(&self) {
        if let Err(error) = self.with(|_| Ok(())) {
            self.recover(&error);
        }
    }

    /// Gives space back to the system if more than half of the file's `len` bytes are free; may take as long as moving the
    /// rest takes. To be called while nobody else uses the database.
    pub(super) fn compact_if_sparse(&self, len: u64) {
        let mut slot = self.database.write().unwrap_or_else(PoisonError::into_inner);
        let result = match &mut *slot {
            Ok(database) => compact_if_sparse(database, len),
            Err(_) => return,
        };
        drop(slot);
        if let Err(error) = result {
            tracing::warn!(%error, "the database stays as large as it is");
            self.recover(&error);
        }
    }

    /// Opens the database again after this error, where that is safe.
    pub(super) fn recover(&self, error: &StoreError) {
        if self.sync_failed.load(Ordering::Acquire) {
            tracing::error!("the disk failed to sync: nothing can be stored until pushward is restarted");
            return;
        }
        let mut slot = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // The old one must release its lock first.
        *slot = Err(error.clone());
        *slot = database(&*self.open, &self.sync_failed);
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("sync_failed", &self.sync_failed).finish_non_exhaustive()
    }
}

fn compact_if_sparse(database: &mut Database, len: u64) -> Result<(), StoreError> {
    let transaction = database.begin_write()?;
    let stats = transaction.stats()?;
    transaction.abort()?;
    let used = stats.allocated_pages().saturating_mul(stats.page_size() as u64);
    if used < len / 2 {
        tracing::info!(len, used, "compacting the database");
        database.compact()?;
    }
    Ok(())
}

fn database(open: &Open, sync_failed: &Arc<AtomicBool>) -> Result<Database, StoreError> {
    let watched = Watched { inner: open()?, sync_failed: Arc::clone(sync_failed) };
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
