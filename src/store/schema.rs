//! The schema of the database: tables, keys, records, version. No other module knows how records are encoded.
//!
//! | table | key → value |
//! |---|---|
//! | `accounts` | bare JID → a version byte (2), then JSON of an [`Account`] |
//! | `spools` | bare JID, login → [`Row`]: device, owner, and the count of its stanzas if no session adds to them |
//! | `stanzas` | bare JID, login, sequence number → stanza |
//! | `doomed` | bare JID, login → the sequence number up to which the stanzas of the spool are deleted |
//! | `tombstones`, `buried` | resumption id → tombstone; bare JID, resumption id |
//! | `wakes` | bare JID, device → wake |
//! | `meta` | `schema` → the version of the tables; `login`, `revision` → the highest ones that were used; `resources`, `resources_low` → the key of resources; `handover` → the number of the handover that was begun |
//!
//! # Versions
//!
//! 1. A spool belonged to a device (`slots`, `spool`); there was no `meta`.
//! 2. A spool belongs to a session. Each row of `spools` counts the stanzas of its spool.
//! 3. The row of a spool to which a session adds has no count ([`Row::count`]); `meta` has `revision`. A row of version 2 is a
//!    row of version 3 with a count, so only `meta` has to be rewritten.
//!
//! An older database is converted when it is opened (`embedded::convert_version_1`). A newer one is refused, and nothing is changed.
//! Each record also has a version of its own: a record of a newer version is refused alone.

use std::ops::RangeInclusive;

use bytes::Bytes;
use redb::TableDefinition;
use serde_json::error::Category;

use super::error::StoreError;
use super::values::{Backlog, ITEM_OVERHEAD, Slot, SpoolId, Tombstone, Wake, WakeReason};
use crate::clock::{UnixMillis, UnixSecs};
use crate::jid::BareJid;
use crate::push::account::{Account, DeviceId, LoginId};
use crate::seq::Seq;
use crate::session::queue::Spooled;

/// The versions of the tables that can be opened. Older ones are converted to the last one, which is written.
pub const DATABASE_VERSIONS_READ: RangeInclusive<u32> = 1..=3;
/// The version of the tables that is written.
pub(super) const VERSION: u64 = *DATABASE_VERSIONS_READ.end() as u64;

/// Bare JID → its [`Account`]. An account about which nothing is known has no record.
pub(super) const ACCOUNTS: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("accounts");
/// Bare JID, login → the row of its spool.
pub(super) const SPOOLS: TableDefinition<'static, (&'static str, u64), &'static [u8]> = TableDefinition::new("spools");
/// Bare JID, login, sequence number → stanza.
pub(super) const STANZAS: TableDefinition<'static, (&'static str, u64, u64), &'static [u8]> =
    TableDefinition::new("stanzas");
/// Bare JID, login → the sequence number up to which the stanzas of the spool are deleted.
pub(super) const DOOMED: TableDefinition<'static, (&'static str, u64), u64> = TableDefinition::new("doomed");
/// Resumption id → the tombstone of its session.
pub(super) const TOMBSTONES: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("tombstones");
/// Bare JID, resumption id: the tombstones of an account.
pub(super) const ACCOUNT_TOMBSTONES: TableDefinition<'static, (&'static str, &'static str), ()> =
    TableDefinition::new("buried");
/// Bare JID, device → the reason why it is to be woken.
pub(super) const WAKES: TableDefinition<'static, (&'static str, u64), &'static [u8]> = TableDefinition::new("wakes");
/// Name → number.
pub(super) const META: TableDefinition<'static, &'static str, u64> = TableDefinition::new("meta");
/// The number of tables.
pub(super) const TABLES: usize = 8;

/// Bare JID, device, sequence number → stanza. Version 1.
pub(super) const OLD_SPOOL: TableDefinition<'static, (&'static str, u64, u64), &'static [u8]> =
    TableDefinition::new("spool");
/// Bare JID, device → row. Version 1.
pub(super) const OLD_SLOTS: TableDefinition<'static, (&'static str, u64), &'static [u8]> =
    TableDefinition::new("slots");

/// The keys of [`META`].
pub(super) mod key {
    /// The version of the tables.
    pub(in crate::store) const SCHEMA: &str = "schema";
    /// The highest login that was used.
    pub(in crate::store) const LOGIN: &str = "login";
    /// The highest revision of an account that was stored.
    pub(in crate::store) const REVISION: &str = "revision";
    /// The upper and the lower half of the key from which resources are made ([`Store::resource_key`](crate::store::Store)).
    pub(in crate::store) const RESOURCES: [&str; 2] = ["resources", "resources_low"];
    /// The number of the handover that this process began. The next start removes it.
    pub(in crate::store) const HANDOVER: &str = "handover";
    /// The login under which the stanzas of a slot are stored while the slot is converted.
    pub(in crate::store) const CONVERTING: &str = "converting";
}

