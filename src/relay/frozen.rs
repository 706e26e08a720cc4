//! The handover of sessions to another process: [`SessionHandover`] is the state that all tasks share, [`FrozenSession`] a session
//! between two processes.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::{Instant, UnixSecs};
use crate::sync::lock;

/// A session that no task drives: its record, and the connection to the server.
#[derive(Debug)]
pub struct FrozenSession {
    /// The record. It has secrets and bodies of stanzas, and must not leave the memory.
    pub record: Vec<u8>,
    /// The connection to the server.
    pub socket: OwnedFd,
}

/// The result of a handover, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandoverReport {
    /// The time of the request.
    pub began: Instant,
    /// The number of sessions that went on.
    pub kept: usize,
    /// The number of sessions that ended, by reason.
    pub ended: BTreeMap<String, usize>,
    /// The time from the request until the sessions went on.
    pub took: Duration,
    /// The time at which they went on.
    pub at: UnixSecs,
    /// The reason why they went on in the process that had them.
    pub failed: Option<String>,
}

/// The reason why a session is not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotHandedOver {
    /// Its connection to the server has TLS, whose keys cannot be passed on.
    Tls,
    /// It cannot be resumed and has no registration, so it would not outlive its client's connection.
    NotHeld,
    /// The database did not answer in time.
    DatabaseLate,
    /// It could not be written down.
    Failed,
}

impl NotHandedOver {
    /// Returns the reason for operators.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tls => "TLS to the server",
            Self::NotHeld => "not resumable",
            Self::DatabaseLate => "database late",
            Self::Failed => "failed",
        }
    }

    /// Returns what the operator can do, if anything.
    pub(super) fn remedy(self) -> Option<&'static str> {
        match self {
            Self::Tls => Some(
                "connect to the server without TLS over loopback or a unix socket: [[host]] upstream, upstream_tls",
            ),
            Self::NotHeld | Self::DatabaseLate | Self::Failed => None,
        }
    }
}

/// The state of a handover.
#[derive(Debug)]
pub struct SessionHandover {
    begun: watch::Sender<bool>,
    frozen: Mutex<Vec<FrozenSession>>,
    ended: Mutex<BTreeMap<String, usize>>,
    /// The last handover to this process, or the last one that failed.
    last: Mutex<Option<HandoverReport>>,
}

impl Default for SessionHandover {
    fn default() -> Self {
        let begun = watch::Sender::new(false);
        Self { begun, frozen: Mutex::default(), ended: Mutex::default(), last: Mutex::default() }
    }
}

impl SessionHandover {
    /// Begins: logins are cancelled, and sessions freeze as soon as they are notified.
    pub(super) fn begin(&self) {
        self.begun.send_replace(true);
    }

    /// Returns whether the handover has begun.
    pub(super) fn has_begun(&self) -> bool {
        *self.begun.borrow()
    }

    /// Waits until the handover begins. Cancel safe.
    pub(super) async fn begun(&self) {
        // The sender lives as long as this.
        drop(self.begun.subscribe().wait_for(|begun| *begun).await);
    }

    /// Adds a session.
    pub(super) fn add(&self, frozen: FrozenSession) {
        lock(&self.frozen).push(frozen);
    }

    /// Counts a session that ends instead of being handed over.
    pub(super) fn count_ended(&self, reason: NotHandedOver) {
        let mut ended = lock(&self.ended);
        let count = ended.entry(reason.name().to_owned()).or_default();
        *count = count.saturating_add(1);
    }

    /// Returns the numbers of sessions that ended, by reason.
    pub fn ended(&self) -> BTreeMap<String, usize> {
        lock(&self.ended).clone()
    }

    /// Notes the result of a handover.
    pub fn note(&self, report: HandoverReport) {
        *lock(&self.last) = Some(report);
    }

    /// Returns the result of the last handover.
    pub fn last(&self) -> Option<HandoverReport> {
        lock(&self.last).clone()
    }

    /// Takes the sessions.
    pub fn take(&self) -> Vec<FrozenSession> {
        std::mem::take(&mut lock(&self.frozen))
    }
}
