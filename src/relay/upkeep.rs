//! Periodic background work: recovery after a restart, deletion of old data, wake pushes, certificate checks,
//! revocations.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::certificates::CHECK_INTERVAL;
use super::components;
use super::revocations::Revocations;
use super::shared::Relay;
use super::wake_pushes::WakePushes;
use crate::clock::{self, Instant};
use crate::config::Config;
use crate::push::account::LoginId;
use crate::store::Ttl;

/// The maximum interval between two deletions of old data.
const AGEING: Duration = Duration::from_secs(3600);
/// The interval between two looks at the lease of this node.
const LEASE_CHECK: Duration = Duration::from_millis(200);
/// The interval between two looks for accounts of dead nodes that nobody has freed.
const LEFT_BEHIND: Duration = Duration::from_secs(60);
/// The time between two attempts to free accounts.
const FREE_AGAIN: Duration = Duration::from_secs(5);
/// The time for which the `h` of an ended session is kept.
const TOMBSTONES: Duration = Duration::from_secs(7 * 24 * 3600);

impl Relay {
    /// Closes the sessions that the previous process lost: all except for those of the logins that were `kept`. Must run
    /// before the first client connects.
    pub async fn recover(&self, kept: HashSet<LoginId>) {
        match self.store().recover(clock::unix_secs(), Arc::new(kept)).await {
            Ok(lost) if lost.is_empty() => {}
            Ok(lost) if self.store().handover().is_some() => {
                tracing::warn!(sessions = lost.len(), "sessions of the previous process were not taken up");
            }
            Ok(lost) => tracing::warn!(sessions = lost.len(), "previous process ended uncleanly: sessions lost"),
            Err(error) => tracing::error!(%error, "cannot count lost sessions"),
        }
    }

    /// Deletes old data, sends wake pushes, checks the certificates and handles revocations, until it is dropped.
    pub async fn upkeep(self: &Arc<Self>) {
        let freed = Arc::<Notify>::default();
        tokio::join!(
            age(self),
            WakePushes::new(self, Arc::clone(&freed)).run(),
            free_dead(self, &freed),
            components::keep(self),
            check_certificates(self),
            handle_revocations(self),
            watch_lease(self)
        );
    }
}

/// Publishes again what was kept while this node had no lease.
async fn watch_lease(relay: &Relay) {
    let Some(lease) = relay.store().lease() else { return };
    let mut lapsed = false;
    loop {
        sleep(LEASE_CHECK).await;
        match lease.lapsed(Instant::now()) {
            Some(_) if !lapsed => {
                tracing::error!("lease over: nothing is stored or published until the database answers");
                lapsed = true;
            }
            None if lapsed => {
                tracing::warn!("lease renewed: storing and publishing again");
                lapsed = false;
                if !relay.publishing().is_interrupted() {
                    relay.resume_publishing();
                }
            }
            Some(_) | None => {}
        }
    }
}

/// Frees the accounts of nodes that have died, and has their devices woken. Also those whose clean-up another node has begun
/// and not finished.
async fn free_dead(relay: &Relay, freed: &Notify) {
    let Some(mut deaths) = relay.store().lease().map(|lease| lease.deaths()) else { return };
    loop {
        let known = *deaths.borrow_and_update();
        let pause = match relay.store().cluster().free_dead(clock::unix_secs()).await {
            Ok(lost) => {
                if !lost.is_empty() {
                    tracing::warn!(sessions = lost.len(), deaths = known, "accounts of dead nodes freed");
                    freed.notify_one();
                }
                LEFT_BEHIND
            }
            Err(error) => {
                tracing::error!(%error, "cannot free the accounts of dead nodes: trying again");
                FREE_AGAIN
            }
        };
        select! {
            changed = deaths.changed() => if changed.is_err() { return },
            () = sleep(pause) => {}
        }
    }
}

async fn check_certificates(relay: &Relay) {
    loop {
        sleep(CHECK_INTERVAL).await;
        relay.certificates().check();
    }
}

async fn handle_revocations(relay: &Arc<Relay>) {
    if let Some(revocations) = relay.publishing().revocations() {
        Revocations::new(Arc::clone(relay)).run(revocations).await;
    }
}

/// Deletes old data periodically.
async fn age(relay: &Relay) {
    loop {
        let ttl = ttl(&relay.current().config);
        let publish = |account: &_, state: &_| relay.registry().publish(account, state, None);
        match relay.store().expire_noting(clock::unix_secs(), ttl, publish).await {
            Ok(expired) => {
                tracing::debug!(?expired, "cleanup finished");
                relay.metrics().never_fetched(expired.stanzas);
            }
            Err(error) => tracing::error!(%error, "cleanup failed"),
        }
        sleep(AGEING.min(ttl.orphan / 2).max(Duration::from_millis(100))).await;
    }
}

fn ttl(config: &Config) -> Ttl {
    Ttl {
        orphan: config.stream_management.orphan_ttl,
        tombstone: TOMBSTONES,
        registration: config.push.registration_ttl,
    }
}
