//! The metrics of the process, in OpenMetrics. No label is ever made from what a peer sent: labels are fixed words and domains
//! of the configuration. Every series exists from the start, at zero.
//!
//! Each group has its own counters. [`Metrics`] registers the groups; the rest of the program counts through it.
//!
//! | file | counts |
//! |---|---|
//! | `connections.rs` | connections, handshakes, logins, resumptions |
//! | `cluster.rs` | streams between the nodes of a cluster |
//! | `sessions.rs` | sessions, their queues, skipped elements, deadlines |
//! | `traffic.rs` | stanzas and bytes that pass, on the hot path |
//! | `notifications.rs`, `fate.rs` | verdicts, publishes, stanzas of push services |
//! | `storage.rs`, `unsaved.rs` | the database; stanzas that only memory has |
//! | `handover.rs` | stanzas on their way to a device: redelivered, moved, set aside |
//! | `operation.rs`, `process.rs` | limits, reloads, handovers to another process, certificates; the process as the system sees it |
//! | `outcome.rs`, `waits.rs`, `labels.rs` | the words of labels |
//! | `latency.rs`, `measured.rs` | durations; numbers that are measured on demand |

mod cluster;
mod connections;
mod fate;
mod handover;
mod labels;
mod latency;
mod measured;
mod notifications;
mod operation;
mod outcome;
mod process;
mod sessions;
mod storage;
mod traffic;
mod unsaved;
mod waits;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::clock::UnixSecs;
use crate::config::Transport;
use crate::node_id::NodeId;
use crate::session::sasl::LoginMethod;
use crate::sync::lock;
use crate::xml::SkipReason;
use cluster::ClusterCounters;
pub use cluster::RelayedConnection;
use connections::Connections;
pub use connections::LoggingIn;
pub use fate::{Fate, Fates};
use handover::Handover;
pub use latency::Latency;
pub use measured::{CounterValues, DiskUsage, Measured, SessionCounts};
use notifications::Notifications;
pub use operation::LimitsReached;
use operation::Operation;
pub use outcome::{
    ConnectOutcome, FastOutcome, HandoverOutcome, HandshakeOutcome, HopOutcome, LoginOutcome, NodeArrival,
    ReloadOutcome, ResumeOutcome,
};
use process::Process;
use sessions::SessionMetrics;
use storage::Storage;
pub use storage::StoreMetrics;
use traffic::Traffic;
pub use traffic::{MeteredLeg, Tap};
pub use unsaved::UnsavedGauge;
pub use waits::Wait;

