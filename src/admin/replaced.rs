//! The wait of `pushward upgrade` until the new process answers.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::client::status;
use super::protocol::{DaemonStatus, Upgrading};
use crate::clock::Instant;
use crate::config::DaemonAccess;

/// The time that the new process has to answer. A large database takes longest to open.
const PATIENCE: Duration = Duration::from_secs(60);
/// The interval between two questions.
const INTERVAL: Duration = Duration::from_millis(50);

/// Waits until a process answers that took the place of the one that announced the replacement. Returns its status, or `None`
/// if none answers in time, or if the old process still does.
pub(super) async fn replaced(daemon: &DaemonAccess, upgrading: &Upgrading) -> Option<DaemonStatus> {
    let wait = async {
        loop {
            // An error means that neither process listens.
            if let Ok(status) = status(daemon).await {
                let has_taken_over = status.handover.as_ref().is_some_and(|handover| handover.began >= upgrading.began);
                // Another process than that one, which has ended.
                let is_new = Duration::from_secs(status.uptime + 2) < Instant::now() - upgrading.began;
                if has_taken_over || is_new {
                    return status;
                }
            }
            sleep(INTERVAL).await;
        }
    };
    let deadline = PATIENCE.saturating_sub(Instant::now() - upgrading.began);
    timeout(deadline, wait).await.ok()
}
