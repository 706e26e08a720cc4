//! What time and a restart do to records.

use std::ops::{Bound, ControlFlow};
use std::time::Duration;

use redb::{ReadTransaction, ReadableTable};

use super::Store;
use super::accounts::{self, ACCOUNTS};
use super::embedded::erase::{Budget, PIECE};
use super::embedded::transaction::Batch;
use super::embedded::unreadable::Unreadable;
use super::error::{StoreError, tolerate};
use super::row::{self, Row, SPOOLS};
use super::spool::{Slot, SpoolId, Spooled};
use super::tombstone::{TOMBSTONES, Tombstone};
use super::wake::{Wake, WakeReason};
use crate::jid::BareJid;
use crate::push::account::LoginId;

/// How long records are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttl {
    /// Stanzas of devices without an open session, since they came.
    pub orphan: Duration,
    /// Tombstones, since the session's end.
    pub tombstone: Duration,
    /// Registrations and devices without an open session, since they were last seen; registrations, since their service was last
    /// within reach.
    pub registration: Duration,
}

/// How much was deleted because of its age.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Stanzas.
    pub stanzas: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Registrations.
    pub registrations: u64,
}

/// A piece of a table: what is due in it, and where the next one starts.
struct Piece<K, D> {
    due: Vec<D>,
    next: Option<K>,
}

impl Store {
    /// Deletes what is too old at `now`, unix seconds, piece by piece; what waits for a device that is forgotten goes with
    /// it. Records that cannot be read are passed over.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Closed`]; what was deleted before stays deleted.
    pub async fn expire(&self, now: u64, ttl: Ttl) -> Result<Expired, StoreError> {
        let before = |ttl: Duration| now.saturating_sub(ttl.as_secs());
        Ok(Expired {
            registrations: self.expire_registrations(before(ttl.registration)).await?,
            tombstones: self.expire_tombstones(before(ttl.tombstone)).await?,
            stanzas: self.expire_stanzas(before(ttl.orphan).saturating_mul(1000)).await?,
        })
    }

    /// To be called once, before anybody logs in: the sessions that were open when the process ended are lost. Marks their
    /// devices so, notes those that own a registration to be woken, unless they are noted already, deletes empty spools, and
    /// returns the slots of all, in one transaction. `now` is in unix seconds. Accounts that cannot be read are passed over.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Closed`].
    pub async fn recover(&self, now: u64) -> Result<Vec<Slot>, StoreError> {
        self.write(0, move |batch| batch.recover(now)).await
    }

    async fn expire_registrations(&self, before: u64) -> Result<u64, StoreError> {
        let (mut from, mut count) = (Some(String::new()), 0u64);
        while let Some(start) = from {
            let Piece { due, next } = self.read(move |transaction| unseen(transaction, &start, before)).await?;
            from = next;
            if !due.is_empty() {
                count = count.saturating_add(self.write(0, move |batch| batch.forget_unseen(&due, before)).await?);
            }
        }
        Ok(count)
    }

    async fn expire_tombstones(&self, before: u64) -> Result<u64, StoreError> {
        let (mut from, mut count) = (Some(String::new()), 0u64);
        while let Some(start) = from {
            let Piece { due, next } = self.read(move |transaction| crumbled(transaction, &start, before)).await?;
            from = next;
            if !due.is_empty() {
                count = count.saturating_add(self.write(0, move |batch| batch.clear_graves(&due, before)).await?);
            }
        }
        Ok(count)
    }

    async fn expire_stanzas(&self, before: u64) -> Result<u64, StoreError> {
        let (mut from, mut count) = (Some((String::new(), 0)), 0u64);
        while let Some(start) = from {
            let Piece { due, next } = self.read(move |transaction| closed_spools(transaction, &start)).await?;
            from = next;
            for spool in due {
                loop {
                    let spool = spool.clone();
                    let gone = self.write(0, move |batch| batch.expire_spool(&spool, before)).await?;
                    count = count.saturating_add(gone);
                    if gone == 0 {
                        break;
                    }
                }
            }
        }
        Ok(count)
    }
}

/// The accounts of a piece, from a key on, that have something unseen for long.
fn unseen(transaction: &ReadTransaction, from: &str, before: u64) -> Result<Piece<String, BareJid>, StoreError> {
    let table = transaction.open_table(ACCOUNTS)?;
    let mut piece = Piece { due: Vec::new(), next: None };
    for entry in table.range::<&str>((Bound::Excluded(from), Bound::Unbounded))?.take(PIECE) {
        let (key, record) = entry?;
        piece.next = Some(key.value().to_owned());
        let Ok(account) = BareJid::new(key.value()) else { continue };
        if let Ok(mut state) = accounts::decode(&account, record.value()) {
            let old = state.clone();
            state.forget_unseen(before);
            if state != old {
                piece.due.push(account);
            }
        }
    }
    Ok(piece)
}

/// The resumption ids of a piece, from a key on, whose tombstones are old.
fn crumbled(transaction: &ReadTransaction, from: &str, before: u64) -> Result<Piece<String, String>, StoreError> {
    let table = transaction.open_table(TOMBSTONES)?;
    let mut piece = Piece { due: Vec::new(), next: None };
    for entry in table.range::<&str>((Bound::Excluded(from), Bound::Unbounded))?.take(PIECE) {
        let (key, record) = entry?;
        piece.next = Some(key.value().to_owned());
        if Tombstone::decode(record.value()).is_none_or(|tombstone| tombstone.at < before) {
            piece.due.push(key.value().to_owned());
        }
    }
    Ok(piece)
}

