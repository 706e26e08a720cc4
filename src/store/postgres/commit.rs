//! Committing a group: what it needs is read, its [`GroupPlan`] is sent as one transaction, and the rows become outcomes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tokio_postgres::Row;

use super::connection::{PrimaryConnection, StatementCall, TransactionError, params, unavailable};
use super::core::Core;
use super::knowledge::{Knowledge, NodeWriter};
use super::numbers;
use super::plan::{GroupPlan, RowMeaning, done};
use super::{changes, claims, knowledge, spools};
use crate::jid::BareJid;
use crate::seq::Seq;
use crate::store::engine::{Committed, Failure, OpGroup};
use crate::store::error::{DatabaseFailure, StoreError};
use crate::store::op::{ClaimedAccount, CountChange, Deletion, Effect, Op, OpOutcome, OpProgress};
use crate::store::schema::Count;
use crate::store::values::{Backlog, Slot, SpoolId, Tombstone};
use crate::sync::lock;

/// The time between two looks at the lease.
const LOOK: Duration = Duration::from_millis(20);

const FENCE: &str = "SELECT pushward_fence($1, $2, $3)";
/// Keeps this node's epoch until the end of the transaction. Unlike [`FENCE`], it does not wait for the writer.
pub(super) const OWN_EPOCH: &str = "SELECT id FROM node WHERE id = $1 AND epoch = $2 FOR SHARE";
/// The error of [`FENCE`] for an epoch that has passed.
const PASSED: &str = "PW001";

impl Core {
    /// Commits a group.
    pub(super) async fn commit(&self, group: &OpGroup<'_>) -> Result<Committed, Failure> {
        let Some(epoch) = self.valid_epoch().await else { return Err(Failure::Refused(StoreError::Fenced)) };
        let writer = NodeWriter { node: self.node(), epoch, may_be_single: self.settings.may_be_single };
        let connection = self.writer.get().await.map_err(|error| self.unanswered(&error))?;
        let known = match Knowledge::read(&connection, &self.memory, writer, group).await {
            Ok(known) => known,
            Err(error) => return Err(self.failed(&connection, TransactionError::NotSent(error)).await),
        };
        let mut plan = plan(writer, &known, group);
        let lazy = if plan.differs() || group.is_due { plan_lazy(&mut plan, group.lazy) } else { 0 };
        plan.finish();
        if !plan.differs() {
            return Ok(unchanged(plan, lazy));
        }
        let mut calls = vec![StatementCall::new(FENCE, params![writer.node, writer.epoch, writer.may_be_single])];
        let (planned, readings): (Vec<_>, Vec<_>) = std::mem::take(&mut plan.calls).into_iter().unzip();
        calls.extend(planned);
        let began = Instant::now();
        let mut rows = match connection.transact(&calls).await {
            Ok(rows) => rows,
            Err(error) => return Err(self.failed(&connection, error).await),
        };
        let took = began.elapsed();
        let mut results = GroupResults::new(&plan);
        // The first row is that of the fence.
        for (rows, reading) in rows.drain(1..).zip(readings) {
            results.read(&rows, reading);
        }
        if results.lacks_rows {
            self.lease.pass(writer.epoch);
            return Err(Failure::Refused(StoreError::Fenced));
        }
        // The consequences of the commit, such as an acknowledgement, need a lease. The commit itself stands.
        self.valid_epoch().await;
        let GroupResults { counted, forgotten, claimed, took_over, expired, .. } = results;
        if group.ops.iter().any(|op| matches!(op, Op::SaveHandover { .. })) {
            self.is_handed_over.store(true, Ordering::Relaxed);
        }
        self.remember(&plan, group, &counted, &claimed);
        let GroupPlan { mut outcomes, counted: moved, .. } = plan;
        settle_outcomes(&mut outcomes, group, claimed, took_over, expired);
        let counted = moved.into_iter().chain(counted).collect();
        let lazy = vec![OpProgress::Done; lazy];
        Ok(Committed { outcomes, lazy, counted, forgotten, took: Some(took), ..Committed::default() })
    }

