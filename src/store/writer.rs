//! The one thread that writes: group commit.

mod group;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::Duration;
use std::{fmt, io};

use prometheus_client::metrics::counter::Counter;
use redb::Database;
use tokio::runtime::{self, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::DropGuard;

use self::group::{Group, Window};
use super::StoreError;
use super::deletions::Pending;
use super::embedded::compact::{self, Renewal};
use super::embedded::disk::Disk;
use super::embedded::erase::Budget;
use super::embedded::meta::Logins;
use super::embedded::transaction::Batch;
use super::row::Totals;
use super::spool::{SpoolId, SpoolLimits};
use crate::limits::Seldom;
use crate::metrics::Latency;

/// While commits follow each other this closely, each waits a little, so that more goes into one: a commit costs the processor
/// and the disk as much for one job as for many.
const BUSY: Duration = Duration::from_millis(20);
/// How long a deletion may wait for another job's commit.
const LAZY: Duration = Duration::from_secs(1);
/// How long a transaction goes on deleting, piece by piece, while nobody waits for its commit. On a disk that is slow to commit it is
/// longer, see [`Writer::erase`].
const ERASING: Duration = Duration::from_millis(10);

/// What the writer is asked for.
#[derive(Debug)]
pub(super) enum Job {
    /// Do this in the next transaction.
    Work(Work),
    /// Delete what is in a spool up to this place, with the next transactions or in a second.
    Unspool { spool: SpoolId, up_to: u64, accepted: oneshot::Sender<()> },
    /// Take no more jobs, and end once the accepted ones are answered.
    Stop,
}

/// Answers a caller, once it is known whether the transaction was committed.
type Reply = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

type Perform = dyn FnMut(Result<&mut Batch<'_>, StoreError>) -> Turn + Send;

/// What came of a job's turn.
enum Turn {
    /// It is done; also the error that the whole transaction fails with, if there was one.
    Done(Reply, Option<StoreError>),
    /// It is to have another turn, after the others.
    More,
}

/// What whoever asks for something waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    /// That it is on disk.
    Commit,
    /// The same, but what asked for it goes on meanwhile.
    CommitSometime,
    /// That it is in order: it is answered at once.
    Turn,
}

/// Something to do in a transaction.
pub(super) struct Work {
    /// Bytes that it brings.
    weight: usize,
    awaited: Awaited,
    perform: Box<Perform>,
}

impl Work {
    /// Wraps what is to be done, and returns where its result will be. It must not have changed anything if it ends with
    /// another error than [`StoreError::Database`].
    pub(super) fn new<T: Send + 'static>(
        weight: usize,
        work: impl FnOnce(&mut Batch<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> (Self, oneshot::Receiver<Result<T, StoreError>>) {
        let mut work = Some(work);
        let (once, answered) = Self::in_pieces(move |batch| match work.take() {
            Some(work) => work(batch).map(Some),
            None => Err(StoreError::Closed),
        });
        (Self { weight, ..once }, answered)
    }

    /// The same for what takes several turns, perhaps in several transactions: `None` asks for another. A turn must be such that
    /// it can be repeated, if its transaction fails.
    pub(super) fn in_pieces<T: Send + 'static>(
        mut work: impl FnMut(&mut Batch<'_>) -> Result<Option<T>, StoreError> + Send + 'static,
    ) -> (Self, oneshot::Receiver<Result<T, StoreError>>) {
        let (answer, answered) = oneshot::channel();
        let mut answer = Some(answer);
        let perform = move |batch: Result<&mut Batch<'_>, StoreError>| {
            let result = match batch.and_then(&mut work) {
                Ok(None) => return Turn::More,
                Ok(Some(result)) => Ok(result),
                Err(error) => Err(error),
            };
            let fatal = result.as_ref().err().filter(|error| matches!(error, StoreError::Database(_))).cloned();
            let answer = answer.take();
            let reply = move |committed: Result<(), StoreError>| {
                // A caller that was cancelled no longer waits; what it asked for stands.
                if let Some(answer) = answer {
                    drop(answer.send(committed.and(result)));
                }
            };
            Turn::Done(Box::new(reply), fatal)
        };
        (Self { weight: 0, awaited: Awaited::Commit, perform: Box::new(perform) }, answered)
    }

    /// Nobody waits for it: while many jobs come, it may wait longer than others.
    pub(super) fn patiently(self) -> Self {
        Self { awaited: Awaited::CommitSometime, ..self }
    }

    /// It is answered as soon as it was performed, be it lost with its transaction. [`Shared::call`] lets the writer know.
    pub(super) fn at_once(self) -> Self {
        Self { awaited: Awaited::Turn, ..self }
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work").field("weight", &self.weight).finish_non_exhaustive()
    }
}

/// What the writer shares with the handles of the store.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) disk: Disk,
    pub(super) limits: Mutex<SpoolLimits>,
    pub(super) commits: AtomicU64,
    /// Changes that were accepted and not answered.
    pub(super) unanswered: AtomicU64,
    pub(super) commit_time: Latency,
    /// Stanzas that are lost because they cannot be read.
    pub(super) lost: Counter,
    pub(super) pending: Pending,
    pub(super) logins: Logins,
    /// Somebody now waits behind a patient job.
    pub(super) hurry: AtomicBool,
    /// The writer's own.
    pub(super) thread: OnceLock<Thread>,
}

