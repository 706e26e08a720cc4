//! Stanzas that are added to a spool, and the rows of spools.

use super::tables::Tables;
use crate::jid::BareJid;
use crate::push::account::DeviceId;
use crate::seq::Seq;
use crate::session::queue::Spooled;
use crate::store::error::StoreError;
use crate::store::op::Effect;
use crate::store::schema::{Count, Row};
use crate::store::values::SpoolId;

/// Adds stanzas to a spool, all or none. Those up to `known` must be in it already.
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

/// Marks the row of a spool as counted in memory. Creates the row of a new spool.
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
            // Stanzas from before the removal of the account may still be there.
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

/// Rewrites the row of a spool that cannot be read.
pub(super) fn rebuild(tx: &mut Tables<'_>, spool: &SpoolId, device: DeviceId) -> Result<(), StoreError> {
    tracing::error!(
        account = %spool.account, login = spool.login.0,
        "unreadable spool record rebuilt"
    );
    tx.spools.set_row(spool, Row::new(device, spool.login))
}

/// Returns the row of a spool. One that cannot be read is rebuilt.
///
/// # Errors
/// The error of the row, if it is unknown which device the stanzas are for.
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

/// Returns the device of a spool according to its account: the device of the session, or the only one.
pub(super) fn device_of(tx: &Tables<'_>, spool: &SpoolId) -> Result<Option<DeviceId>, StoreError> {
    let Some(state) = tx.accounts.load_if_readable(&spool.account)? else { return Ok(None) };
    let only = match state.devices.as_slice() {
        [only] => Some(only.id),
        _ => None,
    };
    Ok(state.device_of(spool.login).or(only))
}

/// Saves the count of a spool in its row, if there is something else to commit.
pub(super) fn save_count(tx: &mut Tables<'_>, spool: &SpoolId, count: Count) -> Result<(), StoreError> {
    let Some(row) = row_to_count(tx, spool)? else { return Ok(()) };
    tx.spools.save_row(spool, Row { count: Some(count), ..row })
}

/// As [`save_count`], for a spool whose session has ended. The row of an empty spool is deleted.
pub(super) fn save_last_count(tx: &mut Tables<'_>, spool: &SpoolId, count: Count) -> Result<(), StoreError> {
    let Some(row) = row_to_count(tx, spool)? else { return Ok(()) };
    if tx.spools.is_empty(spool)? {
        return tx.spools.delete_spool(spool);
    }
    tx.spools.save_row(spool, Row { count: Some(count), ..row })
}

fn row_to_count(tx: &Tables<'_>, spool: &SpoolId) -> Result<Option<Row>, StoreError> {
    match tx.spools.row(spool) {
        // It is rebuilt when it is needed.
        Err(error) if error.is_of_one_record() => Ok(None),
        row => row,
    }
}

/// Deletes the spool of a session that has ended, if it is empty.
pub(super) fn close(tx: &mut Tables<'_>, spool: &SpoolId) -> Result<(), StoreError> {
    if tx.spools.is_empty(spool)? { tx.spools.delete_spool(spool) } else { Ok(()) }
}

/// Moves the spools of a new device to the known device that it turned out to be.
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
