//! [`Previous`]: what the previous process or the service manager has passed to this one.

use std::collections::HashSet;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio_util::task::TaskTracker;

use super::legacy::{AboutHandover, Legacy};
use crate::clock;
use crate::metrics::HandoverOutcome;
use crate::relay::handover::RelayRecord;
use crate::relay::{self, HandoverReport, Relay, ThawedSessions};
use crate::service::Sockets;
use crate::service::handover::InheritedDescriptors;

/// Listeners and sessions of the previous process.
#[derive(Debug)]
pub(super) struct Previous {
    inherited: InheritedDescriptors,
    /// The reason why this process only drains what is left.
    drain: Option<&'static str>,
    /// The reason why this process goes on with sessions of its own.
    failure: Option<String>,
    /// True if this process was a node of a cluster, and joins it again.
    rejoins: bool,
}

/// The opened parcel of the previous process: the sessions of the handover that the database names.
pub(super) struct OpenedHandover {
    legacy: Option<Legacy>,
    failure: Option<String>,
}

/// The sessions that this process has taken up. Their tasks do not run yet.
pub(super) struct TakenUp {
    sessions: Option<(AboutHandover, ThawedSessions)>,
    failure: Option<String>,
}

impl Previous {
    /// Nothing was passed.
    pub(super) fn none() -> Self {
        Self::of(InheritedDescriptors::default())
    }

    /// Descriptors that were passed. They stay in the store of the service manager.
    pub(super) fn of(inherited: InheritedDescriptors) -> Self {
        Self { inherited, drain: None, failure: None, rejoins: false }
    }

    /// Sessions that this process itself has frozen, and that nobody has taken: they are to be drained.
    pub(super) fn to_drain(inherited: InheritedDescriptors, reason: &'static str) -> Self {
        Self { drain: Some(reason), failure: Some(format!("{reason}: draining")), ..Self::of(inherited) }
    }

    /// Sessions that this process itself has frozen, and goes on with.
    pub(super) fn after_failure(inherited: InheritedDescriptors, reason: String) -> Self {
        Self { failure: Some(reason), ..Self::of(inherited) }
    }

    /// The listeners of a node in whose place another one has acted.
    pub(super) fn to_rejoin(listeners: Vec<OwnedFd>) -> Self {
        Self { rejoins: true, ..Self::of(InheritedDescriptors::own_listeners(listeners)) }
    }

    /// Returns whether this process was a node of a cluster, and joins it again.
    pub(super) fn rejoins(&self) -> bool {
        self.rejoins
    }

    /// Returns the reason for a drain, during which no client is accepted.
    pub(super) fn drain(&self) -> Option<&'static str> {
        self.drain
    }

    /// Lets this process only drain what is left.
    pub(super) fn drain_for(&mut self, reason: &'static str) {
        self.drain = Some(reason);
    }

    /// Returns whether there may be sessions, which end if this process does not start.
    pub(super) fn has_sessions(&self) -> bool {
        self.inherited.has_parcel()
    }

    /// Returns whether the service manager has them as well, for another start.
    pub(super) fn is_stored(&self) -> bool {
        self.inherited.is_stored()
    }

    /// Returns copies of the listeners that were passed.
    ///
    /// # Errors
    /// Returns the error of the operating system.
    pub(super) fn listeners(&self) -> io::Result<Sockets> {
        self.inherited.listeners()
    }

    /// Opens what the previous process has left, which can be done once: nothing may fail afterwards. `number` is that in the
    /// database.
    pub(super) fn open(&mut self, number: Option<NonZeroU64>) -> OpenedHandover {
        let mut opened = OpenedHandover { legacy: None, failure: self.failure.take() };
        for parcel in self.inherited.open() {
            match Legacy::of(parcel) {
                Ok(legacy) if Some(legacy.about.number) == number => opened.legacy = Some(legacy),
                Ok(legacy) => tracing::warn!(
                    sessions = legacy.sessions.len(),
                    "sessions of another handover closed: this database did not record it"
                ),
                Err(error) => tracing::error!(%error, "cannot take up the sessions of the previous process"),
            }
        }
        opened
    }

    /// Removes the descriptors from the store of the service manager: nothing can be taken up a second time.
    pub(super) async fn forget(&mut self) {
        self.inherited.forget().await;
    }
}

impl OpenedHandover {
    /// Returns the seed of the previous process.
    pub(super) fn seed(&self) -> Option<u64> {
        self.legacy.as_ref().map(|legacy| *legacy.about.seed.expose())
    }

    /// Enters the sessions of the previous process, and closes those that it has lost.
    pub(super) async fn take_up(self, relay: &Arc<Relay>) -> TakenUp {
        let Self { legacy, failure } = self;
        let sessions = legacy.map(|Legacy { about, rest, sessions }| {
            if let Err(error) = RelayRecord::decode(&rest).and_then(|rest| relay.thaw_rest(rest)) {
                tracing::error!(%error, "cannot take up the state of the relay");
            }
            (about, relay::thaw(relay, sessions))
        });
        let kept = sessions.as_ref().map_or_else(HashSet::new, |(_, thawed)| thawed.logins());
        relay.recover(kept).await;
        TakenUp { sessions, failure }
    }
}

impl TakenUp {
    /// Goes on with the sessions.
    pub(super) fn go_on(self, relay: &Arc<Relay>, tasks: &TaskTracker) {
        let Self { sessions, failure: failed } = self;
        let Some((about, thawed)) = sessions else { return };
        let AboutHandover { began, mut ended, .. } = about;
        let kept = thawed.len();
        if thawed.unreadable() > 0 {
            ended.insert("unreadable".to_owned(), thawed.unreadable());
        }
        thawed.go_on(relay, tasks);
        let report = HandoverReport { began, kept, ended, took: began.elapsed(), at: clock::unix_secs(), failed };
        let lost: usize = report.ended.values().sum();
        tracing::info!(kept, ended = lost, took = ?report.took, "sessions of the previous process go on");
        let outcome = if report.failed.is_none() { HandoverOutcome::Done } else { HandoverOutcome::Failed };
        relay.metrics().handover(outcome);
        relay.metrics().handover_sessions(kept, lost);
        relay.handover().note(report);
    }
}
