//! What operators ask of the store.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use redb::ReadableTableMetadata;

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
}

impl Store {
    /// What the database holds. Looks at every row.
    ///
    /// # Errors
    /// As [`Store::account`].
    pub async fn measures(&self) -> Result<Measures, StoreError> {
        self.read(|transaction| {
            let mut measures = Measures {
                accounts: transaction.open_table(ACCOUNTS)?.len()?,
                wakes: transaction.open_table(WAKES)?.len()?,
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
        if self.shared.disk.has_failed() {
            let error = io::Error::other("the disk failed to sync: nothing can be stored until pushward is restarted");
            return Err(StoreError::Database(Arc::new(error.into())));
        }
        self.wake_count().await.map(drop)
    }

    /// Bytes of the database's file in a directory.
    ///
    /// # Errors
    /// What the system says.
    pub fn file_size(directory: &Path) -> io::Result<u64> {
        Ok(std::fs::metadata(directory.join(FILE))?.len())
    }
}
