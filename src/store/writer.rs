//! The one thread that writes: group commit.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::Database;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::DropGuard;

use super::disk::Disk;
use super::{StoreError, tables};
use crate::jid::BareJid;
use crate::push::registration::{Change, Registration};

/// The most changes of one transaction.
const GROUP: usize = 1024;

type Answer = Result<Vec<Registration>, StoreError>;

/// What the writer is asked for.
#[derive(Debug)]
pub(super) enum Job {
    /// Change an account's registrations.
    Change { account: BareJid, change: Change, answer: oneshot::Sender<Answer> },
    /// Take no more jobs, and end once the accepted ones are answered.
    Stop,
}

/// Starts the thread. It ends after [`Job::Stop`], or when all senders are gone and the queue is empty; then it drops
/// `ended`.
pub(super) fn spawn(
    disk: Arc<Disk>,
    commits: Arc<AtomicU64>,
    jobs: mpsc::Receiver<Job>,
    ended: DropGuard,
) -> io::Result<()> {
    std::thread::Builder::new()
        .name("store".to_owned())
        .spawn(move || {
            let _ended = ended;
            Writer { disk, commits }.run(jobs);
        })
        .map(drop)
}

struct Writer {
    disk: Arc<Disk>,
    commits: Arc<AtomicU64>,
}

/// One change of a group.
struct Task {
    account: BareJid,
    change: Change,
    answer: oneshot::Sender<Answer>,
}

impl Writer {
    fn run(self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(first) = jobs.blocking_recv() {
            let mut group = Vec::new();
            accept(first, &mut jobs, &mut group);
            while group.len() < GROUP {
                match jobs.try_recv() {
                    Ok(job) => accept(job, &mut jobs, &mut group),
                    Err(mpsc::error::TryRecvError::Empty | mpsc::error::TryRecvError::Disconnected) => break,
                }
            }
            self.perform(group);
        }
    }

    /// Applies a group as one transaction and answers each of its changes.
    fn perform(&self, group: Vec<Task>) {
        if group.is_empty() {
            return;
        }
        self.disk.ensure_open();
        let (changes, answers): (Vec<_>, Vec<_>) =
            group.into_iter().map(|task| ((task.account, task.change), task.answer)).unzip();
        let results = match self.disk.with(|database| self.commit(database, changes)) {
            Ok(results) => results,
            Err(error) => {
                tracing::error!(%error, changes = answers.len(), "changes of registrations were not stored");
                self.disk.recover(&error);
                vec![Err(error); answers.len()]
            }
        };
        for (answer, result) in answers.into_iter().zip(results) {
            // A caller that was cancelled no longer waits; its change stands.
            drop(answer.send(result));
        }
    }

    /// The result of each change, once they are on disk.
    fn commit(&self, database: &Database, changes: Vec<(BareJid, Change)>) -> Result<Vec<Answer>, StoreError> {
        let transaction = database.begin_write()?;
        let mut lists: HashMap<BareJid, (Answer, bool)> = HashMap::new();
        let mut results = Vec::with_capacity(changes.len());
        let mut differs = false;
        {
            let mut table = transaction.open_table(tables::REGISTRATIONS)?;
            for (account, change) in changes {
                let (list, dirty) =
                    lists.entry(account).or_insert_with_key(|account| (tables::load(&table, account), false));
                if let Ok(list) = list {
                    *dirty |= change.apply(list);
                }
                results.push(list.clone());
            }
            for (account, (list, dirty)) in &lists {
                if let (Ok(list), true) = (list, dirty) {
                    tables::save(&mut table, account, list)?;
                    differs = true;
                }
            }
        }
        if differs {
            transaction.commit()?;
            self.commits.fetch_add(1, Ordering::Relaxed);
        } else {
            transaction.abort()?;
        }
        Ok(results)
    }
}

fn accept(job: Job, jobs: &mut mpsc::Receiver<Job>, group: &mut Vec<Task>) {
    match job {
        Job::Change { account, change, answer } => group.push(Task { account, change, answer }),
        Job::Stop => jobs.close(),
    }
}
