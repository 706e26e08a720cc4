//! The place of this node among those that share the database, and the end of its sessions once another one acts for it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::time::{sleep, timeout};

use super::Daemon;
use super::requests::ProcessHandle;
use crate::clock::Instant;
use crate::relay::Relay;
use crate::relay::snapshot::Snapshot;

/// The interval between two looks at the lease.
const LOOK: Duration = Duration::from_millis(200);
/// The time that sessions have to return to their senders what they cannot store, and the servers to end the streams.
const SESSIONS: Duration = Duration::from_secs(12);
/// The time that connections and the operator's requests have to end, each.
const CLOSING: Duration = Duration::from_secs(1);
/// The time that the database has to close. Nothing can be written any more.
const CLOSED: Duration = Duration::from_secs(5);

/// Waits until another node acts in the place of this one, and requests its end: a node of a cluster joins again, a process
/// without a cluster drains. A node of a cluster that has had no lease for `[store] patience` gives its place up by itself.
pub(super) async fn watch(relay: Arc<Relay>, process: ProcessHandle) {
    let Some(lease) = relay.store().lease().cloned() else { return };
    let is_node = relay.current().config.cluster.is_some();
    let mut passed = lease.passed();
    loop {
        select! {
            // The lease lives as long as the store.
            _ = passed.wait_for(|passed| *passed) => break,
            () = sleep(LOOK) => {}
        }
        let patience = relay.current().config.store.patience;
        if is_node && lease.lapsed(Instant::now()).is_some_and(|lapsed| lapsed >= patience) {
            tracing::error!(?patience, "no lease within [store] patience: giving up the place in the cluster");
            lease.give_up();
        }
    }
    if is_node {
        tracing::error!("ending all sessions, then joining the cluster again");
        return process.rejoin().await;
    }
    tracing::error!("another process has taken the place of this one in the database: ending all sessions");
    if let Err(error) = process.stop().await {
        tracing::debug!(error, "the process ends already");
    }
}

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
