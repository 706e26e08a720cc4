//! Stanzas that come into a spool.

use super::tables::Tables;
use crate::jid::BareJid;
use crate::push::account::DeviceId;
use crate::seq::Seq;
use crate::session::queue::Spooled;
use crate::store::error::StoreError;
use crate::store::op::Effect;
use crate::store::schema::{Count, Row};
use crate::store::values::SpoolId;

/// Adds stanzas to a spool, all or none. Those up to `known` must be there already.
pub(super) fn spool(
    tx: &mut Tables<'_>,
    spool: &SpoolId,
    device: DeviceId,
    items: &[Spooled],
    known: Seq,
) -> Result<Effect, StoreError> {
    let mut last_seq = known;
    for item in items {
        if item.seq > last_seq {
            last_seq = item.seq;
        } else if !tx.spools.holds(spool, item)? {
            return Err(StoreError::SequenceTaken { seq: item.seq, last_seq });
        }
    }
    if last_seq > known {
        prepare_row(tx, spool, device, items, known)?;
        items.iter().filter(|item| item.seq > known).try_for_each(|item| tx.spools.insert(spool, item))?;
    }
    Ok(Effect::Nothing)
}

/// Lets the row of a spool say that the spool is counted in memory. A new spool gets one.
pub(super) fn prepare_row(
    tx: &mut Tables<'_>,
    spool: &SpoolId,
    device: DeviceId,
    items: &[Spooled],
    known: Seq,
) -> Result<(), StoreError> {
    match tx.spools.row(spool) {
        Ok(Some(row)) if row.count.is_none() => Ok(()),
        Ok(Some(row)) => tx.spools.set_row(spool, Row { count: None, ..row }),
        Ok(None) => {
            // What was in it before the account was removed may still be there.
            let doomed = tx.spools.doomed(spool)?;
            if let Some(item) = items.iter().find(|item| item.seq > known && item.seq <= doomed) {
                return Err(StoreError::SequenceTaken { seq: item.seq, last_seq: doomed });
            }
            // The session may not know yet that its device turned out to be another.
            let state = tx.accounts.load_if_readable(&spool.account)?;
            let device = state.and_then(|state| state.device_of(spool.login)).unwrap_or(device);
            tx.accounts.note_login(spool.login)?;
            tx.spools.set_row(spool, Row::new(device, spool.login))
        }
        Err(error) if error.is_of_one_record() => rebuild(tx, spool, device),
        Err(error) => Err(error),
    }
}

/// Writes the row of a spool that cannot be read again.
pub(super) fn rebuild(tx: &mut Tables<'_>, spool: &SpoolId, device: DeviceId) -> Result<(), StoreError> {
    tracing::error!(
        account = %spool.account, login = spool.login.0,
        "unreadable spool record rebuilt"
    );
    tx.spools.set_row(spool, Row::new(device, spool.login))
}

/// The row of a spool; one that cannot be read is built again.
///
/// # Errors
/// What is wrong with it, if it is not known which device the stanzas are for.
pub(super) fn row(tx: &mut Tables<'_>, spool: &SpoolId) -> Result<Option<Row>, StoreError> {
    match tx.spools.row(spool) {
        Err(error) if error.is_of_one_record() => match device_of(tx, spool)? {
            Some(device) => {
                rebuild(tx, spool, device)?;
                tx.spools.row(spool)
            }
            None => Err(error),
        },
        row => row,
    }
}

/// The device that a spool is for, as its account says: that of its session, or the only one.
pub(super) fn device_of(tx: &Tables<'_>, spool: &SpoolId) -> Result<Option<DeviceId>, StoreError> {
    let Some(state) = tx.accounts.load_if_readable(&spool.account)? else { return Ok(None) };
    let only = match state.devices.as_slice() {
        [only] => Some(only.id),
        _ => None,
    };
    Ok(state.device_of(spool.login).or(only))
}

/// Writes into the row of a spool what is in it, if there is something else to commit.
pub(super) fn save_count(tx: &mut Tables<'_>, spool: &SpoolId, count: Count) -> Result<(), StoreError> {
    let Some(row) = row_to_count(tx, spool)? else { return Ok(()) };
    tx.spools.save_row(spool, Row { count: Some(count), ..row })
}

/// The same for a spool whose session has ended. If nothing is in it, the row goes.
pub(super) fn save_last_count(tx: &mut Tables<'_>, spool: &SpoolId, count: Count) -> Result<(), StoreError> {
    let Some(row) = row_to_count(tx, spool)? else { return Ok(()) };
    if tx.spools.is_empty(spool)? {
        return tx.spools.doom(spool);
    }
    tx.spools.save_row(spool, Row { count: Some(count), ..row })
}

fn row_to_count(tx: &Tables<'_>, spool: &SpoolId) -> Result<Option<Row>, StoreError> {
    match tx.spools.row(spool) {
        // It is built again when it is needed.
        Err(error) if error.is_of_one_record() => Ok(None),
        row => row,
    }
}

/// The session of a login has ended: its spool goes if nothing is in it.
pub(super) fn close(tx: &mut Tables<'_>, spool: &SpoolId) -> Result<(), StoreError> {
    if tx.spools.is_empty(spool)? { tx.spools.doom(spool) } else { Ok(()) }
}

/// One device turns out to be another. Its spools become the other's.
pub(super) fn merge(
    tx: &mut Tables<'_>,
    account: &BareJid,
    newcomer: DeviceId,
    known: DeviceId,
) -> Result<(), StoreError> {
    for (spool, row) in tx.spools.rows_of(account)? {
        if row.device == newcomer {
            tx.spools.set_row(&spool, Row { device: known, ..row })?;
        }
    }
    Ok(())
}
