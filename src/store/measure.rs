//! What operators ask of the store.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use redb::{ReadableDatabase, ReadableTableMetadata};

use super::accounts::ACCOUNTS;
use super::row::{self, SPOOLS};
use super::spool::{Backlog, Slot};
use super::wake::WAKES;
use super::{FILE, Store, StoreError};

/// What the database holds, as of the last commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measures {
    /// Accounts about which something is kept.
    pub accounts: u64,
    /// Devices that are to be woken.
    pub wakes: u64,
    /// Stanzas that wait.
    pub stanzas: u64,
    /// What they count for, in bytes.
    pub bytes: u64,
    /// Bytes of the database's file; 0 if the system does not say.
    pub file: u64,
}

impl Store {
    /// What the database in a directory holds. Looks at every row.
    ///
    /// # Errors
    /// As [`Store::account`].
    pub async fn measures(&self, directory: &Path) -> Result<Measures, StoreError> {
        let directory = directory.to_owned();
        self.read(move |transaction| {
            let mut measures = Measures {
                accounts: transaction.open_table(ACCOUNTS)?.len()?,
                wakes: transaction.open_table(WAKES)?.len()?,
                // Asked here, since the file system may stall too.
                file: Self::file_size(&directory).unwrap_or_default(),
                ..Measures::default()
            };
            row::each(&transaction.open_table(SPOOLS)?, |_, row| {
                measures.stanzas = measures.stanzas.saturating_add(row.backlog.count);
                measures.bytes = measures.bytes.saturating_add(row.backlog.bytes);
            })?;
            Ok(measures)
        })
        .await
    }

    /// What waits for each device for which something does. Looks at every row.
    ///
    /// # Errors
    /// As [`Store::account`].
    pub async fn backlogs(&self) -> Result<HashMap<Slot, Backlog>, StoreError> {
        self.read(|transaction| {
            let mut backlogs = HashMap::<Slot, Backlog>::new();
            row::each(&transaction.open_table(SPOOLS)?, |spool, row| {
                if row.backlog.count > 0 {
                    let sum = backlogs.entry(Slot { account: spool.account, device: row.device }).or_default();
                    *sum = sum.and(row.backlog);
                }
            })?;
            Ok(backlogs)
        })
        .await
    }

    /// Whether it can be read, and written as far as is known.
    ///
    /// # Errors
    /// What is wrong.
    pub async fn health(&self) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        // Both wait for locks that are held while the database is opened again.
        let look = move || {
            if shared.disk.has_failed() {
                let error =
                    io::Error::other("the disk failed to sync: nothing can be stored until pushward is restarted");
                return Err(StoreError::Database(Arc::new(error.into())));
            }
            shared.disk.with(|database| Ok(database.begin_read()?.open_table(WAKES)?.len()?))?;
            // What is read may be in memory: the disk is asked too.
            shared.disk.len().map(drop).map_err(|error| StoreError::from(redb::StorageError::Io(error)))
        };
        tokio::task::spawn_blocking(look).await.map_err(|_| StoreError::Closed)?
    }

    /// Bytes of the database's file in a directory.
    ///
    /// # Errors
    /// What the system says.
    pub fn file_size(directory: &Path) -> io::Result<u64> {
        Ok(std::fs::metadata(directory.join(FILE))?.len())
    }
}
