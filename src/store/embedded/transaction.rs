//! The tables, open in one transaction that a group of jobs shares.

use std::collections::HashMap;

use prometheus_client::metrics::counter::Counter;
use redb::{Table, WriteTransaction};

use crate::jid::BareJid;
use crate::push::account::LoginId;
use crate::store::accounts::ACCOUNTS;
use crate::store::deletions::Pending;
use crate::store::embedded::erase::{Budget, DOOMED};
use crate::store::embedded::meta::{Logins, META};
use crate::store::error::StoreError;
use crate::store::row::{SPOOLS, Totals};
use crate::store::spool::{STANZAS, SpoolId, SpoolLimits};
use crate::store::tombstone::{BURIED, TOMBSTONES};
use crate::store::wake::WAKES;

/// A transaction in the making.
pub(in crate::store) struct Batch<'t> {
    pub(in crate::store) accounts: Table<'t, &'static str, &'static [u8]>,
    pub(in crate::store) stanzas: Table<'t, (&'static str, u64, u64), &'static [u8]>,
    pub(in crate::store) spools: Table<'t, (&'static str, u64), &'static [u8]>,
    pub(in crate::store) doomed: Table<'t, (&'static str, u64), u64>,
    pub(in crate::store) meta: Table<'t, &'static str, u64>,
    pub(in crate::store) tombstones: Table<'t, &'static str, &'static [u8]>,
    pub(in crate::store) buried: Table<'t, (&'static str, &'static str), ()>,
    pub(in crate::store) wakes: Table<'t, (&'static str, u64), &'static [u8]>,
    pub(in crate::store) limits: SpoolLimits,
    /// Bytes that wait, as counted against the limits.
    pub(in crate::store) totals: Totals,
    pub(in crate::store) pending: &'t Pending,
    pub(in crate::store) logins: &'t Logins,
    /// Stanzas that were added.
    pub(in crate::store) added: usize,
    /// Stanzas that are lost because they cannot be read.
    pub(in crate::store) lost: &'t Counter,
    /// What may be deleted before other jobs get their turn.
    pub(in crate::store) budget: Budget,
    /// Of these spools, what is hidden below a place was deleted in this transaction; or all of it.
    pub(in crate::store) swept: HashMap<SpoolId, Option<u64>>,
    /// Accounts that were removed in this transaction, for all logins up to one.
    pub(in crate::store) removals: Vec<(BareJid, LoginId)>,
    /// Whether there is anything to commit.
    pub(in crate::store) differs: bool,
}

impl<'t> Batch<'t> {
    /// Opens the tables; adds up the rows unless `totals` are known.
    pub(in crate::store) fn open(
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
