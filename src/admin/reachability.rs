//! Whether the servers behind can be reached, asked seldom.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::relay::Relay;

/// How long an answer holds: probes of several load balancers cost the servers one connection.
const HOLDS: Duration = Duration::from_secs(5);

/// What was found out last, and when.
#[derive(Debug, Default)]
pub(super) struct Reachability(Mutex<Option<(Instant, bool)>>);

impl Reachability {
    /// Whether the server of any host takes connections.
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
