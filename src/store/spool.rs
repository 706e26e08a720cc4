//! The spools: stanzas that wait for a device, on disk.
//!
//! A spool belongs to the session that created it and is named by its login. Its stanzas have keys side by side, in order.
//! What each spool holds is counted in its row of a second table, in the same transactions, so that no count needs the
//! stanzas to be read.

use std::ops::{ControlFlow, RangeInclusive};

use bytes::Bytes;
use redb::{ReadTransaction, ReadableTable, TableDefinition};

use super::deletions::Hidden;
use super::embedded::erase::DOOMED;
use super::embedded::transaction::Batch;
use super::embedded::unreadable::Unreadable;
use super::record::{self, Reader};
use super::row::Row;
use super::{SpoolBound, StoreError, accounts};
use crate::config;
use crate::jid::BareJid;
use crate::push::account::{DeviceId, LoginId};
pub use crate::session::queue::Spooled;

/// Bare JID, login, place → stanza.
pub(super) const STANZAS: TableDefinition<'static, (&'static str, u64, u64), &'static [u8]> =
    TableDefinition::new("stanzas");

/// Bytes that a stanza counts for beyond its own: its key, its record's header, its share of the tree.
pub const ITEM_OVERHEAD: u64 = 64;

/// A device of an account.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    /// The account.
    pub account: BareJid,
    /// Its device.
    pub device: DeviceId,
}

/// Names a spool: the account and the login of the session that created it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpoolId {
    /// The account.
    pub account: BareJid,
    /// The login.
    pub login: LoginId,
}

/// What a spool, or all spools of a device, hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// The number of stanzas that wait.
    pub count: u64,
    /// Bytes that they count for, [`ITEM_OVERHEAD`] included.
    pub bytes: u64,
    /// The last place ever used in the spool, 0 if none was; of several spools, the highest. It outlives the stanzas as long
    /// as the session that created the spool is open.
    pub last_seq: u64,
}

impl Backlog {
    /// Both together.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            count: self.count.saturating_add(other.count),
            bytes: self.bytes.saturating_add(other.bytes),
            last_seq: self.last_seq.max(other.last_seq),
        }
    }
}

/// How much may wait, in bytes, [`ITEM_OVERHEAD`] per stanza included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolLimits {
    /// For one session.
    pub per_session: u64,
    /// For one account; never more than an eighth of `all`.
    pub per_account: u64,
    /// In all.
    pub all: u64,
}

impl SpoolLimits {
    /// The bound of one account that is in force.
    pub fn of_account(&self) -> u64 {
        self.per_account.min(self.all / 8)
    }
}

impl Default for SpoolLimits {
    fn default() -> Self {
        Self { per_session: 64 << 20, per_account: 512 << 20, all: 10 << 30 }
    }
}

impl From<&config::Limits> for SpoolLimits {
    fn from(limits: &config::Limits) -> Self {
        Self {
            per_session: limits.spool_per_session as u64,
            per_account: limits.spool_per_account as u64,
            all: limits.spool as u64,
        }
    }
}

impl Spooled {
    /// Bytes that it counts for.
    pub(super) fn cost(&self) -> u64 {
        (self.bytes.len() as u64).saturating_add(ITEM_OVERHEAD)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut record = record::start(self.bytes.len().saturating_add(9));
        record.push(u8::from(self.shared) | u8::from(self.archived) << 1);
        record.extend_from_slice(&self.received.to_be_bytes());
        record.extend_from_slice(&self.bytes);
        record
    }

    pub(super) fn decode(account: &BareJid, seq: u64, record: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new(account, record)?;
        let flags = reader.byte()?;
        let received = reader.u64()?;
        let bytes = Bytes::copy_from_slice(reader.rest());
        Ok(Self { seq, received, shared: flags & 1 != 0, archived: flags & 2 != 0, bytes })
    }
}

