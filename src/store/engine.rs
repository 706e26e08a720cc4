//! The seam between the store and the database behind it.
//!
//! The store groups writes, waits for outcomes, checks bounds and counts. An engine commits a group as one transaction and
//! answers reads. It is chosen once; callers of the store do not know which it is.

use std::time::Duration;

use tokio::time::Instant;

use super::error::StoreError;
use super::op::{CountChange, Deletion, Op, OpOutcome, OpProgress, Unreadable};
use super::query::{Query, QueryAnswer};
use super::schema::Count;
use super::values::SpoolId;
use crate::push::account::LoginId;

/// A database.
pub(super) trait Engine: Send + Sync {
    /// What was in the database when it was opened. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    fn opening(&self) -> Result<OpeningState, StoreError>;

    /// Commits a group in its order, as one transaction. Blocks, and is called by one thread.
    ///
    /// # Errors
    /// [`Failure::Refused`]: nothing of it is in force, or ever will be. [`Failure::Unknown`]: it may be in force now or later.
    /// Once the engine has answered a later call, that is decided.
    fn commit(&self, group: &OpGroup<'_>) -> Result<Committed, Failure>;

    /// Answers a question from what was last committed.
    ///
    /// # Errors
    /// [`StoreError::Database`], and what is wrong with the record that was asked for.
    fn read(&self, query: Query) -> impl Future<Output = Result<QueryAnswer, StoreError>> + Send;

    /// Returns an error if the database cannot be read, or not be written as far as is known.
    ///
    /// # Errors
    /// What is wrong.
    fn health(&self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// When [`Engine::maintain`] is to be called.
    fn maintenance(&self) -> Option<Instant>;

    /// Does what the engine needs for itself, until `is_wanted` says that writes wait and it has taken long enough. Blocks, and
    /// is called by the thread that commits.
    fn maintain(&self, is_wanted: &dyn Fn() -> bool);

    /// Writes what is in spools whose rows do not say it, and closes the database. Nothing is committed or read after it.
    fn close(&self, counts: &[(SpoolId, Count)]);
}

/// What a database holds when it is opened.
#[derive(Debug, Default)]
pub(super) struct OpeningState {
    /// The highest login that was used.
    pub(super) login: LoginId,
    /// The highest revision of an account that was stored.
    pub(super) revision: u64,
    /// The spools in which something is.
    pub(super) counts: Vec<(SpoolId, Count)>,
    /// The spools whose rows do not say what is in them.
    pub(super) not_counted: Vec<SpoolId>,
}

/// Writes of one transaction.
pub(super) struct OpGroup<'a> {
    pub(super) ops: &'a [Op],
    /// Deletions that nobody waits for. They are performed behind the writes, as far as there is time, if anything is committed.
    pub(super) lazy: &'a [Deletion],
    /// They are due: they are performed even if nothing else is committed.
    pub(super) is_due: bool,
    /// How long deletions may go on, at least twice as many stanzas as are added aside.
    pub(super) time: Duration,
    /// Says that other writes wait.
    pub(super) is_wanted: &'a dyn Fn() -> bool,
    /// Bytes of all stanzas that wait.
    pub(super) held: u64,
}

/// What came of a group.
#[derive(Debug, Default)]
pub(super) struct Committed {
    /// One for each write.
    pub(super) outcomes: Vec<OpOutcome>,
    /// One for each lazy deletion that was begun.
    pub(super) lazy: Vec<OpProgress>,
    /// In the order in which it happened.
    pub(super) counted: Vec<(SpoolId, CountChange)>,
    /// Stanzas that were found to be unreadable. They are still there.
    pub(super) unreadable: Vec<Unreadable>,
    /// Spools that were deleted with their devices. What was in them, nobody has fetched.
    pub(super) forgotten: Vec<SpoolId>,
    /// The number of other stanzas that were deleted though nobody has fetched them.
    pub(super) lost: u64,
    /// The engine has more to delete by itself.
    pub(super) more: bool,
    /// How long the commit took. `None`: nothing was to be written.
    pub(super) took: Option<Duration>,
}

/// Why a group is not known to be committed.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// It is not committed.
    Refused(StoreError),
    /// Not known: the database did not answer.
    #[cfg_attr(not(test), expect(dead_code, reason = "the embedded engine always knows"))]
    Unknown,
}
