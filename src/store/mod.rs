//! What must outlive the process: registrations, in one redb database.
//!
//! Reads see what is on disk. Changes go through one writer thread that commits whatever waits as one
//! transaction with one sync, and are answered only then (invariant 2 of the crate).

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::backends::FileBackend;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::jid::BareJid;
use crate::push::registration::{Change, Registration};

mod disk;
mod tables;
#[cfg(test)]
mod tests;
mod writer;

use disk::Disk;
use writer::Job;

/// The database's name in the state directory.
const FILE: &str = "pushward.redb";
/// Changes that wait for the writer; more wait in their callers.
const QUEUE: usize = 1024;

/// Why the store did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The operator's: the directory or the file cannot be made or opened.
    #[error("{path}: {error}; `state` in the configuration must name a directory that this user can write to", path = .path.display())]
    Inaccessible {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        error: Arc<std::io::Error>,
    },
    /// The operator's: another process has the database.
    #[error("the database is in use by another process; is pushward running already, with the same `state`?")]
    InUse,
    /// The disk's: the database cannot be read or written. Whether a change that failed so is on disk is unknown.
    #[error("the database failed: {0}")]
    Database(Arc<redb::Error>),
    /// The operator's: a newer version wrote this record; nothing was changed.
    #[error("the registrations of {account} are of version {version}, which this version cannot read; run a newer one")]
    UnknownVersion {
        /// Whose record it is.
        account: BareJid,
        /// The record's version.
        version: u8,
    },
    /// The disk's: a record that no version wrote; nothing was changed.
    #[error("the registrations of {account} are corrupt: {reason} at byte {at} of {len}")]
    Corrupt {
        /// Whose record it is.
        account: BareJid,
        /// What kind of damage; never the content.
        reason: &'static str,
        /// Where the damage was noticed, in bytes.
        at: usize,
        /// Bytes of the record.
        len: usize,
    },
    /// The machine's: it has no thread for the writer.
    #[error("no thread can be started for the store: {0}")]
    NoThread(Arc<std::io::Error>),
    /// Nobody's: the store was shut down, or its writer has died.
    #[error("the store is shut down")]
    Closed,
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> Self {
        Self::Database(Arc::new(error.into()))
    }
}

/// A handle of the store; clones share it. Once the last one is dropped the writer ends, and the database is closed;
/// at once after [`Store::shutdown`].
#[derive(Clone, Debug)]
pub struct Store {
    disk: Arc<Disk>,
    jobs: mpsc::Sender<Job>,
    commits: Arc<AtomicU64>,
    /// Cancelled when the writer has ended.
    ended: CancellationToken,
}

impl Store {
    /// Opens or creates the database in a directory, which is created with mode 0700; the file has mode 0600. Blocks:
    /// after a crash the database is repaired first.
    ///
    /// # Errors
    /// [`StoreError::Inaccessible`], [`StoreError::InUse`], [`StoreError::Database`] if the file is no database.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let inaccessible = |path: &Path| {
            let path = path.to_owned();
            move |error| StoreError::Inaccessible { path, error: Arc::new(error) }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(inaccessible(directory))?;
        let path = directory.join(FILE);
        let options = || OpenOptions::new().read(true).write(true).to_owned();
        options()
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .and_then(|file| file.set_permissions(Permissions::from_mode(0o600)))
            .map_err(inaccessible(&path))?;
        // Else a crash could lose the file's name, and with it what was committed to the file.
        File::open(directory).and_then(|handle| handle.sync_all()).map_err(inaccessible(directory))?;
        Self::start(Disk::new(move || {
            let file = options().open(&path).map_err(inaccessible(&path))?;
            Ok(Box::new(FileBackend::new(file)?))
        })?)
    }

    /// The registrations of an account, as they are on disk, the most recently seen first.
    ///
    /// # Errors
    /// [`StoreError::UnknownVersion`], [`StoreError::Corrupt`], [`StoreError::Database`]; [`StoreError::Closed`] if the
    /// runtime is shutting down.
    pub async fn registrations(&self, account: &BareJid) -> Result<Vec<Registration>, StoreError> {
        let (disk, account) = (Arc::clone(&self.disk), account.clone());
        let read = tokio::task::spawn_blocking(move || disk.with(|database| tables::read(database, &account)));
        read.await.map_err(|_| StoreError::Closed)?
    }

    /// Changes the registrations of an account and returns them once they are on disk. Changes of an account are
    /// applied in the order of the calls. A change that makes no difference costs no sync.
    ///
    /// Not cancel safe: dropped while waiting, the change may be applied or not.
    ///
    /// # Errors
    /// As [`Store::registrations`], and nothing was changed; except after [`StoreError::Database`], when that is unknown.
    /// [`StoreError::Closed`] after [`Store::shutdown`].
    pub async fn change(&self, account: &BareJid, change: Change) -> Result<Vec<Registration>, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job = Job::Change { account: account.clone(), change, answer };
        self.jobs.send(job).await.map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    /// Refuses further changes, for every clone, and returns once all accepted ones were answered. Can be called again.
    pub async fn shutdown(&self) {
        // An error means that the writer was told before, or has died.
        drop(self.jobs.send(Job::Stop).await);
        self.ended.cancelled().await;
    }

    /// How many transactions were committed since the store was opened; for metrics and tests.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    fn start(disk: Disk) -> Result<Self, StoreError> {
        disk.with(tables::create)?;
        let disk = Arc::new(disk);
        let commits = Arc::new(AtomicU64::new(0));
        let (jobs, waiting) = mpsc::channel(QUEUE);
        let ended = CancellationToken::new();
        writer::spawn(Arc::clone(&disk), Arc::clone(&commits), waiting, ended.clone().drop_guard())
            .map_err(|error| StoreError::NoThread(Arc::new(error)))?;
        Ok(Self { disk, jobs, commits, ended })
    }
}
