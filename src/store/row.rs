//! The rows that describe each spool.

use std::collections::HashMap;

use redb::{ReadableTable, TableDefinition};

use super::StoreError;
use super::record::{self, Reader};
use super::spool::{Backlog, SpoolId};
use crate::jid::BareJid;
use crate::push::account::{DeviceId, LoginId};

/// Bare JID, login → the row of its spool.
pub(super) const SPOOLS: TableDefinition<'static, (&'static str, u64), &'static [u8]> = TableDefinition::new("spools");

/// The row of a spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// The device that the stanzas are for.
    pub(super) device: DeviceId,
    /// The login whose session reads the spool.
    pub(super) owner: LoginId,
    pub(super) backlog: Backlog,
    /// The number of stanzas that are shared.
    pub(super) shared: u64,
}

impl Row {
    /// The row of a spool that never held anything.
    pub(super) fn new(device: DeviceId, owner: LoginId) -> Self {
        Self { device, owner, backlog: Backlog::default(), shared: 0 }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut record = record::start(48);
        let Backlog { count, bytes, last_seq } = self.backlog;
        for number in [self.device.0, self.owner.0, last_seq, count, bytes, self.shared] {
            record.extend_from_slice(&number.to_be_bytes());
        }
        record
    }

    pub(super) fn decode(account: &BareJid, record: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new(account, record)?;
        let (device, owner) = (DeviceId(reader.u64()?), LoginId(reader.u64()?));
        let (last_seq, count, bytes, shared) = (reader.u64()?, reader.u64()?, reader.u64()?, reader.u64()?);
        Ok(Self { device, owner, backlog: Backlog { count, bytes, last_seq }, shared })
    }

    pub(super) fn add(&mut self, cost: u64, shared: bool) {
        self.backlog.count = self.backlog.count.saturating_add(1);
        self.backlog.bytes = self.backlog.bytes.saturating_add(cost);
        self.shared = self.shared.saturating_add(u64::from(shared));
    }

    pub(super) fn subtract(&mut self, cost: u64, shared: bool) {
        self.backlog.count = self.backlog.count.saturating_sub(1);
        self.backlog.bytes = self.backlog.bytes.saturating_sub(cost);
        self.shared = self.shared.saturating_sub(u64::from(shared));
        if self.backlog.count == 0 {
            // A record that was damaged counts for something else than when it was written.
            (self.backlog.bytes, self.shared) = (0, 0);
        }
    }
}

/// The row of a spool in an open table.
pub(super) fn load(
    table: &impl ReadableTable<(&'static str, u64), &'static [u8]>,
    spool: &SpoolId,
) -> Result<Option<Row>, StoreError> {
    table.get(spool.key())?.map(|record| Row::decode(&spool.account, record.value())).transpose()
}

/// The spools of an account, in the order of their logins. A row that cannot be read is logged and left out.
pub(super) fn of(
    table: &impl ReadableTable<(&'static str, u64), &'static [u8]>,
    account: &BareJid,
) -> Result<Vec<(SpoolId, Row)>, StoreError> {
    let mut rows = Vec::new();
    for entry in table.range((account.as_str(), 0)..=(account.as_str(), u64::MAX))? {
        let (key, record) = entry?;
        let spool = SpoolId { account: account.clone(), login: LoginId(key.value().1) };
        match Row::decode(account, record.value()) {
            Ok(row) => rows.push((spool, row)),
            Err(error) => tracing::error!(%error, "a spool cannot be read"),
        }
    }
    Ok(rows)
}

/// Calls back with each row that can be read.
pub(super) fn each(
    table: &impl ReadableTable<(&'static str, u64), &'static [u8]>,
    mut take: impl FnMut(SpoolId, Row),
) -> Result<(), StoreError> {
    for entry in table.iter()? {
        let (key, record) = entry?;
        let (account, login) = key.value();
        let Ok(account) = BareJid::new(account) else { continue };
        match Row::decode(&account, record.value()) {
            Ok(row) => take(SpoolId { account, login: LoginId(login) }, row),
            Err(error) => tracing::error!(%error, "a spool cannot be counted"),
        }
    }
    Ok(())
}

/// Bytes that wait, in all and by account. Kept in memory by the writer, so that no call needs to add up rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    all: u64,
    /// Accounts for which nothing waits are left out.
    accounts: HashMap<Box<str>, u64>,
}

impl Totals {
    /// Adds up the rows of a table.
    pub(super) fn count(table: &impl ReadableTable<(&'static str, u64), &'static [u8]>) -> Result<Self, StoreError> {
        let mut totals = Self::default();
        each(table, |spool, row| totals.add(&spool.account, row.backlog.bytes))?;
        Ok(totals)
    }

    pub(super) fn all(&self) -> u64 {
        self.all
    }

    pub(super) fn of(&self, account: &BareJid) -> u64 {
        self.accounts.get(account.as_str()).copied().unwrap_or(0)
    }

    pub(super) fn add(&mut self, account: &BareJid, bytes: u64) {
        self.all = self.all.saturating_add(bytes);
        match self.accounts.get_mut(account.as_str()) {
            Some(held) => *held = held.saturating_add(bytes),
            None if bytes > 0 => drop(self.accounts.insert(account.as_str().into(), bytes)),
            None => {}
        }
    }

    pub(super) fn subtract(&mut self, account: &BareJid, bytes: u64) {
        self.all = self.all.saturating_sub(bytes);
        let Some(held) = self.accounts.get_mut(account.as_str()) else { return };
        *held = held.saturating_sub(bytes);
        if *held == 0 {
            self.accounts.remove(account.as_str());
        }
    }
}
