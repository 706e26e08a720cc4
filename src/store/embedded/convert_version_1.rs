//! Conversion of the tables of version 1, in which a spool belonged to a device.
//!
//! Each old slot becomes a spool of its own, under a login that is lower than all that are given out later, so that the
//! stanzas that wait for a device stay in order and before new ones. Stanzas move in pieces, each in a transaction of its own,
//! so that a large spool needs little memory. A moved stanza is deleted from the old table in the same transaction. After a
//! crash in between, some stanzas are in either table, and the next start continues.

use redb::{Database, ReadableTable, Table};

use super::accounts::{number, raise};
use crate::jid::BareJid;
use crate::push::account::{DeviceId, LoginId};
use crate::seq::Seq;
use crate::store::error::StoreError;
use crate::store::schema::{META, OLD_SLOTS, OLD_SPOOL, Row, SPOOLS, STANZAS, key, measure};

/// The number of stanzas that move in one transaction.
const PIECE: usize = if cfg!(test) { 256 } else { 4096 };
/// The bytes of stanzas after which a piece ends.
const PIECE_BYTES: usize = 4 << 20;

/// Converts all slots and deletes the old tables.
pub(super) fn convert(database: &Database) -> Result<(), StoreError> {
    let mut stanzas = 0u64;
    while let Some(moved) = piece(database)? {
        stanzas = stanzas.saturating_add(moved);
    }
    tracing::info!(stanzas, "database converted: each session now has its own spool");
    Ok(())
}

/// Moves a piece of the first slot and returns the number of its stanzas; `None` once the old tables are gone.
fn piece(database: &Database) -> Result<Option<u64>, StoreError> {
    let transaction = database.begin_write()?;
    let moved = {
        let mut old = Old { slots: transaction.open_table(OLD_SLOTS)?, stanzas: transaction.open_table(OLD_SPOOL)? };
        match old.first()? {
            Some((account, device)) => {
                let (mut meta, mut spools) = (transaction.open_table(META)?, transaction.open_table(SPOOLS)?);
                let login = login(&mut meta)?;
                let from = From { account: &account, device, login };
                Some(old.shift(&from, &mut meta, &mut spools, &mut transaction.open_table(STANZAS)?)?)
            }
            None => None,
        }
    };
    if moved.is_none() {
        transaction.delete_table(OLD_SLOTS)?;
        transaction.delete_table(OLD_SPOOL)?;
    }
    transaction.commit()?;
    Ok(moved)
}

/// Returns the login of the slot that is being converted.
fn login(meta: &mut Table<'_, &'static str, u64>) -> Result<LoginId, StoreError> {
    if let Some(login) = number(meta, key::CONVERTING)? {
        return Ok(LoginId(login));
    }
    let login = number(meta, key::LOGIN)?.unwrap_or_default().saturating_add(1);
    raise(meta, key::LOGIN, login)?;
    meta.insert(key::CONVERTING, login)?;
    Ok(LoginId(login))
}

struct Old<'t> {
    slots: Table<'t, (&'static str, u64), &'static [u8]>,
    stanzas: Table<'t, (&'static str, u64, u64), &'static [u8]>,
}

/// A slot, and the login that names its new spool.
struct From<'a> {
    account: &'a str,
    device: u64,
    login: LoginId,
}

impl Old<'_> {
    /// Returns the first slot that has a row, else the first that has stanzas.
    fn first(&self) -> Result<Option<(String, u64)>, StoreError> {
        if let Some((key, _)) = self.slots.first()? {
            return Ok(Some((key.value().0.to_owned(), key.value().1)));
        }
        Ok(self.stanzas.first()?.map(|(key, _)| (key.value().0.to_owned(), key.value().1)))
    }

    /// Moves stanzas of a slot. The row of the slot is deleted with the last of them.
    fn shift(
        &mut self,
        from: &From<'_>,
        meta: &mut Table<'_, &'static str, u64>,
        spools: &mut Table<'_, (&'static str, u64), &'static [u8]>,
        stanzas: &mut Table<'_, (&'static str, u64, u64), &'static [u8]>,
    ) -> Result<u64, StoreError> {
        let From { account, device, login } = *from;
        let mut row = match spools.get((account, login.0))? {
            Some(record) => name(account).and_then(|name| Row::decode(&name, record.value()).ok()),
            None => None,
        }
        .unwrap_or(Row::new(DeviceId(device), login));
        let mut count = row.count.unwrap_or_default();
        let (mut moved, mut bytes, mut last, mut left) = (0usize, 0usize, None, false);
        for entry in self.stanzas.range((account, device, 0)..=(account, device, u64::MAX))? {
            let (key, record) = entry?;
            if moved >= PIECE || bytes >= PIECE_BYTES {
                left = true;
                break;
            }
            let (seq, record) = (key.value().2, record.value());
            stanzas.insert((account, login.0, seq), record)?;
            let (cost, shared) = measure(record);
            count.add(cost, shared);
            count.backlog.last_seq = count.backlog.last_seq.max(Seq::new(seq));
            (moved, bytes, last) = (moved.saturating_add(1), bytes.saturating_add(record.len()), Some(seq));
        }
        if let Some(last) = last {
            self.stanzas.retain_in((account, device, 0)..=(account, device, last), |_, _| false)?;
        }
        if !left {
            self.slots.remove((account, device))?;
            meta.remove(key::CONVERTING)?;
        }
        // A slot without stanzas needs no spool: new sessions have sequence numbers of their own.
        if count.backlog.count > 0 {
            row.count = Some(count);
            spools.insert((account, login.0), row.encode().as_slice())?;
        }
        Ok(moved as u64)
    }
}

fn name(account: &str) -> Option<BareJid> {
    BareJid::new(account).ok()
}
