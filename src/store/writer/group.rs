//! What goes into one transaction, and how long it waits for more.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::{Awaited, Job, Shared, Work};

/// The most jobs of one transaction.
const GROUP: usize = 1024;
/// Bytes of stanzas after which a transaction takes no more jobs.
const GROUP_BYTES: usize = 8 << 20;
/// How long a commit waits for more jobs while many come.
const GATHER: Duration = Duration::from_millis(8);
/// How long one waits as long as nobody waits for any of its jobs.
const PATIENCE: Duration = Duration::from_millis(40);

/// How long a transaction waits for more jobs.
pub(super) struct Window {
    opened: Instant,
    until: Instant,
}

impl Window {
    pub(super) fn open() -> Self {
        let opened = Instant::now();
        Self { opened, until: opened + GATHER }
    }

    /// Whether more jobs have come, as long as none is waited for by more than itself.
    pub(super) fn more(
        &mut self,
        shared: &Shared,
        group: &mut Group,
        incoming: &mut mpsc::UnboundedReceiver<Job>,
    ) -> bool {
        while !group.is_full() {
            let now = Instant::now();
            if now >= self.until {
                let hurry = shared.hurry.swap(false, Ordering::Relaxed);
                if hurry || group.urgent || now >= self.opened + PATIENCE {
                    return false;
                }
                self.until += GATHER;
            }
            std::thread::park_timeout(self.until.saturating_duration_since(now));
            group.fill(incoming);
            if !group.jobs.is_empty() {
                return true;
            }
        }
        false
    }
}

/// What goes into one transaction.
#[derive(Default)]
pub(super) struct Group {
    /// Those that are not performed yet.
    pub(super) jobs: VecDeque<Job>,
    /// How many there were.
    taken: usize,
    /// How many of them need the transaction.
    pub(super) works: usize,
    bytes: usize,
    /// Somebody waits for one of them.
    urgent: bool,
    /// Deletions that wait are to be committed, whatever else there is.
    pub(super) settles: bool,
    /// They are deleted all at once: nobody else waits.
    pub(super) unbounded: bool,
}

impl Group {
    /// Takes the jobs that wait, as far as there is room.
    pub(super) fn fill(&mut self, jobs: &mut mpsc::UnboundedReceiver<Job>) {
        while !self.is_full() {
            match jobs.try_recv() {
                Ok(job) => self.push(job, jobs),
                Err(mpsc::error::TryRecvError::Empty | mpsc::error::TryRecvError::Disconnected) => break,
            }
        }
    }

    fn is_full(&self) -> bool {
        self.taken >= GROUP || self.bytes >= GROUP_BYTES
    }

    pub(super) fn push(&mut self, job: Job, jobs: &mut mpsc::UnboundedReceiver<Job>) {
        match &job {
            Job::Work(work) => {
                self.works += 1;
                self.bytes = self.bytes.saturating_add(work.weight);
                self.urgent |= work.awaited == Awaited::Commit;
            }
            Job::Unspool { .. } => {}
            Job::Stop => {
                self.urgent = true;
                return jobs.close();
            }
        }
        self.taken += 1;
        self.jobs.push_back(job);
    }

    /// Is there for jobs that are to have another turn, too.
    pub(super) fn go_on_with(&mut self, unfinished: &VecDeque<Work>) {
        self.works += unfinished.len();
        self.urgent |= unfinished.iter().any(|work| work.awaited == Awaited::Commit);
    }

    /// Whether somebody waits for a commit.
    pub(super) fn is_urgent(&self) -> bool {
        self.urgent
    }

    /// Has deletions that wait committed.
    pub(super) fn settle(&mut self) {
        self.works += 1;
        self.settles = true;
    }

    /// Has all deletions that wait committed at once.
    pub(super) fn settle_all(&mut self) {
        self.settle();
        self.unbounded = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work() -> Work {
        Work::new(1, |_| Ok(())).0
    }

    #[test]
    fn a_commit_has_patience_only_while_nobody_waits_for_any_of_it() {
        let (sender, mut jobs) = mpsc::unbounded_channel();
        let mut group = Group::default();
        group.push(Job::Work(work().patiently()), &mut jobs);
        group.push(Job::Work(work().patiently()), &mut jobs);
        assert!(!group.urgent);
        group.push(Job::Work(work()), &mut jobs);
        assert!(group.urgent);
        let mut group = Group::default();
        group.push(Job::Stop, &mut jobs);
        assert!(group.urgent && sender.is_closed());
    }
}
