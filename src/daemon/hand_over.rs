//! The end of a daemon that leaves its sessions to the next process.

use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::time::timeout;

use super::Daemon;
use super::legacy::{AboutHandover, Legacy};
use crate::clock::Instant;
use crate::config::Config;

/// The time that the database has to note the handover. If it is late, the handover is not begun.
const NOTE: Duration = Duration::from_secs(2);
/// The time that publishes have to be answered. Those that were not written are left to the next process.
const PUBLISHES: Duration = Duration::from_millis(500);
/// The time that the sessions have to freeze, or to end if they cannot be handed over.
const SESSIONS: Duration = Duration::from_secs(5);
/// The time that ended sessions have to close their connections.
const CLOSING: Duration = Duration::from_secs(1);
/// The time that the database has to write what is left and to close.
const LAST_WRITES: Duration = Duration::from_secs(5);

/// A daemon that has stopped, and what it leaves.
#[derive(Debug)]
pub(super) struct StoppedDaemon {
    pub(super) legacy: Legacy,
    pub(super) listeners: Vec<OwnedFd>,
    /// The configuration in force, to go on in this process if there is no other one.
    pub(super) config: Config,
}

impl Daemon {
    /// Stops, and returns the sessions and listeners for another process. `began`: the time of the request.
    ///
    /// # Errors
    /// Returns the daemon if the database does not answer. In that case nothing has changed.
    pub(super) async fn freeze(self, began: Instant) -> Result<StoppedDaemon, Box<Self>> {
        let number = NonZeroU64::new(rand::random()).unwrap_or(NonZeroU64::MIN);
        let error = match timeout(NOTE, self.store.begin_handover(number)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("database does not answer".to_owned()),
        };
        if let Some(error) = error {
            tracing::error!(error, "handover not begun: cannot note it in the database");
            return Err(Box::new(self));
        }
        self.accepting.cancel();
        if !self.relay.interrupt_publishing(Instant::now() + PUBLISHES).await {
            tracing::debug!("some streams to push services were not closed in order");
        }
        self.relay.freeze();
        self.connections.close();
        if timeout(SESSIONS, self.connections.wait()).await.is_err() {
            tracing::error!(left = self.connections.len(), within = ?SESSIONS, "some sessions were not handed over in time");
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
        let about = AboutHandover { number, began, ended: self.relay.handover().ended() };
        if timeout(LAST_WRITES, self.store.shutdown()).await.is_err() {
            let changes = self.store.unanswered();
            tracing::error!(changes, "database does not answer: some changes were not written");
        }
        tracing::info!(sessions = sessions.len(), took = ?began.elapsed(), "sessions frozen for the next process");
        let config = Config::clone(&self.relay.current().config);
        Ok(StoppedDaemon { legacy: Legacy { about, rest, sessions }, listeners: self.sockets.take(), config })
    }
}