    /// Waits until the lease is valid. Returns the epoch, unless it has passed.
    async fn valid_epoch(&self) -> Option<i64> {
        loop {
            let epoch = self.lease.epoch()?;
            if self.lease.is_valid(crate::clock::Instant::now()) {
                return Some(epoch);
            }
            sleep(LOOK).await;
        }
    }

    fn unanswered(&self, error: &StoreError) -> Failure {
        self.note_unavailable(error);
        Failure::Unknown
    }

    /// Returns what a failed transaction means. A connection whose transaction may still be under way is dropped.
    async fn failed(&self, connection: &Arc<PrimaryConnection>, error: TransactionError) -> Failure {
        let error = match error {
            TransactionError::Refused(error) | TransactionError::NotSent(error) => {
                let failure = DatabaseFailure::from(error);
                if failure.code() == Some(PASSED) {
                    self.lease.pass_current();
                    return Failure::Refused(StoreError::Fenced);
                }
                if failure.is_permanent() {
                    return Failure::Refused(StoreError::Unavailable(failure));
                }
                StoreError::Unavailable(failure)
            }
            TransactionError::Lost(error) => unavailable(error),
            TransactionError::Doubtful => StoreError::Unavailable(DatabaseFailure::Doubtful),
        };
        self.writer.drop_connection(connection).await;
        self.unanswered(&error)
    }

    /// Remembers the accounts and spools of a group that was committed.
    fn remember(
        &self,
        plan: &GroupPlan<'_>,
        group: &OpGroup<'_>,
        counted: &[(SpoolId, CountChange)],
        claimed: &[(i64, BareJid, ClaimedAccount)],
    ) {
        let mut memory = lock(&self.memory);
        for (id, account, _) in claimed {
            memory.ids.insert(account.clone(), *id);
        }
        memory.rows.extend(plan.begun.iter().cloned());
        for (spool, change) in counted {
            if *change == CountChange::Gone {
                memory.rows.remove(spool);
            }
        }
        for account in &plan.released {
            memory.ids.remove(account);
        }
        if !plan.released.is_empty() {
            memory.rows.retain(|spool| !plan.released.contains(&spool.account));
        }
        for op in group.ops {
            if let Op::Remove { account, .. } = op {
                memory.rows.retain(|spool| spool.account != *account);
            }
        }
    }
}

/// Plans the operations of a group.
fn plan<'k>(writer: NodeWriter, known: &'k Knowledge, group: &OpGroup<'_>) -> GroupPlan<'k> {
    let mut plan = GroupPlan::new(writer, known);
    let claims: Vec<BareJid> = group.ops.iter().filter_map(Op::claims).cloned().collect();
    if !claims.is_empty() {
        claims::claim(&mut plan, &claims);
    }
    for (number, op) in group.ops.iter().enumerate() {
        let outcome = perform(&mut plan, number, op, group).unwrap_or_else(OpOutcome::Refused);
        plan.outcomes.push(outcome);
    }
    plan
}

/// Adds the deletions that no caller waits for. Returns the number of those that are done with the group.
fn plan_lazy(plan: &mut GroupPlan<'_>, lazy: &[Deletion]) -> usize {
    lazy.iter().take_while(|deletion| spools::delete_of(plan, deletion).is_ok()).count()
}

