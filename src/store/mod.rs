//! The persistent state: accounts, the stanzas that wait for their devices, tombstones and wakes. [`Store`] is the handle that
//! `relay` uses for sessions and upkeep; [`StoreError`] is what its calls return.
//!
//! ```text
//!  callers ── Store ── accounts, spools: calls become an Op or a Query ─────┐
//!               │                                                           │ reads
//!             writer: groups, windows, patience, bounds, lazy deletions     │
//!               │ commit(group of Op) → outcome of each                     │
//!             engine: interface ────────────────────────────────────────────┘
//!               ├── embedded: redb in the state directory, for one process
//!               └── postgres: PostgreSQL, for one node or several
//! ```
//!
//! | file | content |
//! |---|---|
//! | `accounts`, `spools`, `ageing` | the calls of the store |
//! | `writer` | the one thread that commits groups of writes |
//! | `deletions`, `counts`, `newest`, `logins` | the state in memory that the writer and the calls use |
//! | `tasks`, `shared` | the jobs and the state that calls and the writer share |
//! | `claims`, `ownership`, `lease`, `nodes` | the accounts that this node owns, where several share a database, its right to act, and the others |
//! | `engine`, `op`, `query` | the interface of an engine: writes, reads and outcomes as data |
//! | `engines` | the choice of an engine |
//! | `embedded`, `postgres` | the engines |
//! | `schema` | tables, keys, records, version |
//! | `values`, `error` | the types that callers use |
//!
//! Reads return what is on disk. Changes go through one writer thread. It commits all waiting changes as one transaction with
//! one sync and answers them only then (invariant 2 of the crate). Deletions of delivered stanzas may wait for the next
//! transaction. A login is answered as soon as it has its place in the order, because nothing has been promised to anyone by
//! then; it is committed before the changes that follow from it.
//!
//! **A spool** is named by the login whose session created it ([`SpoolId`]). Its row says which device it is for and which
//! login's session reads it, its *owner*. [`Store::take_over`] changes the owner, and if a device turns out to be another
//! known device, the row gets that one: no stanza is copied. The row of an empty spool is deleted when its session ends. The
//! stanzas of a spool are counted in memory; on disk each is one row.
//!
//! **Outcomes.** A write is committed, is refused (a bound, a disk that is full or fails), or has an unknown outcome. If the
//! outcome is unknown, the same group is committed again until it is known. A caller waits for `[store] patience`; after that
//! the write counts as refused ([`StoreError::NoAnswer`]). If its stanzas come into a spool after all, they are deleted again
//! and never read: their session may have returned them to their senders, or may hand them over again under the same numbers.
//!
//! **Repeating a call** whose outcome is unknown is safe: [`Store::spool`] skips stanzas that are there already; deletions,
//! [`Store::take_over`] and [`Store::change`] lead to the same state; [`Store::adopt_shared`] moves what is left.
//!
//! # The queue
//!
//! The writer's queue has no bound of its own, so no caller waits for room in it. It is bounded by its users: each session and
//! each upkeep task has one call in progress and waits for its answer before the next.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::num::NonZeroU64;
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
mod ageing;
mod claims;
mod counts;
mod deletions;
mod embedded;
mod engine;
mod engines;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod lease;
mod logins;
mod newest;
mod nodes;
mod op;
mod ownership;
mod postgres;
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
pub use error::{DatabaseFailure, SpoolBound, StoreError};
pub use lease::Lease;
pub use ownership::AccountOwnership;
pub use postgres::probe::{DatabaseState, probe as probe_postgres};
pub use postgres::settings::{NodeEntry, PostgresSettings};
pub use schema::DATABASE_VERSIONS_READ;
pub use values::{
    AccountPage, AccountScope, Backlog, ChangedAccount, Expired, ITEM_OVERHEAD, InheritedSpool, LoggedIn, LoginKey,
    Measures, NodeRecord, Slot, SpoolId, SpoolLimits, Tombstone, Ttl, Wake, WakeReason,
};

use crate::metrics::Latency;
use crate::secret::Secret;
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
use ownership::OwnedAccounts;
use query::{Query, QueryAnswer};
use shared::{CommitCounts, FoundState, PATIENCE, Shared};
use tasks::{Job, PendingOutcome, Task, TaskKind, TaskWait, Ticket};

/// A handle to the store; clones share it. When the last one is dropped, or at once after [`Store::shutdown`], the writer ends
/// and the database is closed.
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
    jobs: mpsc::UnboundedSender<Job>,
    /// Cancelled when the writer has ended.
    ended: CancellationToken,
}

