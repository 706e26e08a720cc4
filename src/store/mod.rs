//! What must outlive the process: accounts, the stanzas that wait for their devices, tombstones and wakes, in one redb
//! database.
//!
//! Reads see what is on disk. Changes go through one writer thread that performs whatever waits in one transaction with
//! one sync, and are answered only then (invariant 2 of the crate); deletions of what was delivered may wait for the next.
//! Nobody is promised anything by a log-in, which is answered when it is in order: what it leads to is stored behind it.
//!
//! redb uses freed pages again but shrinks the file little by itself. A file of 64 MiB or more that is mostly free is
//! renewed, when it is opened and while the store runs (`renew.rs`): what it holds is copied into a fresh file beside it,
//! which takes its place by a rename. Until the rename the old file is the database, and it was not touched.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use redb::{ReadTransaction, ReadableDatabase};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

mod accounts;
mod adopt;
mod ageing;
mod batch;
mod disk;
mod error;
mod measure;
mod peek;
mod place;
mod record;
mod renew;
mod row;
mod slots;
mod spool;
#[cfg(test)]
mod tests;
mod tombstone;
mod wake;
mod writer;

pub use accounts::{AccountPage, LoggedIn};
pub use adopt::Adoption;
pub use ageing::{Expired, Ttl};
pub use error::{SpoolBound, StoreError};
pub use measure::Measures;
pub use peek::peek;
pub use spool::{Backlog, ITEM_OVERHEAD, Slot, SpoolLimits, Spooled};
pub use tombstone::Tombstone;
pub use wake::{Wake, WakeReason};

use crate::metrics::Latency;
use batch::Batch;
use disk::Disk;
use place::{InDirectory, inaccessible};
use writer::{Fading, Job, Shared, Work};

/// The database's name in the state directory.
const FILE: &str = "pushward.redb";
/// Jobs that wait for the writer; more wait in their callers.
const QUEUE: usize = 1024;

/// A handle of the store; clones share it. Once the last one is dropped the writer ends, and the database is closed;
/// at once after [`Store::shutdown`].
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
    /// Cancelled when the writer has ended.
    ended: CancellationToken,
}

impl Store {
    /// As [`Store::open_with`], with the default bounds of the spool.
    ///
    /// # Errors
    /// As [`Store::open_with`].
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        Self::open_with(directory, SpoolLimits::default())
    }

    /// Opens or creates the database in a directory, which is created with mode 0700; the file has mode 0600. Blocks:
    /// after a crash the database is repaired first, and a large file that is mostly free is renewed.
    ///
    /// # Errors
    /// [`StoreError::Inaccessible`], [`StoreError::InUse`], [`StoreError::Database`] if the file is no database.
    pub fn open_with(directory: &Path, limits: SpoolLimits) -> Result<Self, StoreError> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(inaccessible(directory))?;
        let path = directory.join(FILE);
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .and_then(|file| file.set_permissions(Permissions::from_mode(0o600)))
            .map_err(inaccessible(&path))?;
        // Else a crash could lose the file's name, and with it what was committed to the file.
        File::open(directory).and_then(|handle| handle.sync_all()).map_err(inaccessible(directory))?;
        let disk = Disk::new(InDirectory::new(directory))?;
        disk.with(batch::create)?;
        let len = disk.len().map_err(inaccessible(&path))?;
        if renew::is_sparse(len, disk.with(row::held)?) {
            renew::shrink(&disk, &mut |copied| !renew::is_vain(len, copied));
        }
        Self::start(disk, limits)
    }

    /// Refuses further changes, for every clone, and returns once all accepted ones were answered. Can be called again.
    pub async fn shutdown(&self) {
        // An error means that the writer was told before, or has died.
        drop(self.jobs.send(Job::Stop).await);
        self.ended.cancelled().await;
    }

    /// Sets other bounds of the spool; what waits already stays.
    pub fn set_limits(&self, limits: SpoolLimits) {
        *self.shared.limits.lock().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    /// How many transactions were committed since the store was opened; for metrics and tests.
    pub fn commits(&self) -> u64 {
        self.shared.commits.load(Ordering::Relaxed)
    }

    /// How long commits take.
    pub fn commit_time(&self) -> &Latency {
        &self.shared.commit_time
    }

    fn start(disk: Disk, limits: SpoolLimits) -> Result<Self, StoreError> {
        disk.with(batch::create)?;
        let shared = Arc::new(Shared {
            disk,
            limits: Mutex::new(limits),
            commits: AtomicU64::new(0),
            commit_time: Latency::default(),
            fading: Fading::default(),
            hurry: AtomicBool::new(false),
            thread: OnceLock::new(),
        });
        let (jobs, waiting) = mpsc::channel(QUEUE);
        let ended = CancellationToken::new();
        writer::spawn(Arc::clone(&shared), waiting, ended.clone().drop_guard())
            .map_err(|error| StoreError::NoThread(Arc::new(error)))?;
        Ok(Self { shared, jobs, ended })
    }

    /// Reads what the last commit left.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = Arc::clone(&self.shared);
        let job = move || shared.disk.with(|database| read(&database.begin_read()?));
        tokio::task::spawn_blocking(job).await.map_err(|_| StoreError::Closed)?
    }

    /// Has the writer do something, and returns the result once it is on disk. `weight`: bytes that it brings.
    async fn write<T: Send + 'static>(
        &self,
        weight: usize,
        write: impl FnOnce(&mut Batch<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.ask(Work::new(weight, write)).await
    }

    /// The same for what nobody waits for: while many changes come, it may wait for more of them, 40 ms at most.
    async fn write_patiently<T: Send + 'static>(
        &self,
        weight: usize,
        write: impl FnOnce(&mut Batch<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (work, answered) = Work::new(weight, write);
        self.ask((work.patiently(), answered)).await
    }

    /// Has the writer do something in its turn, and returns the result at once: a crash, or a commit that fails, may forget it.
    async fn write_in_turn<T: Send + 'static>(
        &self,
        write: impl FnOnce(&mut Batch<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (work, answered) = Work::new(0, write);
        self.jobs.send(Job::Work(work.at_once())).await.map_err(|_| StoreError::Closed)?;
        self.shared.call();
        answered.await.map_err(|_| StoreError::Closed)?
    }

    async fn ask<T>(
        &self,
        (work, answered): (Work, oneshot::Receiver<Result<T, StoreError>>),
    ) -> Result<T, StoreError> {
        self.jobs.send(Job::Work(work)).await.map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    /// Somebody now waits behind a change that nobody waited for so far.
    pub(crate) fn hurry(&self) {
        self.shared.hurry.store(true, Ordering::Relaxed);
    }
}
