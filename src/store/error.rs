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
    /// Fault of the database server or the network: it cannot be used now.
    #[error("the database is not available: {0}")]
    Unavailable(DatabaseFailure),
    /// Fault of the network or the machine: this node was cut off or paused for longer than its lease, and another has taken
    /// its place. Nothing was changed.
    #[error("another node has taken the place of this one, which was cut off from the database or paused")]
    Fenced,
    /// No fault: another node has the sessions of the account. Nothing was changed.
    #[error("the sessions of {account} are on another node")]
    Elsewhere {
        /// The account.
        account: BareJid,
    },
    /// Fault of the caller: the account was not claimed before. Nothing was changed.
    #[error("{account} is not owned by this node")]
    NotOwned {
        /// The account.
        account: BareJid,
    },
    /// Fault of the operator: another process uses the database as this node.
    #[error("another process is running and uses this database (node {node}); stop it, or use another database")]
    NodeInUse {
        /// The number of the running node.
        node: u8,
        /// The address of its cluster listener.
        address: String,
    },
    /// Fault of the operator: the content of the database was copied to another engine. Nothing was changed.
    #[error(
        "the content of this database was copied to another engine; set `[store] engine` to that one, or copy it back"
    )]
    Moved,
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

/// The reason why a database server cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseFailure {
    /// The server has refused a statement.
    #[error("{message} (SQLSTATE {code})")]
    Server {
        /// The SQLSTATE.
        code: String,
        /// The message, without details, which may quote values.
        message: String,
    },
    /// No connection to the server, or it was lost.
    #[error("{0}")]
    Connection(String),
    /// The server does not answer in time.
    #[error("it does not answer")]
    Silent,
    /// The server is a standby, or takes no writes.
    #[error("it takes no writes: it is no primary")]
    ReadOnly,
    /// The server would lose what it has confirmed if its machine is lost.
    #[error(
        "it has no synchronous standby: set `synchronous_standby_names` there, or `[store] single = true` here to accept this"
    )]
    NoStandby,
    /// The server has committed a transaction that its standbys may lack.
    #[error("it has stopped to wait for its standbys: whether they have the last change is unknown")]
    Doubtful,
    /// The lease of this node is over, because it could not be renewed.
    #[error("this node could not renew its lease")]
    LeaseOver,
}

impl DatabaseFailure {
    /// Returns the SQLSTATE of a server's error.
    pub(super) fn code(&self) -> Option<&str> {
        if let Self::Server { code, .. } = self { Some(code) } else { None }
    }

    /// Returns whether trying again has no effect: the statement or the rights are wrong, not the state of the server.
    pub(super) fn is_permanent(&self) -> bool {
        /// Classes of errors that pass: connections, rolled back transactions, resources, locks, the operator, the system, and
        /// those of [`pushward_fence`](super::postgres); `25` is a server that became a standby.
        const PASSING: [&str; 9] = ["08", "25", "40", "53", "55", "57", "58", "PW", "XX"];
        self.code().is_some_and(|code| !PASSING.iter().any(|class| code.starts_with(class)))
    }
}

impl From<tokio_postgres::Error> for DatabaseFailure {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(server) if server.code().code() == "PW002" => Self::NoStandby,
            Some(server) => {
                Self::Server { code: server.code().code().to_owned(), message: server.message().to_owned() }
            }
            None => Self::Connection(match std::error::Error::source(&error) {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            }),
        }
    }
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
    /// Returns whether the database failed, so that nothing else can be expected of it now.
    pub(super) fn is_of_database(&self) -> bool {
        matches!(self, Self::Database(_) | Self::Unavailable(_) | Self::Fenced)
    }

    /// Returns whether the error is about one unreadable record, while everything else may be in order. Trying again has no
    /// effect.
    pub fn is_of_one_record(&self) -> bool {
        matches!(self, Self::UnknownVersion { .. } | Self::Corrupt { .. })
    }
}

/// Logs and drops an error that is about one record only.
pub(super) fn tolerate(result: Result<(), StoreError>) -> Result<(), StoreError> {
    match result {
        Err(error) if error.is_of_database() => Err(error),
        Err(error) => {
            tracing::error!(%error, "unreadable record skipped");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}
