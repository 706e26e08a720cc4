//! The types of the store that its callers use.

use std::time::Duration;

use super::error::StoreError;
use super::ownership::AccountOwnership;
use crate::clock::UnixSecs;
use crate::config;
use crate::jid::BareJid;
use crate::push::account::{Account, DeviceId, LoginId};
use crate::seq::Seq;
pub use crate::session::WakeReason;

/// The bytes that a stanza counts for in addition to its own: its key, the header of its record, its share of the tree.
pub const ITEM_OVERHEAD: u64 = 64;

/// The outcome of [`Store::change`](super::Store::change): the account, and what [`Account::apply`] returned.
pub type ChangedAccount = Result<(Account, Option<DeviceId>), StoreError>;

/// A device of an account.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Slot {
    /// The account.
    pub account: BareJid,
    /// Its device.
    pub device: DeviceId,
}

/// The name of a spool: the account and the login of the session that created it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpoolId {
    /// The account.
    pub account: BareJid,
    /// The login.
    pub login: LoginId,
}

/// The stanzas in a spool, or in all spools of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// The number of waiting stanzas.
    pub count: u64,
    /// The bytes that they count for, [`ITEM_OVERHEAD`] included.
    pub bytes: u64,
    /// The highest sequence number ever used in the spool, 0 if none was; of several spools, the highest. It is kept after the
    /// stanzas are deleted, as long as the session that created the spool is open.
    pub last_seq: Seq,
}

impl Backlog {
    /// Returns the sum of both.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            count: self.count.saturating_add(other.count),
            bytes: self.bytes.saturating_add(other.bytes),
            last_seq: self.last_seq.max(other.last_seq),
        }
    }
}

/// The bounds of the spool, in bytes, [`ITEM_OVERHEAD`] per stanza included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolLimits {
    /// The bound for one session.
    pub per_session: u64,
    /// The bound for one account; the effective bound is never more than an eighth of `all`.
    pub per_account: u64,
    /// The bound for all sessions together.
    pub all: u64,
}

impl SpoolLimits {
    /// Returns the effective bound for one account.
    pub fn of_account(&self) -> u64 {
        self.per_account.min(self.all / 8)
    }
}

impl Default for SpoolLimits {
    fn default() -> Self {
        Self { per_session: 64 << 20, per_account: 512 << 20, all: 10 << 30 }
    }
}

impl From<&config::SpoolSizes> for SpoolLimits {
    fn from(sizes: &config::SpoolSizes) -> Self {
        Self { per_session: sizes.per_session as u64, per_account: sizes.per_account as u64, all: sizes.all as u64 }
    }
}

/// A spool that a session took over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InheritedSpool {
    /// The login that names it.
    pub spool: LoginId,
    /// The stanzas in it.
    pub backlog: Backlog,
}

/// The result of a login.
#[derive(Clone, Debug)]
pub struct LoggedIn {
    /// The account after the login.
    pub account: Account,
    /// The device that logged in.
    pub device: Option<DeviceId>,
    /// True if a device with this user agent was known before.
    pub knew_agent: bool,
    /// True if a spool of the device other than the session's own has stanzas.
    pub waits: bool,
    /// Keeps the account with this node. The session holds it until it has ended.
    pub ownership: AccountOwnership,
}

/// A page of accounts, ordered by name.
#[derive(Clone, Debug, Default)]
pub struct AccountPage {
    /// The accounts.
    pub accounts: Vec<(BareJid, Account)>,
    /// The name after which the next page begins; `None` if this is the last page.
    pub next: Option<String>,
}

/// The record of an ended session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// The account of the session.
    pub account: BareJid,
    /// The device of the session.
    pub device: DeviceId,
    /// The number of the client's stanzas that the session had handled: `h` of XEP-0198.
    pub h: u32,
    /// The time at which it ended.
    pub at: UnixSecs,
}

/// A note that a device is to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wake {
    /// The time since which it is to be woken.
    pub since: UnixSecs,
    /// The reason.
    pub reason: WakeReason,
}

/// The lifetimes of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttl {
    /// For stanzas of devices without an open session, since they came.
    pub orphan: Duration,
    /// For tombstones, since the end of the session.
    pub tombstone: Duration,
    /// For registrations and devices without an open session, since they were last seen; for registrations also since their
    /// app server was last reachable.
    pub registration: Duration,
}

/// The number of records that were deleted because of their age.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Stanzas.
    pub stanzas: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Registrations.
    pub registrations: u64,
}

/// The numbers of records in the database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measures {
    /// The number of accounts that have a record.
    pub accounts: u64,
    /// The number of devices that are to be woken.
    pub wakes: u64,
    /// The number of waiting stanzas.
    pub stanzas: u64,
    /// The bytes that they count for.
    pub bytes: u64,
    /// The size of the database file in bytes; 0 if the system does not report it.
    pub file: u64,
}

/// A node of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRecord {
    /// Its number; 0 is a node without a cluster.
    pub id: u8,
    /// Its epoch: each start and each loss of its place begins another one.
    pub epoch: i64,
    /// The address of its cluster listener, `host:port`.
    pub address: String,
    /// The SHA-256 of its certificate.
    pub certificate: Vec<u8>,
    /// True if its lease is not over, by the clock of the database.
    pub is_alive: bool,
    /// True if it takes no more clients.
    pub is_draining: bool,
}

/// The accounts that are listed, by their owner. In a database of one process all scopes are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccountScope {
    /// All accounts.
    #[default]
    All,
    /// Those that this node owns.
    Own,
    /// Those that this node owns, and those that no node owns.
    OwnAndFree,
}

/// A name with which a client logs in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LoginKey {
    /// The served host.
    pub host: String,
    /// The authentication identity, byte for byte.
    pub authcid: String,
}
