//! The handling of the outcomes of a group.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::time::Instant;

use super::group::{Asked, Entry, JobGroup};
use super::{LAZY, Writer};
use crate::push::account::Change;
use crate::seq::Seq;
use crate::session::queue::Spooled;
use crate::store::engine::{Committed, Engine};
use crate::store::error::StoreError;
use crate::store::op::{CountChange, Deletion, Effect, Op, OpOutcome, OpProgress, Unreadable};
use crate::store::query::{Query, QueryAnswer};
use crate::store::shared::Shared;
use crate::store::tasks::{Task, TaskKind, TaskWait};
use crate::store::values::SpoolId;

impl Writer {
    /// Removes the writes from a group whose callers have stopped waiting.
    pub(super) fn withdraw(&mut self, group: &mut JobGroup) {
        let (ops, entries) = (std::mem::take(&mut group.ops), std::mem::take(&mut group.entries));
        for (op, entry) in ops.into_iter().zip(entries) {
            match entry {
                Entry::Asked(asked) if asked.ticket.is_given_up() => self.refuse(&op, asked, StoreError::Closed),
                entry @ (Entry::Asked(_) | Entry::Internal) => group.push(op, entry),
            }
        }
    }

    /// Returns the spools whose number of stanzas a group may change.
    pub(super) fn touched(&self, group: &JobGroup, lazy: &[Deletion]) -> HashSet<SpoolId> {
        let mut spools: HashSet<SpoolId> = lazy.iter().map(|deletion| deletion.spool.clone()).collect();
        for op in &group.ops {
            match op {
                Op::Spool { spool, .. } | Op::Expire { spool, .. } | Op::Delete(Deletion { spool, .. }) => {
                    spools.insert(spool.clone());
                }
                Op::Adopt { account, .. } => {
                    let own = self.shared.counts.of_account(account);
                    spools.extend(own.into_iter().map(|(login, _)| SpoolId { account: account.clone(), login }));
                }
                Op::Change { .. }
                | Op::Remove { .. }
                | Op::TakeOver { .. }
                | Op::SaveTombstone { .. }
                | Op::ExpireTombstones { .. }
                | Op::SaveWake { .. }
                | Op::DeleteWake { .. }
                | Op::SaveHandover { .. }
                | Op::Recover { .. }
                | Op::Claim { .. }
                | Op::SaveLoginName { .. }
                | Op::DescribeNode { .. }
                | Op::HoldComponent { .. }
                | Op::Release { .. }
                | Op::CloseStale { .. }
                | Op::Forget { .. }
                | Op::SaveCount { .. } => {}
            }
        }
        spools
    }

    /// Counts spools again: some of what was added and deleted was done by an earlier attempt.
    pub(super) fn recount(&self, spools: HashSet<SpoolId>) {
        for spool in spools {
            let count = self.timer.block_on(self.shared.engine.read(Query::Count { spool: spool.clone() }));
            if let Ok(QueryAnswer::Count(count)) = count {
                self.shared.counts.set(&spool, count);
            }
        }
    }

    /// Applies the changes that a commit reports.
    pub(super) fn note(&mut self, committed: &Committed, lazy: &[Deletion]) {
        let shared = Arc::clone(&self.shared);
        shared.note_forgotten(&committed.forgotten);
        shared.lost.inc_by(committed.lost);
        for (spool, counted) in &committed.counted {
            shared.counts.note(spool, *counted);
            if *counted == CountChange::Gone {
                self.not_counted.remove(spool);
                shared.deletions.forget_given_up(spool);
            }
        }
        for (deletion, progress) in lazy.iter().zip(&committed.lazy) {
            note_progress(&shared, deletion, *progress);
        }
        for unreadable in &committed.unreadable {
            shared.note_unreadable(unreadable);
            let Unreadable { spool, seqs, .. } = unreadable;
            shared.deletions.hide(spool, seqs);
            self.due.get_or_insert_with(|| Instant::now() + LAZY);
        }
    }

