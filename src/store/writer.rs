//! The one thread that writes: group commit, lazy deletions, and retries of commits whose outcome is unknown.

mod admit;
mod group;
mod settle;

use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::{self, Runtime};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::DropGuard;

use self::group::{Entry, JobGroup, Window};
use super::engine::{self, Committed, Engine, Failure, OpeningState};
use super::error::StoreError;
use super::op::{Deletion, Op};
use super::schema::Count;
use super::shared::Shared;
use super::tasks::{Job, Task};
use super::values::SpoolId;
use crate::limits::RateLimitedLog;
use crate::seq::Seq;

/// While the last commit is more recent than this, each commit waits a little, so that it includes more jobs: a commit costs
/// the processor and the disk as much for one job as for many.
const BUSY: Duration = Duration::from_millis(20);
/// The longest time that a deletion waits for the commit of another job.
const LAZY: Duration = Duration::from_secs(1);
/// The time that a transaction spends on deletions, piece by piece, while no caller waits for its commit. On a slow disk it is
/// longer: half of the duration of the last commit.
const ERASING: Duration = Duration::from_millis(10);
/// The time until a group is committed again whose outcome is unknown: the first value, doubled up to the second.
const ASK_AGAIN: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];
/// The most rows of ended sessions that get their counts with one group.
const ROWS: usize = 64;

/// Starts the thread. It ends after [`Job::Stop`], or when all senders are gone and the queue is empty; then it drops `ended`.
pub(super) fn spawn(
    shared: Arc<Shared>,
    jobs: mpsc::UnboundedReceiver<Job>,
    opening: &OpeningState,
    ended: DropGuard,
) -> io::Result<()> {
    let timer = runtime::Builder::new_current_thread().enable_time().build()?;
    let writer = Writer {
        shared,
        timer,
        // A crash may have left doomed spools.
        due: Some(Instant::now()),
        unfinished: VecDeque::new(),
        not_counted: opening.not_counted.iter().cloned().collect(),
        ended: VecDeque::new(),
        committed: None,
        commit_took: Duration::ZERO,
        failures: RateLimitedLog::default(),
    };
    std::thread::Builder::new()
        .name("store".to_owned())
        .spawn(move || {
            let _ended = ended;
            writer.run(jobs);
        })
        .map(drop)
}

struct Writer {
    shared: Arc<Shared>,
    /// The runtime that provides timeouts and runs reads while the thread waits.
    timer: Runtime,
    /// The time at which deletions must be committed.
    due: Option<Instant>,
    /// Tasks that are to have another turn.
    unfinished: VecDeque<Task>,
    /// Spools whose rows have no count.
    not_counted: HashSet<SpoolId>,
    /// Those of them whose sessions have ended.
    ended: VecDeque<SpoolId>,
    /// The time of the last commit.
    committed: Option<Instant>,
    /// The duration of the last commit.
    commit_took: Duration,
    /// Limits the log lines about failed commits: while the disk fails, any client can cause them.
    failures: RateLimitedLog,
}

/// The reason why the writer wakes up.
enum Next {
    Job(Job),
    Due,
    Maintain,
    Closed,
}

impl Writer {
    fn run(mut self, mut jobs: mpsc::UnboundedReceiver<Job>) {
        loop {
            let mut group = self.begin();
            if group.is_empty() {
                match self.next(&mut jobs) {
                    Next::Job(job) => self.take(job, &mut group, &mut jobs),
                    Next::Due => group.is_due = true,
                    Next::Maintain => {
                        self.shared.engine.maintain(&|| !jobs.is_empty());
                        continue;
                    }
                    Next::Closed => break,
                }
            }
            self.fill(&mut group, &mut jobs);
            self.gather(&mut group, &mut jobs);
            self.perform(group, &jobs);
        }
        if !self.shared.deletions.is_empty() {
            self.perform(JobGroup::last(self.not_saved()), &jobs);
        }
        // Closes the database even if there are still handles of the store.
        self.shared.engine.close(&self.not_saved());
    }

    /// Returns the counts of the spools whose rows have none.
    fn not_saved(&self) -> Vec<(SpoolId, Count)> {
        self.not_counted.iter().map(|spool| (spool.clone(), self.shared.counts.of(spool))).collect()
    }

    /// Begins a group with the tasks that are to have another turn.
    fn begin(&mut self) -> JobGroup {
        let mut group = JobGroup::default();
        for _ in 0..self.unfinished.len() {
            let Some(task) = self.unfinished.pop_front() else { break };
            group.take(&task);
            self.admit(task, &mut group);
        }
        group
    }

    /// Adds the counts of spools whose sessions have ended, before the writes that change them.
    fn count_ended(&mut self, ops: &mut Vec<Op>, entries: &mut Vec<Entry>) {
        let shared = Arc::clone(&self.shared);
        let mut counts = Vec::new();
        for _ in 0..self.ended.len().min(ROWS) {
            let Some(spool) = self.ended.pop_front() else { break };
            if !shared.deletions.is_settled(&spool) {
                self.ended.push_back(spool);
            } else if self.not_counted.contains(&spool) {
                let count = shared.counts.of(&spool);
                counts.push(Op::SaveCount { spool, count, has_ended: true });
            }
        }
        entries.splice(0..0, counts.iter().map(|_| Entry::Internal));
        ops.splice(0..0, counts);
    }

