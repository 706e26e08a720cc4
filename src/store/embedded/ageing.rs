//! Recovery after a restart, and the expiry of registrations, tombstones and stanzas.

use std::collections::HashSet;
use std::ops::{Bound, ControlFlow};

use redb::ReadTransaction;

use super::spools::{ErasureBudget, PIECE};
use super::tables::Tables;
use super::{accounts, change, deliver, inherit};
use crate::clock::{UnixMillis, UnixSecs};
use crate::jid::BareJid;
use crate::push::account::{Device, LoginId};
use crate::seq::Seq;
use crate::session::queue::Spooled;
use crate::store::error::{StoreError, tolerate};
use crate::store::op::{Effect, Unreadable};
use crate::store::query::Piece;
use crate::store::schema::{ACCOUNTS, Row, SPOOLS, TOMBSTONES, decode_account};
use crate::store::values::{Slot, SpoolId, Tombstone, Wake, WakeReason};

/// Closes the logins that the previous process left open, except for those that were `kept`, saves wakes for their devices,
/// and returns the devices.
pub(super) fn recover(
    tx: &mut Tables<'_>,
    now: UnixSecs,
    revision: u64,
    kept: &HashSet<LoginId>,
) -> Result<Vec<Slot>, StoreError> {
    // This must come first, while the accounts still say which logins were open.
    let (unreadable, empty) = tx.spools.scan_all()?;
    inherit::rebuild_rows(tx, unreadable)?;
    let mut slots = Vec::new();
    let is_lost = |device: &Device| device.open.iter().any(|login| !kept.contains(login));
    for (account, old) in tx.accounts.find(|state| state.devices.iter().any(is_lost))? {
        let mut state = old.clone();
        state.revision = revision;
        for device in state.devices.iter_mut().filter(|device| is_lost(device)) {
            device.open.retain(|login| kept.contains(login));
            if device.is_open() {
                continue;
            }
            let slot = Slot { account: account.clone(), device: device.id };
            if old.owned(device.id).next().is_some() {
                tx.wakes.save_unless_noted(&slot, Wake { since: now, reason: WakeReason::Restart })?;
            }
            slots.push(slot);
        }
        change::replace(tx, &account, &old, &state)?;
    }
    // No other session is open, so their empty spools are not needed.
    let unused = empty.iter().filter(|spool| !kept.contains(&spool.login));
    unused.into_iter().try_for_each(|spool| tx.spools.delete_spool(spool))?;
    Ok(slots)
}

/// Forgets registrations and devices that were not seen since `before`.
pub(super) fn forget(
    tx: &mut Tables<'_>,
    accounts: &[BareJid],
    before: UnixSecs,
    revision: u64,
) -> Result<Effect, StoreError> {
    let (mut changed, mut count) = (Vec::new(), 0u64);
    for account in accounts {
        let old = match tx.accounts.load(account) {
            Ok(old) => old,
            Err(error) => {
                tolerate(Err(error))?;
                continue;
            }
        };
        let mut state = old.clone();
        count = count.saturating_add(state.forget_unseen(before) as u64);
        if state != old {
            state.revision = revision;
            change::replace(tx, account, &old, &state)?;
            changed.push((account.clone(), state));
        }
    }
    Ok(Effect::Forgot(changed, count))
}

/// Deletes stanzas from the front of a spool that came before this time, at most one piece, unless the device has an open
/// session. Returns their number. Stops at the first stanza that came later. The row is deleted with the last stanza.
pub(super) fn expire(tx: &mut Tables<'_>, spool: &SpoolId, before: UnixMillis) -> Result<u64, StoreError> {
    match expire_readable(tx, spool, before) {
        Err(error) => tolerate(Err(error)).map(|()| 0),
        gone => gone,
    }
}