/// What a stanza's record counts for, and whether it is shared; nothing else of it is looked at.
pub(super) fn measure(record: &[u8]) -> (u64, bool) {
    /// Version, flags and time.
    const HEADER: usize = 10;
    let cost = (record.len().saturating_sub(HEADER) as u64).saturating_add(ITEM_OVERHEAD);
    (cost, record.get(1).is_some_and(|flags| flags & 1 != 0))
}

impl Slot {
    pub(super) fn key(&self) -> (&str, u64) {
        (self.account.as_str(), self.device.0)
    }
}

impl SpoolId {
    pub(super) fn key(&self) -> (&str, u64) {
        (self.account.as_str(), self.login.0)
    }

    pub(super) fn place(&self, seq: u64) -> (&str, u64, u64) {
        (self.account.as_str(), self.login.0, seq)
    }

    pub(super) fn places(&self, seqs: RangeInclusive<u64>) -> RangeInclusive<(&str, u64, u64)> {
        self.place(*seqs.start())..=self.place(*seqs.end())
    }
}

/// The stanzas of a spool behind a place, as of the last commit: one at least, then up to so much [`Spooled::weight`]. Those
/// that cannot be read are passed over, and returned apart.
pub(super) fn read(
    transaction: &ReadTransaction,
    (spool, hidden): (&SpoolId, &Hidden),
    after: u64,
    weight: usize,
) -> Result<(Vec<Spooled>, Unreadable), StoreError> {
    let doomed = transaction.open_table(DOOMED)?.get(spool.key())?.map_or(0, |up_to| up_to.value());
    let (mut items, mut unreadable) = (Vec::new(), Unreadable::default());
    let Some(from) = after.max(doomed).checked_add(1) else { return Ok((items, unreadable)) };
    let mut left = Some(weight);
    each(&transaction.open_table(STANZAS)?, (spool, hidden), from, |seq, record| {
        let item = match Spooled::decode(&spool.account, seq, record) {
            Ok(item) => item,
            Err(error) => {
                unreadable.add(seq, error);
                return ControlFlow::Continue(());
            }
        };
        // The first may always be read.
        if !items.is_empty() && left.is_none_or(|left| item.weight() > left) {
            return ControlFlow::Break(());
        }
        left = left.and_then(|left| left.checked_sub(item.weight()));
        items.push(item);
        ControlFlow::Continue(())
    })?;
    Ok((items, unreadable))
}

