//! [`WatchedValues`]: the published values that a session follows, which are the settings, its account, and the drain.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::push::account::{Account, LoginId};
use crate::registry::PublishedAccount;
use crate::session::Settings;

/// The values that the session has already taken.
pub(super) struct WatchedValues {
    settings: Arc<Settings>,
    revision: u64,
    is_removed: bool,
    is_draining: bool,
    is_handed_over: bool,
}

/// The values that another process goes on with.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct WatchedRecord {
    revision: u64,
    is_removed: bool,
}

/// The changes of an account.
pub(super) struct AccountChanges {
    /// True if the account of this login was removed.
    pub(super) is_removed: bool,
    /// A newer revision of the account.
    pub(super) newer: Option<Arc<Account>>,
}

impl WatchedValues {
    pub(super) fn new(settings: Arc<Settings>) -> Self {
        Self { settings, revision: 0, is_removed: false, is_draining: false, is_handed_over: false }
    }

    /// Returns the values for another process.
    pub(super) fn freeze(&self) -> WatchedRecord {
        WatchedRecord { revision: self.revision, is_removed: self.is_removed }
    }

    /// Goes on in another process.
    pub(super) fn thaw(settings: Arc<Settings>, record: WatchedRecord) -> Self {
        let WatchedRecord { revision, is_removed } = record;
        Self { revision, is_removed, ..Self::new(settings) }
    }

    /// Records that the session has this revision of its account.
    pub(super) fn on_revision(&mut self, revision: u64) {
        self.revision = revision.max(self.revision);
    }

    /// Takes the settings in force. Returns them if they are new.
    pub(super) fn take_settings(&mut self, current: Arc<Settings>) -> Option<Arc<Settings>> {
        if Arc::ptr_eq(&current, &self.settings) {
            return None;
        }
        self.settings = Arc::clone(&current);
        Some(current)
    }

    /// Takes the published state of the account of a login. Returns the changes.
    pub(super) fn take_account(&mut self, login: LoginId, published: PublishedAccount) -> AccountChanges {
        let is_removed = published.removed >= login && !std::mem::replace(&mut self.is_removed, true);
        let newer = published.account.filter(|account| account.revision > self.revision);
        if let Some(account) = &newer {
            self.on_revision(account.revision);
        }
        AccountChanges { is_removed, newer }
    }

    /// Returns whether the session is handed over.
    pub(super) fn is_handed_over(&self) -> bool {
        self.is_handed_over
    }

    /// Records that the session is handed over. Returns whether that is new.
    pub(super) fn take_handover(&mut self) -> bool {
        !std::mem::replace(&mut self.is_handed_over, true)
    }

    /// Records that the daemon drains. Returns whether that is new.
    pub(super) fn take_drain(&mut self) -> bool {
        !std::mem::replace(&mut self.is_draining, true)
    }
}
