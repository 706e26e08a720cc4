//! The operations on spools.

use std::ops::RangeInclusive;

use super::changes::DROP_EMPTY;
use super::connection::params;
use super::numbers;
use super::plan::{GroupPlan, RowMeaning, done};
use crate::jid::BareJid;
use crate::push::account::{DeviceId, LoginId};
use crate::seq::Seq;
use crate::session::queue::Spooled;
use crate::store::error::StoreError;
use crate::store::op::{CountChange, Deletion, Effect, Op, OpOutcome};
use crate::store::schema::Count;
use crate::store::values::SpoolId;

const BEGIN_SPOOL: &str = "WITH used AS (UPDATE account SET last_login = $2 WHERE id = $1 AND last_login < $2) \
    INSERT INTO session (account, login, device, reader) VALUES ($1, $2, $3, $2) \
    ON CONFLICT (account, login) DO NOTHING";
/// Free are the spools that the login reads already, and those whose reader has no session any more.
const TAKE_OVER: &str = "UPDATE session x SET reader = $3 WHERE x.account = $1 AND x.device = $2 AND x.login <> $3 \
    AND (x.reader = $3 OR ($5 AND NOT x.reader = ANY($4))) \
    AND EXISTS (SELECT 1 FROM spool s WHERE s.account = x.account AND s.session = x.login) RETURNING x.login";
const DELETE_MOVED: &str = "DELETE FROM spool WHERE account = $1 AND session = $2 AND seq = ANY($3)";

/// Adds stanzas to a spool, all or none. Those up to `known` must be in it already.
pub(super) fn spool(
    plan: &mut GroupPlan<'_>,
    spool: &SpoolId,
    device: DeviceId,
    items: &[Spooled],
    known: Seq,
) -> Result<OpOutcome, StoreError> {
    let id = plan.id(&spool.account)?;
    let mut last_seq = known;
    for item in items {
        if item.seq > last_seq {
            last_seq = item.seq;
        } else if !plan.known.holds(spool, item) {
            return Err(StoreError::SequenceTaken { seq: item.seq, last_seq });
        }
    }
    if last_seq == known {
        return Ok(done());
    }
    begin_spool(plan, id, spool, device)?;
    for item in items.iter().filter(|item| item.seq > known) {
        plan.insert(id, spool, item.clone());
    }
    plan.touched.insert(spool.account.clone());
    Ok(done())
}

/// Creates the row of a new spool.
fn begin_spool(plan: &mut GroupPlan<'_>, id: i64, spool: &SpoolId, device: DeviceId) -> Result<(), StoreError> {
    if plan.known.has_row(spool) || !plan.begun.insert(spool.clone()) {
        return Ok(());
    }
    // The session may not know yet that its device turned out to be another.
    let state = plan.load_if_readable(&spool.account)?;
    let device = state.and_then(|state| state.device_of(spool.login)).unwrap_or(device);
    let params = params![id, numbers::login(spool.login), numbers::device(device)];
    plan.call(BEGIN_SPOOL, params, RowMeaning::Nothing);
    Ok(())
}

pub(super) fn delete_of(plan: &mut GroupPlan<'_>, deletion: &Deletion) -> Result<(), StoreError> {
    let id = plan.id(&deletion.spool.account)?;
    plan.delete(id, deletion);
    plan.touched.insert(deletion.spool.account.clone());
    Ok(())
}

/// Makes a login the reader of the spools that ended sessions of the device have left.
pub(super) fn take_over(
    plan: &mut GroupPlan<'_>,
    number: usize,
    account: &BareJid,
    device: DeviceId,
    to: LoginId,
) -> Result<OpOutcome, StoreError> {
    let id = plan.id(account)?;
    let state = plan.load_if_readable(account)?;
    let is_known = state.is_some();
    let open: Vec<i64> = state
        .iter()
        .flat_map(|state| &state.devices)
        .flat_map(|device| &device.open)
        .map(|login| numbers::login(*login))
        .collect();
    let params = params![id, numbers::device(device), numbers::login(to), open, is_known];
    plan.call(TAKE_OVER, params, RowMeaning::TookOver(number));
    Ok(OpOutcome::Done(Effect::TookOver(Vec::new())))
}

