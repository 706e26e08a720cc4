//! The spool: stanzas that wait for a device, on disk.
//!
//! A slot is a device's; its stanzas lie side by side, in order. What each slot holds is counted in its row of a second
//! table, in the same transactions, so that no count needs the stanzas to be read.

use std::ops::{ControlFlow, RangeInclusive};

use bytes::Bytes;
use redb::{ReadTransaction, ReadableTable, TableDefinition};

use super::batch::Batch;
use super::record::{self, Reader};
use super::row::{self, Row};
use super::{SpoolBound, StoreError};
use crate::config;
use crate::jid::BareJid;
use crate::push::account::DeviceId;
pub use crate::session::queue::Spooled;

/// Bare JID, device, place → stanza.
pub(super) const SPOOL: TableDefinition<'static, (&'static str, u64, u64), &'static [u8]> =
    TableDefinition::new("spool");

/// Bytes that a stanza counts for beyond its own: its key, its record's header, its share of the tree.
pub const ITEM_OVERHEAD: u64 = 64;

/// Where the stanzas of one device wait.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    /// The account.
    pub account: BareJid,
    /// Its device.
    pub device: DeviceId,
}

/// What a slot holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// How many stanzas wait.
    pub count: u64,
    /// Bytes that they count for, [`ITEM_OVERHEAD`] included.
    pub bytes: u64,
    /// The last place ever used, 0 if none was. It outlives the stanzas, as long as the device is known.
    pub last_seq: u64,
}

/// How much may wait, in bytes, [`ITEM_OVERHEAD`] per stanza included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolLimits {
    /// For one device.
    pub per_session: u64,
    /// In all.
    pub all: u64,
}

impl Default for SpoolLimits {
    fn default() -> Self {
        Self { per_session: 64 << 20, all: 10 << 30 }
    }
}

impl From<&config::Limits> for SpoolLimits {
    fn from(limits: &config::Limits) -> Self {
        Self { per_session: limits.spool_per_session as u64, all: limits.spool as u64 }
    }
}

impl Spooled {
    /// What it counts for, in bytes.
    pub(super) fn cost(&self) -> u64 {
        (self.bytes.len() as u64).saturating_add(ITEM_OVERHEAD)
    }

    fn encode(&self) -> Vec<u8> {
        let mut record = record::start(self.bytes.len().saturating_add(9));
        record.push(u8::from(self.shared) | u8::from(self.archived) << 1);
        record.extend_from_slice(&self.received.to_be_bytes());
        record.extend_from_slice(&self.bytes);
        record
    }

    fn decode(account: &BareJid, seq: u64, record: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new(account, record)?;
        let flags = reader.byte()?;
        let received = reader.u64()?;
        let bytes = Bytes::copy_from_slice(reader.rest());
        Ok(Self { seq, received, shared: flags & 1 != 0, archived: flags & 2 != 0, bytes })
    }
}

impl Slot {
    pub(super) fn key(&self) -> (&str, u64) {
        (self.account.as_str(), self.device.0)
    }

    fn place(&self, seq: u64) -> (&str, u64, u64) {
        (self.account.as_str(), self.device.0, seq)
    }

    fn places(&self, seqs: RangeInclusive<u64>) -> RangeInclusive<(&str, u64, u64)> {
        self.place(*seqs.start())..=self.place(*seqs.end())
    }
}

/// The stanzas of a slot behind a place, as of the last commit: one at least, then up to so much [`Spooled::weight`].
pub(super) fn read(
    transaction: &ReadTransaction,
    slot: &Slot,
    after: u64,
    weight: usize,
) -> Result<Vec<Spooled>, StoreError> {
    let mut items = Vec::new();
    let Some(from) = after.checked_add(1) else { return Ok(items) };
    let mut budget = Budget::new(weight);
    for entry in transaction.open_table(SPOOL)?.range(slot.places(from..=u64::MAX))? {
        let (key, record) = entry?;
        match Spooled::decode(&slot.account, key.value().2, record.value()) {
            Ok(item) if budget.spend(item.weight()) => items.push(item),
            // What comes before it can be read all the same.
            Err(error) if items.is_empty() => return Err(error),
            Ok(_) | Err(_) => break,
        }
    }
    Ok(items)
}

