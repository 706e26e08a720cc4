//! Writes as data.
//!
//! An engine commits writes in groups. After an outcome that is unknown the same group is committed again, so every [`Op`] says
//! why a repetition does no harm: it is *idempotent* (a second time it changes nothing), or *checked* (the engine sees that it
//! was done).

use std::ops::RangeInclusive;

use super::error::StoreError;
use super::schema::Count;
use super::values::{Slot, SpoolId, Tombstone, Wake};
use crate::clock::{UnixMillis, UnixSecs};
use crate::jid::BareJid;
use crate::push::account::{Account, Change, DeviceId, LoginId};
use crate::seq::Seq;
use crate::session::queue::Spooled;

/// A write.
#[derive(Clone, Debug)]
pub(super) enum Op {
    /// Applies a change to an account, and to what depends on that. The account has this revision then, if the change makes a
    /// difference. Not [`Change::Removed`].
    ///
    /// Checked: an account that has this revision or a higher one has the change.
    Change { account: BareJid, change: Change, revision: u64 },
    /// Deletes what is kept about an account and belongs to logins up to this one.
    ///
    /// Idempotent, as long as it is repeated before later writes.
    Remove { account: BareJid, up_to: LoginId, revision: u64, left: Option<Box<RecordRemoval>> },
    /// Adds stanzas to a spool, all or none. The spool has had stanzas up to `known`: those up to there must be in it, byte for
    /// byte.
    ///
    /// Idempotent: behind `known` a stanza replaces the one with its number.
    Spool { spool: SpoolId, device: DeviceId, items: Vec<Spooled>, known: Seq },
    /// Deletes stanzas. Idempotent.
    Delete(Deletion),
    /// Makes a login the owner of the spools that ended sessions of the device have left.
    ///
    /// Idempotent: it finds again what it owns already.
    TakeOver { account: BareJid, device: DeviceId, to: LoginId },
    /// Moves shared stanzas from the spools of a device without a session into another spool, to the first of these numbers.
    ///
    /// Checked: stanzas that are at these numbers already were moved by it.
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
    /// Deletes such a note. Idempotent.
    DeleteWake { slot: Slot },
    /// Closes the logins that a crash left open, and notes wakes for their devices.
    ///
    /// Idempotent in what it writes. A repetition finds no open login any more, and names none.
    Recover { now: UnixSecs, revision: u64 },
    /// Forgets registrations and devices of accounts that were not seen since then.
    ///
    /// Idempotent; a repetition counts nothing.
    Forget { accounts: Vec<BareJid>, before: UnixSecs, revision: u64 },
    /// Deletes stanzas at the front of a spool that came before then, unless its device has a session.
    ///
    /// Idempotent; a repetition counts nothing.
    Expire { spool: SpoolId, before: UnixMillis },
    /// Writes into the row of a spool what is in it, if the group has something else to commit. If its session has ended and
    /// nothing is, the row goes. Idempotent.
    SaveCount { spool: SpoolId, count: Count, has_ended: bool },
}

impl Op {
    /// The number of stanzas that it adds.
    pub(super) fn added(&self) -> usize {
        if let Self::Spool { items, .. } = self { items.len() } else { 0 }
    }

    /// Returns whether it must not be performed before deletions from this spool.
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
            | Self::Recover { .. }
            | Self::Forget { .. }
            | Self::SaveCount { .. } => false,
        }
    }
}

/// What the removal of an account leaves to do.
#[derive(Clone, Debug)]
pub(super) struct RecordRemoval {
    /// The account after it.
    pub(super) account: Account,
    /// The resumption ids of tombstones that are still to be deleted.
    pub(super) tombstones: Vec<String>,
}

/// A search for shared stanzas, spool by spool.
#[derive(Clone, Debug)]
pub(super) struct SpoolSearch {
    /// Those still to be looked through, the next one last.
    pub(super) spools: Vec<SpoolId>,
    /// Where to go on in the next one.
    pub(super) from: Seq,
}

/// Stanzas of a spool that are to be deleted, in the order of their numbers.
#[derive(Clone, Debug)]
pub(super) struct Deletion {
    pub(super) spool: SpoolId,
    /// Not all, if there are many.
    pub(super) ranges: Vec<RangeInclusive<Seq>>,
}

/// How far a deletion has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpProgress {
    /// Everything below this number is gone.
    Below(Seq),
    /// All of it is gone.
    Done,
}

/// What came of a write in a group that was committed.
#[derive(Debug)]
pub(super) enum OpOutcome {
    /// It was done.
    Done(Effect),
    /// Some of it was done. This goes on with it.
    Unfinished(Op),
    /// Nothing of it was done.
    Refused(StoreError),
}

/// What a write found.
#[derive(Debug)]
pub(super) enum Effect {
    Nothing,
    /// The account after a change, and what [`Account::apply`] returned.
    Changed(Account, Option<DeviceId>),
    Deleted(OpProgress),
    /// The spools, in the order of their logins.
    TookOver(Vec<LoginId>),
    /// The number of stanzas that moved.
    Adopted(u64),
    /// The devices whose sessions were open.
    Recovered(Vec<Slot>),
    /// The accounts that changed, and the number of registrations that went.
    Forgot(Vec<(BareJid, Account)>, u64),
    /// The number of records that were deleted.
    Expired(u64),
}

/// How the number of stanzas in a spool has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CountChange {
    /// These were added, up to [`last_seq`](super::Backlog::last_seq).
    Added(Count),
    /// These were deleted.
    Removed(Count),
    /// All were deleted.
    Emptied,
    /// The spool is gone, with all that was in it.
    Gone,
}

/// Stanzas of a spool that cannot be read.
#[derive(Clone, Debug)]
pub(super) struct Unreadable {
    pub(super) spool: SpoolId,
    pub(super) seqs: Vec<RangeInclusive<Seq>>,
    /// Of the first of them.
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
