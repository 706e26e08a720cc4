//! Changes of accounts and of the records that depend on them: wakes, spools, tombstones.

use super::deliver;
use super::tables::Tables;
use crate::jid::BareJid;
use crate::push::account::{Account, Change, DeviceId, LoginId};
use crate::store::error::StoreError;
use crate::store::op::{Effect, Op, OpOutcome, RecordRemoval};
use crate::store::values::{Slot, SpoolId};

/// Applies a change.
pub(super) fn change(
    tx: &mut Tables<'_>,
    account: &BareJid,
    change: &Change,
    revision: u64,
) -> Result<Effect, StoreError> {
    let before = tx.accounts.load(account)?;
    let mut after = before.clone();
    let device = after.apply(change.clone());
    if revision <= before.revision {
        // It was applied when the same group was committed before.
        return Ok(Effect::Changed(before, device));
    }
    if let Change::Enable { registration, .. } = change
        && let Some(known) = device.filter(|known| *known != registration.device)
    {
        // The known device has just been in contact, so only the wake of the new one counts.
        let slot = |device| Slot { account: account.clone(), device };
        deliver::merge(tx, account, registration.device, known)?;
        tx.wakes.shift(&slot(registration.device), &slot(known))?;
    }
    if let (Change::Login { login, .. }, Some(device)) = (change, device) {
        tx.accounts.note_login(*login)?;
        tx.wakes.delete(account, device)?;
    }
    if let Change::Ended { login } = change {
        deliver::close(tx, &SpoolId { account: account.clone(), login: *login })?;
    }
    if before != after {
        // An account that is removed and comes back gets a higher revision than it had.
        after.revision = revision;
    }
    replace(tx, account, &before, &after)?;
    Ok(Effect::Changed(after, device))
}

/// Stores an account and deletes the records that depended on devices and registrations it no longer has.
pub(super) fn replace(
    tx: &mut Tables<'_>,
    account: &BareJid,
    before: &Account,
    after: &Account,
) -> Result<(), StoreError> {
    if before == after {
        return Ok(());
    }
    for device in before.devices.iter().map(|device| device.id).filter(|id| after.device(*id).is_none()) {
        let spools = tx.spools.delete_spools_of_device(account, device)?;
        tx.forgotten.extend(spools);
        tx.wakes.delete(account, device)?;
    }
    for device in before.registrations.iter().map(|r| r.device).filter(|id| after.owned(*id).next().is_none()) {
        tx.wakes.delete(account, device)?;
    }
    tx.accounts.save(account, after)
}

/// Deletes the records of an account that belong to logins up to this one, except for tombstones.
pub(super) fn remove(
    tx: &mut Tables<'_>,
    account: &BareJid,
    up_to: LoginId,
    revision: u64,
) -> Result<RecordRemoval, StoreError> {
    let before = tx.accounts.load_if_readable(account)?;
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
        tx.accounts.save(account, &left)?;
    }
    tx.spools.delete_spools_of_account(account, up_to)?;
    tx.wakes.delete_of(account, |device: DeviceId| left.device(device).is_none())?;
    Ok(RecordRemoval { account: left, tombstones: tx.tombstones.of(account)? })
}

/// Deletes tombstones of a removed account within the budget.
pub(super) fn remove_tombstones(
    tx: &mut Tables<'_>,
    account: &BareJid,
    up_to: LoginId,
    revision: u64,
    mut removal: RecordRemoval,
) -> Result<OpOutcome, StoreError> {
    while !removal.tombstones.is_empty() && tx.spools.budget.spend(0) {
        let Some(sm_id) = removal.tombstones.pop() else { break };
        tx.tombstones.delete(&sm_id)?;
    }
    if removal.tombstones.is_empty() {
        return Ok(OpOutcome::Done(Effect::Changed(removal.account, None)));
    }
    let left = Some(Box::new(removal));
    Ok(OpOutcome::Unfinished(Op::Remove { account: account.clone(), up_to, revision, left }))
}
