//! The interface between the store and the database: [`Engine`].
//!
//! The store groups writes, waits for outcomes, checks bounds and counts. An engine commits a group as one transaction and
//! answers reads. It is chosen when the store is opened ([`Engines`](super::engines::Engines)); callers of the store do not
//! know which one it is.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::error::StoreError;
use super::lease::Lease;
use super::op::{CountChange, Deletion, Op, OpOutcome, OpProgress, Unreadable};
use super::query::{Query, QueryAnswer};
use super::schema::Count;
use super::values::SpoolId;
use crate::push::account::LoginId;
use crate::secret::Secret;

/// A database.
pub(super) trait Engine: Send + Sync {
    /// Returns what was in the database when it was opened. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    fn opening(&self) -> Result<OpeningState, StoreError>;

    /// Commits the writes of a group in order, as one transaction. Blocks, and is called by one thread only.
    ///
    /// # Errors
    /// [`Failure::Refused`]: nothing of it is committed, now or later. [`Failure::Unknown`]: it may be committed now or later;
    /// once the engine has answered a later call, that is decided.
    fn commit(&self, group: &OpGroup<'_>) -> Result<Committed, Failure>;

    /// Answers a read, as of the last commit.
    ///
    /// # Errors
    /// [`StoreError::Database`], and the error of a record that cannot be read.
    fn read(&self, query: Query) -> impl Future<Output = Result<QueryAnswer, StoreError>> + Send;

    /// Returns an error if the database cannot be read or, as far as is known, cannot be written.
    ///
    /// # Errors
    /// The error of the database.
    fn health(&self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Returns the lease of this node, if several share the database. Then accounts must be claimed.
    fn lease(&self) -> Option<&Arc<Lease>>;

    /// Returns the time at which [`Engine::maintain`] is to be called.
    fn maintenance(&self) -> Option<Instant>;

    /// Does the engine's own maintenance. Stops when it has taken long enough and `is_wanted` returns true, which means that
    /// writes wait. Blocks, and is called by the thread that commits.
    fn maintain(&self, is_wanted: &dyn Fn() -> bool);

    /// Saves the counts of spools whose rows have none, and closes the database. Nothing is committed or read afterwards.
    fn close(&self, counts: &[(SpoolId, Count)]);
}

/// The content of a database when it is opened.
#[derive(Debug, Default)]
pub(super) struct OpeningState {
    /// The highest login that was used.
    pub(super) login: LoginId,
    /// The highest revision of an account that was stored.
    pub(super) revision: u64,
    /// The number of the handover that the previous process began.
    pub(super) handover: Option<NonZeroU64>,
    /// The key from which resources are made.
    pub(super) resource_key: Secret<u128>,
    /// The counts of the spools.
    pub(super) counts: Vec<(SpoolId, Count)>,
    /// The spools whose rows have no count.
    pub(super) not_counted: Vec<SpoolId>,
}

/// Writes of one transaction.
pub(super) struct OpGroup<'a> {
    pub(super) ops: &'a [Op],
    /// Deletions that no caller waits for. They are performed after the writes, as far as there is time, if anything is
    /// committed.
    pub(super) lazy: &'a [Deletion],
    /// True if the lazy deletions are performed even if nothing else is committed.
    pub(super) is_due: bool,
    /// The time for deletions. At least twice as many stanzas as the group adds are deleted in any case.
    pub(super) time: Duration,
    /// Returns whether other writes wait.
    pub(super) is_wanted: &'a dyn Fn() -> bool,
    /// The bytes of all stanzas in the spools.
    pub(super) held: u64,
}

/// The result of a committed group.
#[derive(Debug, Default)]
pub(super) struct Committed {
    /// The outcome of each write.
    pub(super) outcomes: Vec<OpOutcome>,
    /// The progress of each lazy deletion that was begun.
    pub(super) lazy: Vec<OpProgress>,
    /// Changes of the counts, in order.
    pub(super) counted: Vec<(SpoolId, CountChange)>,
    /// Stanzas that turned out to be unreadable. They are still there.
    pub(super) unreadable: Vec<Unreadable>,
    /// Spools that were deleted with their devices. No client has fetched their stanzas.
    pub(super) forgotten: Vec<SpoolId>,
    /// The number of other stanzas that were deleted without having been fetched.
    pub(super) lost: u64,
    /// True if the engine has more to delete.
    pub(super) more: bool,
    /// The duration of the commit; `None` if there was nothing to write.
    pub(super) took: Option<Duration>,
}

/// The reason why a group is not known to be committed.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// The group is not committed.
    Refused(StoreError),
    /// The database did not answer.
    Unknown,
}
