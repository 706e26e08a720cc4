//! What operators ask of the store.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use redb::{ReadableTable, ReadableTableMetadata};

use super::accounts::ACCOUNTS;
use super::row::{Row, SLOTS};
use super::spool::{Backlog, Slot};
use super::wake::WAKES;
use super::{FILE, Store, StoreError};
use crate::jid::BareJid;
use crate::push::account::DeviceId;

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
    /// What the database holds. Looks at every slot.
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
            each(&transaction.open_table(SLOTS)?, |_, backlog| {
                measures.stanzas = measures.stanzas.saturating_add(backlog.count);
                measures.bytes = measures.bytes.saturating_add(backlog.bytes);
            })?;
            Ok(measures)
        })
        .await
    }

    /// What waits for each device for which something does. Looks at every slot.
    ///
    /// # Errors
    /// As [`Store::account`].
    pub async fn backlogs(&self) -> Result<HashMap<Slot, Backlog>, StoreError> {
        self.read(|transaction| {
            let mut backlogs = HashMap::new();
            each(&transaction.open_table(SLOTS)?, |slot, backlog| {
                if backlog.count > 0 {
                    backlogs.insert(slot, backlog);
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

/// Calls back with each slot that can be read.
fn each(
    table: &impl ReadableTable<(&'static str, u64), &'static [u8]>,
    mut take: impl FnMut(Slot, Backlog),
) -> Result<(), StoreError> {
    for entry in table.iter()? {
        let (key, record) = entry?;
        let (account, device) = key.value();
        let Ok(account) = BareJid::new(account) else { continue };
        match Row::decode(&account, record.value()) {
            Ok(row) => take(Slot { account, device: DeviceId(device) }, row.backlog),
            Err(error) => tracing::error!(%error, "stanzas on disk cannot be counted"),
        }
    }
    Ok(())
}
