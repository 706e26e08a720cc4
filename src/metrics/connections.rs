//! Counters of connections, handshakes and logins.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::labels::{HostLabels, Labels, gauge, of_host};
use super::latency::Latency;
use super::outcome::{ConnectOutcome, FastOutcome, HandshakeOutcome, LoginOutcome, ResumeOutcome};
use crate::session::sasl::LoginMethod;

/// The counters of connections, handshakes and logins.
#[derive(Debug, Default)]
pub(super) struct Connections {
    open: Gauge,
    accepted: Counter,
    handshakes: Family<Labels<1>, Counter>,
    handshake_time: Latency,
    logins: Family<Labels<3>, Counter>,
    round_trips_saved: Counter,
    sasl_failures: Counter,
    fast_logins: Family<Labels<1>, Counter>,
    resumptions: Family<Labels<1>, Counter>,
    upstream: Family<HostLabels, Counter>,
    logging_in: Arc<AtomicUsize>,
}

/// A connection that is not a session yet. It is counted until this value is dropped.
#[derive(Debug)]
pub struct LoggingIn(Arc<AtomicUsize>);

impl Drop for LoggingIn {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connections {
    // The encoder appends `_total` to the name of a counter.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "connections",
            "Connected clients, including those that have not logged in yet",
            self.open.clone(),
        );
        registry.register("accepted_connections", "Accepted connections", self.accepted.clone());
        registry.register("handshakes", "TLS handshakes with clients, by outcome", self.handshakes.clone());
        let help = "Duration of successful TLS handshakes";
        registry.register_with_unit("handshake", help, Unit::Seconds, self.handshake_time.shared());
        let help = "Logins over TLS, by outcome, by profile of SASL, and by whether the server lacks that profile";
        registry.register("logins", help, self.logins.clone());
        let help = "Round trips that clients saved by SASL2 in front of servers that lack it";
        registry.register("login_round_trips_saved", help, self.round_trips_saved.clone());
        registry.register("sasl_failures", "Logins that the upstream server refused", self.sasl_failures.clone());
        registry.register("fast_logins", "Logins by token (FAST, XEP-0484), by outcome", self.fast_logins.clone());
        registry.register("resumptions", "Session resumption attempts, by outcome", self.resumptions.clone());
        let help = "Connection attempts to the upstream server of a host, by outcome";
        registry.register("upstream_connects", help, self.upstream.clone());
    }

    pub(super) fn begin_at_zero(&self) {
        for outcome in HandshakeOutcome::ALL {
            drop(self.handshakes.get_or_create(&[("outcome", outcome.name())]));
        }
        for outcome in LoginOutcome::all() {
            drop(self.logins.get_or_create(&login_labels(outcome, None)));
        }
        let complete = [LoginOutcome::Bound, LoginOutcome::Resumed];
        for (outcome, method) in
            complete.into_iter().flat_map(|outcome| LoginMethod::ALL.map(|method| (outcome, method)))
        {
            drop(self.logins.get_or_create(&login_labels(outcome, Some(method))));
        }
        for outcome in FastOutcome::ALL {
            drop(self.fast_logins.get_or_create(&[("outcome", outcome.name())]));
        }
        for outcome in ResumeOutcome::ALL {
            drop(self.resumptions.get_or_create(&[("outcome", outcome.name())]));
        }
    }

    pub(super) fn serve_host(&self, host: &str) {
        for outcome in ConnectOutcome::ALL {
            drop(self.upstream.get_or_create(&of_host(host, "outcome", outcome.name())));
        }
    }

    pub(super) fn logging_in(&self) -> LoggingIn {
        self.accepted.inc();
        self.logging_in.fetch_add(1, Ordering::Relaxed);
        LoggingIn(Arc::clone(&self.logging_in))
    }

    /// Returns the number of connected clients, given the number of sessions that have one.
    pub(super) fn open(&self, with_client: usize) -> usize {
        self.logging_in.load(Ordering::Relaxed).saturating_add(with_client)
    }

    pub(super) fn measure(&self, with_client: usize) {
        self.open.set(gauge(self.open(with_client)));
    }

    pub(super) fn handshake(&self, outcome: HandshakeOutcome, took: Duration) {
        self.handshakes.get_or_create(&[("outcome", outcome.name())]).inc();
        if outcome == HandshakeOutcome::Established {
            self.handshake_time.observe(took);
        }
    }

    pub(super) fn login(&self, outcome: LoginOutcome, method: Option<LoginMethod>) {
        self.logins.get_or_create(&login_labels(outcome, method)).inc();
    }

    /// Returns the number of logins with this outcome.
    pub(super) fn logins(&self, outcome: LoginOutcome) -> u64 {
        // Methods with the same labels count once.
        let labels: HashSet<_> =
            LoginMethod::ALL.map(Some).into_iter().chain([None]).map(|m| login_labels(outcome, m)).collect();
        labels.iter().map(|labels| self.logins.get_or_create(labels).get()).sum()
    }

    pub(super) fn round_trips_saved(&self, saved: u32) {
        self.round_trips_saved.inc_by(saved.into());
    }

    pub(super) fn sasl_failure(&self) {
        self.sasl_failures.inc();
    }

    pub(super) fn fast_login(&self, outcome: FastOutcome) {
        self.fast_logins.get_or_create(&[("outcome", outcome.name())]).inc();
    }

    pub(super) fn resumption(&self, outcome: ResumeOutcome) {
        self.resumptions.get_or_create(&[("outcome", outcome.name())]).inc();
    }

    pub(super) fn upstream(&self, host: &str, outcome: ConnectOutcome) {
        self.upstream.get_or_create(&of_host(host, "outcome", outcome.name())).inc();
    }
}

/// Returns the labels of a login. Without a method, no server has accepted it.
fn login_labels(outcome: LoginOutcome, method: Option<LoginMethod>) -> Labels<3> {
    let (profile, is_fronted) = method.map_or(("none", false), |method| (method.profile(), method.is_fronted()));
    [("outcome", outcome.name()), ("profile", profile), ("fronted", if is_fronted { "true" } else { "false" })]
}
