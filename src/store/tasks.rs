//! The jobs of the writer, and the channels for their answers.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::oneshot;

use super::error::StoreError;
use super::newest::ChangeId;
use super::op::{Effect, Op};
use super::values::SpoolId;
use crate::jid::BareJid;
use crate::seq::Seq;

/// A job for the writer.
#[derive(Debug)]
pub(super) enum Job {
    /// Perform this task in the next transaction.
    Task(Box<Task>),
    /// Delete the stanzas of a spool up to this number, with the next transactions or after one second.
    Unspool { spool: SpoolId, up_to: Seq, accepted: oneshot::Sender<()> },
    /// Accept no more jobs, and end once the accepted ones are answered.
    Stop,
    /// Do nothing until the other end is dropped.
    #[cfg(test)]
    Stall(std::sync::mpsc::Receiver<()>),
}

/// A task to be performed in a transaction.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) kind: TaskKind,
    /// The bytes that it adds.
    pub(super) weight: usize,
    pub(super) awaited: TaskWait,
    pub(super) ticket: Ticket,
    /// The session for which it is done. The task is refused if the session's account was removed.
    pub(super) behalf: Option<SpoolId>,
    pub(super) change: Option<ChangeId>,
    /// True if it was put off once, until deleted stanzas are no longer counted.
    pub(super) is_second_try: bool,
}

/// The work of a task.
#[derive(Debug)]
pub(super) enum TaskKind {
    Write(Op),
    /// Answer once the hidden stanzas are gone from the disk.
    Settle(TaskScope),
    /// Hide stanzas, and answer once they are gone from the disk.
    Discard(SpoolId, Vec<RangeInclusive<Seq>>),
}

/// The spools of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TaskScope {
    Spool(SpoolId),
    Account(BareJid),
}

/// The urgency of the commit of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TaskWait {
    /// A caller waits for it.
    Commit,
    /// The caller continues meanwhile, so the commit may wait for more tasks.
    Sometime,
}

/// The writer's end of a task's answer.
pub(super) struct Ticket {
    answer: Option<oneshot::Sender<Result<Effect, StoreError>>>,
    given_up: Option<Arc<AtomicBool>>,
}

/// The caller's end of a task's answer.
pub(super) struct PendingOutcome {
    pub(super) answered: oneshot::Receiver<Result<Effect, StoreError>>,
    given_up: Option<Arc<AtomicBool>>,
}

impl Ticket {
    /// Creates both ends for a caller that may stop waiting.
    pub(super) fn new() -> (Self, PendingOutcome) {
        let (answer, answered) = oneshot::channel();
        let given_up = Arc::new(AtomicBool::new(false));
        let pending = PendingOutcome { answered, given_up: Some(Arc::clone(&given_up)) };
        (Self { answer: Some(answer), given_up: Some(given_up) }, pending)
    }

    /// Creates both ends for a caller that never stops waiting.
    pub(super) fn without_end() -> (Self, PendingOutcome) {
        let (answer, answered) = oneshot::channel();
        (Self { answer: Some(answer), given_up: None }, PendingOutcome { answered, given_up: None })
    }

    #[cfg(test)]
    pub(super) fn nobody() -> Self {
        Self { answer: None, given_up: None }
    }

    /// Returns whether the caller already counts the task as refused.
    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.as_ref().is_some_and(|given_up| given_up.load(Ordering::Acquire))
    }

    pub(super) fn answer(self, answer: Result<Effect, StoreError>) {
        if let Some(sender) = self.answer {
            // A cancelled caller no longer waits; the outcome stands.
            drop(sender.send(answer));
        }
    }
}

impl PendingOutcome {
    /// Stops waiting. Returns the answer if it has arrived just now.
    pub(super) fn give_up(mut self) -> Option<Result<Effect, StoreError>> {
        self.answered.close();
        let answer = self.answered.try_recv().ok();
        if answer.is_none() {
            self.given_up.iter().for_each(|given_up| given_up.store(true, Ordering::Release));
        }
        answer
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").finish_non_exhaustive()
    }
}
