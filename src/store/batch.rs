//! The tables, open in one transaction that a group of jobs shares.

use std::collections::HashMap;

use prometheus_client::metrics::counter::Counter;
use redb::{Table, WriteTransaction};

use super::accounts::ACCOUNTS;
use super::erase::{Budget, DOOMED};
use super::error::StoreError;
use super::meta::{Logins, META};
use super::pending::Pending;
use super::row::{SPOOLS, Totals};
use super::spool::{STANZAS, SpoolId, SpoolLimits};
use super::tombstone::{BURIED, TOMBSTONES};
use super::wake::WAKES;
use crate::jid::BareJid;
use crate::push::account::LoginId;

/// A transaction in the making.
pub(super) struct Batch<'t> {
    pub(super) accounts: Table<'t, &'static str, &'static [u8]>,
    pub(super) stanzas: Table<'t, (&'static str, u64, u64), &'static [u8]>,
    pub(super) spools: Table<'t, (&'static str, u64), &'static [u8]>,
    pub(super) doomed: Table<'t, (&'static str, u64), u64>,
    pub(super) meta: Table<'t, &'static str, u64>,
    pub(super) tombstones: Table<'t, &'static str, &'static [u8]>,
    pub(super) buried: Table<'t, (&'static str, &'static str), ()>,
    pub(super) wakes: Table<'t, (&'static str, u64), &'static [u8]>,
    pub(super) limits: SpoolLimits,
    /// Bytes that wait, as counted against the limits.
    pub(super) totals: Totals,
    pub(super) pending: &'t Pending,
    pub(super) logins: &'t Logins,
    /// Stanzas that were added.
    pub(super) added: usize,
    /// Stanzas that are lost because they cannot be read.
    pub(super) lost: &'t Counter,
    /// What may be deleted before other jobs get their turn.
    pub(super) budget: Budget,
    /// Of these spools, what is hidden below a place was deleted in this transaction; or all of it.
    pub(super) swept: HashMap<SpoolId, Option<u64>>,
    /// Accounts that were removed in this transaction, for all logins up to one.
    pub(super) removals: Vec<(BareJid, LoginId)>,
    /// Whether there is anything to commit.
    pub(super) differs: bool,
}

impl<'t> Batch<'t> {
    /// Opens the tables; adds up the rows unless `totals` are known.
    pub(super) fn open(
        transaction: &'t WriteTransaction,
        (pending, logins, lost): (&'t Pending, &'t Logins, &'t Counter),
        limits: SpoolLimits,
        totals: Option<Totals>,
    ) -> Result<Self, StoreError> {
        let spools = transaction.open_table(SPOOLS)?;
        let totals = match totals {
            Some(totals) => totals,
            None => Totals::count(&spools)?,
        };
        Ok(Self {
            accounts: transaction.open_table(ACCOUNTS)?,
            stanzas: transaction.open_table(STANZAS)?,
            spools,
            doomed: transaction.open_table(DOOMED)?,
            meta: transaction.open_table(META)?,
            tombstones: transaction.open_table(TOMBSTONES)?,
            buried: transaction.open_table(BURIED)?,
            wakes: transaction.open_table(WAKES)?,
            limits,
            totals,
            pending,
            logins,
            added: 0,
            lost,
            budget: Budget::piece(),
            swept: HashMap::new(),
            removals: Vec::new(),
            differs: false,
        })
    }
}