/// Calls back with each stanza of a slot from a place on.
pub(super) fn each(
    table: &impl ReadableTable<(&'static str, u64, u64), &'static [u8]>,
    slot: &Slot,
    from: u64,
    mut take: impl FnMut(Spooled) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    for entry in table.range(slot.places(from..=u64::MAX))? {
        let (key, record) = entry?;
        if take(Spooled::decode(&slot.account, key.value().2, record.value())?).is_break() {
            break;
        }
    }
    Ok(())
}

/// Bytes that may still be read; the first piece always may.
struct Budget {
    left: usize,
    first: bool,
}

impl Budget {
    fn new(bytes: usize) -> Self {
        Self { left: bytes, first: true }
    }

    fn spend(&mut self, len: usize) -> bool {
        let fits = self.first || len <= self.left;
        self.first = false;
        self.left = self.left.saturating_sub(len);
        fits
    }
}

impl Batch<'_> {
    /// Adds stanzas to a slot, all or none. Those that are there already, byte for byte, are passed over: a caller may
    /// repeat what failed with an unknown outcome.
    pub(super) fn spool(&mut self, slot: &Slot, items: &[Spooled]) -> Result<(), StoreError> {
        let mut row = row::load(&self.slots, slot)?;
        let (mut last_seq, mut added) = (row.backlog.last_seq, 0u64);
        let mut fresh = Vec::with_capacity(items.len());
        for item in items {
            let record = item.encode();
            if item.seq > last_seq {
                last_seq = item.seq;
                added = added.saturating_add(item.cost());
                fresh.push((item, record));
            } else if self.spool.get(slot.place(item.seq))?.is_none_or(|there| there.value() != record.as_slice()) {
                return Err(StoreError::PlaceTaken { seq: item.seq, last_seq });
            }
        }
        let SpoolLimits { per_session, all } = self.limits;
        if !fresh.is_empty() && row.backlog.bytes.saturating_add(added) > per_session {
            return Err(StoreError::SpoolFull { limit: per_session, which: SpoolBound::PerSession });
        }
        if !fresh.is_empty() && self.total.saturating_add(added) > all {
            return Err(StoreError::SpoolFull { limit: all, which: SpoolBound::All });
        }
        for (item, record) in &fresh {
            self.spool.insert(slot.place(item.seq), record.as_slice())?;
            row.add(item.cost(), item.shared);
        }
        row.backlog.last_seq = last_seq;
        self.total = self.total.saturating_add(added);
        self.differs |= !fresh.is_empty();
        self.set_row(slot, row)
    }

    /// Deletes the stanzas of a slot up to a place.
    pub(super) fn unspool(&mut self, slot: &Slot, up_to: u64) -> Result<(), StoreError> {
        let row = row::load(&self.slots, slot)?;
        if row.backlog.count == 0 {
            return Ok(());
        }
        self.delete(slot, row, 0..=up_to)
    }

    /// Deletes places of a slot whose row is `before`.
    pub(super) fn delete(&mut self, slot: &Slot, before: Row, places: RangeInclusive<u64>) -> Result<(), StoreError> {
        let mut row = before;
        self.spool.retain_in(slot.places(places), |_, record| {
            let (cost, shared) = measure(record);
            row.subtract(cost, shared);
            false
        })?;
        self.shrink(slot, before, row)
    }

    /// Adds stanzas that were counted before, at places of their own.
    pub(super) fn place(&mut self, slot: &Slot, items: &[Spooled]) -> Result<(), StoreError> {
        let mut row = row::load(&self.slots, slot)?;
        for item in items {
            self.spool.insert(slot.place(item.seq), item.encode().as_slice())?;
            row.add(item.cost(), item.shared);
            row.backlog.last_seq = row.backlog.last_seq.max(item.seq);
            self.total = self.total.saturating_add(item.cost());
        }
        self.differs |= !items.is_empty();
        self.set_row(slot, row)
    }

    /// Deletes the shared stanzas of a slot and returns them: one at least, then up to so many bytes.
    pub(super) fn take_shared(&mut self, slot: &Slot, bytes: usize) -> Result<Vec<Spooled>, StoreError> {
        let mut row = row::load(&self.slots, slot)?;
        let before = row;
        let (mut budget, mut taken) = (Budget::new(bytes), Vec::new());
        if row.shared == 0 {
            return Ok(taken);
        }
        each(&self.spool, slot, 0, |item| {
            if item.shared {
                if !budget.spend(item.bytes.len()) {
                    return ControlFlow::Break(());
                }
                row.subtract(item.cost(), true);
                taken.push(item);
            }
            if row.shared == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        for item in &taken {
            self.spool.remove(slot.place(item.seq))?;
        }
        self.shrink(slot, before, row)?;
        Ok(taken)
    }

    /// Deletes from a slot's front what came before this time in unix milliseconds, at most so many; returns how many. The
    /// first that came later ends it: what a merge put behind a later one goes together with that.
    pub(super) fn age_slot(&mut self, slot: &Slot, before: u64, at_most: u64) -> Result<u64, StoreError> {
        let (mut count, mut last) = (0u64, None);
        each(&self.spool, slot, 0, |item| {
            if item.received >= before || count >= at_most {
                return ControlFlow::Break(());
            }
            count = count.saturating_add(1);
            last = Some(item.seq);
            ControlFlow::Continue(())
        })?;
        if let Some(last) = last {
            self.unspool(slot, last)?;
        }
        Ok(count)
    }

    /// Puts one slot's stanzas behind another's.
    pub(super) fn append_slot(&mut self, from: &Slot, to: &Slot) -> Result<(), StoreError> {
        let (moved, mut row) = (row::load(&self.slots, from)?, row::load(&self.slots, to)?);
        // Places grow with time, so most keep theirs.
        let first = self.spool.range(from.places(0..=u64::MAX))?.next().transpose()?.map(|(key, _)| key.value().2);
        let behind = first.is_some_and(|first| first > row.backlog.last_seq);
        let offset = if behind { 0 } else { row.backlog.last_seq };
        let mut next = 0;
        loop {
            let first = self.spool.range(from.places(next..=u64::MAX))?.next().transpose()?;
            let Some((seq, record)) = first.map(|(key, record)| (key.value().2, record.value().to_vec())) else {
                break;
            };
            self.spool.remove(from.place(seq))?;
            self.spool.insert(to.place(seq.saturating_add(offset)), record.as_slice())?;
            next = seq;
        }
        row.backlog.count = row.backlog.count.saturating_add(moved.backlog.count);
        row.backlog.bytes = row.backlog.bytes.saturating_add(moved.backlog.bytes);
        row.shared = row.shared.saturating_add(moved.shared);
        row.backlog.last_seq = offset.saturating_add(moved.backlog.last_seq).max(row.backlog.last_seq);
        self.differs |= self.slots.remove(from.key())?.is_some();
        if row == Row::default() { Ok(()) } else { self.set_row(to, row) }
    }

    /// Deletes a slot and what waits in it.
    pub(super) fn clear_slot(&mut self, slot: &Slot) -> Result<(), StoreError> {
        let bytes = match self.slots.remove(slot.key())? {
            Some(record) => Row::decode(&slot.account, record.value()).map_or(0, |row| row.backlog.bytes),
            None => return Ok(()),
        };
        self.total = self.total.saturating_sub(bytes);
        self.differs = true;
        self.spool.retain_in(slot.places(0..=u64::MAX), |_, _| false)?;
        Ok(())
    }

    fn set_row(&mut self, slot: &Slot, row: Row) -> Result<(), StoreError> {
        self.slots.insert(slot.key(), row.encode().as_slice())?;
        Ok(())
    }

    fn shrink(&mut self, slot: &Slot, before: Row, after: Row) -> Result<(), StoreError> {
        if before == after {
            return Ok(());
        }
        self.total = self.total.saturating_sub(before.backlog.bytes.saturating_sub(after.backlog.bytes));
        self.differs = true;
        self.set_row(slot, after)
    }
}

/// What a record counts for, and whether it is shared.
fn measure(record: &[u8]) -> (u64, bool) {
    /// Version, flags and time.
    const HEADER: usize = 10;
    let cost = (record.len().saturating_sub(HEADER) as u64).saturating_add(ITEM_OVERHEAD);
    (cost, record.get(1).is_some_and(|flags| flags & 1 != 0))
}