fn perform(plan: &mut GroupPlan<'_>, number: usize, op: &Op, group: &OpGroup<'_>) -> Result<OpOutcome, StoreError> {
    match op {
        Op::Change { account, change, revision } => changes::change(plan, account, change, *revision),
        Op::Remove { account, up_to, revision, .. } => changes::remove(plan, account, *up_to, *revision),
        Op::Spool { spool, device, items, known } => spools::spool(plan, spool, *device, items, *known),
        Op::Delete(deletion) => {
            spools::delete_of(plan, deletion)?;
            Ok(OpOutcome::Done(Effect::Deleted(OpProgress::Done)))
        }
        Op::TakeOver { account, device, to } => spools::take_over(plan, number, account, *device, *to),
        Op::Adopt { .. } => spools::adopt(plan, number, op),
        Op::Claim { .. } => Ok(done()),
        Op::SaveLoginName { account, name } => Ok(claims::name(plan, account, name)),
        Op::DescribeNode { certificate, is_draining } => {
            Ok(claims::describe(plan, certificate.as_deref(), *is_draining))
        }
        Op::HoldComponent { jid } => Ok(claims::hold(plan, jid)),
        Op::Release { account } => claims::release(plan, account),
        Op::CloseStale { account, now, revision, kept } => {
            changes::close_stale(plan, account, *now, *revision, |login| !kept.contains(&login))
        }
        Op::SaveTombstone { sm_id, tombstone } => Ok(save_tombstone(plan, sm_id, tombstone)),
        Op::ExpireTombstones { sm_ids, before } => {
            const EXPIRE: &str = "DELETE FROM tombstone WHERE sm_id = ANY($1) AND at < $2 RETURNING sm_id";
            let params = params![sm_ids.clone(), numbers::counted(before.get())];
            plan.call(EXPIRE, params, RowMeaning::Expired(number));
            Ok(OpOutcome::Done(Effect::Expired(0)))
        }
        Op::SaveWake { slot: Slot { account, device }, wake } => changes::wake(plan, account, *device, *wake),
        Op::DeleteWake { slot: Slot { account, device } } => {
            let id = plan.id(account)?;
            plan.wake_deleted(id, *device);
            Ok(done())
        }
        Op::SaveHandover { number } => {
            let params = params![plan.writer.node, numbers::random(number.get())];
            plan.call("UPDATE node SET handover = $2 WHERE id = $1", params, RowMeaning::Nothing);
            Ok(done())
        }
        Op::Recover { after, .. } => {
            if after == &Some(0) {
                let params = params![plan.writer.node];
                plan.call("UPDATE node SET handover = NULL WHERE id = $1", params, RowMeaning::Nothing);
            }
            Ok(claims::recover(plan, number, op))
        }
        Op::Forget { accounts, before, revision } => changes::forget(plan, accounts, *before, *revision),
        Op::Expire { .. } => spools::expire(plan, number, op),
        Op::SaveCount { spool, has_ended, .. } => {
            // The stanzas are counted when the account is claimed. Only an empty spool is of interest.
            let writes = group.ops.iter().any(|op| !matches!(op, Op::SaveCount { .. }));
            if *has_ended && writes {
                spools::drop_if_empty(plan, spool)?;
            }
            Ok(done())
        }
    }
}

fn save_tombstone(plan: &mut GroupPlan<'_>, sm_id: &str, tombstone: &Tombstone) -> OpOutcome {
    const SAVE: &str = "INSERT INTO tombstone (sm_id, jid, at, record) VALUES ($1, $2, $3, $4) \
        ON CONFLICT (sm_id) DO UPDATE SET jid = excluded.jid, at = excluded.at, record = excluded.record";
    let (jid, at) = (tombstone.account.as_str().to_owned(), numbers::counted(tombstone.at.get()));
    plan.call(SAVE, params![sm_id.to_owned(), jid, at, tombstone.encode()], RowMeaning::Nothing);
    done()
}

/// Returns the result of a group that changes nothing.
fn unchanged(plan: GroupPlan<'_>, lazy: usize) -> Committed {
    Committed { outcomes: plan.outcomes, lazy: vec![OpProgress::Done; lazy], ..Committed::default() }
}

/// The results in the rows of a group.
struct GroupResults<'p> {
    names: &'p std::collections::HashMap<i64, BareJid>,
    counted: Vec<(SpoolId, CountChange)>,
    forgotten: Vec<SpoolId>,
    claimed: Vec<(i64, BareJid, ClaimedAccount)>,
    took_over: Vec<(usize, Vec<i64>)>,
    expired: Vec<(usize, u64)>,
    /// True if a statement wrote fewer rows than it should: this node does not own the account any more.
    lacks_rows: bool,
}

impl<'p> GroupResults<'p> {
    fn new(plan: &'p GroupPlan<'_>) -> Self {
        Self {
            names: &plan.names,
            counted: Vec::new(),
            forgotten: Vec::new(),
            claimed: Vec::new(),
            took_over: Vec::new(),
            expired: Vec::new(),
            lacks_rows: false,
        }
    }

