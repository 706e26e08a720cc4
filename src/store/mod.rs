//! What must outlive the process: accounts, the stanzas that wait for their devices, tombstones and wakes.
//!
//! ```text
//!  callers ── Store ── accounts, spools: calls become an Op or a Query ─────┐
//!               │                                                           │ reads
//!             writer: groups, windows, patience, bounds, lazy deletions     │
//!               │ commit(group of Op) → outcome of each                     │
//!             engine: the seam ─────────────────────────────────────────────┘
//!               └── embedded: redb in the state directory
//! ```
//!
//! | file | content |
//! |---|---|
//! | `accounts`, `spools` | the calls of the store |
//! | `writer` | the one thread that has groups of writes committed |
//! | `deletions`, `counts`, `newest`, `logins` | what the writer and the calls know in memory |
//! | `tasks`, `shared` | what calls and the writer hand to each other |
//! | `engine`, `op`, `query` | the seam: writes, reads and outcomes as data |
//! | `engines` | the choice of an engine |
//! | `embedded` | redb |
//! | `schema` | tables, keys, records, version |
//! | `values`, `error` | what callers see |
//!
//! Reads see what is on disk. Changes go through one writer thread that has whatever waits committed as one transaction with
//! one sync, and are answered only then (invariant 2 of the crate); deletions of what was delivered may wait for the next.
//! A login promises nothing to anybody: it is answered when it is in order, and what it leads to is stored behind it.
//!
//! **A spool** is named by the login whose session created it ([`SpoolId`]); its row says which device it is for and which
//! login's session reads it, its *owner*. [`Store::take_over`] changes the owner, and a device that turns out to be another
//! changes the device: no stanza is copied. The row of a spool in which nothing is goes when its session ends. What is in a spool
//! is counted in memory; on disk a stanza is one row.
//!
//! **Outcomes.** A write is committed, refused (a bound, a disk that is full or fails), or its outcome is unknown. Then the same
//! is asked again until it is known. A caller waits for `[store] patience`; after that the write counts as refused
//! ([`StoreError::NoAnswer`]), and stanzas that come into a spool all the same are deleted again and read by nobody: their
//! session may have given them back to their senders, or hand them over again under the same numbers.
//!
//! **Repeating a call** whose outcome is unknown is safe: [`Store::spool`] passes over what is there already; deletions,
//! [`Store::take_over`] and [`Store::change`] come to the same state; [`Store::adopt_shared`] moves what is left.
//!
//! # The queue
//!
//! No caller waits for room in the writer's queue: it has no bound of its own. It is bounded by what was admitted before, since
//! each session and each upkeep task has one call at work and waits for its answer before the next.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

mod accounts;
mod counts;
mod deletions;
mod embedded;
mod engine;
mod engines;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod logins;
mod newest;
mod op;
mod query;
mod schema;
mod shared;
mod spools;
mod tasks;
#[cfg(test)]
pub(crate) mod tests;
mod values;
mod writer;

pub use crate::session::queue::Spooled;
pub use embedded::peek::peek;
pub use error::{SpoolBound, StoreError};
pub use values::{
    AccountPage, Backlog, Expired, ITEM_OVERHEAD, InheritedSpool, LoggedIn, Measures, Slot, SpoolId, SpoolLimits,
    Tombstone, Ttl, Wake, WakeReason,
};

