//! [`Reachability`]: checks whether upstream servers can be reached, with a cached result.

use std::time::Duration;

use tokio::sync::Mutex;

use crate::clock::Instant;
use crate::relay::Relay;

/// The time for which a result is cached. Probes of several load balancers cost each server one connection.
const HOLDS: Duration = Duration::from_secs(5);

/// The last result and its time.
#[derive(Debug, Default)]
pub(super) struct Reachability(Mutex<Option<(Instant, bool)>>);

impl Reachability {
    /// Returns whether the server of any host accepts connections.
    pub(super) async fn any_reachable(&self, relay: &Relay) -> bool {
        let mut last = self.0.lock().await;
        if let Some((_, reachable)) = last.filter(|(at, _)| at.elapsed() < HOLDS) {
            return reachable;
        }
        let reachable = relay.reaches_a_server().await;
        *last = Some((Instant::now(), reachable));
        reachable
    }
}