    /// Answers the tasks of a group that was committed.
    pub(super) fn settle(&mut self, group: JobGroup, committed: Committed) {
        let is_committed = committed.took.is_some();
        let shared = Arc::clone(&self.shared);
        group.removals.iter().for_each(|(account, up_to)| shared.deletions.removed(account, *up_to));
        let mut given_up: Vec<(SpoolId, Vec<Seq>)> = Vec::new();
        for ((op, entry), outcome) in group.ops.into_iter().zip(group.entries).zip(committed.outcomes) {
            if let (Entry::Asked(asked), Op::Spool { spool, items, .. }) = (&entry, &op) {
                note_offer(&mut given_up, spool, items, asked);
            }
            if let (Op::Delete(deletion), OpOutcome::Done(Effect::Deleted(progress))) = (&op, &outcome) {
                note_progress(&shared, deletion, *progress);
            }
            if let Op::SaveCount { spool, has_ended, .. } = &op {
                if is_committed {
                    self.not_counted.remove(spool);
                } else if *has_ended {
                    self.ended.push_back(spool.clone());
                }
            }
            let Entry::Asked(asked) = entry else { continue };
            match outcome {
                OpOutcome::Done(effect) => {
                    if let Some(admitted) = &asked.admitted {
                        shared.counts.on_committed(admitted.added);
                    }
                    self.note_rows(&op, &effect);
                    shared.answer(asked.ticket, asked.change, Ok(effect));
                }
                OpOutcome::Unfinished(op) => self.put_off(op, asked),
                OpOutcome::Refused(error) => self.refuse(&op, asked, error),
            }
        }
        // The deletions of older copies have shown them again.
        given_up.into_iter().for_each(|(spool, seqs)| shared.deletions.give_up(&spool, &seqs));
        for (scope, ticket) in group.settling {
            if shared.is_settled(&scope) {
                shared.answer(ticket, None, Ok(Effect::Nothing));
            } else {
                let kind = TaskKind::Settle(scope);
                let (awaited, weight) = (TaskWait::Commit, 0);
                let task = Task { kind, weight, awaited, ticket, behalf: None, change: None, is_second_try: false };
                self.unfinished.push_back(task);
            }
        }
    }

    /// Notes which rows have no count any more, and which sessions have ended.
    fn note_rows(&mut self, op: &Op, effect: &Effect) {
        if let Op::Spool { spool, .. } | Op::Adopt { to: spool, .. } = op
            && self.shared.counts.of(spool).backlog.last_seq > Seq::ZERO
        {
            self.not_counted.insert(spool.clone());
        }
        if let (Op::TakeOver { account, .. }, Effect::TookOver(logins)) = (op, effect) {
            let spools = logins.iter().map(|login| SpoolId { account: account.clone(), login: *login });
            self.not_counted.extend(spools);
        }
        if let Op::Change { account, change: Change::Ended { login }, .. } = op {
            let spool = SpoolId { account: account.clone(), login: *login };
            self.shared.deletions.forget_given_up(&spool);
            if self.not_counted.contains(&spool) {
                self.ended.push_back(spool);
            }
        }
    }

    /// Gives a write another turn.
    fn put_off(&mut self, op: Op, asked: Asked) {
        self.take_back(&op, &asked);
        let Asked { awaited, ticket, behalf, change, .. } = asked;
        let task = Task { kind: TaskKind::Write(op), weight: 0, awaited, ticket, behalf, change, is_second_try: false };
        self.unfinished.push_back(task);
    }

    /// Refuses a write.
    fn refuse(&mut self, op: &Op, asked: Asked, error: StoreError) {
        self.take_back(op, &asked);
        self.shared.answer(asked.ticket, asked.change, Err(error));
    }

    /// Stops counting stanzas that were not stored.
    fn take_back(&self, op: &Op, asked: &Asked) {
        if let (Op::Spool { spool, .. }, Some(admitted)) = (op, &asked.admitted) {
            self.shared.counts.take_back(spool, admitted.added, admitted.before);
            if !admitted.again.is_empty() {
                self.shared.deletions.give_up(spool, &admitted.again);
            }
        }
    }

    /// Refuses all tasks of a group that was not stored. Deletions are retried with the next transaction that succeeds.
    pub(super) fn fail(&mut self, group: JobGroup, error: &StoreError) {
        if let Some(suppressed) = self.failures.next() {
            tracing::error!(%error, jobs = group.ops.len(), suppressed, "database commit failed: nothing was stored");
        }
        self.due = None;
        for (op, entry) in group.ops.into_iter().zip(group.entries).rev() {
            match (&op, entry) {
                (_, Entry::Asked(asked)) => self.refuse(&op, asked, error.clone()),
                (Op::SaveCount { spool, has_ended: true, .. }, Entry::Internal) => self.ended.push_back(spool.clone()),
                (_, Entry::Internal) => {}
            }
        }
        let settling = group.settling.into_iter().map(|(_, ticket)| (ticket, None));
        let unfinished = self.unfinished.drain(..).map(|task| (task.ticket, task.change));
        for (ticket, change) in settling.chain(unfinished) {
            self.shared.answer(ticket, change, Err(error.clone()));
        }
    }
}

/// Keeps in `given_up` the stanzas of a group whose last offer was given up.
fn note_offer(given_up: &mut Vec<(SpoolId, Vec<Seq>)>, spool: &SpoolId, items: &[Spooled], asked: &Asked) {
    for (_, seqs) in given_up.iter_mut().filter(|(other, _)| other == spool) {
        seqs.retain(|seq| items.iter().all(|item| item.seq != *seq));
    }
    if asked.ticket.is_given_up() {
        given_up.push((spool.clone(), items.iter().map(|item| item.seq).collect()));
    }
}

fn note_progress(shared: &Shared, deletion: &Deletion, progress: OpProgress) {
    match progress {
        OpProgress::Done => shared.deletions.gone(deletion, None),
        OpProgress::Below(seq) => shared.deletions.gone(deletion, Some(seq)),
    }
}
