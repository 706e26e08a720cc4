//! Deleting stanzas, in pieces: whatever else the writer is asked for gets its turn between two of them.
//!
//! What is deleted is first hidden ([`Pending`](crate::store::deletions::Pending)), so that no reader sees it any more, and then swept
//! from the disk. A spool that is deleted as a whole is *doomed*: its row goes at once, and a record says up to which place its
//! stanzas are to be wiped. Logins are never given out twice, so that nobody else's stanzas can get there meanwhile. A crash
//! before the last piece leaves the record, and the next start goes on with it.

use std::ops::RangeInclusive;

use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};

use crate::jid::BareJid;
use crate::push::account::{DeviceId, LoginId};
use crate::store::StoreError;
use crate::store::embedded::transaction::Batch;
use crate::store::error::tolerate;
use crate::store::row::{self, Row, SPOOLS, Totals};
use crate::store::spool::{SpoolId, measure};

/// Bare JID, login → the place up to which the stanzas of the spool are deleted.
pub(in crate::store) const DOOMED: TableDefinition<'static, (&'static str, u64), u64> = TableDefinition::new("doomed");

/// Stanzas of a piece.
pub(in crate::store) const PIECE: usize = 256;
/// Bytes of stanzas after which a piece ends.
const PIECE_BYTES: usize = 4 << 20;
/// Ranges of places that are looked at in a piece.
const RANGES: usize = 1024;

/// Bytes of the spools, as of the last commit; no bound is known while more is to be deleted.
pub(in crate::store) fn held(database: &Database) -> Result<u64, StoreError> {
    let transaction = database.begin_read()?;
    match transaction.open_table(DOOMED)?.is_empty()? {
        true => Ok(Totals::count(&transaction.open_table(SPOOLS)?)?.all()),
        false => Ok(u64::MAX),
    }
}

/// What may still be deleted in a piece.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Budget {
    stanzas: usize,
    bytes: usize,
}

impl Budget {
    /// That of a piece.
    pub(in crate::store) fn piece() -> Self {
        Self { stanzas: PIECE, bytes: PIECE_BYTES }
    }

    /// No bound: nobody waits.
    pub(in crate::store) fn unbounded() -> Self {
        Self { stanzas: usize::MAX, bytes: usize::MAX }
    }

    /// Stanzas that were deleted of a piece's.
    pub(in crate::store) fn spent(&self) -> usize {
        PIECE.saturating_sub(self.stanzas)
    }

    pub(in crate::store) fn is_spent(&self) -> bool {
        self.stanzas == 0 || self.bytes == 0
    }

    /// Whether one more of so many bytes may be deleted.
    pub(in crate::store) fn spend(&mut self, bytes: usize) -> bool {
        let any = !self.is_spent();
        self.stanzas = self.stanzas.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        any
    }
}

