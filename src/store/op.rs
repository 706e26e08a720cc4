//! Writes as data ([`Op`]), and their outcomes.
//!
//! An engine commits writes in groups. If an outcome is unknown, the same group is committed again, so each [`Op`] says why a
//! repetition does no harm: it is *idempotent* (a repetition changes nothing), or *checked* (the engine detects that it was
//! done).

use std::collections::HashSet;
use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::error::StoreError;
use super::schema::Count;
use super::values::LoginKey;
use super::values::{Slot, SpoolId, Tombstone, Wake};
use crate::clock::{UnixMillis, UnixSecs};
use crate::jid::BareJid;
use crate::push::account::{Account, Change, DeviceId, LoginId};
use crate::seq::Seq;
use crate::session::queue::Spooled;

/// A write.
#[derive(Clone, Debug)]
pub(super) enum Op {
    /// Applies a change to an account and to the records that depend on it. If the change makes a difference, the account gets
    /// this revision. [`Change::Removed`] is not allowed here.
    ///
    /// Checked: an account that has this or a higher revision includes the change.
    Change { account: BareJid, change: Change, revision: u64 },
    /// Deletes the records of an account that belong to logins up to this one.
    ///
    /// Idempotent, as long as it is repeated before later writes.
    Remove { account: BareJid, up_to: LoginId, revision: u64, left: Option<Box<RecordRemoval>> },
    /// Adds stanzas to a spool, all or none. The spool has had stanzas up to `known`: given stanzas up to that number must be
    /// in it, byte for byte.
    ///
    /// Idempotent: after `known`, a stanza replaces the one with its number.
    Spool { spool: SpoolId, device: DeviceId, items: Vec<Spooled>, known: Seq },
    /// Deletes stanzas. Idempotent.
    Delete(Deletion),
    /// Makes a login the owner of the spools that ended sessions of the device have left.
    ///
    /// Idempotent: it finds again what it owns already.
    TakeOver { account: BareJid, device: DeviceId, to: LoginId },
    /// Moves shared stanzas from the spools of a device without a session into another spool, under the first of these
    /// numbers.
    ///
    /// Checked: if stanzas have these numbers already, this write moved them.
    Adopt {
        account: BareJid,
        from: DeviceId,
        to: SpoolId,
        device: DeviceId,
        seqs: RangeInclusive<Seq>,
        /// Spools without a shared stanza.
        without: Vec<LoginId>,
        search: Option<SpoolSearch>,
    },
    /// Writes the tombstone of a session. Idempotent.
    SaveTombstone { sm_id: String, tombstone: Tombstone },
    /// Deletes tombstones that are older than this. Idempotent.
    ExpireTombstones { sm_ids: Vec<String>, before: UnixSecs },
    /// Notes that a device is to be woken. Idempotent.
    SaveWake { slot: Slot, wake: Wake },
    /// Deletes the note that a device is to be woken. Idempotent.
    DeleteWake { slot: Slot },
    /// Notes that a handover with this number was begun. Idempotent.
    SaveHandover { number: NonZeroU64 },
    /// Closes the logins that the previous process left open, except for those that were `kept`, saves wakes for their
    /// devices, and removes the number of the handover. On a shared database also those of nodes that are dead, and frees
    /// the accounts. `after`: the account behind which it goes on; `None`: only those of dead nodes are left. `found`: the
    /// devices that earlier turns found.
    ///
    /// Idempotent in what it writes. A repetition finds no other open login and returns no device.
    Recover { now: UnixSecs, revision: u64, kept: Arc<HashSet<LoginId>>, after: Option<i64>, found: Vec<Slot> },
    /// Makes this node the owner of an account, unless another living node is.
    ///
    /// Idempotent.
    Claim { account: BareJid },
    /// Notes that an account logs in with this name, which may be an alias. Idempotent.
    SaveLoginName { account: BareJid, name: LoginKey },
    /// Changes what other nodes know about this one. Idempotent.
    DescribeNode { certificate: Option<Vec<u8>>, is_draining: Option<bool> },
    /// Makes this node the holder of a component, unless another living node is. Idempotent.
    HoldComponent { jid: String },
    /// Gives an account up. Idempotent.
    Release { account: BareJid },
    /// Closes the logins of an account that no process serves, except for those that were `kept`, and saves wakes for their
    /// devices. Its effect is [`Effect::Changed`].
    ///
    /// Idempotent.
    CloseStale { account: BareJid, now: UnixSecs, revision: u64, kept: Arc<HashSet<LoginId>> },
    /// Forgets registrations and devices of these accounts that were not seen since `before`.
    ///
    /// Idempotent; a repetition returns 0.
    Forget { accounts: Vec<BareJid>, before: UnixSecs, revision: u64 },
    /// Deletes stanzas at the front of a spool that came before `before`, unless its device has a session.
    ///
    /// Idempotent; a repetition returns 0.
    Expire { spool: SpoolId, before: UnixMillis },
    /// Saves the count of a spool in its row, if the group has something else to commit. If its session has ended and the
    /// spool is empty, the row is deleted. Idempotent.
    SaveCount { spool: SpoolId, count: Count, has_ended: bool },
}

impl Op {
    /// Returns the number of stanzas that it adds.
    pub(super) fn added(&self) -> usize {
        if let Self::Spool { items, .. } = self { items.len() } else { 0 }
    }