impl Shared {
    pub(super) fn limits(&self) -> SpoolLimits {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many changes were answered.
    pub(super) fn answered(&self, changes: u64) {
        self.unanswered.fetch_sub(changes, Ordering::Relaxed);
    }

    /// A job is in the queue that is answered at once, also by a writer that waits for more.
    pub(super) fn call(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

/// Starts the thread. It ends after [`Job::Stop`], or when all senders are gone and the queue is empty; then it drops
/// `ended`.
pub(super) fn spawn(shared: Arc<Shared>, jobs: mpsc::UnboundedReceiver<Job>, ended: DropGuard) -> io::Result<()> {
    let timer = runtime::Builder::new_current_thread().enable_time().build()?;
    let renewal = Renewal::new(Instant::now());
    let writer = Writer {
        shared,
        timer,
        totals: None,
        // What a crash left doomed.
        due: Some(Instant::now()),
        unfinished: VecDeque::new(),
        committed: None,
        commit_took: Duration::ZERO,
        renewal,
        failures: Seldom::default(),
    };
    std::thread::Builder::new()
        .name("store".to_owned())
        .spawn(move || {
            let _ended = ended;
            let shared = Arc::clone(&writer.shared);
            shared.thread.get_or_init(std::thread::current);
            writer.run(jobs);
            // Whoever has a handle still cannot keep it open.
            shared.disk.close();
        })
        .map(drop)
}

struct Writer {
    shared: Arc<Shared>,
    /// Waits for jobs.
    timer: Runtime,
    /// Bytes that wait, unless they are to be counted again.
    totals: Option<Totals>,
    /// When deletions must wait no longer.
    due: Option<Instant>,
    /// Jobs that are to have another turn.
    unfinished: VecDeque<Work>,
    /// When the last transaction was committed.
    committed: Option<Instant>,
    /// How long that took.
    commit_took: Duration,
    renewal: Renewal,
    /// Lines about what was not stored: while the disk fails, any client can cause them.
    failures: Seldom,
}

/// Why the writer goes on.
enum Next {
    Job(Job),
    Due,
    Renew,
    Closed,
}

impl Writer {
    fn run(mut self, mut jobs: mpsc::UnboundedReceiver<Job>) {
        loop {
            let mut group = Group::default();
            group.go_on_with(&self.unfinished);
            if group.works == 0 {
                match self.next(&mut jobs) {
                    Next::Job(job) => group.push(job, &mut jobs),
                    Next::Due => group.settle(),
                    Next::Renew => {
                        self.renew(&jobs);
                        continue;
                    }
                    Next::Closed => break,
                }
            }
            group.fill(&mut jobs);
            self.perform(group, &mut jobs);
        }
        if !self.shared.pending.is_empty() {
            let mut group = Group::default();
            group.settle_all();
            self.perform(group, &mut jobs);
        }
    }

    fn next(&self, jobs: &mut mpsc::UnboundedReceiver<Job>) -> Next {
        let renewal = self.renewal.deadline();
        // It does not wait behind jobs that never end.
        if renewal.is_some_and(|at| at <= Instant::now()) {
            return Next::Renew;
        }
        let job = match self.due.into_iter().chain(renewal).min() {
            Some(until) => match self.timer.block_on(async { timeout_at(until, jobs.recv()).await }) {
                Ok(job) => job,
                Err(_) if self.due == Some(until) => return Next::Due,
                Err(_) => return Next::Renew,
            },
            None => jobs.blocking_recv(),
        };
        job.map_or(Next::Closed, Next::Job)
    }

    /// Renews the file; gives up if jobs wait for too long.
    fn renew(&mut self, jobs: &mpsc::UnboundedReceiver<Job>) {
        let began = Instant::now();
        let len = self.shared.disk.len().unwrap_or_default();
        let mut vain = None;
        let renewed = compact::shrink(&self.shared.disk, &mut |copied| {
            vain = compact::is_vain(len, copied).then_some(len);
            vain.is_none() && (began.elapsed() < compact::BUDGET || jobs.is_empty())
        });
        if renewed {
            self.renewal.succeeded(Instant::now());
        } else {
            self.renewal.failed(Instant::now(), vain);
        }
    }

    /// Performs a group, and what joins it, as one transaction and answers each of its jobs.
    fn perform(&mut self, mut group: Group, incoming: &mut mpsc::UnboundedReceiver<Job>) {
        let mut replies = Vec::with_capacity(group.works);
        let shared = Arc::clone(&self.shared);
        let mut outcome = Ok(());
        if group.works > 0 {
            shared.disk.ensure_open();
            outcome = shared.disk.with(|database| self.commit(database, &mut group, incoming, &mut replies));
        }
        if let Err(error) = &outcome {
            if let Some(suppressed) = self.failures.next() {
                tracing::error!(%error, jobs = group.works, suppressed, "nothing was stored");
            }
            // Deletions go with the next transaction that succeeds.
            self.due = None;
            self.totals = None;
            shared.disk.recover(error);
            let failed = self.unfinished.drain(..).map(Job::Work);
            group.jobs.extend(failed);
        }
        for job in group.jobs {
            match (job, &outcome) {
                (Job::Work(mut work), Err(error)) => {
                    if let Turn::Done(reply, _) = (work.perform)(Err(error.clone())) {
                        replies.push(reply);
                    }
                }
                (Job::Work(_), Ok(())) | (Job::Stop, _) => {}
                (Job::Unspool { spool, up_to, accepted }, outcome) => {
                    if outcome.is_ok() {
                        self.due.get_or_insert_with(|| Instant::now() + LAZY);
                    }
                    shared.pending.hide(&spool, &[0..=up_to]);
                    // A caller that was cancelled no longer waits.
                    accepted.send(()).ok();
                }
            }
        }
        for reply in replies {
            shared.answered(1);
            reply(outcome.clone());
        }
    }

    fn perform_one(&mut self, job: Job, batch: &mut Batch<'_>, replies: &mut Vec<Reply>) -> Result<(), StoreError> {
        match job {
            Job::Work(mut work) => {
                let at_once = work.awaited == Awaited::Turn;
                let (reply, fatal) = match (work.perform)(Ok(&mut *batch)) {
                    Turn::Done(reply, fatal) => (reply, fatal),
                    Turn::More => {
                        self.unfinished.push_back(work);
                        return Ok(());
                    }
                };
                if at_once {
                    self.shared.answered(1);
                    reply(Ok(()));
                } else {
                    replies.push(reply);
                }
                fatal.map_or(Ok(()), Err)
            }
            Job::Unspool { spool, up_to, accepted } => {
                self.due.get_or_insert_with(|| Instant::now() + LAZY);
                // From here on, it is in order, and readers see it.
                batch.hide(&spool, &[0..=up_to]);
                accepted.send(()).ok();
                Ok(())
            }
            Job::Stop => Ok(()),
        }
    }

    /// Takes the jobs and performs them, until one fails the transaction; while many come, waits for more.
    fn commit(
        &mut self,
        database: &Database,
        group: &mut Group,
        incoming: &mut mpsc::UnboundedReceiver<Job>,
        replies: &mut Vec<Reply>,
    ) -> Result<(), StoreError> {
        let busy = self.committed.is_some_and(|at| at.elapsed() < BUSY);
        let mut window = busy.then(Window::open);
        let shared = Arc::clone(&self.shared);
        let transaction = database.begin_write()?;
        let mut batch = Batch::open(
            &transaction,
            (&shared.pending, &shared.logins, &shared.lost),
            shared.limits(),
            self.totals.take(),
        )?;
        loop {
            while let Some(job) = group.jobs.pop_front() {
                self.perform_one(job, &mut batch, replies)?;
            }
            if !window.as_mut().is_some_and(|window| window.more(&shared, group, incoming)) {
                break;
            }
        }
        let more = self.erase(&mut batch, group, incoming, replies)?;
        let (differs, totals) = (batch.differs, std::mem::take(&mut batch.totals));
        let (swept, removals) = (std::mem::take(&mut batch.swept), std::mem::take(&mut batch.removals));
        drop(batch);
        if differs {
            let began = std::time::Instant::now();
            transaction.commit()?;
            self.commit_took = began.elapsed();
            shared.commit_time.observe(self.commit_took);
            shared.commits.fetch_add(1, Ordering::Relaxed);
            let now = Instant::now();
            self.committed = Some(now);
            // While more is to be deleted, a copy would have that too. One that cannot be measured is not renewed.
            let held = if more { u64::MAX } else { totals.all() };
            self.renewal.committed(now, shared.disk.len().unwrap_or_default(), held);
        } else {
            transaction.abort()?;
        }
        self.totals = Some(totals);
        removals.iter().for_each(|(account, up_to)| shared.pending.removed(account, *up_to));
        swept.iter().for_each(|(spool, below)| shared.pending.gone(spool, *below));
        self.due = match more {
            true => Some(Instant::now()),
            false => self.due.filter(|_| !shared.pending.is_empty()),
        };
        Ok(())
    }

    /// Deletes what waits for it, piece by piece, if the transaction is committed anyway or the time has come, and has other
    /// jobs performed in between. Returns whether more is left.
    ///
    /// It goes on for a time that adds at most half to that of a commit, and always deletes more than the transaction adds: so
    /// what waits for deletion does not grow, however many stanzas come and however slow the disk is.
    fn erase(
        &mut self,
        batch: &mut Batch<'_>,
        group: &mut Group,
        incoming: &mut mpsc::UnboundedReceiver<Job>,
        replies: &mut Vec<Reply>,
    ) -> Result<bool, StoreError> {
        let at_least = if group.is_urgent() { Duration::ZERO } else { ERASING };
        let until = Instant::now() + at_least.max(self.commit_took / 2);
        if group.unbounded {
            batch.budget = Budget::unbounded();
        }
        let mut erased = 0usize;
        loop {
            self.go_on(batch, replies)?;
            let due = self.due.is_some_and(|at| at <= Instant::now());
            if !(batch.differs || due || group.settles) {
                return Ok(false);
            }
            let more = batch.erase()?;
            if !more && self.unfinished.is_empty() {
                return Ok(false);
            }
            erased = erased.saturating_add(batch.budget.spent());
            if Instant::now() >= until && (!more || erased > batch.added.saturating_mul(2)) {
                return Ok(more);
            }
            batch.budget = Budget::piece();
            group.fill(incoming);
            while let Some(job) = group.jobs.pop_front() {
                self.perform_one(job, batch, replies)?;
            }
        }
    }

    /// Performs the jobs that are to have another turn, the oldest first: one at least, the others as far as the budget goes.
    fn go_on(&mut self, batch: &mut Batch<'_>, replies: &mut Vec<Reply>) -> Result<(), StoreError> {
        for turn in 0..self.unfinished.len() {
            if turn > 0 && batch.budget.is_spent() {
                break;
            }
            let Some(work) = self.unfinished.pop_front() else { break };
            self.perform_one(Job::Work(work), batch, replies)?;
        }
        Ok(())
    }
}
