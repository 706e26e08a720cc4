//! Reads as data ([`Query`], [`QueryAnswer`]). An engine answers them as of the last commit.

use std::collections::HashMap;

use super::deletions::HiddenRanges;
use super::error::StoreError;
use super::op::Unreadable;
use super::schema::Count;
use super::values::{AccountPage, Slot, SpoolId, Tombstone, Wake};
use super::values::{AccountScope, LoginKey, NodeRecord};
use crate::clock::UnixSecs;
use crate::jid::BareJid;
use crate::push::account::{Account, DeviceId, LoginId};
use crate::seq::Seq;
use crate::session::queue::Spooled;

/// A read.
#[derive(Clone, Debug)]
pub(super) enum Query {
    /// The record of an account. [`QueryAnswer::Account`].
    Account { account: BareJid },
    /// The accounts after a name, at most `limit` records. [`QueryAnswer::Accounts`].
    Accounts { scope: AccountScope, after: Option<String>, limit: usize },
    /// The number of accounts and of wakes. [`QueryAnswer::Sizes`].
    Sizes,
    /// The spools of an account, and the account. `hidden`: stanzas that count as deleted. [`QueryAnswer::Spools`].
    Spools { account: BareJid, hidden: HashMap<SpoolId, HiddenRanges> },
    /// The spools of all accounts. [`QueryAnswer::Devices`].
    Devices,
    /// Counts the stanzas of a spool. [`QueryAnswer::Count`].
    Count { spool: SpoolId },
    /// The visible stanzas of a spool after a number: at least one, then up to `weight` (the sum of [`Spooled::weight`]).
    /// [`QueryAnswer::Stanzas`].
    Stanzas { spool: SpoolId, hidden: HiddenRanges, after: Seq, weight: usize },
    /// The tombstone of a resumption id. [`QueryAnswer::Tombstone`].
    Tombstone { sm_id: String },
    /// The devices that are to be woken. [`QueryAnswer::Wakes`].
    Wakes,
    /// The note that a device is to be woken. [`QueryAnswer::Wakes`] with one device or none.
    Wake { slot: Slot },
    /// The accounts after a name that have something not seen since `before`. [`QueryAnswer::Unseen`].
    Unseen { after: String, before: UnixSecs },
    /// The tombstones after a resumption id that are older than `before`. [`QueryAnswer::OldTombstones`].
    OldTombstones { after: String, before: UnixSecs },
    /// The spools after this one whose devices have no session. [`QueryAnswer::Away`].
    Away { after: (String, u64) },
    /// The node that owns the account of a login name, or else this account. [`QueryAnswer::Nodes`] with one node or none.
    Owner { name: Option<LoginKey>, account: Option<BareJid> },
    /// The node that holds a component. [`QueryAnswer::Nodes`] with one node or none.
    ComponentHolder { jid: String },
    /// All nodes, if wanted with the numbers of accounts that they own. [`QueryAnswer::Nodes`].
    Nodes { counted: bool },
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
    /// Each with its note, if that can be read.
    Wakes(Vec<(Slot, Option<Wake>)>),
    Unseen(Piece<String, BareJid>),
    OldTombstones(Piece<String, String>),
    Away(Piece<(String, u64), SpoolId>),
    Nodes(Vec<(NodeRecord, u64)>),
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

/// A piece of a table: the keys in it that are due, and the start of the next piece.
#[derive(Debug)]
pub(super) struct Piece<K, D> {
    pub(super) due: Vec<D>,
    pub(super) next: Option<K>,
}
