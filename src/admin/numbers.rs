//! [`DaemonNumbers`]: numbers and readiness of the daemon, for the page, the metrics, the probes and `pushward status`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::history::{History, Sample};
use super::page_data::{DaemonData, PageData};
use super::protocol::{DaemonStatus, HandoverStatus};
use super::reachability::Reachability;
use super::store_queries::{LatestAnswer, Unanswered};
use crate::clock::{self, Instant};
use crate::metrics::{DiskUsage, Measured, SessionCounts, Wait};
use crate::relay::Relay;
use crate::store::Measures;
use crate::sync::lock;

/// The time limit for the numbers and the health of the database.
const GLANCE: Duration = Duration::from_secs(1);

/// The numbers of a daemon.
pub(super) struct DaemonNumbers {
    relay: Arc<Relay>,
    started: Instant,
    history: Mutex<History>,
    servers: Reachability,
    disk: LatestAnswer<DiskUsage>,
    health: LatestAnswer<()>,
    /// True if it was logged that the database is late with its numbers.
    late: AtomicBool,
}

impl DaemonNumbers {
    pub(super) fn new(relay: Arc<Relay>) -> Self {
        Self {
            relay,
            started: Instant::now(),
            history: Mutex::default(),
            servers: Reachability::default(),
            disk: LatestAnswer::new(GLANCE),
            health: LatestAnswer::new(GLANCE),
            late: AtomicBool::new(false),
        }
    }

    /// Returns whether the daemon is draining.
    pub(super) fn is_draining(&self) -> bool {
        self.relay.is_draining() || self.relay.node_end().is_leaving()
    }

    /// Returns the host names, in addition to addresses, under which the page is served.
    pub(super) fn host_names(&self) -> Vec<String> {
        self.relay.current().config.admin.hosts.clone()
    }

    /// Returns the reason why clients should not be sent to this daemon. `None` if they may.
    pub(super) async fn unready(&self) -> Option<&'static str> {
        if self.is_draining() {
            return Some("draining");
        }
        let store = self.relay.store().clone();
        let health = self.health.ask(async move { store.health().await }).await;
        match self.count_late(health) {
            Ok(()) => {}
            Err(error @ Unanswered::Late) => {
                tracing::debug!(%error, "readiness check failed: database does not answer");
                return Some("database does not answer");
            }
            Err(error @ Unanswered::Failed(_)) => {
                tracing::warn!(%error, "readiness check failed: database failed");
                return Some("database failed");
            }
        }
        (!self.servers.any_reachable(&self.relay).await).then_some("no upstream server reachable")
    }

    /// Returns the metrics.
    ///
    /// # Errors
    /// None in practice: writing to a string does not fail.
    pub(super) async fn metrics(&self) -> Result<String, std::fmt::Error> {
        self.relay.metrics().text(&self.measured().await)
    }

    /// Returns the numbers of the page: the current ones and those of the last hour.
    pub(super) async fn page_data(&self) -> PageData {
        let (measured, metrics) = (self.measured().await, self.relay.metrics());
        let about = DaemonData {
            version: env!("CARGO_PKG_VERSION"),
            now: clock::unix_secs(),
            uptime: self.started.elapsed().as_secs(),
            draining: self.is_draining(),
            connections: self.connections(measured.total()),
        };
        PageData::new(about, &measured, metrics.counted(), &self.history())
    }

    /// Measures the database once, so that there are numbers to show if it stalls later.
    pub(super) async fn measure_once(&self) {
        // An error was already logged.
        drop(self.disk().await);
    }

    /// Adds the current numbers to those of the last hour.
    pub(super) async fn sample(&self) {
        let measured = self.measured().await;
        let connections = self.connections(measured.total());
        let sample = Sample::new(clock::unix_secs(), connections, &measured, &self.relay.metrics().counted());
        self.history().push(sample);
    }

    fn history(&self) -> MutexGuard<'_, History> {
        lock(&self.history)
    }

    fn connections(&self, total: SessionCounts) -> usize {
        self.relay.metrics().connections(total.live + total.suspect)
    }

    async fn measured(&self) -> Measured {
        let mut sessions = self.relay.registry().session_counts();
        for host in &self.relay.current().config.hosts {
            sessions.entry(host.domain.clone()).or_default();
        }
        Measured { sessions, disk: self.disk().await.ok() }
    }

    /// Returns the numbers of the database, or the last ones if it does not answer.
    async fn disk(&self) -> Result<DiskUsage, Unanswered> {
        let (store, state) = (self.relay.store().clone(), self.relay.current().config.state.clone());
        let measure = async move {
            let Measures { accounts, wakes, stanzas, bytes, file } = store.measures(&state).await?;
            Ok(DiskUsage { accounts, spooled: stanzas, spool_bytes: bytes, store_bytes: file, wakes_waiting: wakes })
        };
        let answer = self.disk.ask(measure).await;
        let answer = self.count_late(answer);
        let late = matches!(answer, Err(Unanswered::Late));
        if late && !self.late.swap(true, Ordering::Relaxed) {
            tracing::error!(within = ?GLANCE, "database does not answer: showing its last known numbers");
        }
        match answer {
            Err(Unanswered::Late) => self.disk.last().ok_or(Unanswered::Late),
            Err(error) => {
                tracing::error!(%error, "cannot read database statistics");
                Err(error)
            }
            Ok(disk) => {
                if self.late.swap(false, Ordering::Relaxed) {
                    tracing::info!("database answers again");
                }
                Ok(disk)
            }
        }
    }

    /// Returns the answer to `pushward status`.
    ///
    /// # Errors
    /// Returns an error if the database has never answered.
    pub(super) async fn status(&self) -> Result<DaemonStatus, Unanswered> {
        let total =
            self.relay.registry().session_counts().into_values().fold(SessionCounts::default(), SessionCounts::and);
        let disk = self.disk().await?;
        Ok(DaemonStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime: self.started.elapsed().as_secs(),
            draining: self.is_draining(),
            connections: self.connections(total),
            live: total.live,
            suspect: total.suspect,
            dark: total.dark,
            queued: total.queued,
            queue_bytes: total.queue_bytes,
            accounts: disk.accounts,
            spooled: disk.spooled,
            spool_bytes: disk.spool_bytes,
            wakes_waiting: disk.wakes_waiting,
            sasl2_ended: self.relay.current().settings.fronting.ended(),
            handover: self.relay.handover().last().map(HandoverStatus::from).map(Box::new),
        })
    }

    /// Counts a late answer.
    pub(super) fn count_late<T>(&self, answer: Result<T, Unanswered>) -> Result<T, Unanswered> {
        answer.inspect_err(|error| match error {
            Unanswered::Late => self.relay.metrics().deadline_passed(Wait::Admin),
            Unanswered::Failed(_) => {}
        })
    }
}
