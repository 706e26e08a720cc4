//! What goes into one transaction, and how long it waits for more.

use std::time::{Duration, Instant};

use crate::jid::BareJid;
use crate::push::account::LoginId;
use crate::seq::Seq;
use crate::store::newest::ChangeId;
use crate::store::op::{Deletion, Op};
use crate::store::schema::Count;
use crate::store::tasks::{Task, TaskScope, TaskWait, Ticket};
use crate::store::values::SpoolId;

/// The most jobs of one transaction.
const GROUP: usize = 1024;
/// Bytes of stanzas after which a transaction takes no more jobs.
const GROUP_BYTES: usize = 8 << 20;
/// How long a commit waits for more jobs while many come.
const GATHER: Duration = Duration::from_millis(8);
/// How long one waits as long as nobody waits for any of its jobs.
const LONGEST: Duration = Duration::from_millis(40);

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

    /// Sleeps until more jobs are to be looked for; returns whether to look. A group that somebody waits for is given one time
    /// only, and so is any group once somebody hurries.
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

/// A write in a group, and what is to be done with its outcome.
pub(super) enum Entry {
    /// Somebody asked for it.
    Asked(Asked),
    /// A deletion in front of a write that must not see what is deleted; or a count.
    Own,
}

/// A write that somebody asked for.
pub(super) struct Asked {
    pub(super) awaited: TaskWait,
    pub(super) ticket: Ticket,
    pub(super) behalf: Option<SpoolId>,
    pub(super) change: Option<ChangeId>,
    pub(super) admitted: Option<Admitted>,
}

/// Stanzas that were counted before they are stored.
pub(super) struct Admitted {
    pub(super) added: Count,
    /// The last sequence number of the spool before.
    pub(super) before: Seq,
    /// Those that the caller had given up and handed over again.
    pub(super) again: Vec<Seq>,
}

/// What goes into one transaction.
#[derive(Default)]
pub(super) struct JobGroup {
    pub(super) ops: Vec<Op>,
    /// One for each write.
    pub(super) entries: Vec<Entry>,
    /// Those who wait until nothing of a spool is hidden any more.
    pub(super) settling: Vec<(TaskScope, Ticket)>,
    /// Accounts that are removed, for all logins up to one.
    pub(super) removals: Vec<(BareJid, LoginId)>,
    /// The number of jobs that were taken.
    taken: usize,
    bytes: usize,
    /// Somebody waits for one of them.
    urgent: bool,
    /// Deletions that wait are to be committed, whatever else there is.
    pub(super) is_due: bool,
    /// They are deleted all at once: nobody else waits.
    pub(super) is_last: bool,
}

impl JobGroup {
    /// The last one: all that is hidden is deleted, and counted off from these counts.
    pub(super) fn last(counts: Vec<(SpoolId, Count)>) -> Self {
        let mut group = Self { is_due: true, is_last: true, ..Self::default() };
        for (spool, count) in counts {
            group.push(Op::SaveCount { spool, count, has_ended: false }, Entry::Own);
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

    /// Nobody may wait for long any more.
    pub(super) fn hurry(&mut self) {
        self.urgent = true;
    }

    /// Returns whether somebody waits for a commit.
    pub(super) fn is_urgent(&self) -> bool {
        self.urgent
    }

    pub(super) fn push(&mut self, op: Op, entry: Entry) {
        self.ops.push(op);
        self.entries.push(entry);
    }

    /// Deletes stanzas before the writes that come behind.
    pub(super) fn delete_first(&mut self, deletion: Deletion) {
        self.push(Op::Delete(deletion), Entry::Own);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tasks::What;

    fn task(awaited: TaskWait) -> Task {
        let what = What::Settle(TaskScope::Account("romeo@example.org".parse().unwrap()));
        Task { what, weight: 1, awaited, ticket: Ticket::nobody(), behalf: None, change: None, is_second_try: false }
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
