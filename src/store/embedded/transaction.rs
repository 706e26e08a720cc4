//! The writes of a group, performed one after the other.

use std::time::Instant;

use super::spools::ErasureBudget;
use super::tables::Tables;
use super::{ageing, change, deliver, inherit};
use crate::seq::Seq;
use crate::store::engine::{Committed, OpGroup};
use crate::store::error::StoreError;
use crate::store::op::{Deletion, Effect, Op, OpOutcome, OpProgress};

/// A deletion and its progress.
struct Deleting<'a> {
    deletion: &'a Deletion,
    /// The index of the write that ordered it; `None` for a lazy deletion.
    op: Option<usize>,
    progress: Option<OpProgress>,
}

impl Tables<'_> {
    /// Performs the writes of a group, then its deletions as far as there is time.
    ///
    /// # Errors
    /// [`StoreError::Database`]: nothing of the group may be committed.
    pub(super) fn perform(&mut self, group: &OpGroup<'_>) -> Result<Committed, StoreError> {
        let mut outcomes = Vec::with_capacity(group.ops.len());
        let mut deleting: Vec<Deleting<'_>> = Vec::new();
        for (number, op) in group.ops.iter().enumerate() {
            let is_open = |d: &Deleting<'_>| d.progress != Some(OpProgress::Done) && op.follows(&d.deletion.spool);
            if deleting.iter().any(is_open) {
                outcomes.push(OpOutcome::Unfinished(op.clone()));
                continue;
            }
            if let Op::Delete(deletion) = op {
                let progress = Some(self.delete(deletion, None)?);
                deleting.push(Deleting { deletion, op: Some(number), progress });
                outcomes.push(OpOutcome::Done(Effect::Nothing));
                continue;
            }
            match self.perform_one(op) {
                Ok(outcome) => outcomes.push(outcome),
                Err(error @ StoreError::Database(_)) => return Err(error),
                Err(error) => outcomes.push(OpOutcome::Refused(error)),
            }
        }
        deleting.extend(group.lazy.iter().map(|deletion| Deleting { deletion, op: None, progress: None }));
        let more = self.go_on_deleting(group, &mut deleting)?;
        let mut lazy = Vec::new();
        for Deleting { op, progress, .. } in deleting {
            match (op.and_then(|number| outcomes.get_mut(number)), progress) {
                (Some(outcome), Some(progress)) => *outcome = OpOutcome::Done(Effect::Deleted(progress)),
                (None, Some(progress)) => lazy.push(progress),
                (_, None) => {}
            }
        }
        Ok(Committed {
            outcomes,
            lazy,
            counted: self.spools.take_counted(),
            unreadable: std::mem::take(&mut self.unreadable),
            forgotten: std::mem::take(&mut self.forgotten),
            lost: self.lost,
            more,
            took: None,
        })
    }

    fn perform_one(&mut self, op: &Op) -> Result<OpOutcome, StoreError> {
        let effect = match op {
            Op::Change { account, change, revision } => change::change(self, account, change, *revision)?,
            Op::Remove { .. } | Op::Adopt { .. } => return self.perform_turn(op),
            Op::Spool { spool, device, items, known } => deliver::spool(self, spool, *device, items, *known)?,
            // [`Tables::perform`] performs it.
            Op::Delete(_) => Effect::Nothing,
            Op::TakeOver { account, device, to } => inherit::take_over(self, account, *device, *to)?,
            Op::SaveTombstone { sm_id, tombstone } => {
                self.tombstones.save(sm_id, tombstone)?;
                Effect::Nothing
            }
            Op::ExpireTombstones { sm_ids, before } => Effect::Expired(self.tombstones.expire(sm_ids, *before)?),
            Op::SaveWake { slot, wake } => {
                self.wakes.save(slot, *wake)?;
                Effect::Nothing
            }
            Op::DeleteWake { slot } => {
                self.wakes.delete(&slot.account, slot.device)?;
                Effect::Nothing
            }
            Op::SaveHandover { number } => {
                self.accounts.set_handover(Some(*number))?;
                Effect::Nothing
            }
            // One process uses this database, so it owns all accounts.
            Op::Claim { .. }
            | Op::SaveLoginName { .. }
            | Op::DescribeNode { .. }
            | Op::HoldComponent { .. }
            | Op::Release { .. }
            | Op::CloseStale { .. } => Effect::Nothing,
            Op::Recover { now, revision, kept, .. } => {
                self.accounts.set_handover(None)?;
                Effect::Recovered(ageing::recover(self, *now, *revision, kept)?)
            }
            Op::Forget { accounts, before, revision } => ageing::forget(self, accounts, *before, *revision)?,
            Op::Expire { spool, before } => Effect::Expired(ageing::expire(self, spool, *before)?),
            Op::SaveCount { spool, count, has_ended } => {
                let save = if *has_ended { deliver::save_last_count } else { deliver::save_count };
                save(self, spool, *count)?;
                Effect::Nothing
            }
        };
        Ok(OpOutcome::Done(effect))
    }

    /// Performs one turn of a write that may take several.
    fn perform_turn(&mut self, op: &Op) -> Result<OpOutcome, StoreError> {
        if let Op::Remove { account, up_to, revision, left } = op {
            let removal = match left {
                Some(removal) => (**removal).clone(),
                None => change::remove(self, account, *up_to, *revision)?,
            };
            return change::remove_tombstones(self, account, *up_to, *revision, removal);
        }
        inherit::adopt(self, op)
    }

    /// Deletes stanzas within the budget, from where the deletion stopped before.
    fn delete(&mut self, deletion: &Deletion, before: Option<OpProgress>) -> Result<OpProgress, StoreError> {
        let from = match before {
            Some(OpProgress::Done) => return Ok(OpProgress::Done),
            Some(OpProgress::Below(seq)) => seq,
            None => Seq::ZERO,
        };
        for range in deletion.ranges.iter().filter(|range| *range.end() >= from) {
            let range = (*range.start()).max(from)..=*range.end();
            let Some(left) = self.spools.delete(&deletion.spool, range.clone())?.left else { continue };
            let last = self.spools.last(&deletion.spool)?;
            // Nothing is left before or after this range: delete the rest at once.
            if let Some(last) = last.filter(|last| *last <= *range.end())
                && deletion
                    .ranges
                    .first()
                    .is_some_and(|first| *first.start() == Seq::ZERO && first.end() == range.end())
            {
                self.spools.empty(&deletion.spool, last)?;
                return Ok(OpProgress::Done);
            }
            return Ok(OpProgress::Below(left));
        }
        Ok(OpProgress::Done)
    }

    /// Deletes in pieces as long as there is time, if there is anything to commit or the deletions are due. Returns whether
    /// more is doomed.
    ///
    /// Each call deletes at least twice as many stanzas as the group adds, so the amount that waits for deletion does not
    /// grow, however many stanzas come and however slow the disk is.
    fn go_on_deleting(&mut self, group: &OpGroup<'_>, deleting: &mut [Deleting<'_>]) -> Result<bool, StoreError> {
        let (began, added) = (Instant::now(), group.ops.iter().map(Op::added).fold(0, usize::saturating_add));
        let mut erased = 0usize;
        if !(self.differs() || group.is_due) {
            return Ok(false);
        }
        loop {
            let mut more = false;
            for one in deleting.iter_mut().filter(|one| one.progress != Some(OpProgress::Done)) {
                if self.spools.budget.is_spent() {
                    more = true;
                    break;
                }
                let progress = self.delete(one.deletion, one.progress)?;
                one.progress = Some(progress);
                more |= progress != OpProgress::Done;
            }
            let doomed = self.spools.wipe()?;
            erased = erased.saturating_add(self.spools.budget.spent());
            self.spools.budget = ErasureBudget::piece();
            let is_over = began.elapsed() >= group.time || (group.is_wanted)();
            if !(more || doomed) || is_over && erased >= added.saturating_mul(2) {
                return Ok(doomed);
            }
        }
    }
}
