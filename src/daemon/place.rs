//! The place of this node among those that share the database.

use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::time::sleep;

use super::requests::ProcessHandle;
use crate::clock::Instant;
use crate::relay::Relay;

/// The interval between two looks at the lease.
const LOOK: Duration = Duration::from_millis(200);

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
        while !process.rejoin() {
            sleep(LOOK).await;
        }
        return;
    }
    tracing::error!("another process has taken the place of this one in the database: ending all sessions");
    if let Err(error) = process.stop().await {
        tracing::debug!(error, "the process ends already");
    }
}
