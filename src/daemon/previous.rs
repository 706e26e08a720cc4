//! [`Previous`]: what the previous process or the service manager has passed to this one.

use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroU64;
use std::sync::Arc;

use tokio_util::task::TaskTracker;

use super::legacy::{AboutHandover, Legacy};
use crate::clock;
use crate::relay::handover::RelayRecord;
use crate::relay::{self, HandoverReport, Relay, ThawedSessions};
use crate::service::Sockets;
use crate::service::handover::InheritedDescriptors;

/// Listeners and sessions of the previous process.
#[derive(Debug)]
pub(super) struct Previous {
    inherited: InheritedDescriptors,
    legacy: Option<Legacy>,
    rest: Option<RelayRecord>,
    /// True if this process only drains what is left.
    drains: bool,
}

/// The sessions that this process has taken up. Their tasks do not run yet.
pub(super) struct TakenUp(Option<(AboutHandover, ThawedSessions)>);

impl Previous {
    /// Nothing was passed.
    pub(super) fn none() -> Self {
        Self::of(InheritedDescriptors::default())
    }

    /// Reads what was passed. The descriptors stay in the store of the service manager.
    pub(super) fn of(inherited: InheritedDescriptors) -> Self {
        Self { inherited, legacy: None, rest: None, drains: false }
    }

    /// Sessions that this process itself has frozen, and that nobody has taken: they are to be drained.
    pub(super) fn to_drain(inherited: InheritedDescriptors) -> Self {
        Self { drains: true, ..Self::of(inherited) }
    }

    /// Returns whether no client is to be accepted.
    pub(super) fn drains(&self) -> bool {
        self.drains
    }

    /// Returns the seed of the previous process, if its sessions belong to the handover that the database names.
    pub(super) fn seed(&mut self, number: Option<NonZeroU64>) -> Option<u64> {
        for parcel in self.inherited.parcels() {
            match Legacy::of(parcel) {
                Ok(legacy) if Some(legacy.about.number) == number => self.legacy = Some(legacy),
                Ok(_) => tracing::warn!("sessions of another handover than the last one closed"),
                Err(error) => tracing::error!(%error, "cannot take up the sessions of the previous process"),
            }
        }
        let rest = self.legacy.as_ref().map(|legacy| RelayRecord::decode(&legacy.rest))?;
        self.rest = rest.inspect_err(|error| tracing::error!(%error, "cannot take up the state of the relay")).ok();
        self.rest.as_ref().map(RelayRecord::seed)
    }

    /// Returns the listeners that were passed.
    pub(super) fn sockets(&mut self) -> &mut Sockets {
        self.inherited.sockets()
    }

    /// Enters the sessions of the previous process, and closes those that it has lost. Afterwards nothing can be taken up a
    /// second time.
    pub(super) async fn take_up(&mut self, relay: &Arc<Relay>) -> TakenUp {
        if let Some(Err(error)) = self.rest.take().map(|rest| relay.thaw_rest(rest)) {
            tracing::error!(%error, "cannot take up the state of the relay");
        }
        let taken_up = self.legacy.take().map(|legacy| {
            let Legacy { about, sessions, .. } = legacy;
            (about, relay::thaw(relay, sessions))
        });
        let kept = taken_up.as_ref().map_or_else(HashSet::new, |(_, thawed)| thawed.logins());
        relay.recover(kept).await;
        self.inherited.forget().await;
        TakenUp(taken_up)
    }
}

impl TakenUp {
    /// Goes on with the sessions.
    pub(super) fn go_on(self, relay: &Arc<Relay>, tasks: &TaskTracker) {
        let Some((about, thawed)) = self.0 else { return };
        let AboutHandover { began, ended, .. } = about;
        let kept = thawed.len();
        let mut ended: BTreeMap<String, usize> = ended;
        if thawed.unreadable() > 0 {
            ended.insert("unreadable".to_owned(), thawed.unreadable());
        }
        thawed.go_on(relay, tasks);
        let report = HandoverReport { began, kept, ended, took: began.elapsed(), at: clock::unix_secs() };
        let lost: usize = report.ended.values().sum();
        tracing::info!(kept, ended = lost, took = ?report.took, "sessions of the previous process go on");
        relay.handover().note(report);
    }
}
