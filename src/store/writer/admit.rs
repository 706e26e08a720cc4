//! The checks of a task before it goes into a group: removals of accounts, bounds, and deletions that must come first.

use super::Writer;
use super::group::{Admitted, Asked, Entry, JobGroup};
use crate::push::account::Change;
use crate::seq::Seq;
use crate::session::queue::Spooled;
use crate::store::deletions::Deletions;
use crate::store::error::StoreError;
use crate::store::op::{Deletion, Effect, Op};
use crate::store::schema::Count;
use crate::store::tasks::{Task, TaskKind, TaskScope};
use crate::store::values::SpoolId;

impl Writer {
    /// Puts a task into a group, or answers it.
    pub(super) fn admit(&mut self, task: Task, group: &mut JobGroup) {
        let Task { kind, weight, awaited, ticket, behalf, change, is_second_try } = task;
        let scope = match &kind {
            TaskKind::Settle(scope) => Some(scope.clone()),
            TaskKind::Discard(spool, seqs) => {
                // Also if the caller has given up: the writer deletes them with its next commits.
                self.shared.deletions.hide(spool, seqs);
                Some(TaskScope::Spool(spool.clone()))
            }
            TaskKind::Write(_) => None,
        };
        if ticket.is_given_up() {
            return self.shared.answer(ticket, change, Err(StoreError::Closed));
        }
        if let Some(scope) = scope {
            return match self.delete_first(&scope, group) {
                true => group.settling.push((scope, ticket)),
                false => self.shared.answer(ticket, change, Ok(Effect::Nothing)),
            };
        }
        let TaskKind::Write(mut op) = kind else { return };
        if let Some(session) = behalf.as_ref().filter(|session| self.is_removed(session, group)) {
            let account = session.account.clone();
            return self.shared.answer(ticket, change, Err(StoreError::AccountRemoved { account }));
        }
        let admitted = match self.prepare(&mut op, group) {
            Ok(admitted) => admitted,
            Err(StoreError::SpoolFull { .. }) if !is_second_try && !self.shared.deletions.is_empty() => {
                // Deleted stanzas may still be counted.
                group.is_due = true;
                let kind = TaskKind::Write(op);
                let task = Task { kind, weight, awaited, ticket, behalf, change, is_second_try: true };
                return self.unfinished.push_back(task);
            }
            Err(error) => return self.shared.answer(ticket, change, Err(error)),
        };
        group.push(op, Entry::Asked(Asked { awaited, ticket, behalf, change, admitted }));
    }

    /// Adds the deletions of hidden stanzas before the next write; returns whether there are any.
    fn delete_first(&self, scope: &TaskScope, group: &mut JobGroup) -> bool {
        let spools = match scope {
            TaskScope::Spool(spool) => vec![spool.clone()],
            TaskScope::Account(account) => self.shared.deletions.spools_of(account),
        };
        let mut any = false;
        for deletion in spools.iter().filter_map(|spool| self.shared.deletions.deletion(spool)) {
            any = true;
            group.delete_first(deletion);
        }
        any
    }

    /// Returns whether the account of a session was removed since its login.
    fn is_removed(&self, session: &SpoolId, group: &JobGroup) -> bool {
        let newly = |(account, up_to): &(_, _)| *account == session.account && session.login <= *up_to;
        group.removals.iter().any(newly) || self.shared.deletions.is_removed(&session.account, session.login)
    }

    fn prepare(&self, op: &mut Op, group: &mut JobGroup) -> Result<Option<Admitted>, StoreError> {
        match op {
            Op::Change { account, change, .. } => {
                if let Change::Login { login, .. } = change {
                    self.shared.deletions.entered(account, *login);
                    self.shared.logins.note_used(*login);
                }
                if let Change::Ended { login } = change {
                    let (account, login) = (account.clone(), *login);
                    self.delete_first(&TaskScope::Spool(SpoolId { account, login }), group);
                }
            }
            Op::Remove { account, up_to, left: None, .. } => group.removals.push((account.clone(), *up_to)),
            Op::Spool { spool, items, known, .. } => {
                let admitted = self.admit_stanzas(spool, items, group)?;
                *known = admitted.1;
                return Ok(Some(admitted.0));
            }
            Op::TakeOver { account, .. } | Op::Adopt { account, .. } => {
                let scope = TaskScope::Account(account.clone());
                self.delete_first(&scope, group);
            }
            Op::Expire { spool, .. } => {
                self.delete_first(&TaskScope::Spool(spool.clone()), group);
            }
            Op::Remove { .. }
            | Op::Delete(_)
            | Op::SaveHandover { .. }
            | Op::Recover { .. }
            | Op::Claim { .. }
            | Op::SaveLoginName { .. }
            | Op::DescribeNode { .. }
            | Op::HoldComponent { .. }
            | Op::Release { .. }
            | Op::CloseStale { .. }
            | Op::Forget { .. }
            | Op::SaveTombstone { .. }
            | Op::ExpireTombstones { .. }
            | Op::SaveWake { .. }
            | Op::DeleteWake { .. }
            | Op::SaveCount { .. } => {}
        }
        Ok(None)
    }

    /// Counts the stanzas of a call, unless they exceed a bound. Returns the number up to which the spool's stanzas are known.
    fn admit_stanzas(
        &self,
        spool: &SpoolId,
        items: &[Spooled],
        group: &mut JobGroup,
    ) -> Result<(Admitted, Seq), StoreError> {
        let shared = &self.shared;
        let before = shared.counts.of(spool).backlog.last_seq;
        let again = shared.deletions.take_back(spool, items.iter().map(|item| item.seq));
        let all_again = items.iter().filter(|item| item.seq <= before).all(|item| again.contains(&item.seq));
        let known = match again.first() {
            Some(first) if all_again => before.min(first.previous()),
            Some(_) | None => before,
        };
        let admitted = fresh(items, known, &shared.deletions, spool).and_then(|added| {
            if added.backlog.count > 0 {
                shared.counts.admit(spool, added, &shared.limits())?;
            }
            Ok(added)
        });
        match admitted {
            Ok(added) => {
                shared.logins.note_used(spool.login);
                if !again.is_empty() {
                    let ranges = again.iter().map(|seq| *seq..=*seq).collect();
                    group.delete_first(Deletion { spool: spool.clone(), ranges });
                }
                Ok((Admitted { added, before, again }, known))
            }
            Err(error) => {
                if !again.is_empty() {
                    shared.deletions.give_up(spool, &again);
                }
                Err(error)
            }
        }
    }
}

/// Counts the stanzas after a number, which must be in order. Those up to it must be in the spool, which the engine checks.
fn fresh(items: &[Spooled], known: Seq, deletions: &Deletions, spool: &SpoolId) -> Result<Count, StoreError> {
    let (mut added, mut last_seq) = (Count::default(), known);
    for item in items {
        if item.seq > last_seq {
            last_seq = item.seq;
            added.add(item.cost(), item.shared);
        } else if item.seq > known || deletions.is_hidden(spool, item.seq) {
            return Err(StoreError::SequenceTaken { seq: item.seq, last_seq });
        }
    }
    added.backlog.last_seq = last_seq;
    Ok(added)
}
