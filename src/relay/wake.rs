//! Wake pushes for devices that have no session: durable jobs, paced, sent as soon as something can carry them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::Relay;
use crate::push::notification::{Publish, Summary};
use crate::store::{Slot, StoreError, Wake};

/// How often the jobs are looked at.
const ROUND: Duration = Duration::from_secs(10);
/// Over how long the first round spreads its pushes, at least: not all phones call back at once.
const JITTER: Duration = Duration::from_secs(5);

impl Relay {
    /// Sends wake pushes for ever.
    pub(super) async fn wake(self: &Arc<Self>) {
        let mut told = HashSet::new();
        let mut spread = JITTER;
        loop {
            match self.wake_round(&mut told, spread).await {
                Ok(true) => spread = Duration::ZERO,
                Ok(false) => {}
                Err(error) => tracing::error!(%error, "wake pushes cannot be read"),
            }
            sleep(ROUND).await;
        }
    }

    /// Whether there was anything to do.
    async fn wake_round(self: &Arc<Self>, told: &mut HashSet<Slot>, spread: Duration) -> Result<bool, StoreError> {
        let wakes = self.store.wakes().await?;
        let pause = Duration::from_secs(1) / self.config.stream_management.wake_rate.max(1);
        let jitter = |share: f64| spread.mul_f64(share / (wakes.len().max(1) as f64));
        let any = !wakes.is_empty();
        for (slot, wake) in &wakes {
            if self.wake_device(slot).await? {
                tracing::info!(account = %slot.account, reason = ?wake.reason, transport = "session", "wake push sent");
                self.store.woken(slot).await?;
                sleep(pause + jitter(rand::random::<f64>() * 2.0)).await;
            } else if told.insert(slot.clone()) {
                self.waits(slot, wake);
            }
        }
        told.retain(|slot| wakes.iter().any(|(waiting, _)| waiting == slot));
        Ok(any)
    }

    fn waits(&self, slot: &Slot, wake: &Wake) {
        tracing::info!(account = %slot.account, reason = ?wake.reason, transport = "no_transport", "a wake push waits");
    }

    /// Lets another session of the account carry the push: the user's own stream, whichever it is.
    async fn wake_device(self: &Arc<Self>, slot: &Slot) -> Result<bool, StoreError> {
        if self.registry.any_session(&slot.account).is_none() {
            return Ok(false);
        }
        let account = self.store.account(&slot.account).await?;
        let waits = self.store.backlog(slot).await?.count > 0;
        let summary = Summary::wake(&self.config.push, waits);
        for registration in account.owned(slot.device) {
            let publish = Publish::new(registration, summary.clone(), rand::random());
            let (relay, jid) = (Arc::clone(self), slot.account.clone());
            self.farewells.spawn(async move { relay.publish(&jid, publish).await });
        }
        Ok(true)
    }
}