/// The metrics of a process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    traffic: Arc<Traffic>,
    connections: Connections,
    cluster: ClusterCounters,
    sessions: SessionMetrics,
    notifications: Notifications,
    storage: Storage,
    handover: Handover,
    operation: Operation,
    /// Held while the gauges are set and encoded, so that both show the same moment.
    encoding: Mutex<()>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Creates the metrics, all at zero.
    pub fn new() -> Self {
        Self::with(StoreMetrics::default(), None, [])
    }

    /// Creates the metrics, all at zero, with the store's own counters and with the domains that are served. In a cluster, all of
    /// them have the number of the `node` as a label.
    pub fn with<'h>(store: StoreMetrics, node: Option<NodeId>, hosts: impl IntoIterator<Item = &'h str>) -> Self {
        let label = node.map(|node| ("node".into(), node.to_string().into()));
        let mut metrics = Self {
            registry: Registry::with_labels(label.into_iter()),
            traffic: Arc::default(),
            connections: Connections::default(),
            cluster: ClusterCounters::default(),
            sessions: SessionMetrics::default(),
            notifications: Notifications::default(),
            storage: Storage::new(store),
            handover: Handover::default(),
            operation: Operation::default(),
            encoding: Mutex::default(),
        };
        metrics.register();
        metrics.connections.begin_at_zero();
        metrics.cluster.begin_at_zero();
        metrics.sessions.begin_at_zero();
        metrics.notifications.begin_at_zero();
        metrics.operation.begin_at_zero();
        for host in hosts {
            metrics.serve_host(host);
        }
        metrics
    }

    fn register(&mut self) {
        let registry = self.registry.sub_registry_with_prefix("pushward");
        // The encoder appends `_info` to the name of an info metric.
        registry.register("build", "Version of Pushward", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        self.connections.register(registry);
        self.cluster.register(registry);
        self.sessions.register(registry);
        registry.register_collector(Box::new(Arc::clone(&self.traffic)));
        self.notifications.register(registry);
        self.storage.register(registry, &self.handover);
        self.operation.register(registry);
        self.registry.register_collector(Box::new(Process::new()));
    }

    /// Creates the series of a domain that is served from now on.
    pub fn serve_host(&self, host: &str) {
        self.connections.serve_host(host);
    }

    /// Returns the counters of limits.
    pub fn limits_reached(&self) -> LimitsReached {
        self.operation.limits_reached()
    }

    /// Counts a client that has connected. It counts as logging in until the value is dropped.
    pub fn logging_in(&self) -> LoggingIn {
        self.connections.logging_in()
    }

    /// Returns the number of connected clients, given the number of sessions that have one.
    pub fn connections(&self, with_client: usize) -> usize {
        self.connections.open(with_client)
    }

    /// Counts a handshake, and the time that it took.
    pub fn handshake(&self, outcome: HandshakeOutcome, took: Duration) {
        self.connections.handshake(outcome, took);
    }

    /// Counts a login.
    pub fn login(&self, outcome: LoginOutcome, method: Option<LoginMethod>) {
        self.connections.login(outcome, method);
    }

    /// Counts the round trips that a fronted login took less.
    pub fn round_trips_saved(&self, saved: u32) {
        self.connections.round_trips_saved(saved);
    }

    /// Counts a client whose credentials the server refused.
    pub fn sasl_failure(&self) {
        self.connections.sasl_failure();
    }

    /// Counts a login by token.
    pub fn fast_login(&self, outcome: FastOutcome) {
        self.connections.fast_login(outcome);
    }

    /// Counts a client that asked to resume a session.
    pub fn resumption(&self, outcome: ResumeOutcome) {
        self.connections.resumption(outcome);
    }

    /// Counts an attempt to connect to the server of a host, which is one of the configuration.
    pub fn upstream(&self, host: &str, outcome: ConnectOutcome) {
        self.connections.upstream(host, outcome);
    }

    /// Counts a login for an account that another node owns or may own.
    pub fn hop(&self, outcome: HopOutcome) {
        self.cluster.hop(outcome);
    }

    /// Counts a connection to the listener for other nodes.
    pub fn node_arrival(&self, outcome: NodeArrival) {
        self.cluster.arrival(outcome);
    }

    /// Counts a client whose stream is copied to and from another node, until the value is dropped.
    pub fn relayed(&self) -> RelayedConnection {
        self.cluster.relayed()
    }

    /// Counts an element of a server that was skipped.
    pub fn skipped(&self, reason: SkipReason) {
        self.sessions.skipped(reason);
    }

    /// Returns the counters of the stanzas of app servers.
    pub fn fates(&self) -> Fates {
        self.notifications.fates()
    }

    /// Returns the counters of the traffic of a session.
    pub fn tap(&self) -> Tap {
        self.traffic.tap()
    }

    /// Counts a decision about a stanza for a device that cannot be reached.
    pub fn verdict(&self, verdict: &'static str) {
        self.notifications.verdict(verdict);
    }

    /// Counts a notification by its transport and outcome.
    pub fn publish(&self, transport: &'static str, outcome: &'static str) {
        self.notifications.publish(transport, outcome);
    }

    /// Records the duration of a notification by this transport.
    pub fn publish_took(&self, transport: Transport, took: Duration) {
        self.notifications.publish_took(transport, took);
    }

    /// Records the time from a stanza to its notification.
    pub fn notified(&self, delay: Duration) {
        self.notifications.notified(delay);
    }

    /// Counts a wait that exceeded its deadline.
    pub fn deadline_passed(&self, wait: Wait) {
        self.sessions.deadline_passed(wait);
    }

    /// Counts a session whose task has failed.
    pub fn session_failed(&self) {
        self.sessions.failed();
    }

    /// Counts a spool that starts to refuse the stanzas of a session.
    pub fn spool_failed(&self) {
        self.storage.spool_failed();
    }

    /// Counts stanzas for which there was no room: those returned to their senders, and those lost.
    pub fn shed(&self, returned: u32, lost: u32) {
        self.storage.returned(returned.into());
        self.storage.lost(lost.into());
    }

    /// Counts stanzas that are lost.
    pub fn lost(&self, stanzas: u64) {
        self.storage.lost(stanzas);
    }

    /// Returns the gauge of a session's stanzas that only memory has while the spool refuses them, starting at none.
    pub fn unsaved(&self) -> UnsavedGauge {
        self.storage.unsaved()
    }

    /// Counts a message that the server sent a second time and that was dropped.
    pub fn redelivered(&self) {
        self.handover.redelivered();
    }

    /// Counts a sequence number in a spool that was already taken.
    pub fn sequence_taken(&self) {
        self.handover.sequence_taken();
    }

    /// Counts a stanza that was set aside.
    pub fn set_aside(&self) {
        self.handover.set_aside();
    }

    /// Counts stanzas that were set aside and returned to their original positions.
    pub fn given_back(&self, stanzas: u64) {
        self.handover.given_back(stanzas);
    }

    /// Counts stanzas that were deleted because no device had fetched them.
    pub fn never_fetched(&self, stanzas: u64) {
        self.handover.never_fetched(stanzas);
    }

    /// Records the time at which the configuration was loaded.
    pub fn configured(&self, at: UnixSecs) {
        self.operation.configured(at);
    }

    /// Counts a reload.
    pub fn reload(&self, outcome: ReloadOutcome) {
        self.operation.reload(outcome);
    }

    /// Counts a handover to another process.
    pub fn handover(&self, outcome: HandoverOutcome) {
        self.operation.handover(outcome);
    }

    /// Counts the sessions of the previous process that went on in this one, and those that ended.
    pub fn handover_sessions(&self, kept: usize, ended: usize) {
        self.operation.handover_sessions(kept, ended);
    }

    /// Removes the series of all certificates.
    pub fn forget_certificates(&self) {
        self.operation.forget_certificates();
    }

    /// Sets the expiry of the certificate of a configured domain, and its problems.
    pub fn certificate<const N: usize>(&self, domain: &str, not_after: UnixSecs, problems: [(&'static str, bool); N]) {
        self.operation.certificate(domain, not_after, problems);
    }

    /// Returns all metrics as OpenMetrics text.
    ///
    /// # Errors
    /// Never in practice: writing to a string cannot fail.
    pub fn text(&self, measured: &Measured) -> Result<String, fmt::Error> {
        let total = measured.total();
        let _encoding = lock(&self.encoding);
        self.connections.measure(total.live + total.suspect);
        self.sessions.measure(measured);
        if let Some(disk) = &measured.disk {
            self.storage.measure(disk);
            self.notifications.set_wakes_waiting(disk.wakes_waiting);
        }
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// Returns the counters since the start that the admin page shows.
    pub fn counted(&self) -> CounterValues {
        let (messages_in, messages_out) = self.traffic.messages(MeteredLeg::Client);
        let mut counted = CounterValues { messages_in, messages_out, ..CounterValues::default() };
        for outcome in LoginOutcome::all() {
            let logins = match outcome {
                LoginOutcome::Bound | LoginOutcome::Resumed => &mut counted.logins,
                // The other node counts it.
                LoginOutcome::PassedOn => continue,
                LoginOutcome::Lost | LoginOutcome::Closed(_) => &mut counted.failed_logins,
            };
            *logins += self.connections.logins(outcome);
        }
        for (outcome, count) in self.notifications.publishes() {
            *counted.publishes.entry(outcome).or_default() += count;
        }
        counted.verdicts.extend(self.notifications.verdicts());
        counted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::negotiate::CloseReason;

    #[test]
    #[allow(clippy::too_many_lines, reason = "it names every metric once")]
    fn what_was_counted_is_shown_under_its_names() {
        let metrics = Metrics::new();
        metrics.verdict("no_text");
        metrics.verdict("no_text");
        metrics.publish("session", "accepted");
        metrics.spool_failed();
        metrics.shed(3, 2);
        metrics.skipped(SkipReason::NoRoom);
        metrics.redelivered();
        metrics.sequence_taken();
        metrics.never_fetched(6);
        metrics.set_aside();
        metrics.given_back(2);
        let mut unsaved = metrics.unsaved();
        unsaved.set(7, 700);
        unsaved.set(4, 400);
        metrics.unsaved().set(9, 900);
        metrics.configured(UnixSecs::new(5));
        metrics.reload(ReloadOutcome::Done);
        metrics.handover(HandoverOutcome::Refused);
        metrics.handover_sessions(4, 1);
        metrics.certificate("gone.test", UnixSecs::new(1), [("expired", true)]);
        metrics.forget_certificates();
        metrics.certificate("one.test", UnixSecs::new(2_000_000_000), [("expired", false), ("expires_soon", true)]);
        let _client = metrics.logging_in();
        drop(metrics.logging_in());
        metrics.handshake(HandshakeOutcome::Established, Duration::from_millis(7));
        metrics.login(LoginOutcome::Closed(CloseReason::Timeout), None);
        metrics.fast_login(FastOutcome::WrongHash);
        metrics.resumption(ResumeOutcome::NotProven);
        metrics.upstream("example.org", ConnectOutcome::Failed);
        metrics.tap().went(MeteredLeg::Client, b"<message/>");
        let counts = SessionCounts { live: 1, suspect: 1, dark: 3, queued: 5, queue_bytes: 600 };
        let disk = DiskUsage { accounts: 6, spooled: 7, spool_bytes: 800, store_bytes: 9000, wakes_waiting: 4 };
        let text = metrics.text(&measured(counts, Some(disk))).unwrap();
        for line in [
            concat!("pushward_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "pushward_connections 3",
            "pushward_accepted_connections_total 2",
            "pushward_sessions{host=\"example.org\",state=\"live\"} 1",
            "pushward_sessions{host=\"example.org\",state=\"suspect\"} 1",
            "pushward_sessions{host=\"example.org\",state=\"dark\"} 3",
            "pushward_handshakes_total{outcome=\"established\"} 1",
            "pushward_handshake_seconds_bucket{le=\"0.01\"} 1",
            "pushward_logins_total{outcome=\"timeout\",profile=\"none\",fronted=\"false\"} 1",
            "pushward_fast_logins_total{outcome=\"wrong_hash\"} 1",
            "pushward_fast_logins_total{outcome=\"no_session\"} 0",
            "pushward_resumptions_total{outcome=\"not_proven\"} 1",
            "pushward_upstream_connects_total{host=\"example.org\",outcome=\"failed\"} 1",
            "pushward_stanzas_total{leg=\"client\",direction=\"out\",kind=\"message\"} 1",
            "pushward_stanza_bytes_total{leg=\"client\",direction=\"out\"} 10",
            "pushward_queue_stanzas 5",
            "pushward_queue_bytes 600",
            "pushward_spool_stanzas 7",
            "pushward_spool_bytes 800",
            "pushward_store_bytes 9000",
            "pushward_accounts 6",
            "pushward_verdicts_total{verdict=\"no_text\"} 2",
            "pushward_publishes_total{transport=\"session\",outcome=\"accepted\"} 1",
            "pushward_spool_failed_total 1",
            "pushward_skipped_stanzas_total{reason=\"no_room\"} 1",
            "pushward_skipped_stanzas_total{reason=\"too_large\"} 0",
            "pushward_stanzas_returned_total 3",
            "pushward_stanzas_lost_total 2",
            "pushward_redelivered_messages_total 1",
            "pushward_spool_places_taken_total 1",
            "pushward_stanzas_never_fetched_total 6",
            "pushward_stanzas_set_aside_total 1",
            "pushward_stanzas_given_back_total 2",
            "pushward_unsaved_stanzas 4",
            "pushward_unsaved_bytes 400",
            "pushward_wakes_waiting 4",
            "pushward_reloads_total{outcome=\"done\"} 1",
            "pushward_reloads_total{outcome=\"refused\"} 0",
            "pushward_reload_success_timestamp_seconds 5",
            "pushward_handovers_total{outcome=\"done\"} 0",
            "pushward_handovers_total{outcome=\"refused\"} 1",
            "pushward_handover_sessions_total{outcome=\"kept\"} 4",
            "pushward_handover_sessions_total{outcome=\"ended\"} 1",
            "pushward_certificate_expiry_timestamp_seconds{domain=\"one.test\"} 2000000000",
            "pushward_certificate_problem{domain=\"one.test\",problem=\"expired\"} 0",
            "pushward_certificate_problem{domain=\"one.test\",problem=\"expires_soon\"} 1",
        ] {
            assert!(text.lines().any(|is| is == line), "{line} in\n{text}");
        }
        assert!(!text.contains("gone.test"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    fn measured(counts: SessionCounts, disk: Option<DiskUsage>) -> Measured {
        Measured { sessions: [("example.org".to_owned(), counts)].into(), disk }
    }

    #[test]
    fn earlier_measurements_are_forgotten() {
        let metrics = Metrics::new();
        let text = metrics.text(&measured(SessionCounts { dark: 3, ..SessionCounts::default() }, None)).unwrap();
        assert!(text.contains("pushward_sessions{host=\"example.org\",state=\"dark\"} 3\n"), "{text}");
        let text = metrics.text(&Measured::default()).unwrap();
        assert!(!text.contains("pushward_sessions{host=\"example.org\""), "{text}");
    }

    #[test]
    fn every_series_known_in_advance_starts_at_zero() {
        let text = Metrics::with(StoreMetrics::default(), None, ["example.org"]).text(&Measured::default()).unwrap();
        for line in [
            "pushward_upstream_connects_total{host=\"example.org\",outcome=\"failed\"} 0",
            "pushward_verdicts_total{verdict=\"unknown_sender\"} 0",
            "pushward_publishes_total{transport=\"component\",outcome=\"refused\"} 0",
            "pushward_publish_seconds_count{transport=\"s2s\"} 0",
            "pushward_logins_total{outcome=\"host_unknown\",profile=\"none\",fronted=\"false\"} 0",
            "pushward_store_commit_seconds_count 0",
        ] {
            assert!(text.lines().any(|is| is == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn the_page_shows_what_was_counted() {
        let metrics = Metrics::new();
        metrics.tap().went(MeteredLeg::Client, b"<message/>");
        metrics.login(LoginOutcome::Resumed, Some(LoginMethod::Sasl1));
        metrics.login(LoginOutcome::Closed(CloseReason::HostUnknown), None);
        metrics.publish("none", "not_sent");
        metrics.publish("s2s", "accepted");
        metrics.verdict("push");
        let counted = metrics.counted();
        assert_eq!((counted.messages_in, counted.messages_out), (0, 1));
        assert_eq!((counted.logins, counted.failed_logins), (1, 1));
        assert_eq!((counted.publishes["not_sent"], counted.publishes["accepted"]), (1, 1));
        assert_eq!((counted.verdicts["push"], counted.verdicts["duplicate"]), (1, 0));
    }
}
