//! What must outlive the process: accounts, the stanzas that wait for their devices, tombstones and wakes, in one redb
//! database.
//!
//! Reads see what is on disk. Changes go through one writer thread that performs whatever waits in one transaction with
//! one sync, and are answered only then (invariant 2 of the crate); deletions of what was delivered may wait for the next.
//! Nobody is promised anything by a log-in, which is answered when it is in order: what it leads to is stored behind it.
//!
//! # Tables
//!
//! | table | key → value | module |
//! |---|---|---|
//! | `accounts` | bare JID → a version byte (2), then JSON of an [`Account`](crate::push::account::Account) | `accounts` |
//! | `spools` | bare JID, login → row: device, owner, last place, count, bytes, number of shared stanzas | `row` |
//! | `stanzas` | bare JID, login, place → stanza | `spool` |
//! | `doomed` | bare JID, login → the place up to which the stanzas of the spool are deleted | `erase` |
//! | `tombstones`, `buried` | resumption id → tombstone; bare JID, resumption id | `tombstone` |
//! | `wakes` | bare JID, device → wake | `wake` |
//! | `meta` | `schema` → the version of the tables (2); `login` → the highest login that was used | `meta` |
//!
//! **Versions.** A database without `meta`, or with tables of version 1 (`slots`, `spool`: a spool belonged to a device), is
//! converted when it is opened (`convert`), in pieces; a crash in between loses nothing, and the next start goes on. A database
//! whose `schema` is newer is refused ([`StoreError::NewerSchema`]). An older version of this program refuses the account
//! records of this one, and leaves its spools alone. A record that cannot be read blocks no other (`unreadable`).
//!
//! **A spool** is named by the login whose session created it ([`SpoolId`]); its row says which device it is for and which
//! login's session reads it, its *owner*. [`Store::take_over`] changes the owner, and a device that turns out to be another
//! changes the device: no stanza is copied. The row of a spool in which nothing is goes when its session ends.
//!
//! **Deletions** run in pieces of at most 256 stanzas, and the writer takes other jobs between two pieces. What is deleted is
//! hidden from readers at once (`pending`, `erase`).
//!
//! **Repeating a call** whose outcome is unknown is safe: [`Store::spool`] passes over what is there already; deletions,
//! [`Store::take_over`] and [`Store::change`] come to the same state; [`Store::adopt_shared`] moves what is left.
//!
//! # The queue
//!
//! No caller waits for room in the writer's queue: it has no bound of its own. It is bounded by what was admitted before, since
//! each session and each upkeep task has one call at work and waits for its answer before the next.
//!
//! # The file
//!
//! redb uses freed pages again but shrinks the file little by itself. A file of 64 MiB or more that is mostly free is
//! renewed, when it is opened and while the store runs (`embedded::compact`): what it holds is copied into a fresh file beside it,
//! which takes its place by a rename. Until the rename the old file is the database, and it was not touched.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use prometheus_client::metrics::counter::Counter;
use redb::{ReadTransaction, ReadableDatabase};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

mod accounts;
mod ageing;
mod deletions;
mod embedded;
mod error;
mod measure;
mod record;
mod row;
mod spool;
mod spools;
#[cfg(test)]
mod tests;
mod tombstone;
mod wake;
mod writer;

pub use accounts::{AccountPage, LoggedIn};
pub use ageing::{Expired, Ttl};
pub use embedded::inherit::Inherited;
pub use embedded::peek::peek;
pub use error::{SpoolBound, StoreError};
pub use measure::Measures;
pub use spool::{Backlog, ITEM_OVERHEAD, Slot, SpoolId, SpoolLimits, Spooled};
pub use tombstone::Tombstone;
pub use wake::{Wake, WakeReason};

use crate::metrics::Latency;
use deletions::Pending;
use embedded::compact;
use embedded::disk::Disk;
use embedded::meta::{self, Logins};
use embedded::transaction::Batch;

use embedded::paths::{InDirectory, inaccessible};
use writer::{Job, Shared, Work};

/// The database's name in the state directory.
const FILE: &str = "pushward.redb";

/// A handle of the store; clones share it. Once the last one is dropped the writer ends, and the database is closed;
/// at once after [`Store::shutdown`].
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
    jobs: mpsc::UnboundedSender<Job>,
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
    /// after a crash the database is repaired first, one of an older version is converted, and a large file that is mostly free
    /// is renewed.
    ///
    /// # Errors
    /// [`StoreError::Inaccessible`], [`StoreError::InUse`], [`StoreError::NewerSchema`], [`StoreError::Database`] if the file is no
    /// database.
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
        disk.with(meta::prepare)?;
        let len = disk.len().map_err(inaccessible(&path))?;
        if compact::is_sparse(len, disk.with(embedded::erase::held)?) {
            compact::shrink(&disk, &mut |copied| !compact::is_vain(len, copied));
        }
        Self::start(disk, limits)
    }

    /// Refuses further changes, for every clone, and returns once all accepted ones were answered and the database is closed.
    /// Can be called again.
    pub async fn shutdown(&self) {
        // An error means that the writer was told before, or has died.
        drop(self.jobs.send(Job::Stop));
        self.ended.cancelled().await;
    }

    /// How many changes were accepted and not answered yet.
    pub fn unanswered(&self) -> u64 {
        self.shared.unanswered.load(Ordering::Relaxed)
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

    /// How many stanzas were lost because the disk has them in a form that cannot be read.
    pub fn lost(&self) -> &Counter {
        &self.shared.lost
    }

    fn start(disk: Disk, limits: SpoolLimits) -> Result<Self, StoreError> {
        disk.with(meta::prepare)?;
        let shared = Arc::new(Shared {
            logins: disk.with(Logins::read)?,
            disk,
            limits: Mutex::new(limits),
            commits: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
            commit_time: Latency::default(),
            lost: Counter::default(),
            pending: Pending::default(),
            hurry: AtomicBool::new(false),
            thread: OnceLock::new(),
        });
        let (jobs, waiting) = mpsc::unbounded_channel();
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
        self.send(Job::Work(work.at_once()))?;
        self.shared.call();
        answered.await.map_err(|_| StoreError::Closed)?
    }

    async fn ask<T>(
        &self,
        (work, answered): (Work, oneshot::Receiver<Result<T, StoreError>>),
    ) -> Result<T, StoreError> {
        self.send(Job::Work(work))?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    /// Puts a job into the writer's queue, without waiting.
    fn send(&self, job: Job) -> Result<(), StoreError> {
        let changes = u64::from(matches!(job, Job::Work(_)));
        self.shared.unanswered.fetch_add(changes, Ordering::Relaxed);
        self.jobs.send(job).map_err(|_| {
            self.shared.answered(changes);
            StoreError::Closed
        })
    }

    /// Somebody now waits behind a change that nobody waited for so far.
    pub(crate) fn hurry(&self) {
        self.shared.hurry.store(true, Ordering::Relaxed);
    }
}