use crate::metrics::Latency;
use crate::sync::lock;
use counts::SpoolCounts;
use deletions::Deletions;
use embedded::Embedded;
use embedded::disk::Disk;
use embedded::paths::{FILE, InDirectory, inaccessible};
use engine::{Engine, OpeningState};
use engines::Engines;
use logins::Logins;
use newest::NewestRecords;
use op::{Effect, Op};
use query::{Query, QueryAnswer};
use shared::{PATIENCE, Shared};
use tasks::{Asking, Job, Task, TaskWait, Ticket, What};

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
    /// is compacted.
    ///
    /// # Errors
    /// [`StoreError::Inaccessible`], [`StoreError::InUse`], [`StoreError::NewerSchema`], [`StoreError::Database`] if the file is
    /// no database.
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
        let engine = Embedded::new(Disk::new(InDirectory::new(directory))?)?;
        let opening = engine.opening()?;
        engine.compact_if_sparse(&opening).map_err(inaccessible(&path))?;
        Self::begin(Engines::Embedded(engine), opening, limits)
    }

    #[cfg(test)]
    fn start(engine: Engines, limits: SpoolLimits) -> Result<Self, StoreError> {
        let opening = engine.opening()?;
        Self::begin(engine, opening, limits)
    }

    fn begin(engine: Engines, mut opening: OpeningState, limits: SpoolLimits) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared {
            engine,
            limits: Mutex::new(limits),
            patience: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
            commit_time: Latency::default(),
            lost: Counter::default(),
            deletions: Deletions::default(),
            counts: SpoolCounts::new(std::mem::take(&mut opening.counts)),
            newest: NewestRecords::behind(opening.revision),
            logins: Logins::behind(opening.login),
            hurry: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
        });
        let (jobs, waiting) = mpsc::unbounded_channel();
        let ended = CancellationToken::new();
        writer::spawn(Arc::clone(&shared), waiting, &opening, ended.clone().drop_guard())
            .map_err(|error| StoreError::NoThread(Arc::new(error)))?;
        let store = Self { shared, jobs, ended };
        store.set_patience(PATIENCE);
        Ok(store)
    }

    /// Refuses further changes, for every clone, and returns once all accepted ones were answered and the database is closed.
    /// Can be called again.
    pub async fn shutdown(&self) {
        self.shared.is_stopping.store(true, Ordering::Relaxed);
        // An error means that the writer was told before, or has died.
        drop(self.jobs.send(Job::Stop));
        self.ended.cancelled().await;
    }

    /// The number of changes that were accepted and not answered yet.
    pub fn unanswered(&self) -> u64 {
        self.shared.unanswered.load(Ordering::Relaxed)
    }

    /// Sets other bounds of the spool; what waits already stays.
    pub fn set_limits(&self, limits: SpoolLimits) {
        *lock(&self.shared.limits) = limits;
    }

    /// Sets how long a call waits for a database that does not answer: `[store] patience`.
    pub fn set_patience(&self, patience: Duration) {
        let milliseconds = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        self.shared.patience.store(milliseconds, Ordering::Relaxed);
    }

    /// The number of transactions that were committed since the store was opened; for metrics and tests.
    pub fn commits(&self) -> u64 {
        self.shared.commits.load(Ordering::Relaxed)
    }

    /// How long commits take.
    pub fn commit_time(&self) -> &Latency {
        &self.shared.commit_time
    }

    /// The number of stanzas that were lost because the disk has them in a form that cannot be read.
    pub fn lost(&self) -> &Counter {
        &self.shared.lost
    }

    /// What the database in a directory holds.
    ///
    /// # Errors
    /// As [`Store::account`].
    pub async fn measures(&self, directory: &Path) -> Result<Measures, StoreError> {
        let QueryAnswer::Sizes { accounts, wakes } = self.read(Query::Sizes).await? else {
            return Err(StoreError::Mistaken);
        };
        let directory = directory.to_owned();
        // The file system may stall too.
        let file = tokio::task::spawn_blocking(move || Self::file_size(&directory)).await;
        let file = file.map_err(|_| StoreError::Closed)?.unwrap_or_default();
        let (stanzas, bytes) = self.shared.counts.on_disk();
        Ok(Measures { accounts, wakes, stanzas, bytes, file })
    }

    /// Returns an error if the database cannot be read, or not be written as far as is known.
    ///
    /// # Errors
    /// What is wrong.
    pub async fn health(&self) -> Result<(), StoreError> {
        self.shared.engine.health().await
    }

    /// Bytes of the database's file in a directory.
    ///
    /// # Errors
    /// What the system says.
    pub fn file_size(directory: &Path) -> io::Result<u64> {
        Ok(std::fs::metadata(directory.join(FILE))?.len())
    }

    /// Lets the writer hurry: somebody now waits behind a change that nobody waited for so far.
    pub(crate) fn hurry(&self) {
        self.shared.hurry.store(true, Ordering::Relaxed);
    }

    /// Reads what the last commit left.
    async fn read(&self, query: Query) -> Result<QueryAnswer, StoreError> {
        let patience = self.shared.patience();
        match timeout(patience, self.shared.engine.read(query)).await {
            Ok(answer) => answer,
            Err(_) => Err(StoreError::NoAnswer { within: patience }),
        }
    }

    /// Has the writer do something, and returns the outcome once it is on disk.
    async fn write(&self, op: Op) -> Result<Effect, StoreError> {
        self.ask(What::Write(op), 0, TaskWait::Commit, None).await
    }

    /// The same with all that can be said of a task. `weight`: bytes that it brings; `behalf`: the session for which it is.
    async fn ask(
        &self,
        what: What,
        weight: usize,
        awaited: TaskWait,
        behalf: Option<SpoolId>,
    ) -> Result<Effect, StoreError> {
        let (ticket, asking) = Ticket::new();
        self.send(Task { what, weight, awaited, ticket, behalf, change: None, is_second_try: false })?;
        self.wait(asking).await
    }

    /// Waits for an outcome as long as a caller does.
    async fn wait(&self, mut asking: Asking) -> Result<Effect, StoreError> {
        let patience = self.shared.patience();
        match timeout(patience, &mut asking.answered).await {
            Ok(answer) => answer.map_err(|_| StoreError::Closed)?,
            Err(_) => asking.give_up().unwrap_or(Err(StoreError::NoAnswer { within: patience })),
        }
    }

    /// Puts a task into the writer's queue, without waiting.
    fn send(&self, task: Task) -> Result<(), StoreError> {
        self.sent(self.enqueue(task))
    }

    /// The same, for a caller that holds a lock: what the queue does not take must go to [`Store::sent`] behind that.
    fn enqueue(&self, task: Task) -> Result<(), Box<Task>> {
        self.shared.unanswered.fetch_add(1, Ordering::Relaxed);
        match self.jobs.send(Job::Task(Box::new(task))) {
            Err(mpsc::error::SendError(Job::Task(task))) => Err(task),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn sent(&self, sent: Result<(), Box<Task>>) -> Result<(), StoreError> {
        let Err(task) = sent else { return Ok(()) };
        self.shared.answer(task.ticket, task.change, Err(StoreError::Closed));
        Err(StoreError::Closed)
    }
}
