//! The operations on accounts and the records that depend on them: wakes, spools, tombstones.

use super::connection::params;
use super::numbers;
use super::plan::{GroupPlan, RowMeaning, done};
use crate::clock::UnixSecs;
use crate::jid::BareJid;
use crate::push::account::{Account, Change, DeviceId, LoginId};
use crate::store::error::{StoreError, tolerate};
use crate::store::op::{Effect, OpOutcome};
use crate::store::values::{Wake, WakeReason};

const DELETE_SPOOLS_OF_DEVICE: &str = "WITH gone AS (DELETE FROM session WHERE account = $1 AND device = $2 RETURNING login), \
    stanzas AS (DELETE FROM spool s USING gone WHERE s.account = $1 AND s.session = gone.login) \
    SELECT $1::bigint, login FROM gone";
const DELETE_SPOOLS_OF_ACCOUNT: &str = "WITH gone AS (DELETE FROM session WHERE account = $1 AND login <= $2 RETURNING login), \
    stanzas AS (DELETE FROM spool s WHERE s.account = $1 AND s.session <= $2) \
    SELECT $1::bigint, login FROM gone";
const MOVE_SPOOLS: &str = "UPDATE session SET device = $3 WHERE account = $1 AND device = $2";
const MOVE_WAKE: &str = "UPDATE wake SET device = $3 WHERE account = $1 AND device = $2";
const SAVE_WAKE_UNLESS_NOTED: &str =
    "INSERT INTO wake (account, device, record) VALUES ($1, $2, $3) ON CONFLICT (account, device) DO NOTHING";
const DELETE_OTHER_WAKES: &str = "DELETE FROM wake WHERE account = $1 AND NOT device = ANY($2)";
/// The row of a spool whose session has ended goes with the last stanza.
pub(super) const DROP_EMPTY: &str = "DELETE FROM session x WHERE x.account = $1 AND x.login = $2 \
    AND NOT EXISTS (SELECT 1 FROM spool s WHERE s.account = x.account AND s.session = x.login) \
    RETURNING x.account, x.login";

/// Applies a change to an account.
pub(super) fn change(
    plan: &mut GroupPlan<'_>,
    account: &BareJid,
    change: &Change,
    revision: u64,
) -> Result<OpOutcome, StoreError> {
    let id = plan.id(account)?;
    let before = plan.load(account)?;
    let mut after = before.clone();
    let device = after.apply(change.clone());
    if revision <= before.revision {
        // It was applied when the same group was committed before.
        return Ok(OpOutcome::Done(Effect::Changed(before, device)));
    }
    if before != after {
        // An account that is removed and comes back gets a higher revision than it had.
        after.revision = revision;
    }
    let mut used = LoginId(0);
    if let Change::Enable { registration, .. } = change
        && let Some(known) = device.filter(|known| *known != registration.device)
    {
        let [from, to] = [registration.device, known].map(numbers::device);
        plan.call(MOVE_SPOOLS, params![id, from, to], RowMeaning::Nothing);
        // The known device has just been in contact, so only the wake of the new one counts.
        plan.wake_deleted(id, known);
        plan.call(MOVE_WAKE, params![id, from, to], RowMeaning::Nothing);
    }
    if let (Change::Login { login, .. }, Some(device)) = (change, device) {
        used = *login;
        plan.wake_deleted(id, device);
    }
    if let Change::Ended { login } = change {
        plan.call(DROP_EMPTY, params![id, numbers::login(*login)], RowMeaning::Gone);
        plan.touched.insert(account.clone());
    }
    replace(plan, account, id, &before, after.clone(), used)?;
    Ok(OpOutcome::Done(Effect::Changed(after, device)))
}

/// Stores an account and deletes the records that depended on devices and registrations it no longer has.
fn replace(
    plan: &mut GroupPlan<'_>,
    account: &BareJid,
    id: i64,
    before: &Account,
    after: Account,
    login: LoginId,
) -> Result<(), StoreError> {
    if *before == after {
        return Ok(());
    }
    for device in before.devices.iter().map(|device| device.id).filter(|id| after.device(*id).is_none()) {
        plan.call(DELETE_SPOOLS_OF_DEVICE, params![id, numbers::device(device)], RowMeaning::Forgotten);
        plan.touched.insert(account.clone());
        plan.wake_deleted(id, device);
    }
    for device in before.registrations.iter().map(|r| r.device).filter(|id| after.owned(*id).next().is_none()) {
        plan.wake_deleted(id, device);
    }
    plan.save(account, after, login)
}