/// The calls of a [`Store`] about the nodes that share its database. A database of one process has no nodes.
#[derive(Clone, Copy, Debug)]
pub struct NodeCalls<'a>(&'a Store);

impl Store {
    /// As [`Store::open_with`], with the default bounds of the spool.
    ///
    /// # Errors
    /// As [`Store::open_with`].
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        Self::open_with(directory, SpoolLimits::default())
    }

    /// Opens or creates the database in a directory, which is created with mode 0700; the file has mode 0600. Blocks: after a
    /// crash the database is repaired first, one of an older version is converted, and a large file that is mostly free is
    /// compacted.
    ///
    /// # Errors
    /// [`StoreError::Inaccessible`], [`StoreError::InUse`], [`StoreError::NewerSchema`], [`StoreError::Database`] if the file is
    /// no database.
    pub fn open_with(directory: &Path, limits: SpoolLimits) -> Result<Self, StoreError> {
        Self::create_directory(directory)?;
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
        // Without this sync, a crash could lose the file's name, and with it what was committed to the file.
        File::open(directory).and_then(|handle| handle.sync_all()).map_err(inaccessible(directory))?;
        let engine = Embedded::new(Disk::new(InDirectory::new(directory))?)?;
        let opening = engine.opening()?;
        engine.compact_if_sparse(&opening).map_err(inaccessible(&path))?;
        Self::begin(Engines::Embedded(engine), opening, limits, None)
    }

    /// Creates the state directory with mode 0700, if it is missing.
    ///
    /// # Errors
    /// [`StoreError::Inaccessible`].
    pub fn create_directory(directory: &Path) -> Result<(), StoreError> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(inaccessible(directory))
    }

    #[cfg(test)]
    fn start(engine: Engines, limits: SpoolLimits) -> Result<Self, StoreError> {
        let opening = engine.opening()?;
        Self::begin(engine, opening, limits, None)
    }

    fn begin(
        engine: Engines,
        mut opening: OpeningState,
        limits: SpoolLimits,
        owners: Option<Arc<OwnedAccounts>>,
    ) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared {
            engine,
            limits: Mutex::new(limits),
            patience: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
            committed: CommitCounts::default(),
            lost: Counter::default(),
            deletions: Deletions::default(),
            counts: SpoolCounts::new(std::mem::take(&mut opening.counts)),
            newest: NewestRecords::behind(opening.revision),
            logins: Logins::behind(opening.login),
            owners,
            kept: Mutex::default(),
            found: FoundState { resource_key: std::mem::take(&mut opening.resource_key), handover: opening.handover },
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

    /// Refuses further changes, for every clone, and returns once all accepted ones are answered and the database is closed.
    /// May be called again.
    pub async fn shutdown(&self) {
        self.shared.is_stopping.store(true, Ordering::Relaxed);
        // An error means that the writer has ended already.
        drop(self.jobs.send(Job::Stop));
        self.ended.cancelled().await;
    }

    /// Returns the random key of this database for the resources of clients ([`Fronting`](crate::session::fronting::Fronting)).
    pub fn resource_key(&self) -> Secret<u128> {
        self.shared.found.resource_key.clone()
    }

    /// Returns the number of the handover that the previous process had begun when the database was opened.
    /// [`Store::recover`] removes it from the database, so that a handover is used at most once.
    pub fn handover(&self) -> Option<NonZeroU64> {
        self.shared.found.handover
    }

    /// Notes on disk that a handover with this number was begun.
    ///
    /// # Errors
    /// As [`Store::change`].
    pub async fn begin_handover(&self, number: NonZeroU64) -> Result<(), StoreError> {
        self.write(Op::SaveHandover { number }).await?;
        // Otherwise another node could claim an account before the next process has taken up its sessions.
        self.shared.owners.iter().for_each(|owners| owners.keep_all());
        Ok(())
    }

    /// Returns the number of changes that were accepted and are not answered yet.
    pub fn unanswered(&self) -> u64 {
        self.shared.unanswered.load(Ordering::Relaxed)
    }

    /// Sets the bounds of the spool. Stanzas that wait already are kept.
    pub fn set_limits(&self, limits: SpoolLimits) {
        *lock(&self.shared.limits) = limits;
    }

    /// Sets how long a call waits for a database that does not answer: `[store] patience`.
    pub fn set_patience(&self, patience: Duration) {
        let milliseconds = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        self.shared.patience.store(milliseconds, Ordering::Relaxed);
    }

    /// Returns the number of transactions committed since the store was opened, for metrics and tests.
    pub fn commits(&self) -> u64 {
        self.shared.committed.number.load(Ordering::Relaxed)
    }

    /// Returns the durations of the commits.
    pub fn commit_time(&self) -> &Latency {
        &self.shared.committed.time
    }

    /// Returns the number of stanzas that were lost: unreadable on disk, or deleted with their device before any client had
    /// fetched them.
    pub fn lost(&self) -> &Counter {
        &self.shared.lost
    }

    /// Returns the numbers of records in the database and the size of its file in this directory.
    ///
    /// # Errors
    /// As [`Store::account`].
    pub async fn measures(&self, directory: &Path) -> Result<Measures, StoreError> {
        let QueryAnswer::Sizes { accounts, wakes } = self.read(Query::Sizes).await? else {
            return Err(StoreError::WrongAnswer);
        };
        let directory = directory.to_owned();
        // The file system may stall as well.
        let file = tokio::task::spawn_blocking(move || Self::file_size(&directory)).await;
        let file = file.map_err(|_| StoreError::Closed)?.unwrap_or_default();
        let (stanzas, bytes) = self.shared.counts.on_disk();
        Ok(Measures { accounts, wakes, stanzas, bytes, file })
    }

    /// Returns an error if the database cannot be read or, as far as is known, cannot be written.
    ///
    /// # Errors
    /// The error of the database.
    pub async fn health(&self) -> Result<(), StoreError> {
        self.shared.engine.health().await
    }

    /// Returns the size in bytes of the database file in a directory.
    ///
    /// # Errors
    /// The error of the system.
    pub fn file_size(directory: &Path) -> io::Result<u64> {
        Ok(std::fs::metadata(directory.join(FILE))?.len())
    }

    /// Makes the writer commit sooner: a caller now waits for a change that no caller waited for so far.
    pub(crate) fn hurry(&self) {
        self.shared.hurry.store(true, Ordering::Relaxed);
    }

    /// Reads from the database, as of the last commit.
    async fn read(&self, query: Query) -> Result<QueryAnswer, StoreError> {
        let patience = self.shared.patience();
        match timeout(patience, self.shared.engine.read(query)).await {
            Ok(answer) => answer,
            Err(_) => Err(StoreError::NoAnswer { within: patience }),
        }
    }

    /// Sends a write to the writer and returns the outcome once it is on disk.
    async fn write(&self, op: Op) -> Result<Effect, StoreError> {
        self.ask(TaskKind::Write(op), 0, TaskWait::Commit, None).await
    }

    /// Sends a task to the writer and waits for its outcome. `weight`: the bytes that it adds. `behalf`: the session for which
    /// it is done.
    async fn ask(
        &self,
        kind: TaskKind,
        weight: usize,
        awaited: TaskWait,
        behalf: Option<SpoolId>,
    ) -> Result<Effect, StoreError> {
        let (ticket, pending) = Ticket::new();
        self.send(Task { kind, weight, awaited, ticket, behalf, change: None, is_second_try: false })?;
        self.wait(pending).await
    }

    /// As [`Store::ask`], without `[store] patience`.
    async fn ask_until_known(&self, kind: TaskKind, behalf: SpoolId) -> Result<Effect, StoreError> {
        let (ticket, pending) = Ticket::without_end();
        let (awaited, behalf) = (TaskWait::Commit, Some(behalf));
        self.send(Task { kind, weight: 0, awaited, ticket, behalf, change: None, is_second_try: false })?;
        pending.answered.await.map_err(|_| StoreError::Closed)?
    }

    /// Waits for an outcome, for as long as `[store] patience`.
    async fn wait(&self, mut pending: PendingOutcome) -> Result<Effect, StoreError> {
        let patience = self.shared.patience();
        match timeout(patience, &mut pending.answered).await {
            Ok(answer) => answer.map_err(|_| StoreError::Closed)?,
            Err(_) => pending.give_up().unwrap_or(Err(StoreError::NoAnswer { within: patience })),
        }
    }

    /// Puts a task into the writer's queue without waiting.
    fn send(&self, task: Task) -> Result<(), StoreError> {
        self.sent(self.enqueue(task))
    }

    /// As [`Store::send`], for a caller that holds a lock. After releasing it, the caller must pass the result to
    /// [`Store::sent`], which answers a task that the queue did not take.
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
