//! The tables of the spools: rows, stanzas, and doomed spools.
//!
//! A spool is named by the login whose session created it. The keys of its stanzas are adjacent and in order. While a session
//! adds to a spool, each stanza is one row: the store counts in memory, and the row of the spool says so ([`Row::count`]).

use std::ops::{ControlFlow, RangeInclusive};

use redb::{ReadableTable, Table, WriteTransaction};

use crate::jid::BareJid;
use crate::push::account::{DeviceId, LoginId};
use crate::seq::Seq;
use crate::session::queue::Spooled;
use crate::store::error::StoreError;
use crate::store::op::CountChange;
use crate::store::schema::{Count, DOOMED, Row, SPOOLS, STANZAS, measure};
use crate::store::values::{Backlog, SpoolId};

type Stanzas<'t> = Table<'t, (&'static str, u64, u64), &'static [u8]>;
type Rows<'t> = Table<'t, (&'static str, u64), &'static [u8]>;

/// The spools, in one transaction.
pub(super) struct SpoolRows<'t> {
    stanzas: Stanzas<'t>,
    rows: Rows<'t>,
    doomed: Table<'t, (&'static str, u64), u64>,
    pub(super) budget: ErasureBudget,
    /// Changes of the numbers of stanzas.
    counted: Vec<(SpoolId, CountChange)>,
    differs: bool,
}

/// The result of a deletion from a spool.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deleted {
    pub(super) stanzas: u64,
    /// The number at which it stopped, unless it is done.
    pub(super) left: Option<Seq>,
}

/// The most stanzas of a piece.
pub(in crate::store) const PIECE: usize = 256;
/// The bytes of stanzas after which a piece ends.
const PIECE_BYTES: usize = 4 << 20;

/// The rest of a piece that may still be deleted. Other writes wait for at most one piece.
#[derive(Clone, Copy, Debug)]
pub(super) struct ErasureBudget {
    stanzas: usize,
    bytes: usize,
}

impl ErasureBudget {
    /// Returns the budget of a whole piece.
    pub(super) fn piece() -> Self {
        Self { stanzas: PIECE, bytes: PIECE_BYTES }
    }

    /// Returns the number of stanzas that were deleted of the piece.
    pub(super) fn spent(&self) -> usize {
        PIECE.saturating_sub(self.stanzas)
    }

    pub(super) fn is_spent(&self) -> bool {
        self.stanzas == 0 || self.bytes == 0
    }

    /// Counts one more stanza of this size and returns whether it may be deleted.
    pub(super) fn spend(&mut self, bytes: usize) -> bool {
        let any = !self.is_spent();
        self.stanzas = self.stanzas.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        any
    }
}