    /// Returns whether it must not be performed before earlier deletions from this spool.
    pub(super) fn follows(&self, deletion: &SpoolId) -> bool {
        match self {
            Self::Spool { spool, .. } | Self::Expire { spool, .. } => spool == deletion,
            Self::TakeOver { account, .. } | Self::Adopt { account, .. } => *account == deletion.account,
            Self::Change { .. }
            | Self::Remove { .. }
            | Self::Delete(_)
            | Self::SaveTombstone { .. }
            | Self::ExpireTombstones { .. }
            | Self::SaveWake { .. }
            | Self::DeleteWake { .. }
            | Self::SaveHandover { .. }
            | Self::Recover { .. }
            | Self::Claim { .. }
            | Self::SaveLoginName { .. }
            | Self::DescribeNode { .. }
            | Self::HoldComponent { .. }
            | Self::Release { .. }
            | Self::CloseStale { .. }
            | Self::Forget { .. }
            | Self::SaveCount { .. } => false,
        }
    }

    /// Returns the account that it claims.
    pub(super) fn claims(&self) -> Option<&BareJid> {
        if let Self::Claim { account } = self { Some(account) } else { None }
    }

    /// Returns the accounts whose records it reads or writes, if it names them.
    pub(super) fn accounts(&self) -> &[BareJid] {
        match self {
            Self::Change { account, .. }
            | Self::Remove { account, .. }
            | Self::TakeOver { account, .. }
            | Self::Adopt { account, .. }
            | Self::Claim { account }
            | Self::SaveLoginName { account, .. }
            | Self::Release { account }
            | Self::CloseStale { account, .. } => std::slice::from_ref(account),
            Self::Spool { spool, .. }
            | Self::Delete(Deletion { spool, .. })
            | Self::Expire { spool, .. }
            | Self::SaveCount { spool, .. } => std::slice::from_ref(&spool.account),
            Self::SaveWake { slot, .. } | Self::DeleteWake { slot } => std::slice::from_ref(&slot.account),
            Self::Forget { accounts, .. } => accounts,
            Self::SaveTombstone { .. }
            | Self::ExpireTombstones { .. }
            | Self::SaveHandover { .. }
            | Self::DescribeNode { .. }
            | Self::HoldComponent { .. }
            | Self::Recover { .. } => &[],
        }
    }
}

/// The part of an account's removal that is left to do.
#[derive(Clone, Debug)]
pub(super) struct RecordRemoval {
    /// The account after the removal.
    pub(super) account: Account,
    /// The resumption ids of the tombstones that are still to be deleted.
    pub(super) tombstones: Vec<String>,
}

/// A search for shared stanzas, spool by spool.
#[derive(Clone, Debug)]
pub(super) struct SpoolSearch {
    /// The spools that are still to be searched, the next one last.
    pub(super) spools: Vec<SpoolId>,
    /// The number from which the next spool is searched.
    pub(super) from: Seq,
}

/// Stanzas of a spool that are to be deleted, in the order of their numbers.
#[derive(Clone, Debug)]
pub(super) struct Deletion {
    pub(super) spool: SpoolId,
    /// Only the first ranges, if there are many.
    pub(super) ranges: Vec<RangeInclusive<Seq>>,
}

/// The progress of a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpProgress {
    /// Everything below this number is deleted.
    Below(Seq),
    /// Everything is deleted.
    Done,
}

/// The outcome of a write in a group that was committed.
#[derive(Debug)]
pub(super) enum OpOutcome {
    /// It was done.
    Done(Effect),
    /// Some of it was done. This write continues it.
    Unfinished(Op),
    /// Nothing of it was done.
    Refused(StoreError),
}

/// The result of a write.
#[derive(Debug)]
pub(super) enum Effect {
    Nothing,
    /// The account after a change, and what [`Account::apply`] returned.
    Changed(Account, Option<DeviceId>),
    Deleted(OpProgress),
    /// The spools, ordered by login.
    TookOver(Vec<LoginId>),
    /// The number of stanzas that moved.
    Adopted(u64),
    /// The devices whose sessions were open.
    Recovered(Vec<Slot>),
    /// The accounts that changed, and the number of registrations that were forgotten.
    Forgot(Vec<(BareJid, Account)>, u64),
    /// The number of records that were deleted.
    Expired(u64),
    /// The account that this node owns now.
    Claimed(ClaimedAccount),
}

/// The facts that a node needs about an account that it begins to own.
#[derive(Clone, Debug, Default)]
pub(super) struct ClaimedAccount {
    /// The revision of its record.
    pub(super) revision: u64,
    /// The highest login that was used.
    pub(super) login: LoginId,
    /// The logins that are open according to its record.
    pub(super) open: Vec<LoginId>,
    /// The counts of its spools.
    pub(super) counts: Vec<(LoginId, Count)>,
}

/// A change of the number of stanzas in a spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CountChange {
    /// These were added, up to [`last_seq`](super::Backlog::last_seq).
    Added(Count),
    /// These were deleted.
    Removed(Count),
    /// All were deleted.
    Emptied,
    /// The spool was deleted with all stanzas in it.
    Gone,
}

/// Stanzas of a spool that cannot be read.
#[derive(Clone, Debug)]
pub(super) struct Unreadable {
    pub(super) spool: SpoolId,
    pub(super) seqs: Vec<RangeInclusive<Seq>>,
    /// The error of the first of them.
    pub(super) error: Option<StoreError>,
}

impl Unreadable {
    pub(super) fn of(spool: &SpoolId) -> Self {
        Self { spool: spool.clone(), seqs: Vec::new(), error: None }
    }

    pub(super) fn add(&mut self, seq: Seq, error: StoreError) {
        self.seqs.push(seq..=seq);
        self.error.get_or_insert(error);
    }
}
