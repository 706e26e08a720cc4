//! The tables, open in one transaction that a group of jobs shares.

use redb::{Database, ReadableDatabase, Table, TableHandle, WriteTransaction};

use super::accounts::ACCOUNTS;
use super::error::{StoreError, tolerate};
use super::row::{self, SLOTS};
use super::spool::{SPOOL, Slot, SpoolLimits};
use super::tombstone::{BURIED, TOMBSTONES};
use super::wake::WAKES;

/// Makes the tables that are missing.
pub(super) fn create(database: &Database) -> Result<(), StoreError> {
    let there: Vec<_> = database.begin_read()?.list_tables()?.map(|table| table.name().to_owned()).collect();
    let all = [ACCOUNTS.name(), SPOOL.name(), SLOTS.name(), TOMBSTONES.name(), BURIED.name(), WAKES.name()];
    if all.iter().all(|name| there.iter().any(|known| known == name)) {
        return Ok(());
    }
    let transaction = database.begin_write()?;
    drop(Batch::open(&transaction, SpoolLimits::default(), Some(0))?);
    transaction.commit()?;
    Ok(())
}

/// A transaction in the making.
pub(super) struct Batch<'t> {
    pub(super) accounts: Table<'t, &'static str, &'static [u8]>,
    pub(super) spool: Table<'t, (&'static str, u64, u64), &'static [u8]>,
    pub(super) slots: Table<'t, (&'static str, u64), &'static [u8]>,
    pub(super) tombstones: Table<'t, &'static str, &'static [u8]>,
    pub(super) buried: Table<'t, (&'static str, &'static str), ()>,
    pub(super) wakes: Table<'t, (&'static str, u64), &'static [u8]>,
    pub(super) limits: SpoolLimits,
    /// Bytes of the whole spool, as counted against [`SpoolLimits::all`].
    pub(super) total: u64,
    /// Whether there is anything to commit.
    pub(super) differs: bool,
    /// Whether anything was deleted that may wait for another commit.
    pub(super) faded: bool,
}

impl<'t> Batch<'t> {
    /// Opens the tables; counts the spool unless `total` is known.
    pub(super) fn open(
        transaction: &'t WriteTransaction,
        limits: SpoolLimits,
        total: Option<u64>,
    ) -> Result<Self, StoreError> {
        let slots = transaction.open_table(SLOTS)?;
        let total = match total {
            Some(total) => total,
            None => row::total(&slots)?,
        };
        Ok(Self {
            accounts: transaction.open_table(ACCOUNTS)?,
            spool: transaction.open_table(SPOOL)?,
            slots,
            tombstones: transaction.open_table(TOMBSTONES)?,
            buried: transaction.open_table(BURIED)?,
            wakes: transaction.open_table(WAKES)?,
            limits,
            total,
            differs: false,
            faded: false,
        })
    }

    /// Performs a deletion that may wait for another commit. A slot that cannot be read is passed over.
    pub(super) fn fade(&mut self, slot: &Slot, up_to: u64) -> Result<(), StoreError> {
        let differed = std::mem::replace(&mut self.differs, false);
        tolerate(self.unspool(slot, up_to))?;
        self.faded |= self.differs;
        self.differs = differed;
        Ok(())
    }

    /// Has the deletions committed that wait.
    pub(super) fn settle(&mut self) {
        self.differs |= self.faded;
    }
}