impl<'t> SpoolRows<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            stanzas: transaction.open_table(STANZAS)?,
            rows: transaction.open_table(SPOOLS)?,
            doomed: transaction.open_table(DOOMED)?,
            budget: ErasureBudget::piece(),
            counted: Vec::new(),
            differs: false,
        })
    }

    /// Returns whether there is anything to commit.
    pub(super) fn differs(&self) -> bool {
        self.differs
    }

    /// Takes the changes of the numbers of stanzas.
    pub(super) fn take_counted(&mut self) -> Vec<(SpoolId, CountChange)> {
        std::mem::take(&mut self.counted)
    }

    fn note(&mut self, spool: &SpoolId, counted: CountChange) {
        self.counted.push((spool.clone(), counted));
    }

    // Rows

    /// Returns the row of a spool.
    pub(super) fn row(&self, spool: &SpoolId) -> Result<Option<Row>, StoreError> {
        row(&self.rows, spool)
    }

    /// Returns the spools of an account, ordered by login. A row that cannot be read is logged and skipped.
    pub(super) fn rows_of(&self, account: &BareJid) -> Result<Vec<(SpoolId, Row)>, StoreError> {
        rows_of(&self.rows, account)
    }

    pub(super) fn set_row(&mut self, spool: &SpoolId, row: Row) -> Result<(), StoreError> {
        self.differs = true;
        self.save_row(spool, row)
    }

    /// Stores a row. This alone is no reason to commit.
    pub(super) fn save_row(&mut self, spool: &SpoolId, row: Row) -> Result<(), StoreError> {
        self.rows.insert(spool.key(), row.encode().as_slice())?;
        Ok(())
    }

    /// Returns the spools whose rows cannot be read, and the empty spools.
    pub(super) fn scan_all(&self) -> Result<(Vec<SpoolId>, Vec<SpoolId>), StoreError> {
        let (mut unreadable, mut empty) = (Vec::new(), Vec::new());
        for entry in self.rows.iter()? {
            let (key, record) = entry?;
            let (account, login) = key.value();
            let Ok(account) = BareJid::new(account) else { continue };
            let spool = SpoolId { account, login: LoginId(login) };
            if Row::decode(&spool.account, record.value()).is_err() {
                unreadable.push(spool);
            } else if self.is_empty(&spool)? {
                empty.push(spool);
            }
        }
        Ok((unreadable, empty))
    }

    /// Returns the sequence number up to which the stanzas of a spool are deleted.
    pub(super) fn doomed(&self, spool: &SpoolId) -> Result<Seq, StoreError> {
        Ok(self.doomed.get(spool.key())?.map_or(Seq::ZERO, |up_to| Seq::new(up_to.value())))
    }

    // Stanzas

    /// Returns whether a spool contains exactly this stanza, byte for byte.
    pub(super) fn holds(&self, spool: &SpoolId, item: &Spooled) -> Result<bool, StoreError> {
        Ok(self.stanzas.get(spool.stanza_key(item.seq))?.is_some_and(|there| there.value() == item.encode().as_slice()))
    }

    /// Puts a stanza into a spool. The caller counts it.
    pub(super) fn insert(&mut self, spool: &SpoolId, item: &Spooled) -> Result<(), StoreError> {
        self.stanzas.insert(spool.stanza_key(item.seq), item.encode().as_slice())?;
        self.differs = true;
        Ok(())
    }

    /// Notes stanzas that moved into a spool from another.
    pub(super) fn note_added(&mut self, spool: &SpoolId, added: Count) {
        self.note(spool, CountChange::Added(added));
    }

    /// Calls `take` with the number and record of each stanza of a spool that is not deleted, from a number on.
    pub(super) fn each(
        &self,
        spool: &SpoolId,
        from: Seq,
        mut take: impl FnMut(Seq, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let Some(behind) = self.doomed(spool)?.checked_next() else { return Ok(()) };
        for entry in self.stanzas.range(spool.stanza_keys(from.max(behind)..=Seq::MAX))? {
            let (key, record) = entry?;
            if take(Seq::new(key.value().2), record.value()).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Returns whether a spool is empty.
    pub(super) fn is_empty(&self, spool: &SpoolId) -> Result<bool, StoreError> {
        let mut is_empty = true;
        self.each(spool, Seq::ZERO, |_, _| {
            is_empty = false;
            ControlFlow::Break(())
        })?;
        Ok(is_empty)
    }

    /// Counts the stanzas of a spool.
    pub(super) fn count(&self, spool: &SpoolId) -> Result<Count, StoreError> {
        count(&self.stanzas, spool, self.doomed(spool)?)
    }

    // Deleting

    /// Deletes a stanza that moves to another spool. The caller counts it.
    pub(super) fn remove(&mut self, spool: &SpoolId, seq: Seq) -> Result<(), StoreError> {
        self.stanzas.remove(spool.stanza_key(seq))?;
        self.differs = true;
        Ok(())
    }

    /// Deletes stanzas within the budget.
    pub(super) fn delete(&mut self, spool: &SpoolId, seqs: RangeInclusive<Seq>) -> Result<Deleted, StoreError> {
        let (start, mut last, mut left, mut freed) = (*seqs.start(), None, None, Count::default());
        for entry in self.stanzas.range(spool.stanza_keys(seqs))? {
            let (key, record) = entry?;
            let seq = Seq::new(key.value().2);
            if !self.budget.spend(record.value().len()) {
                left = Some(seq);
                break;
            }
            let (cost, shared) = measure(record.value());
            freed.add(cost, shared);
            last = Some(seq);
        }
        if let Some(last) = last {
            self.stanzas.retain_in(spool.stanza_keys(start..=last), |_, _| false)?;
            self.differs = true;
            self.freed(spool, freed)?;
        }
        Ok(Deleted { stanzas: freed.backlog.count, left })
    }

    /// Notes stanzas that were deleted from a spool. If its session has ended, the row is deleted with the last of them.
    pub(super) fn freed(&mut self, spool: &SpoolId, freed: Count) -> Result<(), StoreError> {
        self.note(spool, CountChange::Removed(freed));
        let row = match self.row(spool) {
            // It is rebuilt when it is needed.
            Err(error) if error.is_of_one_record() => return Ok(()),
            row => row?,
        };
        let Some(mut row) = row else { return Ok(()) };
        // The session of an inherited spool has ended.
        if row.owner != spool.login && self.is_empty(spool)? {
            return self.drop_row(spool);
        }
        if let Some(mut count) = row.count {
            count.subtract(freed);
            row.count = Some(count);
            self.set_row(spool, row)?;
        }
        Ok(())
    }

    /// Returns the number of the last stanza in a spool.
    pub(super) fn last(&self, spool: &SpoolId) -> Result<Option<Seq>, StoreError> {
        let last = self.stanzas.range(spool.stanza_keys(Seq::ZERO..=Seq::MAX))?.next_back().transpose()?;
        Ok(last.map(|(key, _)| Seq::new(key.value().2)))
    }

    /// Empties a spool: marks all its stanzas up to this one as doomed.
    pub(super) fn empty(&mut self, spool: &SpoolId, last: Seq) -> Result<(), StoreError> {
        self.mark(spool, last)?;
        self.note(spool, CountChange::Emptied);
        match self.row(spool) {
            Ok(Some(row)) if row.owner != spool.login => self.drop_row(spool),
            Ok(Some(row)) if row.count.is_some() => {
                let backlog = Backlog { last_seq: last, ..Default::default() };
                self.set_row(spool, Row { count: Some(Count { backlog, shared: 0 }), ..row })
            }
            Ok(_) => Ok(()),
            Err(error) if error.is_of_one_record() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Deletes a spool and its row.
    pub(super) fn delete_spool(&mut self, spool: &SpoolId) -> Result<(), StoreError> {
        if let Some(last) = self.last(spool)? {
            self.mark(spool, last)?;
        }
        self.drop_row(spool)
    }

    /// Deletes the row of an empty spool.
    pub(super) fn drop_row(&mut self, spool: &SpoolId) -> Result<(), StoreError> {
        self.differs |= self.rows.remove(spool.key())?.is_some();
        self.note(spool, CountChange::Gone);
        Ok(())
    }

    fn mark(&mut self, spool: &SpoolId, up_to: Seq) -> Result<(), StoreError> {
        let before = self.doomed(spool)?;
        self.doomed.insert(spool.key(), up_to.max(before).get())?;
        self.differs = true;
        Ok(())
    }

    /// Deletes the spools of an account up to a login, including those whose rows cannot be read.
    pub(super) fn delete_spools_of_account(&mut self, account: &BareJid, up_to: LoginId) -> Result<(), StoreError> {
        let mut spools = Vec::new();
        for entry in self.rows.range((account.as_str(), 0)..=(account.as_str(), up_to.0))? {
            spools.push(SpoolId { account: account.clone(), login: LoginId(entry?.0.value().1) });
        }
        spools.into_iter().try_for_each(|spool| self.delete_spool(&spool))
    }

    /// Deletes the spools of a device and returns them.
    pub(super) fn delete_spools_of_device(
        &mut self,
        account: &BareJid,
        device: DeviceId,
    ) -> Result<Vec<SpoolId>, StoreError> {
        let own = self.rows_of(account)?.into_iter().filter(|(_, row)| row.device == device);
        let own: Vec<_> = own.map(|(spool, _)| spool).collect();
        own.iter().try_for_each(|spool| self.delete_spool(spool))?;
        Ok(own)
    }

    /// Deletes the stanzas of doomed spools within the budget. Returns whether more is left.
    pub(super) fn wipe(&mut self) -> Result<bool, StoreError> {
        loop {
            let first = match self.doomed.first()? {
                Some((key, up_to)) => (key.value().0.to_owned(), key.value().1, up_to.value()),
                None => return Ok(false),
            };
            let (account, login, up_to) = (first.0.as_str(), first.1, first.2);
            // A record counts as one stanza.
            if !self.budget.spend(0) {
                return Ok(true);
            }
            let (mut last, mut more) = (None, false);
            for entry in self.stanzas.range((account, login, 0)..=(account, login, up_to))? {
                let (key, record) = entry?;
                if !self.budget.spend(record.value().len()) {
                    more = true;
                    break;
                }
                last = Some(key.value().2);
            }
            if let Some(last) = last {
                self.stanzas.retain_in((account, login, 0)..=(account, login, last), |_, _| false)?;
                self.differs = true;
            }
            if more {
                return Ok(true);
            }
            self.doomed.remove((account, login))?;
            self.differs = true;
        }
    }
}

/// Reads the row of a spool from an open table.
pub(super) fn row(
    table: &impl ReadableTable<(&'static str, u64), &'static [u8]>,
    spool: &SpoolId,
) -> Result<Option<Row>, StoreError> {
    table.get(spool.key())?.map(|record| Row::decode(&spool.account, record.value())).transpose()
}

/// Returns the spools of an account, ordered by login. A row that cannot be read is logged and skipped.
pub(super) fn rows_of(
    table: &impl ReadableTable<(&'static str, u64), &'static [u8]>,
    account: &BareJid,
) -> Result<Vec<(SpoolId, Row)>, StoreError> {
    let mut rows = Vec::new();
    for entry in table.range((account.as_str(), 0)..=(account.as_str(), u64::MAX))? {
        let (key, record) = entry?;
        let spool = SpoolId { account: account.clone(), login: LoginId(key.value().1) };
        match Row::decode(account, record.value()) {
            Ok(row) => rows.push((spool, row)),
            Err(error) => tracing::error!(%error, "cannot read spool"),
        }
    }
    Ok(rows)
}

/// Counts the stanzas of a spool after those that are deleted.
pub(super) fn count(
    table: &impl ReadableTable<(&'static str, u64, u64), &'static [u8]>,
    spool: &SpoolId,
    doomed: Seq,
) -> Result<Count, StoreError> {
    let mut counted = Count::default();
    counted.backlog.last_seq = doomed;
    let Some(behind) = doomed.checked_next() else { return Ok(counted) };
    for entry in table.range(spool.stanza_keys(behind..=Seq::MAX))? {
        let (key, record) = entry?;
        let (cost, shared) = measure(record.value());
        counted.add(cost, shared);
        counted.backlog.last_seq = Seq::new(key.value().2);
    }
    Ok(counted)
}
