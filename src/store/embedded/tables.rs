//! All tables of the database, open in one transaction.

use redb::WriteTransaction;

use super::accounts::AccountRows;
use super::spools::SpoolRows;
use super::tombstones::Tombstones;
use super::wakes::Wakes;
use crate::store::error::StoreError;
use crate::store::op::Unreadable;
use crate::store::values::SpoolId;

/// The tables, open in one transaction.
pub(super) struct Tables<'t> {
    pub(super) accounts: AccountRows<'t>,
    pub(super) spools: SpoolRows<'t>,
    pub(super) tombstones: Tombstones<'t>,
    pub(super) wakes: Wakes<'t>,
    /// See [`Committed`](crate::store::engine::Committed).
    pub(super) unreadable: Vec<Unreadable>,
    pub(super) forgotten: Vec<SpoolId>,
    pub(super) lost: u64,
}

impl<'t> Tables<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            accounts: AccountRows::open(transaction)?,
            spools: SpoolRows::open(transaction)?,
            tombstones: Tombstones::open(transaction)?,
            wakes: Wakes::open(transaction)?,
            unreadable: Vec::new(),
            forgotten: Vec::new(),
            lost: 0,
        })
    }

    /// Returns whether there is anything to commit.
    pub(super) fn differs(&self) -> bool {
        self.accounts.differs() || self.spools.differs() || self.tombstones.differs() || self.wakes.differs()
    }
}