/// Deletes the records of an account that belong to logins up to this one.
pub(super) fn remove(
    plan: &mut GroupPlan<'_>,
    account: &BareJid,
    up_to: LoginId,
    revision: u64,
) -> Result<OpOutcome, StoreError> {
    let id = plan.id(account)?;
    let before = plan.load_if_readable(account)?;
    // A session that has logged in since belongs to a new account of that name.
    let mut left = Account::default();
    for mut device in before.iter().flat_map(|before| before.devices.clone()) {
        device.open.retain(|login| *login > up_to);
        if device.is_open() {
            left.devices.push(device);
        }
    }
    left.revision = revision;
    if before.is_none_or(|before| before != left) {
        plan.save(account, left.clone(), LoginId(0))?;
    }
    plan.call(DELETE_SPOOLS_OF_ACCOUNT, params![id, numbers::login(up_to)], RowMeaning::Gone);
    plan.touched.insert(account.clone());
    let stay: Vec<i64> = left.devices.iter().map(|device| numbers::device(device.id)).collect();
    plan.call(DELETE_OTHER_WAKES, params![id, stay], RowMeaning::Nothing);
    plan.call("DELETE FROM tombstone WHERE jid = $1", params![account.as_str().to_owned()], RowMeaning::Nothing);
    Ok(OpOutcome::Done(Effect::Changed(left, None)))
}

/// Forgets registrations and devices that were not seen since `before`.
pub(super) fn forget(
    plan: &mut GroupPlan<'_>,
    accounts: &[BareJid],
    before: UnixSecs,
    revision: u64,
) -> Result<OpOutcome, StoreError> {
    let (mut changed, mut count) = (Vec::new(), 0u64);
    for account in accounts {
        let (id, old) = match plan.id(account).and_then(|id| Ok((id, plan.load(account)?))) {
            Ok(known) => known,
            Err(error) => {
                tolerate(Err(error))?;
                continue;
            }
        };
        let mut state = old.clone();
        count = count.saturating_add(state.forget_unseen(before) as u64);
        if state != old {
            state.revision = revision.max(old.revision.saturating_add(1));
            replace(plan, account, id, &old, state.clone(), LoginId(0))?;
            changed.push((account.clone(), state));
        }
    }
    Ok(OpOutcome::Done(Effect::Forgot(changed, count)))
}

/// Closes the logins of an account that no process serves any more.
pub(super) fn close_stale(
    plan: &mut GroupPlan<'_>,
    account: &BareJid,
    now: UnixSecs,
    revision: u64,
    is_lost: impl Fn(LoginId) -> bool,
) -> Result<OpOutcome, StoreError> {
    let id = plan.id(account)?;
    let old = plan.load(account)?;
    let Some(closed) = closed(&old, revision, &is_lost) else {
        return Ok(OpOutcome::Done(Effect::Changed(old, None)));
    };
    for device in &closed.to_wake {
        let wake = Wake { since: now, reason: WakeReason::Restart };
        plan.call(SAVE_WAKE_UNLESS_NOTED, params![id, numbers::device(*device), wake.encode()], RowMeaning::Nothing);
    }
    plan.save(account, closed.state.clone(), LoginId(0))?;
    Ok(OpOutcome::Done(Effect::Changed(closed.state, None)))
}

pub(super) fn wake(
    plan: &mut GroupPlan<'_>,
    account: &BareJid,
    device: DeviceId,
    wake: Wake,
) -> Result<OpOutcome, StoreError> {
    let id = plan.id(account)?;
    const SAVE: &str = "INSERT INTO wake (account, device, record) VALUES ($1, $2, $3) \
        ON CONFLICT (account, device) DO UPDATE SET record = excluded.record";
    plan.call(SAVE, params![id, numbers::device(device), wake.encode()], RowMeaning::Nothing);
    Ok(done())
}

/// An account whose lost logins are closed.
pub(super) struct ClosedAccount {
    pub(super) state: Account,
    /// The devices that have no session any more.
    pub(super) away: Vec<DeviceId>,
    /// Those of them that own a registration.
    pub(super) to_wake: Vec<DeviceId>,
}

/// Closes the lost logins of an account; `None` if it has none.
pub(super) fn closed(old: &Account, revision: u64, is_lost: &impl Fn(LoginId) -> bool) -> Option<ClosedAccount> {
    let mut closed = ClosedAccount { state: old.clone(), away: Vec::new(), to_wake: Vec::new() };
    let mut any = false;
    for device in &mut closed.state.devices {
        let before = device.open.len();
        device.open.retain(|login| !is_lost(*login));
        if device.open.len() == before {
            continue;
        }
        any = true;
        if !device.is_open() {
            closed.away.push(device.id);
            if old.owned(device.id).next().is_some() {
                closed.to_wake.push(device.id);
            }
        }
    }
    closed.state.revision = revision.max(old.revision.saturating_add(1));
    any.then_some(closed)
}
