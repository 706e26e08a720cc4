//! [`NodeDrain`]: moves the sessions of this node to the other nodes of the cluster, while the process goes on.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::reload::Reloader;
use crate::clock::Instant;
use crate::relay::Relay;
use crate::session::EndReason;

/// The time between two groups of sessions that are asked to end.
const STEP: Duration = Duration::from_millis(50);

/// A handle for moving the sessions of this node to others.
#[derive(Clone)]
pub struct NodeDrain {
    relay: Arc<Relay>,
    reloader: Reloader,
    tasks: TaskTracker,
    stop: CancellationToken,
    has_begun: Arc<AtomicBool>,
}

impl fmt::Debug for NodeDrain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeDrain").finish_non_exhaustive()
    }
}

impl NodeDrain {
    pub(super) fn new(relay: Arc<Relay>, reloader: Reloader, tasks: TaskTracker, stop: CancellationToken) -> Self {
        Self { relay, reloader, tasks, stop, has_begun: Arc::default() }
    }

    /// Closes the listeners for clients, and lets all sessions end, spread over `drain_timeout`: clients get `system-shutdown`,
    /// dark sessions are stored and their devices woken. Returns the number of sessions once that has begun. Their accounts
    /// become free one after the other. A second call has no effect.
    ///
    /// # Errors
    /// The reason why it has not begun, as text.
    pub async fn drain(&self) -> Result<usize, String> {
        let sessions = self.relay.registry().all().len();
        if self.has_begun.swap(true, Ordering::AcqRel) {
            return Ok(sessions);
        }
        if let Err(error) = self.relay.store().cluster().describe(None, Some(true)).await {
            self.has_begun.store(false, Ordering::Release);
            return Err(error.to_string());
        }
        self.relay.node_end().leave();
        self.reloader.close().await;
        tracing::info!(sessions, "node drains: sessions move to other nodes");
        let (relay, stop) = (Arc::clone(&self.relay), self.stop.clone());
        self.tasks.spawn(async move { stop.run_until_cancelled(end_sessions(&relay)).await });
        Ok(sessions)
    }
}

/// Asks the sessions to end, spread over `drain_timeout`, then those that have come meanwhile, until it is dropped.
async fn end_sessions(relay: &Relay) {
    let (began, within) = (Instant::now(), relay.current().config.drain_timeout);
    let (sessions, mut asked) = (relay.registry().all(), 0usize);
    while asked < sessions.len() {
        // As many as the share of the time that has passed.
        let share = sessions.len() as u128 * began.elapsed().as_millis() / within.as_millis().max(1);
        let due = usize::try_from(share).unwrap_or(usize::MAX).min(sessions.len());
        let next = sessions.get(asked..due.max(asked)).unwrap_or_default();
        next.iter().for_each(|session| session.end_if_held(EndReason::Drained));
        asked = due.max(asked);
        sleep(STEP).await;
    }
    drop(sessions);
    tracing::info!("node drained: all sessions were asked to end");
    loop {
        // Logins that were under way.
        relay.registry().all().iter().for_each(|session| session.end_if_held(EndReason::Drained));
        sleep(within.max(STEP * 20)).await;
    }
}
