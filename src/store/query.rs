//! Reads as data. An engine answers them from what was last committed.

use std::collections::HashMap;

use super::deletions::HiddenRanges;
use super::error::StoreError;
use super::op::Unreadable;
use super::schema::Count;
use super::values::{AccountPage, Slot, SpoolId, Tombstone, Wake};
use crate::clock::UnixSecs;
use crate::jid::BareJid;
use crate::push::account::{Account, DeviceId, LoginId};
use crate::seq::Seq;
use crate::session::queue::Spooled;

/// A read.
#[derive(Clone, Debug)]
pub(super) enum Query {
    /// What is kept about an account. [`QueryAnswer::Account`].
    Account { account: BareJid },
    /// The accounts behind a name, at most so many records. [`QueryAnswer::Accounts`].
    Accounts { after: Option<String>, limit: usize },
    /// The number of accounts, and of wakes. [`QueryAnswer::Sizes`].
    Sizes,
    /// The spools of an account, and the account. `hidden`: stanzas that count as deleted. [`QueryAnswer::Spools`].
    Spools { account: BareJid, hidden: HashMap<SpoolId, HiddenRanges> },
    /// The spools of all accounts. [`QueryAnswer::Devices`].
    Devices,
    /// Counts the stanzas of a spool. [`QueryAnswer::Count`].
    Count { spool: SpoolId },
    /// The stanzas of a spool behind a number that are not hidden: one at least, then up to so much [`Spooled::weight`].
    /// [`QueryAnswer::Stanzas`].
    Stanzas { spool: SpoolId, hidden: HiddenRanges, after: Seq, weight: usize },
    /// The tombstone of a resumption id. [`QueryAnswer::Tombstone`].
    Tombstone { sm_id: String },
    /// The devices that are to be woken. [`QueryAnswer::Wakes`].
    Wakes,
    /// Accounts behind a name with something that was not seen since then. [`QueryAnswer::Unseen`].
    Unseen { after: String, before: UnixSecs },
    /// Tombstones behind a resumption id that are older than this. [`QueryAnswer::OldTombstones`].
    OldTombstones { after: String, before: UnixSecs },
    /// Spools behind this one whose devices have no session. [`QueryAnswer::Away`].
    Away { after: (String, u64) },
}

/// The answer to a [`Query`].
#[derive(Debug)]
pub(super) enum QueryAnswer {
    Account(Account),
    Accounts(AccountPage),
    Sizes {
        accounts: u64,
        wakes: u64,
    },
    Spools {
        account: Result<Account, StoreError>,
        spools: Vec<HeldContents>,
    },
    Devices(Vec<(SpoolId, DeviceId)>),
    Count(Count),
    Stanzas(Vec<Spooled>, Unreadable),
    Tombstone(Option<Tombstone>),
    /// With the note, if it can be read.
    Wakes(Vec<(Slot, Option<Wake>)>),
    Unseen(Piece<String, BareJid>),
    OldTombstones(Piece<String, String>),
    Away(Piece<(String, u64), SpoolId>),
}

/// A spool of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeldContents {
    /// The login that names it.
    pub(super) login: LoginId,
    /// The device that the stanzas are for.
    pub(super) device: DeviceId,
    /// True if it has a stanza that is not hidden.
    pub(super) waits: bool,
}

/// A piece of a table: what is due in it, and where the next one starts.
#[derive(Debug)]
pub(super) struct Piece<K, D> {
    pub(super) due: Vec<D>,
    pub(super) next: Option<K>,
}
