//! What the database says about itself: the version of its tables and the highest login.

use std::sync::atomic::{AtomicU64, Ordering};

use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition, TableHandle};

use crate::push::account::LoginId;
use crate::store::accounts::ACCOUNTS;
use crate::store::embedded::convert;
use crate::store::embedded::erase::DOOMED;
use crate::store::error::StoreError;
use crate::store::row::SPOOLS;
use crate::store::spool::STANZAS;
use crate::store::tombstone::{BURIED, TOMBSTONES};
use crate::store::wake::WAKES;

/// Names → numbers.
pub(in crate::store) const META: TableDefinition<'static, &'static str, u64> = TableDefinition::new("meta");
/// The version of the tables.
const SCHEMA: &str = "schema";
/// The highest login that was used.
const LOGIN: &str = "login";
/// The version that is written. 1 had no [`META`]: a spool belonged to a device.
const VERSION: u64 = 2;
/// The number of tables.
pub(in crate::store) const TABLES: usize = 8;

/// Makes the tables that are missing, and converts what an older version wrote.
///
/// # Errors
/// [`StoreError::NewerSchema`], [`StoreError::Database`].
pub(in crate::store) fn prepare(database: &Database) -> Result<(), StoreError> {
    let transaction = database.begin_read()?;
    let there: Vec<_> = transaction.list_tables()?.map(|table| table.name().to_owned()).collect();
    let has = |name: &str| there.iter().any(|known| known == name);
    let version = match has(META.name()) {
        true => transaction.open_table(META)?.get(SCHEMA)?.map(|version| version.value()),
        false => None,
    };
    drop(transaction);
    if let Some(version) = version.filter(|version| *version > VERSION) {
        return Err(StoreError::NewerSchema { version });
    }
    let all = [ACCOUNTS.name(), SPOOLS.name(), STANZAS.name(), DOOMED.name(), TOMBSTONES.name(), BURIED.name()];
    if version.is_none() || !all.into_iter().chain([WAKES.name()]).all(has) {
        create(database)?;
    }
    if convert::OLD.iter().any(|name| has(name)) {
        convert::convert(database)?;
    }
    Ok(())
}

fn create(database: &Database) -> Result<(), StoreError> {
    let transaction = database.begin_write()?;
    transaction.open_table(ACCOUNTS)?;
    transaction.open_table(SPOOLS)?;
    transaction.open_table(STANZAS)?;
    transaction.open_table(DOOMED)?;
    transaction.open_table(TOMBSTONES)?;
    transaction.open_table(BURIED)?;
    transaction.open_table(WAKES)?;
    transaction.open_table(META)?.insert(SCHEMA, VERSION)?;
    transaction.commit()?;
    Ok(())
}

/// The highest login that was used.
pub(in crate::store) fn highest(table: &impl ReadableTable<&'static str, u64>) -> Result<LoginId, StoreError> {
    Ok(LoginId(table.get(LOGIN)?.map_or(0, |login| login.value())))
}

/// Stores a login as the highest, if it is.
pub(in crate::store) fn raise(table: &mut Table<'_, &'static str, u64>, login: LoginId) -> Result<(), StoreError> {
    if login > highest(table)? {
        table.insert(LOGIN, login.0)?;
    }
    Ok(())
}

/// Gives out the ids of logins.
#[derive(Debug)]
pub(in crate::store) struct Logins(AtomicU64);

impl Logins {
    /// Goes on behind what the database knows.
    pub(in crate::store) fn read(database: &Database) -> Result<Self, StoreError> {
        let transaction = database.begin_read()?;
        let mut highest = highest(&transaction.open_table(META)?)?;
        // What names a spool was used, whatever else is written.
        crate::store::row::each(&transaction.open_table(SPOOLS)?, |spool, row| {
            highest = highest.max(spool.login).max(row.owner);
        })?;
        Ok(Self(AtomicU64::new(highest.0)))
    }

    pub(in crate::store) fn next(&self) -> LoginId {
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| last.checked_add(1));
        // Only a damaged database gets there.
        LoginId(before.unwrap_or(u64::MAX).saturating_add(1))
    }

    /// A login is in use.
    pub(in crate::store) fn saw(&self, login: LoginId) {
        self.0.fetch_max(login.0, Ordering::Relaxed);
    }

    /// The highest that was given out.
    pub(in crate::store) fn highest(&self) -> LoginId {
        LoginId(self.0.load(Ordering::Relaxed))
    }
}
