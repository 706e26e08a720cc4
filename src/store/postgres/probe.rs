//! A look at the database from outside, for `pushward check`. Changes nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::connection::{Line, StatementCall, unavailable};
use super::settings::PostgresSettings;
use super::{migrate, nodes as node_reads};
use crate::store::error::{DatabaseFailure, StoreError};
use crate::store::values::NodeRecord;

/// The longest time for all questions.
const WITHIN: Duration = Duration::from_secs(15);

const SERVER: &str = "SELECT current_setting('server_version'), current_setting('synchronous_standby_names'), \
    extract(epoch FROM clock_timestamp())::float8, current_setting('fsync') = 'on', \
    has_schema_privilege(current_schema(), 'CREATE')";
const RIGHTS: &str = "SELECT bool_and(has_table_privilege(name, 'SELECT, INSERT, UPDATE, DELETE')) \
    FROM unnest(ARRAY['pushward', 'node', 'account', 'login', 'session', 'spool', 'tombstone', 'wake']) AS name";

/// The answers of a database.
#[derive(Clone, Debug, PartialEq)]
pub struct DatabaseState {
    /// The version of the server.
    pub server: String,
    /// `synchronous_standby_names`; empty if no standby is waited for.
    pub standbys: String,
    /// True if the server syncs commits to its disk.
    pub syncs: bool,
    /// True if the user may do what is needed.
    pub has_rights: bool,
    /// The calendar time of the server, in seconds since the Unix epoch.
    pub clock: f64,
    /// The version of the tables, if there are any.
    pub schema: Option<u64>,
    /// The nodes that are running.
    pub nodes: Vec<NodeRecord>,
}

impl DatabaseState {
    /// The version of the tables that this program writes.
    pub const SCHEMA: u64 = migrate::SCHEMA.unsigned_abs();
}

/// Asks a database for its state.
///
/// # Errors
/// [`StoreError::Unavailable`].
pub async fn probe(settings: PostgresSettings) -> Result<DatabaseState, StoreError> {
    // One of the questions is whether it has standbys.
    let line = Line::new(Arc::new(PostgresSettings { may_be_single: true, ..settings }));
    let asked = timeout(WITHIN, ask(&line)).await;
    asked.unwrap_or(Err(StoreError::Unavailable(DatabaseFailure::Silent)))
}

async fn ask(line: &Line) -> Result<DatabaseState, StoreError> {
    let connection = line.get().await?;
    let query = async |sql| connection.query(&StatementCall::new(sql, Vec::new())).await.map_err(unavailable);
    let rows = query(SERVER).await?;
    let server = rows.first().ok_or(StoreError::WrongAnswer)?;
    let version = migrate::version(&connection).await?;
    let (mut has_rights, mut nodes): (bool, Vec<NodeRecord>) = (server.get(4), Vec::new());
    if version > 0 {
        has_rights = query(RIGHTS).await?.first().is_some_and(|row| row.get(0));
        nodes = node_reads::running(&connection).await.map_err(unavailable)?;
    }
    Ok(DatabaseState {
        server: server.get(0),
        standbys: server.get(1),
        clock: server.get(2),
        syncs: server.get(3),
        has_rights,
        schema: u64::try_from(version).ok().filter(|version| *version > 0),
        nodes,
    })
}
