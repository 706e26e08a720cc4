//! What is counted for operators, in OpenMetrics. No label is ever made of what a peer sent: they are words of this program,
//! and the domains of the configuration. Every series is there from the start, at zero.

mod fate;
mod handover;
mod latency;
mod measured;
mod operation;
mod outcome;
mod process;
mod traffic;
mod unsaved;
mod waits;

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::config::Transport;
use crate::push::outcome::Outcome;
use crate::session::liveness::Reach;
use crate::sync::lock;
use crate::xml::SkipReason;
pub use fate::{Fate, Fates};
pub use latency::Latency;
pub use measured::{Counted, Disk, Measured, Tally};
use outcome::verdicts;
pub use outcome::{Handshake, LoginOutcome, ResumeOutcome};
use process::Process;
use traffic::Traffic;
pub use traffic::{Leg, Tap};
pub use unsaved::Unsaved;
pub use waits::Wait;

/// Names and words of this program.
type Labels<const N: usize> = [(&'static str, &'static str); N];
/// A domain of the configuration, and a word of this program.
type HostLabels = ([(&'static str, String); 1], Labels<1>);

/// Who reached a limit, by the limit.
pub type LimitsReached = Family<Labels<1>, Counter>;

/// The metrics of a process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    traffic: Arc<Traffic>,
    connections: Gauge,
    accepted: Counter,
    handshakes: Family<Labels<1>, Counter>,
    handshake_time: Latency,
    logins: Family<Labels<1>, Counter>,
    sasl_failures: Counter,
    resumptions: Family<Labels<1>, Counter>,
    connects: Family<HostLabels, Counter>,
    sessions: Family<HostLabels, Gauge>,
    queued: Gauge,
    queue_bytes: Gauge,
    verdicts: Family<Labels<1>, Counter>,
    publishes: Family<Labels<2>, Counter>,
    publish_times: Family<Labels<1>, Histogram>,
    notification_delay: Latency,
    fates: Fates,
    accounts: Gauge,
    spooled: Gauge,
    spool_bytes: Gauge,
    store_bytes: Gauge,
    spool_failed: Counter,
    skipped: Family<Labels<1>, Counter>,
    deadlines_passed: Family<Labels<1>, Counter>,
    sessions_failed: Counter,
    returned: Counter,
    lost: Counter,
    handover: handover::Handover,
    unsaved: Gauge,
    unsaved_bytes: Gauge,
    wakes_waiting: Gauge,
    reloads: Family<Labels<1>, Counter>,
    reload_success: Gauge,
    certificate_expiry: Family<[(&'static str, String); 1], Gauge>,
    certificate_problem: Family<[(&'static str, String); 2], Gauge>,
    limits_reached: LimitsReached,
    logging_in: Arc<AtomicUsize>,
    asked: Mutex<()>,
}

/// A connection that has not become a session yet, as long as this lives.
#[derive(Debug)]
pub struct LoggingIn(Arc<AtomicUsize>);

impl Drop for LoggingIn {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        Self::with((&Latency::default(), &Counter::default()), [])
    }

    /// All at zero, with the time that the store's commits take, the stanzas that it lost because they cannot be read, and the
    /// domains that are served.
    pub fn with<'h>((commits, lost): (&Latency, &Counter), hosts: impl IntoIterator<Item = &'h str>) -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            traffic: Arc::default(),
            connections: Gauge::default(),
            accepted: Counter::default(),
            handshakes: Family::default(),
            handshake_time: Latency::default(),
            logins: Family::default(),
            sasl_failures: Counter::default(),
            resumptions: Family::default(),
            connects: Family::default(),
            sessions: Family::default(),
            queued: Gauge::default(),
            queue_bytes: Gauge::default(),
            verdicts: Family::default(),
            publishes: Family::default(),
            publish_times: Family::new_with_constructor(Latency::histogram),
            notification_delay: Latency::default(),
            fates: Fates::default(),
            accounts: Gauge::default(),
            spooled: Gauge::default(),
            spool_bytes: Gauge::default(),
            store_bytes: Gauge::default(),
            spool_failed: Counter::default(),
            skipped: Family::default(),
            deadlines_passed: Family::default(),
            sessions_failed: Counter::default(),
            returned: Counter::default(),
            lost: lost.clone(),
            handover: handover::Handover::default(),
            unsaved: Gauge::default(),
            unsaved_bytes: Gauge::default(),
            wakes_waiting: Gauge::default(),
            reloads: Family::default(),
            reload_success: Gauge::default(),
            certificate_expiry: Family::default(),
            certificate_problem: Family::default(),
            limits_reached: Family::default(),
            logging_in: Arc::default(),
            asked: Mutex::default(),
        };
        metrics.register_connections();
        metrics.register_sessions();
        metrics.register_pushes();
        metrics.register_disk(commits);
        metrics.register_operation();
        metrics.registry.register_collector(Box::new(Process::new()));
        metrics.begin_at_zero();
        for host in hosts {
            metrics.serve_host(host);
        }
        metrics
    }

    // The encoder ends a counter's name with `_total`, and an info's with `_info`.
    fn register_connections(&mut self) {
        let registry = self.registry.sub_registry_with_prefix("pushward");
        registry.register("build", "The version", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        registry.register("connections", "Connected clients, those that log in included", self.connections.clone());
        registry.register("accepted_connections", "Connections that were accepted", self.accepted.clone());
        registry.register("handshakes", "TLS handshakes of clients, by outcome", self.handshakes.clone());
        let (seconds, help) = (Unit::Seconds, "How long handshakes took that were established");
        registry.register_with_unit("handshake", help, seconds.clone(), self.handshake_time.shared());
        registry.register("logins", "Log-ins over TLS, by outcome", self.logins.clone());
        registry.register("sasl_failures", "Log-ins that the server refused", self.sasl_failures.clone());
        registry.register("resumptions", "Wishes to resume a session, by outcome", self.resumptions.clone());
        let help = "Connections to the server of a host, by outcome";
        registry.register("upstream_connects", help, self.connects.clone());
    }

    fn register_sessions(&mut self) {
        let registry = self.registry.sub_registry_with_prefix("pushward");
        let help = "Sessions, with their client (live), with one that is late (suspect), or without (dark)";
        registry.register("sessions", help, self.sessions.clone());
        registry.register_collector(Box::new(Arc::clone(&self.traffic)));
        let help = "Elements of servers that were skipped and not passed on, by reason";
        registry.register("skipped_stanzas", help, self.skipped.clone());
        let help = "Waits that were given up because their deadline passed";
        registry.register("deadlines_passed", help, self.deadlines_passed.clone());
        let help = "Sessions whose task failed: an error in this program";
        registry.register("sessions_failed", help, self.sessions_failed.clone());
        registry.register("queue_stanzas", "Stanzas in memory that await an acknowledgement", self.queued.clone());
        let help = "Bytes in memory that await an acknowledgement, with what keeping them costs";
        registry.register_with_unit("queue", help, Unit::Bytes, self.queue_bytes.clone());
    }

    fn register_pushes(&mut self) {
        let registry = self.registry.sub_registry_with_prefix("pushward");
        registry.register("verdicts", "Decisions to push or not to push", self.verdicts.clone());
        registry.register("publishes", "Notifications, by what became of them", self.publishes.clone());
        let help = "From a notification to the push service's answer, or to giving it up, by transport";
        registry.register_with_unit("publish", help, Unit::Seconds, self.publish_times.clone());
        let help = "From the first stanza that notifies to the notification; batch_delay and min_interval are in it";
        registry.register_with_unit("notification_delay", help, Unit::Seconds, self.notification_delay.shared());
        let help = "Stanzas of push services on the domain's streams that answer no notification, by fate";
        registry.register("push_service_stanzas", help, self.fates.shared());
        registry.register("wakes_waiting", "Devices that wait to be woken by a push", self.wakes_waiting.clone());
    }

    fn register_disk(&mut self, commits: &Latency) {
        let registry = self.registry.sub_registry_with_prefix("pushward");
        registry.register("accounts", "Accounts about which something is kept", self.accounts.clone());
        registry.register("spool_stanzas", "Stanzas that wait on disk", self.spooled.clone());
        let help = "Bytes that wait on disk, with what keeping them costs";
        registry.register_with_unit("spool", help, Unit::Bytes, self.spool_bytes.clone());
        registry.register(
            "spool_failed",
            "Times that the spool began to refuse the stanzas of a session",
            self.spool_failed.clone(),
        );
        let help = "Stanzas returned to their senders since neither disk nor memory had room";
        registry.register("stanzas_returned", help, self.returned.clone());
        let help = "Stanzas lost: neither disk nor memory had room and they may not be returned, \
                    or the disk has them in a form that cannot be read";
        registry.register("stanzas_lost", help, self.lost.clone());
        self.handover.register(registry);
        let help = "Stanzas that the spool refuses and only memory has: a crash loses them";
        registry.register("unsaved_stanzas", help, self.unsaved.clone());
        let help = "Bytes of the stanzas that the spool refuses and only memory has";
        registry.register_with_unit("unsaved", help, Unit::Bytes, self.unsaved_bytes.clone());
        registry.register_with_unit("store", "Size of the database", Unit::Bytes, self.store_bytes.clone());
        let help = "How long commits to the disk took";
        registry.register_with_unit("store_commit", help, Unit::Seconds, commits.shared());
    }

    fn begin_at_zero(&self) {
        for wait in Wait::ALL {
            drop(self.deadlines_passed.get_or_create(&[("wait", wait.name())]));
        }
        for reason in SkipReason::ALL {
            drop(self.skipped.get_or_create(&[("reason", reason.name())]));
        }
        for outcome in ["done", "refused"] {
            drop(self.reloads.get_or_create(&[("outcome", outcome)]));
        }
        for outcome in Handshake::ALL {
            drop(self.handshakes.get_or_create(&[("outcome", outcome.name())]));
        }
        for outcome in LoginOutcome::all() {
            drop(self.logins.get_or_create(&[("outcome", outcome.name())]));
        }
        for outcome in ResumeOutcome::ALL {
            drop(self.resumptions.get_or_create(&[("outcome", outcome.name())]));
        }
        for verdict in verdicts() {
            drop(self.verdicts.get_or_create(&[("verdict", verdict.name())]));
        }
        for transport in Transport::ALL.map(Transport::name) {
            drop(self.publish_times.get_or_create(&[("transport", transport)]));
            for outcome in Outcome::NAMES {
                drop(self.publishes.get_or_create(&[("transport", transport), ("outcome", outcome)]));
            }
        }
        drop(self.publishes.get_or_create(&[("transport", "none"), ("outcome", "not_sent")]));
    }

    /// A domain is served from now on: its series begin.
    pub fn serve_host(&self, host: &str) {
        for outcome in ["connected", "failed"] {
            drop(self.connects.get_or_create(&of_host(host, ("outcome", outcome))));
        }
    }

    /// Where it is counted who reaches a limit.
    pub fn limits_reached(&self) -> LimitsReached {
        self.limits_reached.clone()
    }

    /// A client has connected; it counts as logging in until the value is dropped.
    pub fn logging_in(&self) -> LoggingIn {
        self.accepted.inc();
        self.logging_in.fetch_add(1, Ordering::Relaxed);
        LoggingIn(Arc::clone(&self.logging_in))
    }

    /// How many clients are connected, given how many sessions have their client.
    pub fn connections(&self, with_client: usize) -> usize {
        self.logging_in.load(Ordering::Relaxed).saturating_add(with_client)
    }

    /// A handshake has ended; it took so long.
    pub fn handshake(&self, outcome: Handshake, took: Duration) {
        self.handshakes.get_or_create(&[("outcome", outcome.name())]).inc();
        if outcome == Handshake::Established {
            self.handshake_time.observe(took);
        }
    }

    /// A log-in has ended.
    pub fn login(&self, outcome: LoginOutcome) {
        self.logins.get_or_create(&[("outcome", outcome.name())]).inc();
    }

    /// The server refused a client's credentials.
    pub fn sasl_failure(&self) {
        self.sasl_failures.inc();
    }

    /// A client wanted to resume a session.
    pub fn resumption(&self, outcome: ResumeOutcome) {
        self.resumptions.get_or_create(&[("outcome", outcome.name())]).inc();
    }

    /// The server of a host was connected, or was not. The host is one of the configuration.
    pub fn upstream(&self, host: &str, connected: bool) {
        let outcome = if connected { "connected" } else { "failed" };
        self.connects.get_or_create(&of_host(host, ("outcome", outcome))).inc();
    }

    /// An element of a server was skipped.
    pub fn skipped(&self, reason: SkipReason) {
        self.skipped.get_or_create(&[("reason", reason.name())]).inc();
    }

    /// Where it is counted what becomes of the stanzas of push services.
    pub fn fates(&self) -> Fates {
        self.fates.clone()
    }

    /// Where a session counts what passes through it.
    pub fn tap(&self) -> Tap {
        self.traffic.tap()
    }

    /// It was decided about a stanza for a device that cannot be reached: to push, or not to, and why.
    pub fn verdict(&self, verdict: &'static str) {
        self.verdicts.get_or_create(&[("verdict", verdict)]).inc();
    }

    /// A notification has come to this outcome by this transport.
    pub fn publish(&self, transport: &'static str, outcome: &'static str) {
        self.publishes.get_or_create(&[("transport", transport), ("outcome", outcome)]).inc();
    }

    /// A notification by this transport took so long.
    pub fn publish_took(&self, transport: Transport, took: Duration) {
        self.publish_times.get_or_create(&[("transport", transport.name())]).observe(took.as_secs_f64());
    }

    /// A session notifies of what came so long ago.
    pub fn notified(&self, delay: Duration) {
        self.notification_delay.observe(delay);
    }

    /// A wait was given up because its deadline passed.
    pub fn deadline_passed(&self, wait: Wait) {
        self.deadlines_passed.get_or_create(&[("wait", wait.name())]).inc();
    }

    /// The task of a session has failed.
    pub fn session_failed(&self) {
        self.sessions_failed.inc();
    }

    /// The spool begins to refuse the stanzas of a session.
    pub fn spool_failed(&self) {
        self.spool_failed.inc();
    }

    /// Stanzas found no room: so many went back to their senders, so many are lost.
    pub fn shed(&self, returned: u32, lost: u32) {
        self.returned.inc_by(returned.into());
        self.lost.inc_by(lost.into());
    }

    /// So many stanzas are lost.
    pub fn lost(&self, stanzas: u64) {
        self.lost.inc_by(stanzas);
    }

    /// What only memory has of a session while the spool refuses its stanzas: nothing so far.
    pub fn unsaved(&self) -> Unsaved {
        Unsaved::new(self.unsaved.clone(), self.unsaved_bytes.clone())
    }

    /// All of it, as OpenMetrics text.
    ///
    /// # Errors
    /// Never in practice: a string takes all that is written to it.
    pub fn text(&self, measured: &Measured) -> Result<String, fmt::Error> {
        let total = measured.total();
        self.connections.set(gauge(self.connections(total.live + total.suspect)));
        // What is set and what is told is of one moment, also for two who ask at once.
        let _asked = lock(&self.asked);
        // A host that is not served any more has no series.
        self.sessions.clear();
        for (host, tally) in &measured.sessions {
            for (state, sessions) in
                [(Reach::Live, tally.live), (Reach::Suspect, tally.suspect), (Reach::Dark, tally.dark)]
            {
                self.sessions.get_or_create(&of_host(host, ("state", state.name()))).set(gauge(sessions));
            }
        }
        self.queued.set(gauge(total.queued));
        self.queue_bytes.set(gauge(total.queue_bytes));
        if let Some(disk) = &measured.disk {
            self.accounts.set(gauge(disk.accounts));
            self.spooled.set(gauge(disk.spooled));
            self.spool_bytes.set(gauge(disk.spool_bytes));
            self.store_bytes.set(gauge(disk.store_bytes));
            self.wakes_waiting.set(gauge(disk.wakes_waiting));
        }
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// What has been counted since the start.
    pub fn counted(&self) -> Counted {
        let (messages_in, messages_out) = self.traffic.messages(Leg::Client);
        let mut counted = Counted { messages_in, messages_out, ..Counted::default() };
        for outcome in LoginOutcome::all() {
            let count = self.logins.get_or_create(&[("outcome", outcome.name())]).get();
            let is_in = matches!(outcome, LoginOutcome::Bound | LoginOutcome::Resumed);
            *(if is_in { &mut counted.logins } else { &mut counted.failed_logins }) += count;
        }
        for transport in Transport::ALL.map(Transport::name).into_iter().chain(["none"]) {
            for outcome in Outcome::NAMES {
                let count =
                    self.publishes.get(&[("transport", transport), ("outcome", outcome)]).map_or(0, |c| c.get());
                *counted.publishes.entry(outcome).or_default() += count;
            }
        }
        for verdict in verdicts() {
            let count = self.verdicts.get_or_create(&[("verdict", verdict.name())]).get();
            counted.verdicts.insert(verdict.name(), count);
        }
        counted
    }
}

fn of_host(host: &str, word: (&'static str, &'static str)) -> HostLabels {
    ([("host", host.to_owned())], [word])
}

fn gauge(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
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
        metrics.place_taken();
        metrics.never_fetched(6);
        metrics.set_aside();
        metrics.given_back(2);
        let mut unsaved = metrics.unsaved();
        unsaved.set(7, 700);
        unsaved.set(4, 400);
        metrics.unsaved().set(9, 900);
        metrics.configured(5);
        metrics.reload("done");
        metrics.certificate("gone.test", 1, [("expired", true)]);
        metrics.forget_certificates();
        metrics.certificate("one.test", 2_000_000_000, [("expired", false), ("expires_soon", true)]);
        let _client = metrics.logging_in();
        drop(metrics.logging_in());
        metrics.handshake(Handshake::Established, Duration::from_millis(7));
        metrics.login(LoginOutcome::Closed(CloseReason::Timeout));
        metrics.resumption(ResumeOutcome::NotProven);
        metrics.upstream("example.org", false);
        metrics.tap().went(Leg::Client, b"<message/>");
        let tally = Tally { live: 1, suspect: 1, dark: 3, queued: 5, queue_bytes: 600 };
        let disk = Disk { accounts: 6, spooled: 7, spool_bytes: 800, store_bytes: 9000, wakes_waiting: 4 };
        let text = metrics.text(&measured(tally, Some(disk))).unwrap();
        for line in [
            concat!("pushward_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "pushward_connections 3",
            "pushward_accepted_connections_total 2",
            "pushward_sessions{host=\"example.org\",state=\"live\"} 1",
            "pushward_sessions{host=\"example.org\",state=\"suspect\"} 1",
            "pushward_sessions{host=\"example.org\",state=\"dark\"} 3",
            "pushward_handshakes_total{outcome=\"established\"} 1",
            "pushward_handshake_seconds_bucket{le=\"0.01\"} 1",
            "pushward_logins_total{outcome=\"timeout\"} 1",
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
            "pushward_certificate_expiry_timestamp_seconds{domain=\"one.test\"} 2000000000",
            "pushward_certificate_problem{domain=\"one.test\",problem=\"expired\"} 0",
            "pushward_certificate_problem{domain=\"one.test\",problem=\"expires_soon\"} 1",
        ] {
            assert!(text.lines().any(|is| is == line), "{line} in\n{text}");
        }
        assert!(!text.contains("gone.test"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    fn measured(tally: Tally, disk: Option<Disk>) -> Measured {
        Measured { sessions: [("example.org".to_owned(), tally)].into(), disk }
    }

    #[test]
    fn what_was_measured_before_is_forgotten() {
        let metrics = Metrics::new();
        let text = metrics.text(&measured(Tally { dark: 3, ..Tally::default() }, None)).unwrap();
        assert!(text.contains("pushward_sessions{host=\"example.org\",state=\"dark\"} 3\n"), "{text}");
        let text = metrics.text(&Measured::default()).unwrap();
        assert!(!text.contains("pushward_sessions{host=\"example.org\""), "{text}");
    }

    #[test]
    fn every_series_that_can_be_named_beforehand_begins_at_zero() {
        let text = Metrics::with((&Latency::default(), &Counter::default()), ["example.org"])
            .text(&Measured::default())
            .unwrap();
        for line in [
            "pushward_upstream_connects_total{host=\"example.org\",outcome=\"failed\"} 0",
            "pushward_verdicts_total{verdict=\"unknown_sender\"} 0",
            "pushward_publishes_total{transport=\"component\",outcome=\"refused\"} 0",
            "pushward_publish_seconds_count{transport=\"s2s\"} 0",
            "pushward_logins_total{outcome=\"host_unknown\"} 0",
            "pushward_store_commit_seconds_count 0",
        ] {
            assert!(text.lines().any(|is| is == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn the_page_is_told_what_was_counted() {
        let metrics = Metrics::new();
        metrics.tap().went(Leg::Client, b"<message/>");
        metrics.login(LoginOutcome::Resumed);
        metrics.login(LoginOutcome::Closed(CloseReason::HostUnknown));
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
