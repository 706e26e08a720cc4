//! The end of a daemon that leaves its sessions to the next process.

use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::time::timeout;

use super::Daemon;
use super::cause::WantedListeners;
use super::legacy::{AboutHandover, Legacy};
use crate::clock::Instant;
use crate::relay::snapshot::Snapshot;
use crate::secret::Secret;

/// The time that the database has to note the handover. If it is late, the handover is not begun.
const NOTE: Duration = Duration::from_secs(2);
/// The time that publishes have to be answered. Those that were not written are left to the next process.
const PUBLISHES: Duration = Duration::from_millis(500);
/// The time that the sessions have to freeze, or to end if they cannot be handed over. Longer than the database has for each.
const SESSIONS: Duration = Duration::from_secs(12);
/// The time that ended sessions have to close their connections.
const CLOSING: Duration = Duration::from_secs(1);
/// The time that the database has to write what is left and to close.
const LAST_WRITES: Duration = Duration::from_secs(5);

/// The reason for the end of connections that are still there afterwards.
const LATE: &str = "late";

/// A daemon that has stopped, and what it leaves.
pub(super) struct StoppedDaemon {
    pub(super) legacy: Legacy,
    pub(super) listeners: Vec<OwnedFd>,
    /// The settings in force, to go on in this process if there is no other one.
    pub(super) settings: Box<Snapshot>,
}

impl Daemon {
    /// Notes in the database that a handover begins, and returns its number.
    ///
    /// # Errors
    /// Returns the reason if the database does not answer, as text. It was logged, and nothing has changed.
    pub(super) async fn begin_handover(&self) -> Result<NonZeroU64, String> {
        let number = NonZeroU64::new(rand::random()).unwrap_or(NonZeroU64::MIN);
        let error = match timeout(NOTE, self.store.begin_handover(number)).await {
            Ok(Ok(())) => return Ok(number),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "database does not answer".to_owned(),
        };
        tracing::error!(error, "handover not begun: cannot note it in the database");
        Err(format!("handover not begun: cannot note it in the database: {error}"))
    }

    /// Stops, and returns the sessions and the wanted listeners for another process. `began`: the time of the request.
    pub(super) async fn freeze(self, number: NonZeroU64, began: Instant, wanted: &WantedListeners) -> StoppedDaemon {
        self.accepting.cancel();
        if !self.relay.interrupt_publishing(Instant::now() + PUBLISHES).await {
            tracing::debug!("some streams to push services were not closed in order");
        }
        self.relay.freeze();
        self.connections.close();
        let late = match timeout(SESSIONS, self.connections.wait()).await {
            Ok(()) => 0,
            Err(_) => self.connections.len(),
        };
        if late > 0 {
            tracing::error!(left = late, within = ?SESSIONS, "some connections were not handed over in time");
        }
        if timeout(CLOSING, self.relay.finished()).await.is_err() {
            tracing::debug!("some connections were not closed in order");
        }
        let rest = self.relay.freeze_rest().await.encode().unwrap_or_else(|error| {
            tracing::error!(%error, "notices for devices without a session are lost");
            Vec::new()
        });
        if timeout(super::LAST_ANSWERS, self.operator.stop()).await.is_err() {
            tracing::warn!(within = ?super::LAST_ANSWERS, "closing remaining admin connections");
        }
        let sessions = self.relay.handover().take();
        let (mut ended, seed) = (self.relay.handover().ended(), Secret::new(self.relay.current().settings.seed));
        if late > 0 {
            ended.insert(LATE.to_owned(), late);
        }
        let about = AboutHandover { number, began, ended, seed };
        if timeout(LAST_WRITES, self.store.shutdown()).await.is_err() {
            let changes = self.store.unanswered();
            tracing::error!(changes, "database does not answer: some changes were not written");
        }
        tracing::info!(sessions = sessions.len(), took = ?began.elapsed(), "sessions frozen for the next process");
        let settings = Box::new(Snapshot::clone(&self.relay.current()));
        StoppedDaemon {
            legacy: Legacy { about, rest, sessions },
            listeners: self.sockets.take(wanted.as_deref()),
            settings,
        }
    }
}
