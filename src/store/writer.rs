//! The one thread that writes: group commit.

mod group;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::Duration;
use std::{fmt, io};

use redb::Database;
use tokio::runtime::{self, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::DropGuard;

use self::group::{Group, Window};
use super::StoreError;
use super::batch::Batch;
use super::disk::Disk;
use super::renew::{self, Renewal};
use super::spool::{Slot, SpoolLimits};
use crate::metrics::Latency;

/// While commits follow each other this closely, each waits a little, so that more goes into one: a commit costs the processor
/// and the disk as much for one job as for many.
const BUSY: Duration = Duration::from_millis(20);
/// How long a deletion may wait for another job's commit.
const LAZY: Duration = Duration::from_secs(1);

/// What the writer is asked for.
#[derive(Debug)]
pub(super) enum Job {
    /// Do this in the next transaction.
    Work(Work),
    /// Delete what waits in a slot up to this place, with the next transaction or in a second.
    Unspool { slot: Slot, up_to: u64, accepted: oneshot::Sender<()> },
    /// Take no more jobs, and end once the accepted ones are answered.
    Stop,
}

/// Answers a caller, once it is known whether the transaction was committed.
type Reply = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

type Perform = dyn FnOnce(Result<&mut Batch<'_>, StoreError>) -> (Reply, Option<StoreError>) + Send;

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
    /// Returns also the error that the whole transaction fails with, if there was one.
    perform: Box<Perform>,
}

impl Work {
    /// Wraps what is to be done, and returns where its result will be. It must not have changed anything if it ends with
    /// another error than [`StoreError::Database`].
    pub(super) fn new<T: Send + 'static>(
        weight: usize,
        work: impl FnOnce(&mut Batch<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> (Self, oneshot::Receiver<Result<T, StoreError>>) {
        let (answer, answered) = oneshot::channel();
        let perform = move |batch: Result<&mut Batch<'_>, StoreError>| {
            let result = match batch {
                Ok(batch) => work(batch),
                Err(error) => Err(error),
            };
            let fatal = result.as_ref().err().filter(|error| matches!(error, StoreError::Database(_))).cloned();
            // A caller that was cancelled no longer waits; what it asked for stands.
            let reply = move |committed: Result<(), StoreError>| drop(answer.send(committed.and(result)));
            (Box::new(reply) as Reply, fatal)
        };
        (Self { weight, awaited: Awaited::Commit, perform: Box::new(perform) }, answered)
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

/// Deletions that were accepted and are not committed yet: up to which place of the slot.
#[derive(Debug, Default)]
pub(super) struct Fading(Mutex<HashMap<Slot, u64>>);

impl Fading {
    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<Slot, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the writer shares with the handles of the store.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) disk: Disk,
    pub(super) limits: Mutex<SpoolLimits>,
    pub(super) commits: AtomicU64,
    pub(super) commit_time: Latency,
    pub(super) fading: Fading,
    /// Somebody now waits behind a patient job.
    pub(super) hurry: AtomicBool,
    /// The writer's own.
    pub(super) thread: OnceLock<Thread>,
}

impl Shared {
    pub(super) fn limits(&self) -> SpoolLimits {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner)
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
pub(super) fn spawn(shared: Arc<Shared>, jobs: mpsc::Receiver<Job>, ended: DropGuard) -> io::Result<()> {
    let timer = runtime::Builder::new_current_thread().enable_time().build()?;
    let renewal = Renewal::new(Instant::now());
    let writer = Writer { shared, timer, total: None, due: None, committed: None, renewal };
    std::thread::Builder::new()
        .name("store".to_owned())
        .spawn(move || {
            let _ended = ended;
            writer.shared.thread.get_or_init(std::thread::current);
            writer.run(jobs);
        })
        .map(drop)
}

struct Writer {
    shared: Arc<Shared>,
    /// Waits for jobs.
    timer: Runtime,
    /// Bytes of the whole spool, unless they are to be counted again.
    total: Option<u64>,
    /// When deletions must wait no longer.
    due: Option<Instant>,
    /// When the last transaction was committed.
    committed: Option<Instant>,
    renewal: Renewal,
}

/// Why the writer goes on.
enum Next {
    Job(Job),
    Due,
    Renew,
    Closed,
}

impl Writer {
    fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        loop {
            let mut group = Group::default();
            match self.next(&mut jobs) {
                Next::Job(job) => group.push(job, &mut jobs),
                Next::Due => group.settle(),
                Next::Renew => {
                    self.renew(&jobs);
                    continue;
                }
                Next::Closed => break,
            }
            group.fill(&mut jobs);
            self.perform(group, &mut jobs);
        }
        if !self.shared.fading.lock().is_empty() {
            let mut group = Group::default();
            group.settle();
            self.perform(group, &mut jobs);
        }
    }

    fn next(&self, jobs: &mut mpsc::Receiver<Job>) -> Next {
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
    fn renew(&mut self, jobs: &mpsc::Receiver<Job>) {
        let began = Instant::now();
        let len = self.shared.disk.len().unwrap_or_default();
        let mut vain = None;
        let renewed = renew::shrink(&self.shared.disk, &mut |copied| {
            vain = renew::is_vain(len, copied).then_some(len);
            vain.is_none() && (began.elapsed() < renew::BUDGET || jobs.is_empty())
        });
        if renewed {
            self.renewal.succeeded(Instant::now());
        } else {
            self.renewal.failed(Instant::now(), vain);
        }
    }

    /// Performs a group, and what joins it, as one transaction and answers each of its jobs.
    fn perform(&mut self, mut group: Group, incoming: &mut mpsc::Receiver<Job>) {
        let mut replies = Vec::with_capacity(group.works);
        let shared = Arc::clone(&self.shared);
        let mut outcome = Ok(());
        if group.works > 0 {
            shared.disk.ensure_open();
            outcome = shared.disk.with(|database| self.commit(database, &mut group, incoming, &mut replies));
        }
        if let Err(error) = &outcome {
            tracing::error!(%error, jobs = group.works, "nothing was stored");
            // Deletions go with the next transaction that succeeds.
            self.due = None;
            self.total = None;
            shared.disk.recover(error);
        }
        for job in group.jobs {
            match (job, &outcome) {
                (Job::Work(work), Err(error)) => replies.push((work.perform)(Err(error.clone())).0),
                (Job::Work(_), Ok(())) | (Job::Stop, _) => {}
                (Job::Unspool { slot, up_to, accepted }, outcome) => {
                    if outcome.is_ok() {
                        self.due.get_or_insert_with(|| Instant::now() + LAZY);
                    }
                    self.fade(slot, up_to, accepted);
                }
            }
        }
        for reply in replies {
            reply(outcome.clone());
        }
    }

    fn perform_one(&mut self, job: Job, batch: &mut Batch<'_>, replies: &mut Vec<Reply>) -> Result<(), StoreError> {
        match job {
            Job::Work(work) => {
                let at_once = work.awaited == Awaited::Turn;
                let (reply, fatal) = (work.perform)(Ok(&mut *batch));
                if at_once {
                    reply(Ok(()));
                } else {
                    replies.push(reply);
                }
                fatal.map_or(Ok(()), Err)
            }
            Job::Unspool { slot, up_to, accepted } => {
                self.due.get_or_insert_with(|| Instant::now() + LAZY);
                self.fade(slot.clone(), up_to, accepted);
                batch.fade(&slot, up_to)
            }
            Job::Stop => Ok(()),
        }
    }

    /// Remembers a deletion: from here on, it is in order, and readers see it.
    fn fade(&self, slot: Slot, up_to: u64, accepted: oneshot::Sender<()>) {
        let mut fading = self.shared.fading.lock();
        let place = fading.entry(slot).or_default();
        *place = up_to.max(*place);
        drop(fading);
        // A caller that was cancelled no longer waits.
        accepted.send(()).ok();
    }

    /// Takes the jobs and performs them, until one fails the transaction; while many come, waits for more.
    fn commit(
        &mut self,
        database: &Database,
        group: &mut Group,
        incoming: &mut mpsc::Receiver<Job>,
        replies: &mut Vec<Reply>,
    ) -> Result<(), StoreError> {
        let busy = self.committed.is_some_and(|at| at.elapsed() < BUSY);
        let mut window = busy.then(Window::open);
        let transaction = database.begin_write()?;
        let mut batch = Batch::open(&transaction, self.shared.limits(), self.total)?;
        self.total = Some(batch.total);
        let fading: Vec<_> = self.shared.fading.lock().iter().map(|(slot, up_to)| (slot.clone(), *up_to)).collect();
        for (slot, up_to) in fading {
            batch.fade(&slot, up_to)?;
        }
        loop {
            while let Some(job) = group.jobs.pop_front() {
                self.perform_one(job, &mut batch, replies)?;
            }
            if !window.as_mut().is_some_and(|window| window.more(&self.shared, group, incoming)) {
                break;
            }
        }
        let (differs, faded, total) = (batch.differs, batch.faded, batch.total);
        drop(batch);
        if differs {
            let began = std::time::Instant::now();
            transaction.commit()?;
            self.shared.commit_time.observe(began.elapsed());
            self.shared.commits.fetch_add(1, Ordering::Relaxed);
            let now = Instant::now();
            self.committed = Some(now);
            self.total = Some(total);
            // One that cannot be measured is not renewed.
            self.renewal.committed(now, self.shared.disk.len().unwrap_or_default(), total);
        } else {
            transaction.abort()?;
        }
        // None is left that waits, or none had anything to delete.
        if differs || !faded {
            self.shared.fading.lock().clear();
            self.due = None;
        }
        Ok(())
    }
}