/// Moves shared stanzas of one spool of a device without a session into another spool.
pub(super) fn adopt(plan: &mut GroupPlan<'_>, number: usize, op: &Op) -> Result<OpOutcome, StoreError> {
    let Op::Adopt { account, to, device, seqs, .. } = op else { return Ok(done()) };
    if plan.touched.contains(account) {
        return Ok(OpOutcome::Unfinished(op.clone()));
    }
    let id = plan.id(account)?;
    plan.load(account)?;
    let Some(found) = plan.known.adoptable(number) else { return Ok(OpOutcome::Done(Effect::Adopted(0))) };
    if found.moved_before > 0 {
        return Ok(OpOutcome::Done(Effect::Adopted(found.moved_before)));
    }
    let numbers_free = (seqs.start().get()..=seqs.end().get()).map(Seq::new);
    let items: Vec<(Spooled, Seq)> = found.items.iter().cloned().zip(numbers_free).collect();
    let Some(from) = found.spool.clone().filter(|_| !items.is_empty()) else {
        return Ok(OpOutcome::Done(Effect::Adopted(0)));
    };
    begin_spool(plan, id, to, *device)?;
    let mut moved = Count::default();
    for (item, seq) in &items {
        moved.add(item.cost(), item.shared);
        moved.backlog.last_seq = *seq;
    }
    let gone: Vec<i64> = items.iter().map(|(item, _)| numbers::seq(item.seq)).collect();
    for (item, seq) in items {
        plan.insert(id, to, Spooled { seq, ..item });
    }
    plan.call(DELETE_MOVED, params![id, numbers::login(from.login), gone], RowMeaning::Nothing);
    plan.call(DROP_EMPTY, params![id, numbers::login(from.login)], RowMeaning::Gone);
    plan.counted.push((to.clone(), CountChange::Added(moved)));
    plan.counted.push((from, CountChange::Removed(moved)));
    plan.touched.insert(account.clone());
    Ok(OpOutcome::Done(Effect::Adopted(moved.backlog.count)))
}

/// Deletes stanzas from the front of a spool that came before this time, at most one piece, unless the device has an open
/// session.
pub(super) fn expire(plan: &mut GroupPlan<'_>, number: usize, op: &Op) -> Result<OpOutcome, StoreError> {
    let Op::Expire { spool, before } = op else { return Ok(done()) };
    if plan.touched.contains(&spool.account) {
        return Ok(OpOutcome::Unfinished(op.clone()));
    }
    let id = plan.id(&spool.account)?;
    let state = plan.load(&spool.account)?;
    let Some(front) = plan.known.front(number) else { return Ok(OpOutcome::Done(Effect::Expired(0))) };
    if !state.is_away(front.device) {
        return Ok(OpOutcome::Done(Effect::Expired(0)));
    }
    let (old, last) = front.older_than(&spool.account, *before);
    if let Some(last) = last {
        let ranges: Vec<RangeInclusive<Seq>> = vec![Seq::ZERO..=last];
        delete_of(plan, &Deletion { spool: spool.clone(), ranges })?;
        tracing::warn!(account = %spool.account, stanzas = old, "stanzas never fetched: deleted after orphan_ttl");
    }
    plan.call(DROP_EMPTY, params![id, numbers::login(spool.login)], RowMeaning::Gone);
    plan.touched.insert(spool.account.clone());
    Ok(OpOutcome::Done(Effect::Expired(old)))
}

/// Deletes the row of an empty spool whose session has ended.
pub(super) fn drop_if_empty(plan: &mut GroupPlan<'_>, spool: &SpoolId) -> Result<(), StoreError> {
    let id = plan.id(&spool.account)?;
    plan.call(DROP_EMPTY, params![id, numbers::login(spool.login)], RowMeaning::Gone);
    Ok(())
}