fn expire_readable(tx: &mut Tables<'_>, spool: &SpoolId, before: UnixMillis) -> Result<u64, StoreError> {
    let Some(row) = deliver::row(tx, spool)? else { return Ok(0) };
    if !tx.accounts.load(&spool.account)?.is_away(row.device) {
        return Ok(0);
    }
    let (mut old, mut last, mut unreadable) = (0u64, None, Unreadable::of(spool));
    tx.spools.each(spool, Seq::ZERO, |seq, record| match Spooled::decode(&spool.account, seq, record) {
        Ok(item) if item.received < before && old < PIECE as u64 => {
            (old, last) = (old.saturating_add(1), Some(seq));
            ControlFlow::Continue(())
        }
        Ok(_) => ControlFlow::Break(()),
        Err(error) => {
            unreadable.add(seq, error);
            ControlFlow::Continue(())
        }
    })?;
    let mut count = 0;
    if let Some(last) = last {
        tx.spools.budget = ErasureBudget::piece();
        count = tx.spools.delete(spool, Seq::ZERO..=last)?.stanzas;
    }
    // Unreadable stanzas before the last deleted one were deleted with it.
    if !unreadable.seqs.is_empty() {
        tx.unreadable.push(unreadable);
    }
    if tx.spools.is_empty(spool)? {
        tx.spools.delete_spool(spool)?;
    }
    if count > 0 {
        let account = &spool.account;
        tracing::warn!(%account, stanzas = count, "stanzas never fetched: deleted after orphan_ttl");
    }
    Ok(count)
}

/// Returns the accounts after a name that have something to forget.
pub(super) fn unseen(
    transaction: &ReadTransaction,
    after: &str,
    before: UnixSecs,
) -> Result<Piece<String, BareJid>, StoreError> {
    let table = transaction.open_table(ACCOUNTS)?;
    let mut piece = Piece { due: Vec::new(), next: None };
    for entry in table.range::<&str>((Bound::Excluded(after), Bound::Unbounded))?.take(PIECE) {
        let (key, record) = entry?;
        piece.next = Some(key.value().to_owned());
        let Ok(account) = BareJid::new(key.value()) else { continue };
        if let Ok(mut state) = decode_account(&account, record.value()) {
            let old = state.clone();
            state.forget_unseen(before);
            if state != old {
                piece.due.push(account);
            }
        }
    }
    Ok(piece)
}

/// Returns the old tombstones after a resumption id.
pub(super) fn old_tombstones(
    transaction: &ReadTransaction,
    after: &str,
    before: UnixSecs,
) -> Result<Piece<String, String>, StoreError> {
    let table = transaction.open_table(TOMBSTONES)?;
    let mut piece = Piece { due: Vec::new(), next: None };
    for entry in table.range::<&str>((Bound::Excluded(after), Bound::Unbounded))?.take(PIECE) {
        let (key, record) = entry?;
        piece.next = Some(key.value().to_owned());
        if Tombstone::decode(record.value()).is_none_or(|tombstone| tombstone.at < before) {
            piece.due.push(key.value().to_owned());
        }
    }
    Ok(piece)
}

/// Returns the spools after this one whose devices have no open session.
pub(super) fn away(
    transaction: &ReadTransaction,
    after: &(String, u64),
) -> Result<Piece<(String, u64), SpoolId>, StoreError> {
    let (spools, records) = (transaction.open_table(SPOOLS)?, transaction.open_table(ACCOUNTS)?);
    let mut piece = Piece { due: Vec::new(), next: None };
    let start = Bound::Excluded((after.0.as_str(), after.1));
    for entry in spools.range::<(&str, u64)>((start, Bound::Unbounded))?.take(PIECE) {
        let (key, record) = entry?;
        let (account, login) = key.value();
        piece.next = Some((account.to_owned(), login));
        let Ok(account) = BareJid::new(account) else { continue };
        let Ok(row) = Row::decode(&account, record.value()) else { continue };
        // An account that cannot be read may have an open session.
        if accounts::load(&records, &account).is_ok_and(|state| state.is_away(row.device)) {
            piece.due.push(SpoolId { account, login: LoginId(login) });
        }
    }
    Ok(piece)
}
