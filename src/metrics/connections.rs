//! Counters of connections, handshakes and logins.

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

/// The counters of connections, handshakes and logins.
#[derive(Debug, Default)]
pub(super) struct Connections {
    open: Gauge,
    accepted: Counter,
    handshakes: Family<Labels<1>, Counter>,
    handshake_time: Latency,
    logins: Family<Labels<1>, Counter>,
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
        registry.register("logins", "Logins over TLS, by outcome", self.logins.clone());
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
            drop(self.logins.get_or_create(&[("outcome", outcome.name())]));
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

    pub(super) fn login(&self, outcome: LoginOutcome) {
        self.logins.get_or_create(&[("outcome", outcome.name())]).inc();
    }

    /// Returns the number of logins with this outcome.
    pub(super) fn logins(&self, outcome: LoginOutcome) -> u64 {
        self.logins.get_or_create(&[("outcome", outcome.name())]).get()
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