// Keys

impl Slot {
    pub(super) fn key(&self) -> (&str, u64) {
        (self.account.as_str(), self.device.0)
    }
}

impl SpoolId {
    pub(super) fn key(&self) -> (&str, u64) {
        (self.account.as_str(), self.login.0)
    }

    /// The key of a stanza.
    pub(super) fn stanza_key(&self, seq: Seq) -> (&str, u64, u64) {
        (self.account.as_str(), self.login.0, seq.get())
    }

    pub(super) fn stanza_keys(&self, seqs: RangeInclusive<Seq>) -> RangeInclusive<(&str, u64, u64)> {
        self.stanza_key(*seqs.start())..=self.stanza_key(*seqs.end())
    }
}

// Records

/// The version of the compact records that are written.
const COMPACT: u8 = 1;
/// The version of the account records that are written. A change of [`Account`] that serde cannot bridge needs a new one.
const ACCOUNT: u8 = 2;
/// The previous version, in which login ids were random: they count as older than all that are given out now.
const RANDOM_LOGINS: u8 = 1;

/// Encodes an account; `None` if it needs no record.
pub(super) fn encode_account(account: &BareJid, state: &Account) -> Result<Option<Vec<u8>>, StoreError> {
    if *state == Account::default() {
        return Ok(None);
    }
    let mut record = vec![ACCOUNT];
    match serde_json::to_writer(&mut record, state) {
        Ok(()) => Ok(Some(record)),
        Err(error) => Err(corrupt(account, &error, record.len())),
    }
}

/// Decodes the record of an account.
pub(super) fn decode_account(account: &BareJid, record: &[u8]) -> Result<Account, StoreError> {
    let parse = |json| serde_json::from_slice(json).map_err(|error| corrupt(account, &error, record.len()));
    match record.split_first() {
        Some((&ACCOUNT, json)) => parse(json),
        Some((&RANDOM_LOGINS, json)) => parse(json).map(Account::with_old_logins),
        Some((&version, _)) => Err(StoreError::UnknownVersion { account: account.clone(), version }),
        None => Err(StoreError::Corrupt { account: account.clone(), reason: "empty record", at: 0, len: 0 }),
    }
}

/// Returns the error of a damaged account record. serde's own message may quote values, which are secrets.
fn corrupt(account: &BareJid, error: &serde_json::Error, len: usize) -> StoreError {
    let reason = match error.classify() {
        Category::Io => "unwritable",
        Category::Syntax => "not JSON",
        Category::Data => "not an account",
        Category::Eof => "cut short",
    };
    StoreError::Corrupt { account: account.clone(), reason, at: error.column(), len }
}

/// The number of stanzas and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) backlog: Backlog,
    /// The number of stanzas that are shared.
    pub(super) shared: u64,
}

impl Count {
    pub(super) fn add(&mut self, cost: u64, shared: bool) {
        self.backlog.count = self.backlog.count.saturating_add(1);
        self.backlog.bytes = self.backlog.bytes.saturating_add(cost);
        self.shared = self.shared.saturating_add(u64::from(shared));
    }

    pub(super) fn subtract(&mut self, other: Self) {
        self.backlog.count = self.backlog.count.saturating_sub(other.backlog.count);
        self.backlog.bytes = self.backlog.bytes.saturating_sub(other.backlog.bytes);
        self.shared = self.shared.saturating_sub(other.shared);
        if self.backlog.count == 0 {
            // A damaged record may count for something else than when it was written.
            (self.backlog.bytes, self.shared) = (0, 0);
        }
    }
}

/// The row of a spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// The device that the stanzas are for.
    pub(super) device: DeviceId,
    /// The login whose session reads the spool.
    pub(super) owner: LoginId,
    /// The count of the spool. `None` while the store counts it in memory; after a crash the stanzas are counted again.
    pub(super) count: Option<Count>,
}

impl Row {
    /// The value in a record that replaces a missing count.
    const NOT_COUNTED: u64 = u64::MAX;

    /// Creates the row of a spool that is counted in memory.
    pub(super) fn new(device: DeviceId, owner: LoginId) -> Self {
        Self { device, owner, count: None }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut record = start(48);
        let (count, shared) = match self.count {
            Some(count) => (count.backlog, count.shared),
            None => (Backlog { count: Self::NOT_COUNTED, ..Backlog::default() }, 0),
        };
        for number in [self.device.0, self.owner.0, count.last_seq.get(), count.count, count.bytes, shared] {
            record.extend_from_slice(&number.to_be_bytes());
        }
        record
    }

    pub(super) fn decode(account: &BareJid, record: &[u8]) -> Result<Self, StoreError> {
        let mut reader = RecordReader::new(account, record)?;
        let (device, owner) = (DeviceId(reader.u64()?), LoginId(reader.u64()?));
        let (last_seq, count, bytes, shared) = (Seq::new(reader.u64()?), reader.u64()?, reader.u64()?, reader.u64()?);
        let counted = Count { backlog: Backlog { count, bytes, last_seq }, shared };
        Ok(Self { device, owner, count: Some(counted).filter(|_| count != Self::NOT_COUNTED) })
    }
}

