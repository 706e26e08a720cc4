//! What can go wrong, and whose fault it is.

use std::path::PathBuf;
use std::sync::Arc;

use crate::jid::BareJid;
use crate::seq::Seq;

/// Why the store did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The operator's: the directory or the file cannot be made or opened.
    #[error("{path}: {error}; `state` in the configuration must name a directory that this user can write to", path = .path.display())]
    Inaccessible {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        error: Arc<std::io::Error>,
    },
    /// The operator's: another process has the database.
    #[error("the database is in use by another process; is pushward running already, with the same `state`?")]
    InUse,
    /// Nobody's: the last process that had the database was killed.
    #[error("the database was not closed cleanly; the next start of pushward repairs it")]
    NotClosed,
    /// The disk's: the database cannot be read or written. Whether a change that failed so is on disk is unknown.
    #[error("the database failed: {0}")]
    Database(Arc<redb::Error>),
    /// The operator's: a newer version wrote this record; nothing was changed.
    #[error("a record of {account} is of version {version}, which this version cannot read; run a newer one")]
    UnknownVersion {
        /// Whose record it is.
        account: BareJid,
        /// The record's version.
        version: u8,
    },
    /// The disk's: a record that no version wrote; nothing was changed.
    #[error("a record of {account} is corrupt: {reason} at byte {at} of {len}")]
    Corrupt {
        /// Whose record it is.
        account: BareJid,
        /// What kind of damage; never the content.
        reason: &'static str,
        /// Where the damage was noticed, in bytes.
        at: usize,
        /// Bytes of the record.
        len: usize,
    },
    /// The operator's: a newer version wrote the database; nothing was changed.
    #[error("the database has tables of version {version}, which this version cannot read; run a newer one")]
    NewerSchema {
        /// The version of its tables.
        version: u64,
    },
    /// The sender's or the operator's: what waits has reached a bound; nothing was changed.
    #[error("the spool is full: {which} is {limit} bytes")]
    SpoolFull {
        /// The bound, in bytes.
        limit: u64,
        /// Which bound.
        which: SpoolBound,
    },
    /// The caller's: another stanza has or had this sequence number in the spool, or the call's are not in order; nothing was
    /// changed.
    #[error("sequence number {seq} of the spool is taken: its last is {last_seq}")]
    SequenceTaken {
        /// The sequence number that was asked for.
        seq: Seq,
        /// The last one that was ever used.
        last_seq: Seq,
    },
    /// The user's or the operator's: the account was removed after the session's login; nothing of it is kept.
    #[error("the account {account} was removed after this session logged in")]
    AccountRemoved {
        /// The account.
        account: BareJid,
    },
    /// The machine's: it has no thread for the writer.
    #[error("cannot start a thread for the database: {0}")]
    NoThread(Arc<std::io::Error>),
    /// The database's: it has not said in time whether a change is stored. Nothing of it will come into force that could be
    /// delivered twice: stanzas are deleted again if they come into the spool after all.
    #[error("the database has not answered within {within:?}; the change counts as failed")]
    NoAnswer {
        /// `[store] patience`.
        within: std::time::Duration,
    },
    /// The engine's: it has answered something else than it was asked.
    #[error("the database gave an answer of the wrong kind")]
    Mistaken,
    /// Nobody's: the store was shut down, or its writer has died.
    #[error("the database is closed")]
    Closed,
}

/// A bound of the spool; shown as its key in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SpoolBound {
    /// Of what waits for one session.
    PerSession,
    /// Of what waits for one account.
    PerAccount,
    /// Of all that waits.
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
    /// Whether one record cannot be read, and all else may be in order: to try again changes nothing.
    pub fn is_of_one_record(&self) -> bool {
        matches!(self, Self::UnknownVersion { .. } | Self::Corrupt { .. })
    }
}

/// Lets pass what concerns one record only.
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