/// Calls back with the place and record of each stanza of a spool from a place on that is not hidden.
pub(super) fn each(
    table: &impl ReadableTable<(&'static str, u64, u64), &'static [u8]>,
    (spool, hidden): (&SpoolId, &Hidden),
    from: u64,
    mut take: impl FnMut(u64, &[u8]) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let mut next = Some(from);
    while let Some(mut from) = next.take() {
        if let Some(end) = hidden.end_of(from) {
            let Some(behind) = end.checked_add(1) else { return Ok(()) };
            from = behind;
        }
        for entry in table.range(spool.places(from..=u64::MAX))? {
            let (key, record) = entry?;
            let seq = key.value().2;
            if let Some(end) = hidden.end_of(seq) {
                // Many may be hidden: they are passed over together.
                next = end.checked_add(1);
                break;
            }
            if take(seq, record.value()).is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}

impl Batch<'_> {
    /// Adds stanzas to a spool, all or none. Those that are there already, byte for byte, are passed over: a caller may
    /// repeat what failed with an unknown outcome.
    pub(super) fn spool(&mut self, spool: &SpoolId, device: DeviceId, items: &[Spooled]) -> Result<(), StoreError> {
        let mut row = self.row_to_fill(spool, device)?;
        let hidden = self.pending.of(spool);
        let (mut last_seq, mut added) = (row.backlog.last_seq, 0u64);
        let mut fresh = Vec::with_capacity(items.len());
        for item in items {
            let record = item.encode();
            if item.seq > last_seq {
                last_seq = item.seq;
                added = added.saturating_add(item.cost());
                fresh.push((item, record));
            } else if hidden.end_of(item.seq).is_some()
                || self.stanzas.get(spool.place(item.seq))?.is_none_or(|there| there.value() != record.as_slice())
            {
                return Err(StoreError::PlaceTaken { seq: item.seq, last_seq });
            }
        }
        if fresh.is_empty() {
            return Ok(());
        }
        if let Err(full) = self.check_bounds(spool, &row, added) {
            if self.pending.is_empty() {
                return Err(full);
            }
            // What was deleted may still be counted.
            self.erase()?;
            row = self.row_to_fill(spool, device)?;
            self.check_bounds(spool, &row, added)?;
        }
        for (item, record) in &fresh {
            self.stanzas.insert(spool.place(item.seq), record.as_slice())?;
            row.add(item.cost(), item.shared);
        }
        row.backlog.last_seq = last_seq;
        self.added = self.added.saturating_add(fresh.len());
        self.totals.add(&spool.account, added);
        self.differs = true;
        self.set_row(spool, row)
    }

    fn check_bounds(&self, spool: &SpoolId, row: &Row, added: u64) -> Result<(), StoreError> {
        let bounds = [
            (SpoolBound::PerSession, row.backlog.bytes, self.limits.per_session),
            (SpoolBound::PerAccount, self.totals.of(&spool.account), self.limits.of_account()),
            (SpoolBound::All, self.totals.all(), self.limits.all),
        ];
        match bounds.into_iter().find(|(_, held, limit)| held.saturating_add(added) > *limit) {
            Some((which, _, limit)) => Err(StoreError::SpoolFull { limit, which }),
            None => Ok(()),
        }
    }

    /// The row of a spool into which stanzas come: a new one if there is none.
    pub(super) fn row_to_fill(&mut self, spool: &SpoolId, device: DeviceId) -> Result<Row, StoreError> {
        self.refuse_removed(&spool.account, spool.login)?;
        let known = match self.row(spool) {
            Err(error) if error.is_of_one_record() => Some(self.rebuild(spool, device)?),
            known => known?,
        };
        if let Some(row) = known {
            return Ok(row);
        }
        // The session may not know yet that its device turned out to be another.
        let device = match accounts::load(&self.accounts, &spool.account) {
            Ok(state) => state.device_of(spool.login).unwrap_or(device),
            Err(error @ StoreError::Database(_)) => return Err(error),
            Err(_) => device,
        };
        let mut row = Row::new(device, spool.login);
        // What was in it before the account was removed may still be there.
        row.backlog.last_seq = self.doomed.get(spool.key())?.map_or(0, |up_to| up_to.value());
        self.note_login(spool.login)?;
        Ok(row)
    }

    /// An error if the account was removed since a login.
    pub(super) fn refuse_removed(&self, account: &BareJid, login: LoginId) -> Result<(), StoreError> {
        let newly = self.removals.iter().any(|(removed, up_to)| removed == account && login <= *up_to);
        if newly || self.pending.is_removed(account, login) {
            return Err(StoreError::AccountRemoved { account: account.clone() });
        }
        Ok(())
    }

    /// Calls back with each stanza of a spool from a place on that is not deleted.
    pub(super) fn each_stanza(
        &self,
        spool: &SpoolId,
        from: u64,
        take: impl FnMut(u64, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let doomed = self.doomed.get(spool.key())?.map_or(0, |up_to| up_to.value());
        let Some(behind) = doomed.checked_add(1) else { return Ok(()) };
        each(&self.stanzas, (spool, &self.pending.of(spool)), from.max(behind), take)
    }

    /// Whether a spool has a stanza that is not deleted.
    pub(super) fn has_any(&self, spool: &SpoolId, row: &Row) -> Result<bool, StoreError> {
        let mut any = false;
        if row.backlog.count > 0 {
            self.each_stanza(spool, 0, |_, _| {
                any = true;
                ControlFlow::Break(())
            })?;
        }
        Ok(any)
    }

    pub(super) fn set_row(&mut self, spool: &SpoolId, row: Row) -> Result<(), StoreError> {
        self.spools.insert(spool.key(), row.encode().as_slice())?;
        Ok(())
    }
}
