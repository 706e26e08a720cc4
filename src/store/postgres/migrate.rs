//! The schema and its versions.

use tokio_postgres::Row;

use super::connection::{Line, StatementCall, params, unavailable};
use crate::secret::Secret;
use crate::store::error::StoreError;

/// The migrations, in order. Each only adds, so that nodes of the version before can go on.
const MIGRATIONS: [&str; 2] = [include_str!("schema_1.sql"), include_str!("schema_2.sql")];
/// The version of the schema that is written.
pub(super) const SCHEMA: i64 = MIGRATIONS.len() as i64;

const HAS_SCHEMA: &str = "SELECT to_regclass('pushward') IS NOT NULL";
const LOOK_AT: &str = "SELECT version, resource_key, moved FROM pushward";

/// The values that all nodes share.
pub(super) struct SharedState {
    pub(super) resource_key: Secret<u128>,
}

/// Creates the tables, or brings those of an older version up to date.
///
/// # Errors
/// [`StoreError::NewerSchema`], [`StoreError::Moved`], [`StoreError::Unavailable`].
pub(super) async fn migrate(line: &Line) -> Result<SharedState, StoreError> {
    let connection = line.get().await?;
    // Two nodes that start at the same time do this one after the other. The lock ends with the transaction.
    let mut version = version(&connection).await?;
    if version < SCHEMA {
        let mut script = String::from("BEGIN; SELECT pg_advisory_xact_lock(1886745703, 0);");
        // Another node may have done it while this one waited for the lock; then the script fails, and the version is read again.
        for (number, migration) in (1i64..).zip(MIGRATIONS).filter(|(number, _)| *number > version) {
            script.push_str(migration);
            script.push_str(&record(number));
        }
        script.push_str("COMMIT;");
        let migrated = connection.run(&script).await;
        line.drop_connection(&connection).await;
        let connection = line.get().await?;
        version = self::version(&connection).await?;
        if version < SCHEMA {
            return Err(migrated.err().map_or(StoreError::WrongAnswer, unavailable));
        }
    }
    let connection = line.get().await?;
    let rows = connection.query(&StatementCall::new(LOOK_AT, params![])).await.map_err(unavailable)?;
    let row = rows.first().ok_or(StoreError::WrongAnswer)?;
    if version > SCHEMA {
        return Err(StoreError::NewerSchema { version: u64::try_from(version).unwrap_or_default() });
    }
    if row.get(2) {
        return Err(StoreError::Moved);
    }
    shared(row)
}

/// Returns the version of the schema, 0 if there is none.
pub(super) async fn version(connection: &super::connection::PrimaryConnection) -> Result<i64, StoreError> {
    let there = connection.query(&StatementCall::new(HAS_SCHEMA, params![])).await.map_err(unavailable)?;
    if !there.first().is_some_and(|row| row.get(0)) {
        return Ok(0);
    }
    let rows = connection.query(&StatementCall::new(LOOK_AT, params![])).await.map_err(unavailable)?;
    Ok(rows.first().map_or(0, |row| row.get(0)))
}

/// Returns the statement that notes a version.
fn record(version: i64) -> String {
    if version > 1 {
        return format!("UPDATE pushward SET version = {version};");
    }
    let key = rand::random::<u128>();
    format!("INSERT INTO pushward (version, resource_key) VALUES ({version}, '\\x{key:032x}');")
}

fn shared(row: &Row) -> Result<SharedState, StoreError> {
    let key: Vec<u8> = row.get(1);
    let key = <[u8; 16]>::try_from(key).map_err(|_| StoreError::WrongAnswer)?;
    Ok(SharedState { resource_key: Secret::new(u128::from_be_bytes(key)) })
}