    fn next(&self, jobs: &mut mpsc::UnboundedReceiver<Job>) -> Next {
        let maintenance = self.shared.engine.maintenance();
        // Maintenance does not wait for a pause between jobs.
        if maintenance.is_some_and(|at| at <= Instant::now()) {
            return Next::Maintain;
        }
        let job = match self.due.into_iter().chain(maintenance).min() {
            Some(until) => match self.timer.block_on(async { timeout_at(until, jobs.recv()).await }) {
                Ok(job) => job,
                Err(_) if self.due == Some(until) => return Next::Due,
                Err(_) => return Next::Maintain,
            },
            None => jobs.blocking_recv(),
        };
        job.map_or(Next::Closed, Next::Job)
    }

    fn take(&mut self, job: Job, group: &mut JobGroup, jobs: &mut mpsc::UnboundedReceiver<Job>) {
        match job {
            Job::Task(task) => {
                group.take(&task);
                self.admit(*task, group);
            }
            Job::Unspool { spool, up_to, accepted } => {
                self.due.get_or_insert_with(|| Instant::now() + LAZY);
                // From now on the deletion is in order, and reads respect it.
                self.shared.deletions.hide(&spool, &[Seq::ZERO..=up_to]);
                // A cancelled caller no longer waits.
                accepted.send(()).ok();
            }
            Job::Stop => {
                group.hurry();
                jobs.close();
            }
            #[cfg(test)]
            Job::Stall(stalled) => drop(stalled.recv()),
        }
    }

    /// Takes the waiting jobs, as far as there is room.
    fn fill(&mut self, group: &mut JobGroup, jobs: &mut mpsc::UnboundedReceiver<Job>) {
        while !group.is_full() {
            match jobs.try_recv() {
                Ok(job) => self.take(job, group, jobs),
                Err(mpsc::error::TryRecvError::Empty | mpsc::error::TryRecvError::Disconnected) => break,
            }
        }
    }

    /// Waits for more jobs while many arrive.
    fn gather(&mut self, group: &mut JobGroup, jobs: &mut mpsc::UnboundedReceiver<Job>) {
        if group.is_empty() || self.committed.is_none_or(|at| at.elapsed() >= BUSY) {
            return;
        }
        let (mut window, shared) = (Window::open(), Arc::clone(&self.shared));
        while !group.is_full() && window.wait(group.is_urgent(), || shared.hurry.swap(false, Ordering::Relaxed)) {
            self.fill(group, jobs);
        }
    }

    /// Commits a group and answers each of its tasks.
    fn perform(&mut self, mut group: JobGroup, jobs: &mpsc::UnboundedReceiver<Job>) {
        if group.is_empty() {
            return;
        }
        self.count_ended(&mut group.ops, &mut group.entries);
        let lazy = self.shared.deletions.all();
        let is_last = group.is_last;
        match self.commit(&mut group, &lazy, jobs) {
            Ok(committed) => {
                let took = committed.took;
                if let Some(took) = took {
                    self.shared.committed.time.observe(took);
                    self.shared.committed.number.fetch_add(1, Ordering::Relaxed);
                    (self.committed, self.commit_took) = (Some(Instant::now()), took);
                }
                self.note(&committed, &lazy);
                let more = committed.more;
                self.settle(group, committed);
                let is_left = took.is_some() && !self.shared.deletions.is_empty();
                self.due = match more || is_left {
                    true => Some(Instant::now()),
                    false => self.due.filter(|_| !self.shared.deletions.is_empty()),
                };
            }
            Err(error) => self.fail(group, &error),
        }
        if is_last {
            self.due = None;
        }
    }

    /// Commits a group, and repeats that until the outcome is known.
    fn commit(
        &mut self,
        group: &mut JobGroup,
        lazy: &[Deletion],
        jobs: &mpsc::UnboundedReceiver<Job>,
    ) -> Result<Committed, StoreError> {
        let (shared, begun, mut pause, mut asked) = (Arc::clone(&self.shared), Instant::now(), ASK_AGAIN[0], 0u32);
        let mut doubtful = HashSet::new();
        loop {
            let least = if group.is_urgent() { Duration::ZERO } else { ERASING };
            let time = if group.is_last { Duration::MAX } else { least.max(self.commit_took / 2) };
            let is_wanted = || !group.is_last && !jobs.is_empty();
            let committed = shared.engine.commit(&engine::OpGroup {
                ops: &group.ops,
                lazy,
                is_due: group.is_due || self.due.is_some_and(|at| at <= Instant::now()),
                time,
                is_wanted: &is_wanted,
                held: shared.counts.all().1,
            });
            match committed {
                Ok(committed) if asked > 0 => {
                    tracing::warn!(asked, waited = ?begun.elapsed(), "commit outcome known: database answers again");
                    self.note(&committed, lazy);
                    self.recount(doubtful);
                    let Committed { outcomes, more, took, .. } = committed;
                    return Ok(Committed { outcomes, more, took, ..Committed::default() });
                }
                Ok(committed) => return Ok(committed),
                Err(Failure::Refused(error)) => return Err(error),
                Err(Failure::Unknown) => {}
            }
            if let Some(suppressed) = self.failures.next() {
                let jobs = group.ops.len();
                tracing::error!(jobs, suppressed, "commit outcome unknown: committing the same group again");
            }
            let is_over = jobs.is_closed() || shared.is_stopping.load(Ordering::Relaxed);
            if is_over && begun.elapsed() >= shared.patience() {
                return Err(StoreError::NoAnswer { within: shared.patience() });
            }
            if asked == 0 {
                doubtful = self.touched(group, lazy);
            }
            asked = asked.saturating_add(1);
            std::thread::sleep(pause);
            pause = (pause * 2).min(ASK_AGAIN[1]);
            self.withdraw(group);
        }
    }
}
