//! The content of one transaction ([`JobGroup`]), and how long it waits for more ([`Window`]).

use std::time::{Duration, Instant};

use crate::jid::BareJid;
use crate::push::account::LoginId;
use crate::seq::Seq;
use crate::store::newest::ChangeId;
use crate::store::op::{Deletion, Op};
use crate::store::schema::Count;
use crate::store::tasks::{Task, TaskScope, TaskWait, Ticket};
use crate::store::values::SpoolId;

/// The most jobs in one transaction.
const GROUP: usize = 1024;
/// Bytes of stanzas after which a transaction takes no more jobs.
const GROUP_BYTES: usize = 8 << 20;
/// The time that a commit waits for more jobs while many arrive.
const GATHER: Duration = Duration::from_millis(8);
/// The longest such wait, if no caller waits for any of the jobs.
const LONGEST: Duration = Duration::from_millis(40);

/// The time in which a transaction waits for more jobs.
pub(super) struct Window {
    opened: Instant,
    until: Instant,
}

impl Window {
    pub(super) fn open() -> Self {
        let opened = Instant::now();
        Self { opened, until: opened + GATHER }
    }

    /// Sleeps until it is time to look for more jobs; returns whether to look. If a caller waits for the group, there is one
    /// period of [`GATHER`] only. Once `take_hurry` returns true, no further period begins.
    pub(super) fn wait(&mut self, is_urgent: bool, take_hurry: impl FnOnce() -> bool) -> bool {
        let now = Instant::now();
        if now >= self.until {
            if take_hurry() || is_urgent || now >= self.opened + LONGEST {
                return false;
            }
            self.until += GATHER;
        }
        std::thread::sleep(self.until.saturating_duration_since(now));
        true
    }
}

/// The origin of a write in a group, which decides what is done with its outcome.
pub(super) enum Entry {
    /// A caller asked for it.
    Asked(Asked),
    /// The writer added it: a deletion before a write that must not see what is deleted, or a count.
    Internal,
}

/// A write that a caller asked for.
pub(super) struct Asked {
    pub(super) awaited: TaskWait,
    pub(super) ticket: Ticket,
    pub(super) behalf: Option<SpoolId>,
    pub(super) change: Option<ChangeId>,
    pub(super) admitted: Option<Admitted>,
}

/// Stanzas that are counted before they are stored.
pub(super) struct Admitted {
    pub(super) added: Count,
    /// The last sequence number of the spool before them.
    pub(super) before: Seq,
    /// The stanzas that the caller had given up and has handed over again.
    pub(super) again: Vec<Seq>,
}

/// The content of one transaction.
#[derive(Default)]
pub(super) struct JobGroup {
    pub(super) ops: Vec<Op>,
    /// The origin of each write.
    pub(super) entries: Vec<Entry>,
    /// Tasks that are answered once no stanza of a spool is hidden.
    pub(super) settling: Vec<(TaskScope, Ticket)>,
    /// Accounts that are removed, each for all logins up to one.
    pub(super) removals: Vec<(BareJid, LoginId)>,
    /// The number of jobs.
    taken: usize,
    bytes: usize,
    /// True if a caller waits for one of the jobs.
    urgent: bool,
    /// True if waiting deletions are to be committed in any case.
    pub(super) is_due: bool,
    /// True if everything is deleted at once, since no caller waits any more.
    pub(super) is_last: bool,
}

impl JobGroup {
    /// Creates the last group: it deletes all hidden stanzas and corrects these counts accordingly.
    pub(super) fn last(counts: Vec<(SpoolId, Count)>) -> Self {
        let mut group = Self { is_due: true, is_last: true, ..Self::default() };
        for (spool, count) in counts {
            group.push(Op::SaveCount { spool, count, has_ended: false }, Entry::Internal);
        }
        group
    }

    pub(super) fn is_full(&self) -> bool {
        self.taken >= GROUP || self.bytes >= GROUP_BYTES
    }

    /// Returns whether there is nothing to commit.
    pub(super) fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.settling.is_empty() && !self.is_due
    }

    /// Notes that a task was taken.
    pub(super) fn take(&mut self, task: &Task) {
        self.taken = self.taken.saturating_add(1);
        self.bytes = self.bytes.saturating_add(task.weight);
        self.urgent |= task.awaited == TaskWait::Commit;
    }

    /// Stops the group from waiting for more jobs.
    pub(super) fn hurry(&mut self) {
        self.urgent = true;
    }

    /// Returns whether a caller waits for the commit.
    pub(super) fn is_urgent(&self) -> bool {
        self.urgent
    }

    pub(super) fn push(&mut self, op: Op, entry: Entry) {
        self.ops.push(op);
        self.entries.push(entry);
    }

    /// Deletes stanzas before the writes that follow.
    pub(super) fn delete_first(&mut self, deletion: Deletion) {
        self.push(Op::Delete(deletion), Entry::Internal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tasks::TaskKind;

    fn task(awaited: TaskWait) -> Task {
        let kind = TaskKind::Settle(TaskScope::Account("romeo@example.org".parse().unwrap()));
        Task { kind, weight: 1, awaited, ticket: Ticket::nobody(), behalf: None, change: None, is_second_try: false }
    }

    #[test]
    fn a_commit_has_patience_only_while_nobody_waits_for_any_of_it() {
        let mut group = JobGroup::default();
        group.take(&task(TaskWait::Sometime));
        group.take(&task(TaskWait::Sometime));
        assert!(!group.urgent);
        group.take(&task(TaskWait::Commit));
        assert!(group.urgent);
        let mut group = JobGroup::default();
        group.hurry();
        assert!(group.urgent);
    }
}
