//! The errors of the store ([`StoreError`]). Each says whose fault it is.

use std::path::PathBuf;
use std::sync::Arc;

use crate::jid::BareJid;
use crate::seq::Seq;

/// The error of a call to the store.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Fault of the operator: the directory or the file cannot be created or opened.
    #[error("{path}: {error}; `state` in the configuration must name a directory that this user can write to", path = .path.display())]
    Inaccessible {
        /// The directory or file.
        path: PathBuf,
        /// The error of the system.
        error: Arc<std::io::Error>,
    },
    /// Fault of the operator: another process uses the database.
    #[error("the database is in use by another process; is pushward running already, with the same `state`?")]
    InUse,
    /// No fault: the last process that used the database was killed.
    #[error("the database was not closed cleanly; the next start of pushward repairs it")]
    NotClosed,
    /// Fault of the disk: the database cannot be read or written. Whether the change is on disk is unknown.
    #[error("the database failed: {0}")]
    Database(Arc<redb::Error>),
    /// Fault of the operator: a newer version wrote this record. Nothing was changed.
    #[error("a record of {account} is of version {version}, which this version cannot read; run a newer one")]
    UnknownVersion {
        /// The account of the record.
        account: BareJid,
        /// The record's version.
        version: u8,
    },
    /// Fault of the disk: no version wrote a record like this. Nothing was changed.
    #[error("a record of {account} is corrupt: {reason} at byte {at} of {len}")]
    Corrupt {
        /// The account of the record.
        account: BareJid,
        /// The kind of damage; never the content.
        reason: &'static str,
        /// The position of the damage, in bytes.
        at: usize,
        /// The length of the record, in bytes.
        len: usize,
    },
    /// Fault of the operator: a newer version wrote the database. Nothing was changed.
    #[error("the database has tables of version {version}, which this version cannot read; run a newer one")]
    NewerSchema {
        /// The version of its tables.
        version: u64,
    },
    /// Fault of the sender or the operator: the waiting stanzas have reached a bound. Nothing was changed.
    #[error("the spool is full: {which} is {limit} bytes")]
    SpoolFull {
        /// The bound, in bytes.
        limit: u64,
        /// The bound that was reached.
        which: SpoolBound,
    },
    /// Fault of the caller: another stanza has or had this sequence number in the spool, or the stanzas of the call are not in
    /// order. Nothing was changed.
    #[error("sequence number {seq} of the spool is taken: its last is {last_seq}")]
    SequenceTaken {
        /// The sequence number of the refused stanza.
        seq: Seq,
        /// The highest sequence number that was used so far.
        last_seq: Seq,
    },
    /// Fault of the user or the operator: the account was removed after the session's login. Nothing of it is kept.
    #[error("the account {account} was removed after this session logged in")]
    AccountRemoved {
        /// The account.
        account: BareJid,
    },
    /// Fault of the machine: the writer thread cannot be started.
    #[error("cannot start a thread for the database: {0}")]
    NoThread(Arc<std::io::Error>),
    /// Fault of the database: it has not reported in time whether a change is stored. The change cannot cause a second
    /// delivery: if its stanzas come into the spool after all, they are deleted again.
    #[error("the database has not answered within {within:?}; the change counts as failed")]
    NoAnswer {
        /// The value of `[store] patience`.
        within: std::time::Duration,
    },
    /// Fault of the engine: its answer does not fit the question.
    #[error("the database gave an answer of the wrong kind")]
    WrongAnswer,
    /// No fault: the store was shut down, or its writer thread has ended.
    #[error("the database is closed")]
    Closed,
}

/// A bound of the spool. [`Display`](std::fmt::Display) shows its key in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SpoolBound {
    /// The bound of the stanzas that wait for one session.
    PerSession,
    /// The bound of the stanzas that wait for one account.
    PerAccount,
    /// The bound of all waiting stanzas.
    All,
}

impl std::fmt::Display for SpoolBound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::PerSession => "spool_per_session",
            Self::PerAccount => "spool_per_account",
            Self::All => "spool",
        })
    }
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> Self {
        Self::Database(Arc::new(error.into()))
    }
}

impl StoreError {
    /// Returns whether the error is about one unreadable record, while everything else may be in order. Trying again has no
    /// effect.
    pub fn is_of_one_record(&self) -> bool {
        matches!(self, Self::UnknownVersion { .. } | Self::Corrupt { .. })
    }
}

/// Logs and drops an error that is about one record only.
pub(super) fn tolerate(result: Result<(), StoreError>) -> Result<(), StoreError> {
    match result {
        Err(error @ StoreError::Database(_)) => Err(error),
        Err(error) => {
            tracing::error!(%error, "unreadable record skipped");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}
