//! Read-only access to the database while no daemon runs, for commands.

use std::path::Path;

use redb::{DatabaseError, ReadOnlyDatabase, ReadableDatabase, StorageError};

use super::paths::FILE;
use super::queries::page;
use crate::jid::BareJid;
use crate::push::account::Account;
use crate::store::error::StoreError;

/// Returns the accounts in the database of a directory, without changing it; `None` if there is no database. Blocks. Accounts
/// that cannot be read are logged and skipped.
///
/// # Errors
/// [`StoreError::InUse`] while a daemon runs; [`StoreError::NotClosed`] after it was killed; [`StoreError::Database`].
pub fn peek(directory: &Path) -> Result<Option<Vec<(BareJid, Account)>>, StoreError> {
    let database = match ReadOnlyDatabase::open(directory.join(FILE)) {
        Ok(database) => database,
        Err(DatabaseError::Storage(StorageError::Io(error))) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(DatabaseError::RepairAborted) => return Err(StoreError::NotClosed),
        Err(DatabaseError::DatabaseAlreadyOpen) => return Err(StoreError::InUse),
        Err(error) => return Err(error.into()),
    };
    Ok(Some(page(&database.begin_read()?, None, usize::MAX)?.accounts))
}
