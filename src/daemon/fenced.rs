//! The end of all sessions of a node, once another one acts in its place.

use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::time::timeout;

use super::Daemon;
use crate::relay::snapshot::Snapshot;

/// The time that sessions have to return to their senders what they cannot store, and the servers to end the streams.
const SESSIONS: Duration = Duration::from_secs(12);
/// The time that connections and the operator's requests have to end, each.
const CLOSING: Duration = Duration::from_secs(1);
/// The time that the database has to close. Nothing can be written any more.
const CLOSED: Duration = Duration::from_secs(5);

impl Daemon {
    /// Ends all sessions of a node in whose place another one acts. Returns its listeners and settings.
    pub(super) async fn fenced(self) -> (Vec<OwnedFd>, Box<Snapshot>) {
        self.accepting.cancel();
        self.relay.fence();
        self.connections.close();
        if timeout(SESSIONS, self.connections.wait()).await.is_err() {
            tracing::warn!(left = self.connections.len(), within = ?SESSIONS, "closing remaining connections");
        }
        if timeout(CLOSING, self.relay.finished()).await.is_err() {
            tracing::debug!("some connections were not closed in order");
        }
        if timeout(CLOSING, self.operator.stop()).await.is_err() {
            tracing::warn!(within = ?CLOSING, "closing remaining admin connections");
        }
        if timeout(CLOSED, self.store.shutdown()).await.is_err() {
            tracing::error!(
                changes = self.store.unanswered(),
                "database does not answer: some changes were not written"
            );
        }
        let settings = Box::new(Snapshot::clone(&self.relay.current()));
        (self.sockets.take(None), settings)
    }
}
