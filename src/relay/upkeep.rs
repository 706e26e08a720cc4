//! What goes on beside the sessions: what a start finds left over, and what grows old.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::jobs::unix;
use super::{Relay, certificates};
use crate::config::Config;
use crate::store::Ttl;

/// How often what is too old is deleted, at least.
const AGEING: Duration = Duration::from_secs(3600);
/// How long `h` of an ended session is remembered.
const TOMBSTONES: Duration = Duration::from_secs(7 * 24 * 3600);

impl Relay {
    /// Notes which sessions were lost with the process before. Before the first client comes.
    pub async fn recover(&self) {
        match self.store.recover(unix()).await {
            Ok(lost) if lost.is_empty() => {}
            Ok(lost) => tracing::warn!(sessions = lost.len(), "sessions were lost with the process before"),
            Err(error) => tracing::error!(%error, "lost sessions cannot be counted"),
        }
    }

    /// What must go on for ever.
    pub async fn upkeep(self: &Arc<Self>) {
        tokio::join!(self.age(), self.wake(), self.watch_over_certificates(), self.heed_push_services());
    }

    /// Looks at the certificates, now and then, for ever.
    async fn watch_over_certificates(&self) {
        loop {
            sleep(certificates::EVERY).await;
            self.watch_certificates();
        }
    }

    /// Deletes what is too old, now and then, for ever.
    async fn age(&self) {
        loop {
            let ttl = ttl(&self.current().config);
            let publish = |account: &_, state: &_| self.registry.publish(account, state, None);
            match self.store.expire_noting(unix(), ttl, publish).await {
                Ok(expired) => {
                    tracing::debug!(?expired, "aged");
                    self.metrics.never_fetched(expired.stanzas);
                }
                Err(error) => tracing::error!(%error, "what is too old cannot be deleted"),
            }
            sleep(AGEING.min(ttl.orphan / 2).max(Duration::from_millis(100))).await;
        }
    }
}

fn ttl(config: &Config) -> Ttl {
    Ttl {
        orphan: config.stream_management.orphan_ttl,
        tombstone: TOMBSTONES,
        registration: config.push.registration_ttl,
    }
}
