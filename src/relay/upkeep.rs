//! Work beside the sessions: leftovers of the process before, ageing, wake pushes, certificates, revocations.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::certificates::CHECK_INTERVAL;
use super::revocations::Revocations;
use super::shared::Relay;
use super::wake_pushes::WakePushes;
use crate::clock;
use crate::config::Config;
use crate::store::Ttl;

/// How often what is too old is deleted, at least.
const AGEING: Duration = Duration::from_secs(3600);
/// How long `h` of an ended session is remembered.
const TOMBSTONES: Duration = Duration::from_secs(7 * 24 * 3600);

impl Relay {
    /// Notes which sessions were lost with the process before. Before the first client comes.
    pub async fn recover(&self) {
        match self.store().recover(clock::unix_secs()).await {
            Ok(lost) if lost.is_empty() => {}
            Ok(lost) => tracing::warn!(sessions = lost.len(), "previous process ended uncleanly: sessions lost"),
            Err(error) => tracing::error!(%error, "cannot count lost sessions"),
        }
    }

    /// Ages the store, sends wake pushes, checks the certificates and handles revocations, until it is dropped.
    pub async fn upkeep(self: &Arc<Self>) {
        tokio::join!(age(self), WakePushes::new(self).run(), check_certificates(self), handle_revocations(self));
    }
}

async fn check_certificates(relay: &Relay) {
    loop {
        sleep(CHECK_INTERVAL).await;
        relay.certificates().check();
    }
}

async fn handle_revocations(relay: &Relay) {
    if let Some(revocations) = relay.publishing().revocations() {
        Revocations::new(relay.store().clone(), Arc::clone(relay.accounts())).run(revocations).await;
    }
}

/// Deletes what is too old, now and then.
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