/// The spools of a piece, from a key on, whose devices have no open session.
fn closed_spools(
    transaction: &ReadTransaction,
    from: &(String, u64),
) -> Result<Piece<(String, u64), SpoolId>, StoreError> {
    let (spools, accounts) = (transaction.open_table(SPOOLS)?, transaction.open_table(ACCOUNTS)?);
    let mut piece = Piece { due: Vec::new(), next: None };
    let start = Bound::Excluded((from.0.as_str(), from.1));
    for entry in spools.range::<(&str, u64)>((start, Bound::Unbounded))?.take(PIECE) {
        let (key, record) = entry?;
        let (account, login) = key.value();
        piece.next = Some((account.to_owned(), login));
        let Ok(account) = BareJid::new(account) else { continue };
        let Ok(row) = Row::decode(&account, record.value()) else { continue };
        // One that cannot be read may be open.
        if accounts::load(&accounts, &account).is_ok_and(|state| state.is_away(row.device)) {
            piece.due.push(SpoolId { account, login: LoginId(login) });
        }
    }
    Ok(piece)
}

impl Batch<'_> {
    fn forget_unseen(&mut self, accounts: &[BareJid], before: u64) -> Result<u64, StoreError> {
        let mut count = 0u64;
        for account in accounts {
            let old = match accounts::load(&self.accounts, account) {
                Ok(old) => old,
                Err(error) => {
                    tolerate(Err(error))?;
                    continue;
                }
            };
            let mut state = old.clone();
            count = count.saturating_add(state.forget_unseen(before) as u64);
            self.replace(account, &old, &state)?;
        }
        Ok(count)
    }

    fn clear_graves(&mut self, sm_ids: &[String], before: u64) -> Result<u64, StoreError> {
        let mut count = 0u64;
        for sm_id in sm_ids {
            let young = self.tombstones.get(sm_id.as_str())?.and_then(|record| Tombstone::decode(record.value()));
            if young.is_none_or(|tombstone| tombstone.at < before) {
                self.exhume(sm_id)?;
                count = count.saturating_add(1);
            }
        }
        Ok(count)
    }

    /// Deletes from a spool's front what came before this time in unix milliseconds, at most a piece, unless its device has an
    /// open session; returns how many. The first that came later ends it. The row goes with the last stanza.
    fn expire_spool(&mut self, spool: &SpoolId, before: u64) -> Result<u64, StoreError> {
        match self.age_spool(spool, before) {
            Err(error) => tolerate(Err(error)).map(|()| 0),
            gone => gone,
        }
    }

    fn age_spool(&mut self, spool: &SpoolId, before: u64) -> Result<u64, StoreError> {
        let Some(row) = self.row(spool)? else { return Ok(0) };
        if !accounts::load(&self.accounts, &spool.account)?.is_away(row.device) {
            return Ok(0);
        }
        let (mut count, mut last, mut unreadable) = (0u64, None, Unreadable::default());
        self.each_stanza(spool, 0, |seq, record| match Spooled::decode(&spool.account, seq, record) {
            Ok(item) if item.received < before && count < PIECE as u64 => {
                (count, last) = (count.saturating_add(1), Some(seq));
                ControlFlow::Continue(())
            }
            Ok(_) => ControlFlow::Break(()),
            Err(error) => {
                unreadable.add(seq, error);
                ControlFlow::Continue(())
            }
        })?;
        self.set_aside(spool, &unreadable);
        let mut left = row;
        if let Some(last) = last {
            self.budget = Budget::piece();
            self.delete(spool, &mut left, 0..=last)?;
            self.shrink(spool, row, left)?;
        }
        if left.backlog.count == 0 {
            self.doom(spool, left)?;
        }
        let gone = row.backlog.count.saturating_sub(left.backlog.count);
        if gone > 0 {
            let account = &spool.account;
            tracing::warn!(%account, stanzas = gone, "never_fetched: what no device has fetched in time is deleted");
        }
        Ok(gone)
    }

    fn recover(&mut self, now: u64) -> Result<Vec<Slot>, StoreError> {
        // While the accounts still say which logins were open.
        self.rebuild_rows()?;
        let mut open = Vec::new();
        for entry in self.accounts.iter()? {
            let (key, record) = entry?;
            let Ok(account) = BareJid::new(key.value()) else { continue };
            match accounts::decode(&account, record.value()) {
                Ok(state) if state.devices.iter().any(|device| device.is_open()) => open.push((account, state)),
                Ok(_) => {}
                Err(error) => tracing::error!(%error, "passed over"),
            }
        }
        let mut slots = Vec::new();
        for (account, old) in open {
            let mut state = old.clone();
            for device in state.devices.iter_mut().filter(|device| device.is_open()) {
                device.open.clear();
                let slot = Slot { account: account.clone(), device: device.id };
                if old.owned(device.id).next().is_some() {
                    self.wake_unless_noted(&slot, Wake { since: now, reason: WakeReason::Restart })?;
                }
                slots.push(slot);
            }
            self.replace(&account, &old, &state)?;
        }
        self.drop_empty_spools()?;
        Ok(slots)
    }

    /// Deletes the rows of spools in which nothing is: no session is open.
    fn drop_empty_spools(&mut self) -> Result<(), StoreError> {
        let mut empty = Vec::new();
        row::each(&self.spools, |spool, row| {
            if row.backlog.count == 0 {
                empty.push((spool, row));
            }
        })?;
        empty.into_iter().try_for_each(|(spool, row)| self.doom(&spool, row))
    }
}