    fn read(&mut self, rows: &[Row], reading: RowMeaning) {
        match reading {
            RowMeaning::Nothing => {}
            RowMeaning::Written(expected) => self.lacks_rows |= rows.len() < expected,
            RowMeaning::Deleted => {
                let removed = rows.iter().filter_map(|row| Some((self.spool(row)?, CountChange::Removed(count(row)))));
                let removed: Vec<_> = removed.collect();
                self.counted.extend(removed);
            }
            RowMeaning::Gone => self.note_gone(rows),
            RowMeaning::Forgotten => {
                self.forgotten.extend(rows.iter().filter_map(|row| self.spool(row)).collect::<Vec<_>>());
                self.note_gone(rows);
            }
            RowMeaning::TookOver(number) => self.took_over.push((number, rows.iter().map(|row| row.get(0)).collect())),
            RowMeaning::Expired(number) => self.expired.push((number, rows.len() as u64)),
            RowMeaning::Claimed => self.claimed.extend(rows.iter().filter_map(claimed)),
            RowMeaning::Counted => rows.iter().for_each(|row| self.note_claimed(row)),
        }
    }

    fn spool(&self, row: &Row) -> Option<SpoolId> {
        let account = self.names.get(&row.get(0))?.clone();
        Some(SpoolId { account, login: numbers::login_of(row.get(1)) })
    }

    fn note_gone(&mut self, rows: &[Row]) {
        let gone: Vec<_> = rows.iter().filter_map(|row| Some((self.spool(row)?, CountChange::Gone))).collect();
        self.counted.extend(gone);
    }

    fn note_claimed(&mut self, row: &Row) {
        let id: i64 = row.get(0);
        let Some((_, _, claimed)) = self.claimed.iter_mut().find(|(known, ..)| *known == id) else { return };
        let (last, shared): (i64, i64) = (row.get(4), row.get(5));
        let backlog = Backlog {
            count: numbers::count_of(row.get(2)),
            bytes: numbers::count_of(row.get(3)),
            last_seq: Seq::new(numbers::count_of(last)),
        };
        claimed.counts.push((numbers::login_of(row.get(1)), Count { backlog, shared: numbers::count_of(shared) }));
    }
}

fn count(row: &Row) -> Count {
    let (stanzas, bytes, shared) = (row.get(2), row.get(3), row.get(4));
    let backlog = Backlog { count: numbers::count_of(stanzas), bytes: numbers::count_of(bytes), last_seq: Seq::ZERO };
    Count { backlog, shared: numbers::count_of(shared) }
}

fn claimed(row: &Row) -> Option<(i64, BareJid, ClaimedAccount)> {
    let account = BareJid::new(row.get::<_, &str>(1)).ok()?;
    let record: Option<&[u8]> = row.get(4);
    let open = knowledge::decode(&account, record)
        .map(|state| state.devices.iter().flat_map(|device| device.open.iter().copied()).collect::<Vec<_>>());
    let claimed = ClaimedAccount {
        revision: numbers::count_of(row.get(2)),
        login: numbers::login_of(row.get(3)),
        open: open.unwrap_or_default(),
        counts: Vec::new(),
    };
    Some((row.get(0), account, claimed))
}

/// Completes the outcomes with what the rows say.
fn settle_outcomes(
    outcomes: &mut [OpOutcome],
    group: &OpGroup<'_>,
    claimed: Vec<(i64, BareJid, ClaimedAccount)>,
    took_over: Vec<(usize, Vec<i64>)>,
    expired: Vec<(usize, u64)>,
) {
    for (outcome, op) in outcomes.iter_mut().zip(group.ops) {
        if let Op::Claim { account } = op {
            let got = claimed.iter().find(|(_, name, _)| name == account);
            *outcome = match got {
                Some((_, _, got)) => OpOutcome::Done(Effect::Claimed(got.clone())),
                None => OpOutcome::Refused(StoreError::Elsewhere { account: account.clone() }),
            };
        }
    }
    for (number, logins) in took_over {
        if let Some(outcome) = outcomes.get_mut(number) {
            let mut logins: Vec<_> = logins.into_iter().map(numbers::login_of).collect();
            logins.sort_unstable();
            *outcome = OpOutcome::Done(Effect::TookOver(logins));
        }
    }
    for (number, count) in expired {
        if let Some(outcome) = outcomes.get_mut(number) {
            *outcome = OpOutcome::Done(Effect::Expired(count));
        }
    }
}
