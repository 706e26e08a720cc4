//! What the store keeps and is asked for, as callers know it.

use std::time::Duration;

use crate::clock::UnixSecs;
use crate::config;
use crate::jid::BareJid;
use crate::push::account::{Account, DeviceId, LoginId};
use crate::seq::Seq;
pub use crate::session::WakeReason;

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
    /// The last sequence number ever used in the spool, 0 if none was; of several spools, the highest. It outlives the stanzas
    /// as long as the session that created the spool is open.
    pub last_seq: Seq,
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

/// The bounds of the spool, in bytes, [`ITEM_OVERHEAD`] per stanza included.
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
    /// What is in it.
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
}

/// Some of the accounts, in the order of their names.
#[derive(Clone, Debug, Default)]
pub struct AccountPage {
    /// The accounts.
    pub accounts: Vec<(BareJid, Account)>,
    /// Where the next page begins: behind this name; `None` if this is the last.
    pub next: Option<String>,
}

/// What is left of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// Whose session it was.
    pub account: BareJid,
    /// The device's.
    pub device: DeviceId,
    /// The number of the client's stanzas that it had handled: XEP-0198's `h`.
    pub h: u32,
    /// When it ended.
    pub at: UnixSecs,
}

/// A note that a device is to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wake {
    /// Since when.
    pub since: UnixSecs,
    /// The reason.
    pub reason: WakeReason,
}

/// How long records are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttl {
    /// Stanzas of devices without an open session, since they came.
    pub orphan: Duration,
    /// Tombstones, since the session's end.
    pub tombstone: Duration,
    /// Registrations and devices without an open session, since they were last seen; registrations, since their service was last
    /// within reach.
    pub registration: Duration,
}

/// How much was deleted because of its age.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Stanzas.
    pub stanzas: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Registrations.
    pub registrations: u64,
}

/// What the database holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measures {
    /// Accounts about which something is kept.
    pub accounts: u64,
    /// Devices that are to be woken.
    pub wakes: u64,
    /// Stanzas that wait.
    pub stanzas: u64,
    /// What they count for, in bytes.
    pub bytes: u64,
    /// Bytes of the database's file; 0 if the system does not say.
    pub file: u64,
}