impl Batch<'_> {
    /// Hides places of a spool from all readers, until they are swept.
    pub(in crate::store) fn hide(&mut self, spool: &SpoolId, places: &[RangeInclusive<u64>]) {
        self.pending.hide(spool, places);
        // What was swept before does not cover these.
        self.swept.remove(spool);
    }

    /// Deletes what is hidden, and what is doomed, as far as the budget goes. Returns whether more is left.
    pub(in crate::store) fn erase(&mut self) -> Result<bool, StoreError> {
        let mut more = false;
        for spool in self.pending.spools() {
            if self.swept.get(&spool).is_some_and(Option::is_none) {
                continue;
            }
            if self.budget.is_spent() {
                return Ok(true);
            }
            more |= !self.sweep_if_readable(&spool)?;
        }
        Ok(self.wipe()? || more)
    }

    /// As [`Batch::sweep`]; a spool whose row cannot be read is passed over.
    pub(in crate::store) fn sweep_if_readable(&mut self, spool: &SpoolId) -> Result<bool, StoreError> {
        match self.sweep(spool) {
            Err(error) => {
                tolerate(Err(error))?;
                self.swept.insert(spool.clone(), None);
                Ok(true)
            }
            swept => swept,
        }
    }

    /// Deletes what is hidden of a spool, as far as the budget goes. Returns whether nothing is left.
    pub(in crate::store) fn sweep(&mut self, spool: &SpoolId) -> Result<bool, StoreError> {
        let from = self.swept.get(spool).copied().flatten().unwrap_or(0);
        let ranges = self.pending.first(spool, from, RANGES.saturating_add(1));
        let before = self.row(spool)?;
        let Some(before) = before.filter(|row| row.backlog.count > 0 && !ranges.is_empty()) else {
            self.swept.insert(spool.clone(), None);
            return Ok(true);
        };
        if before.backlog.count > PIECE as u64
            && ranges.first().is_some_and(|first| *first.start() == 0 && *first.end() >= before.backlog.last_seq)
        {
            self.empty(spool, before)?;
            self.swept.insert(spool.clone(), None);
            return Ok(true);
        }
        let mut row = before;
        let mut left = ranges.get(RANGES).map(|range| *range.start());
        for range in ranges.into_iter().take(RANGES) {
            if let Some(from) = self.delete(spool, &mut row, range)? {
                left = Some(from);
                break;
            }
        }
        self.swept.insert(spool.clone(), left);
        self.shrink(spool, before, row)?;
        Ok(left.is_none())
    }

    /// Deletes places of a spool, counting down its row, as far as the budget goes. Returns where it stopped, unless it is
    /// done.
    pub(in crate::store) fn delete(
        &mut self,
        spool: &SpoolId,
        row: &mut Row,
        places: RangeInclusive<u64>,
    ) -> Result<Option<u64>, StoreError> {
        let (start, mut last, mut left) = (*places.start(), None, None);
        for entry in self.stanzas.range(spool.places(places))? {
            let (key, record) = entry?;
            let seq = key.value().2;
            if !self.budget.spend(record.value().len()) {
                left = Some(seq);
                break;
            }
            let (cost, shared) = measure(record.value());
            row.subtract(cost, shared);
            last = Some(seq);
        }
        if let Some(last) = last {
            self.stanzas.retain_in(spool.places(start..=last), |_, _| false)?;
            self.differs = true;
        }
        Ok(left)
    }

    /// Stores the row of a spool from which something was deleted, or removes it if nobody needs it.
    pub(in crate::store) fn shrink(&mut self, spool: &SpoolId, before: Row, after: Row) -> Result<(), StoreError> {
        if before == after {
            return Ok(());
        }
        self.totals.subtract(&spool.account, before.backlog.bytes.saturating_sub(after.backlog.bytes));
        self.differs = true;
        // One that was inherited is of a session that has ended.
        if after.backlog.count == 0 && after.owner != spool.login {
            self.spools.remove(spool.key())?;
            return Ok(());
        }
        self.set_row(spool, after)
    }

    /// Empties a spool: all its stanzas are doomed.
    fn empty(&mut self, spool: &SpoolId, row: Row) -> Result<(), StoreError> {
        let mut empty = Row { shared: 0, ..row };
        (empty.backlog.count, empty.backlog.bytes) = (0, 0);
        self.mark(spool, row.backlog.last_seq)?;
        self.shrink(spool, row, empty)
    }

    /// Deletes a spool and its row.
    pub(in crate::store) fn doom(&mut self, spool: &SpoolId, row: Row) -> Result<(), StoreError> {
        if row.backlog.count > 0 {
            self.mark(spool, row.backlog.last_seq)?;
        }
        self.totals.subtract(&spool.account, row.backlog.bytes);
        self.spools.remove(spool.key())?;
        self.differs = true;
        Ok(())
    }

    fn mark(&mut self, spool: &SpoolId, up_to: u64) -> Result<(), StoreError> {
        let before = self.doomed.get(spool.key())?.map_or(0, |up_to| up_to.value());
        self.doomed.insert(spool.key(), up_to.max(before))?;
        Ok(())
    }

    /// Deletes the spools of a device.
    pub(in crate::store) fn doom_device(&mut self, account: &BareJid, device: DeviceId) -> Result<(), StoreError> {
        let rows = row::of(&self.spools, account)?;
        let lost = rows.iter().filter(|(_, row)| row.device == device);
        let stanzas = lost.fold(0u64, |sum, (_, row)| sum.saturating_add(row.backlog.count));
        if stanzas > 0 {
            self.lost.inc_by(stanzas);
            tracing::warn!(%account, stanzas, "never_fetched: what waited for a device that is forgotten is deleted");
        }
        self.doom_each(account, |_, row| row.device == device)
    }

    /// Deletes the spools of an account up to a login. A row that cannot be read goes too, with whatever is there.
    pub(in crate::store) fn doom_account(&mut self, account: &BareJid, up_to: LoginId) -> Result<(), StoreError> {
        let mut unreadable = Vec::new();
        for entry in self.spools.range((account.as_str(), 0)..=(account.as_str(), up_to.0))? {
            let (key, record) = entry?;
            if Row::decode(account, record.value()).is_err() {
                unreadable.push(SpoolId { account: account.clone(), login: LoginId(key.value().1) });
            }
        }
        for spool in unreadable {
            let last = self.stanzas.range(spool.places(0..=u64::MAX))?.next_back().transpose()?;
            let last = last.map_or(0, |(key, _)| key.value().2);
            self.mark(&spool, last)?;
            self.spools.remove(spool.key())?;
            self.differs = true;
        }
        self.doom_each(account, |spool, _| spool.login <= up_to)
    }

    fn doom_each(&mut self, account: &BareJid, which: impl Fn(&SpoolId, &Row) -> bool) -> Result<(), StoreError> {
        for (spool, row) in row::of(&self.spools, account)? {
            if which(&spool, &row) {
                self.doom(&spool, row)?;
            }
        }
        Ok(())
    }

    /// The session of a login has ended: its spool goes if nothing is in it.
    pub(in crate::store) fn close_spool(&mut self, account: &BareJid, login: LoginId) -> Result<(), StoreError> {
        let spool = SpoolId { account: account.clone(), login };
        match self.row(&spool)? {
            Some(row) if !self.has_any(&spool, &row)? => self.doom(&spool, row),
            _ => Ok(()),
        }
    }

    /// Deletes the stanzas of doomed spools, as far as the budget goes. Returns whether more is left.
    fn wipe(&mut self) -> Result<bool, StoreError> {
        loop {
            let first = match self.doomed.first()? {
                Some((key, up_to)) => (key.value().0.to_owned(), key.value().1, up_to.value()),
                None => return Ok(false),
            };
            let (account, login, up_to) = (first.0.as_str(), first.1, first.2);
            // A record costs as much as a stanza.
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