impl Spooled {
    /// Returns the bytes that it counts for.
    pub(super) fn cost(&self) -> u64 {
        (self.bytes.len() as u64).saturating_add(ITEM_OVERHEAD)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut record = start(self.bytes.len().saturating_add(9));
        record.push(u8::from(self.shared) | u8::from(self.archived) << 1);
        record.extend_from_slice(&self.received.get().to_be_bytes());
        record.extend_from_slice(&self.bytes);
        record
    }

    pub(super) fn decode(account: &BareJid, seq: Seq, record: &[u8]) -> Result<Self, StoreError> {
        let mut reader = RecordReader::new(account, record)?;
        let flags = reader.byte()?;
        let received = UnixMillis::new(reader.u64()?);
        let bytes = Bytes::copy_from_slice(reader.rest);
        Ok(Self { seq, received, shared: flags & 1 != 0, archived: flags & 2 != 0, bytes })
    }
}

/// Returns the bytes that a stanza's record counts for, and whether the stanza is shared. Does not decode the rest.
pub(super) fn measure(record: &[u8]) -> (u64, bool) {
    /// Version, flags and time.
    const HEADER: usize = 10;
    let cost = (record.len().saturating_sub(HEADER) as u64).saturating_add(ITEM_OVERHEAD);
    (cost, record.get(1).is_some_and(|flags| flags & 1 != 0))
}

impl Tombstone {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut record = start(64);
        record.extend_from_slice(&self.device.0.to_be_bytes());
        record.extend_from_slice(&self.h.to_be_bytes());
        record.extend_from_slice(&self.at.get().to_be_bytes());
        record.extend_from_slice(self.account.as_str().as_bytes());
        record
    }

    /// Decodes a tombstone. An unreadable one counts as absent, which is safe; a wrong `h` would not be.
    pub(super) fn decode(record: &[u8]) -> Option<Self> {
        /// Version, device, h and time.
        const HEADER: usize = 21;
        let account = BareJid::new(std::str::from_utf8(record.get(HEADER..)?).ok()?).ok()?;
        let mut reader = RecordReader::new(&account, record).ok()?;
        let (device, h, at) = (DeviceId(reader.u64().ok()?), reader.u32().ok()?, UnixSecs::new(reader.u64().ok()?));
        Some(Self { account, device, h, at })
    }
}

impl Wake {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut record = start(9);
        record.push(match self.reason {
            WakeReason::Expired => 0,
            WakeReason::UpstreamLost => 1,
            WakeReason::Restart => 2,
        });
        record.extend_from_slice(&self.since.get().to_be_bytes());
        record
    }

    pub(super) fn decode(account: &BareJid, record: &[u8]) -> Result<Self, StoreError> {
        let mut reader = RecordReader::new(account, record)?;
        let reason = match reader.byte()? {
            0 => WakeReason::Expired,
            1 => WakeReason::UpstreamLost,
            2 => WakeReason::Restart,
            _ => return Err(reader.corrupt("not a reason")),
        };
        Ok(Self { since: UnixSecs::new(reader.u64()?), reason })
    }
}

/// Starts a compact record: one byte of version, then numbers in big endian, then the rest.
fn start(capacity: usize) -> Vec<u8> {
    let mut record = Vec::with_capacity(capacity.saturating_add(1));
    record.push(COMPACT);
    record
}

/// A reader of compact records, field by field.
struct RecordReader<'r> {
    account: &'r BareJid,
    len: usize,
    rest: &'r [u8],
}

impl<'r> RecordReader<'r> {
    /// Checks the version.
    fn new(account: &'r BareJid, record: &'r [u8]) -> Result<Self, StoreError> {
        match record.split_first() {
            Some((&COMPACT, rest)) => Ok(Self { account, len: record.len(), rest }),
            Some((&version, _)) => Err(StoreError::UnknownVersion { account: account.clone(), version }),
            None => Err(StoreError::Corrupt { account: account.clone(), reason: "empty record", at: 0, len: 0 }),
        }
    }

    fn byte(&mut self) -> Result<u8, StoreError> {
        self.take().map(u8::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, StoreError> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, StoreError> {
        self.take().map(u64::from_be_bytes)
    }

    /// Returns the error of an invalid value at the current position.
    fn corrupt(&self, reason: &'static str) -> StoreError {
        let at = self.len.saturating_sub(self.rest.len());
        StoreError::Corrupt { account: self.account.clone(), reason, at, len: self.len }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let Some((taken, rest)) = self.rest.split_first_chunk() else {
            return Err(self.corrupt("cut short"));
        };
        self.rest = rest;
        Ok(*taken)
    }
}
