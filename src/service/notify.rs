//! What the service manager is told: sd_notify(3).

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};

use crate::relay::Relay;

/// How much longer than `drain_timeout` stopping may take: the last commits, and closing the database.
const AFTER_DRAIN: Duration = Duration::from_secs(30);
/// The watchdog is fed this often in the time after which it bites.
const BEATS: u32 = 3;
/// No watchdog is fed more often.
const SHORTEST: Duration = Duration::from_millis(10);

/// The service manager of this process, if there is one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Notify;

impl Notify {
    /// The service works: after the start, and after a reload.
    pub fn ready(self) {
        tell(&[NotifyState::Ready]);
    }

    /// The configuration is being read anew; [`Notify::ready`] follows, whatever comes of it.
    pub fn reloading(self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!(%error, "cannot notify service manager of reload"),
        }
    }

    /// The service drains, for at most `drain_timeout`, which may be longer than the service manager would wait.
    pub fn stopping(self, drain_timeout: Duration) {
        let most = u32::try_from((drain_timeout + AFTER_DRAIN).as_micros()).unwrap_or(u32::MAX);
        tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(most), NotifyState::Status("draining")]);
    }

    /// Feeds the watchdog, if the service manager has one, for as long as the runtime takes and runs tasks, its timer goes
    /// and the registry of sessions answers. A disk that stalls is no reason to be killed: that would lose sessions and mend
    /// nothing. Never returns; end it by dropping the future.
    pub async fn watch(self, relay: Arc<Relay>) {
        let Some(limit) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
        let mut beat = interval((limit / BEATS).max(SHORTEST));
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            let relay = Arc::clone(&relay);
            let status = tokio::spawn(async move { status(&relay) });
            match status.await {
                Ok(status) => tell(&[NotifyState::Watchdog, NotifyState::Status(&status)]),
                Err(error) => tracing::error!(%error, "watchdog notification failed"),
            }
        }
    }
}

/// What `systemctl status` shows.
fn status(relay: &Relay) -> String {
    let (live, dark) = relay.registry().count();
    let state = if relay.is_draining() { "draining; " } else { "" };
    format!("{state}{} connections, {} sessions ({dark} dark)", relay.metrics().connections(live), live + dark)
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify service manager");
    }
}
