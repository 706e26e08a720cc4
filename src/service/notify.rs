//! [`Notify`]: notifications to the service manager, as in sd_notify(3).

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::relay::Relay;

/// The time that stopping may take in addition to `drain_timeout`, for the last commits and for closing the database.
const AFTER_DRAIN: Duration = Duration::from_secs(30);
/// The number of watchdog notifications within the watchdog timeout.
const BEATS: u32 = 3;
/// The maximum duration of a start with watchdog notifications. A large database takes minutes.
const LONGEST_START: Duration = Duration::from_secs(10 * 60);
/// The minimum interval between two watchdog notifications.
const SHORTEST: Duration = Duration::from_millis(10);

/// The service manager of this process, if there is one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Notify;

impl Notify {
    /// Reports that the service is ready, after the start and after a reload.
    pub fn ready(self) {
        send(&[NotifyState::Ready]);
    }

    /// Reports that the configuration is being reloaded. [`Notify::ready`] follows, whether the reload succeeds or not.
    pub fn reloading(self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => send(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!(%error, "cannot notify service manager of reload"),
        }
    }

    /// Reports that the service is draining, for at most `drain_timeout`. That may be longer than the service manager would
    /// wait otherwise.
    pub fn stopping(self, drain_timeout: Duration) {
        let most = u32::try_from((drain_timeout + AFTER_DRAIN).as_micros()).unwrap_or(u32::MAX);
        send(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(most), NotifyState::Status("draining")]);
    }
}

/// The watchdog notifications, until it is dropped.
#[derive(Debug)]
pub struct Watchdog(AbortHandle);

impl Watchdog {
    /// Sends notifications during a start, for as long as a start may take: the service manager expects them already if this
    /// program has replaced another one.
    pub fn of_start() -> Self {
        Self::spawn(|| None, Some(LONGEST_START))
    }

    /// Sends notifications as long as the runtime runs new tasks and its timer, and the registry of sessions answers. A stalled
    /// disk does not stop them: a restart would lose sessions and would not help.
    pub fn of_relay(relay: Arc<Relay>) -> Self {
        Self::spawn(move || Some(status(&relay)), None)
    }

    fn spawn(status: impl Fn() -> Option<String> + Clone + Send + 'static, longest: Option<Duration>) -> Self {
        let beats = async move {
            let Some(limit) = sd_notify::watchdog_enabled() else { return };
            let mut beat = interval((limit / BEATS).max(SHORTEST));
            beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                beat.tick().await;
                match tokio::spawn({
                    let status = status.clone();
                    async move { status() }
                })
                .await
                {
                    Ok(Some(status)) => send(&[NotifyState::Watchdog, NotifyState::Status(&status)]),
                    Ok(None) => send(&[NotifyState::Watchdog]),
                    Err(error) => tracing::error!(%error, "watchdog notification failed"),
                }
            }
        };
        let task = tokio::spawn(async move {
            match longest {
                Some(longest) => drop(timeout(longest, beats).await),
                None => beats.await,
            }
        });
        Self(task.abort_handle())
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Returns the status text for `systemctl status`.
fn status(relay: &Relay) -> String {
    let (live, dark) = relay.registry().count();
    let state = if relay.is_draining() { "draining; " } else { "" };
    format!("{state}{} connections, {} sessions ({dark} dark)", relay.metrics().connections(live), live + dark)
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify service manager");
    }
}
