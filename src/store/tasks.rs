//! What the writer is asked for, and whom it answers.

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
    /// Do this in the next transaction.
    Task(Box<Task>),
    /// Delete what is in a spool up to this number, with the next transactions or in a second.
    Unspool { spool: SpoolId, up_to: Seq, accepted: oneshot::Sender<()> },
    /// Take no more jobs, and end once the accepted ones are answered.
    Stop,
    /// Do nothing until the other end is dropped.
    #[cfg(test)]
    Stall(std::sync::mpsc::Receiver<()>),
}

/// Something to do in a transaction.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) what: What,
    /// Bytes that it brings.
    pub(super) weight: usize,
    pub(super) awaited: TaskWait,
    pub(super) ticket: Ticket,
    /// The session for which it is done: it is refused once the account was removed.
    pub(super) behalf: Option<SpoolId>,
    pub(super) change: Option<ChangeId>,
    /// It was put off once until what was deleted is not counted any more.
    pub(super) is_second_try: bool,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum What {
    Write(Op),
    /// Answer once what is hidden is gone from the disk.
    Settle(TaskScope),
    /// Hide stanzas, then the same.
    Discard(SpoolId, Vec<RangeInclusive<Seq>>),
}

/// Spools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TaskScope {
    Spool(SpoolId),
    Account(BareJid),
}

/// How long the commit may wait for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TaskWait {
    /// Somebody waits for it.
    Commit,
    /// What asked for it goes on meanwhile.
    Sometime,
}

/// The writer's end of a question.
pub(super) struct Ticket {
    answer: Option<oneshot::Sender<Result<Effect, StoreError>>>,
    given_up: Option<Arc<AtomicBool>>,
}

/// The end of whoever asked.
pub(super) struct Asking {
    pub(super) answered: oneshot::Receiver<Result<Effect, StoreError>>,
    given_up: Option<Arc<AtomicBool>>,
}

impl Ticket {
    /// A question whose asker may stop waiting.
    pub(super) fn new() -> (Self, Asking) {
        let (answer, answered) = oneshot::channel();
        let given_up = Arc::new(AtomicBool::new(false));
        let asking = Asking { answered, given_up: Some(Arc::clone(&given_up)) };
        (Self { answer: Some(answer), given_up: Some(given_up) }, asking)
    }

    /// A question that is asked until it is answered.
    pub(super) fn without_end() -> (Self, Asking) {
        let (answer, answered) = oneshot::channel();
        (Self { answer: Some(answer), given_up: None }, Asking { answered, given_up: None })
    }

    #[cfg(test)]
    pub(super) fn nobody() -> Self {
        Self { answer: None, given_up: None }
    }

    /// Returns whether the asker counts it as refused already.
    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.as_ref().is_some_and(|given_up| given_up.load(Ordering::Acquire))
    }

    pub(super) fn answer(self, answer: Result<Effect, StoreError>) {
        if let Some(sender) = self.answer {
            // A caller that was cancelled no longer waits; what it asked for stands.
            drop(sender.send(answer));
        }
    }
}

impl Asking {
    /// Stops waiting. Returns the answer if it has come in this moment.
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
