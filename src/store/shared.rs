//! The state that the writer shares with the handles of the store.

use std::collections::HashSet;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;

use super::counts::SpoolCounts;
use super::deletions::Deletions;
use super::engines::Engines;
use super::error::StoreError;
use super::logins::Logins;
use super::newest::{ChangeId, NewestRecords};
use super::op::{Effect, Unreadable};
use super::ownership::OwnedAccounts;
use super::tasks::{TaskScope, Ticket};
use super::values::{SpoolId, SpoolLimits};
use crate::jid::BareJid;
use crate::metrics::Latency;
use crate::push::account::LoginId;
use crate::secret::Secret;
use crate::sync::lock;

/// The default of `[store] patience`.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) engine: Engines,
    pub(super) limits: Mutex<SpoolLimits>,
    /// In milliseconds.
    pub(super) patience: AtomicU64,
    /// The number of changes that were accepted and are not answered.
    pub(super) unanswered: AtomicU64,
    pub(super) committed: CommitCounts,
    /// The number of stanzas that were lost: unreadable, or deleted before any client had fetched them.
    pub(super) lost: Counter,
    pub(super) deletions: Deletions,
    pub(super) counts: SpoolCounts,
    pub(super) newest: NewestRecords,
    pub(super) logins: Logins,
    /// The accounts of this node; `None` if the database has one user.
    pub(super) owners: Option<Arc<OwnedAccounts>>,
    /// The logins that this process has taken over from the previous one.
    pub(super) kept: Mutex<Arc<HashSet<LoginId>>>,
    pub(super) found: FoundState,
    /// True if a caller now waits for a job that no caller waited for.
    pub(super) hurry: AtomicBool,
    /// True if the store is shut down.
    pub(super) is_stopping: AtomicBool,
}

/// The commits since the store was opened.
#[derive(Debug, Default)]
pub(super) struct CommitCounts {
    pub(super) number: AtomicU64,
    pub(super) time: Latency,
}

/// Values that were in the database when it was opened.
#[derive(Debug)]
pub(super) struct FoundState {
    /// The key from which resources are made.
    pub(super) resource_key: Secret<u128>,
    /// The number of the handover that the previous process began.
    pub(super) handover: Option<NonZeroU64>,
}

impl Shared {
    pub(super) fn limits(&self) -> SpoolLimits {
        *lock(&self.limits)
    }

    /// Returns the logins that this process has taken over from the previous one.
    pub(super) fn kept(&self) -> Arc<HashSet<LoginId>> {
        Arc::clone(&lock(&self.kept))
    }

    /// Returns how long a caller waits for an outcome.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_millis(self.patience.load(Ordering::Relaxed))
    }

    /// Answers a task.
    pub(super) fn answer(&self, ticket: Ticket, change: Option<ChangeId>, answer: Result<Effect, StoreError>) {
        if let Some(change) = change {
            match &answer {
                Ok(_) => self.newest.on_stored(&change),
                Err(_) => self.newest.on_refused(&change),
            }
        }
        self.unanswered.fetch_sub(1, Ordering::Relaxed);
        ticket.answer(answer);
    }

    /// Returns whether the hidden stanzas are gone from the disk.
    pub(super) fn is_settled(&self, scope: &TaskScope) -> bool {
        match scope {
            TaskScope::Spool(spool) => self.deletions.is_settled(spool),
            TaskScope::Account(account) => self.deletions.spools_of(account).is_empty(),
        }
    }

    /// Counts and logs stanzas that cannot be read.
    pub(super) fn note_unreadable(&self, unreadable: &Unreadable) {
        let Unreadable { spool, seqs, error: Some(error) } = unreadable else { return };
        let (stanzas, first) = (seqs.len(), seqs.first().map(|seqs| seqs.start().get()));
        self.lost.inc_by(stanzas as u64);
        tracing::error!(
            account = %spool.account, login = spool.login.0, stanzas, first, %error,
            "unreadable stanzas on disk: lost and deleted"
        );
    }

    /// Counts and logs the stanzas in spools that were deleted with their devices.
    pub(super) fn note_forgotten(&self, spools: &[SpoolId]) {
        let mut lost: Vec<(&BareJid, u64)> = Vec::new();
        for spool in spools {
            let stanzas = self.counts.of(spool).backlog.count;
            match lost.iter_mut().find(|(account, _)| **account == spool.account) {
                Some((_, sum)) => *sum = sum.saturating_add(stanzas),
                None => lost.push((&spool.account, stanzas)),
            }
        }
        for (account, stanzas) in lost.into_iter().filter(|(_, stanzas)| *stanzas > 0) {
            self.lost.inc_by(stanzas);
            tracing::warn!(%account, stanzas, "stanzas never fetched: deleted because their device was forgotten");
        }
    }
}
