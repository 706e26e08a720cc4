//! [`Core`]: the state that the calls and the tasks of the engine share.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::connection::{self, Line, unavailable};
use super::knowledge::Memory;
use super::queries::{self, ReadError};
use super::settings::PostgresSettings;
use crate::limits::RateLimitedLog;
use crate::store::error::{DatabaseFailure, StoreError};
use crate::store::lease::Lease;
use crate::store::query::{Query, QueryAnswer};

/// The connections for reads.
const READERS: usize = 2;

/// The state that the calls and the tasks of the engine share.
pub(super) struct Core {
    pub(super) settings: Arc<PostgresSettings>,
    pub(super) lease: Arc<Lease>,
    pub(super) writer: Line,
    pub(super) readers: [Line; READERS],
    pub(super) next_reader: AtomicUsize,
    /// For the lease: a commit that waits for a standby must not keep others from seeing that this node lives.
    pub(super) leases: Line,
    pub(super) memory: Mutex<Memory>,
    /// True if the next process goes on with this node's epoch.
    pub(super) is_handed_over: AtomicBool,
    pub(super) unavailable: RateLimitedLog,
}

impl Core {
    /// `leases`: the connection that the node has joined on.
    pub(super) fn new(settings: &Arc<PostgresSettings>, leases: Line, lease: Lease) -> Self {
        let line = || Line::new(Arc::clone(settings));
        Self {
            lease: Arc::new(lease),
            writer: line(),
            readers: std::array::from_fn(|_| line()),
            next_reader: AtomicUsize::new(0),
            leases,
            memory: Mutex::default(),
            is_handed_over: AtomicBool::new(false),
            unavailable: RateLimitedLog::default(),
            settings: Arc::clone(settings),
        }
    }

    pub(super) fn node(&self) -> i16 {
        i16::from(self.settings.node.id)
    }

    pub(super) fn note_unavailable(&self, error: &StoreError) {
        if let Some(suppressed) = self.unavailable.next() {
            tracing::error!(%error, suppressed, "database not available: trying again");
        }
    }

    /// Answers a read. Tries again for as long as the caller waits.
    pub(super) async fn read(&self, query: Query) -> Result<QueryAnswer, StoreError> {
        let number = self.next_reader.fetch_add(1, Ordering::Relaxed) % READERS;
        let Some(line) = self.readers.get(number) else { return Err(StoreError::WrongAnswer) };
        loop {
            let connection = match line.get().await {
                Ok(connection) => connection,
                Err(error) => {
                    self.note_unavailable(&error);
                    continue;
                }
            };
            match queries::answer(&connection, self.node(), &query).await {
                Ok(answer) => return Ok(answer),
                Err(ReadError::Record(error)) => return Err(error),
                Err(ReadError::Postgres(error)) => {
                    let failure = DatabaseFailure::from(error);
                    if failure.is_permanent() {
                        return Err(StoreError::Unavailable(failure));
                    }
                    line.drop_connection(&connection).await;
                    self.note_unavailable(&StoreError::Unavailable(failure));
                }
            }
        }
    }

    pub(super) async fn health(&self) -> Result<(), StoreError> {
        if self.lease.lapsed(crate::clock::Instant::now()).is_some() {
            return Err(StoreError::Unavailable(DatabaseFailure::LeaseOver));
        }
        let line = self.readers.first().ok_or(StoreError::WrongAnswer)?;
        let connection = line.get().await?;
        let read = connection.query(&connection::StatementCall::new("SELECT 1", Vec::new())).await;
        read.map(drop).map_err(unavailable)
    }
}
