//! What is counted for operators, in OpenMetrics. No label is ever made of what a peer sent: they are words of
//! this program, or domains that the operator named.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// Names and words of this program.
type Labels<const N: usize> = [(&'static str, &'static str); N];

/// Who reached a limit, by the limit.
pub type LimitsReached = Family<Labels<1>, Counter>;

/// The metrics of a process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    connections: Gauge,
    sessions: Family<Labels<1>, Gauge>,
    verdicts: Family<Labels<1>, Counter>,
    publishes: Family<Labels<2>, Counter>,
    spool_failed: Counter,
    wakes_waiting: Gauge,
    reloads: Family<Labels<1>, Counter>,
    reload_success: Gauge,
    certificate_expiry: Family<[(&'static str, String); 1], Gauge>,
    certificate_problem: Family<[(&'static str, String); 2], Gauge>,
    limits_reached: LimitsReached,
    logging_in: Arc<AtomicUsize>,
}

/// What is measured only when somebody asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Sessions with their client.
    pub live: usize,
    /// Sessions that are held without their client.
    pub dark: usize,
    /// Devices that are to be woken; `None` if that cannot be told now.
    pub wakes_waiting: Option<u64>,
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
        let mut metrics = Self {
            registry: Registry::with_prefix("pushward"),
            connections: Gauge::default(),
            sessions: Family::default(),
            verdicts: Family::default(),
            publishes: Family::default(),
            spool_failed: Counter::default(),
            wakes_waiting: Gauge::default(),
            reloads: Family::default(),
            reload_success: Gauge::default(),
            certificate_expiry: Family::default(),
            certificate_problem: Family::default(),
            limits_reached: Family::default(),
            logging_in: Arc::default(),
        };
        metrics.register();
        for outcome in ["done", "refused"] {
            drop(metrics.reloads.get_or_create(&[("outcome", outcome)]));
        }
        metrics
    }

    // The encoder ends a counter's name with `_total`, and an info's with `_info`.
    fn register(&mut self) {
        let Self { registry, connections, sessions, verdicts, publishes, spool_failed, wakes_waiting, .. } = self;
        registry.register("limit_reached", "Who was slowed, refused or cut off", self.limits_reached.clone());
        registry.register("build", "The version", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        registry.register("connections", "Connected clients, those that log in included", connections.clone());
        registry.register("sessions", "Sessions, with their client (live) or without (dark)", sessions.clone());
        registry.register("verdicts", "Decisions to push or not to push", verdicts.clone());
        registry.register("publishes", "Notifications, by what became of them", publishes.clone());
        registry.register("spool_failed", "Sessions that ended since the spool took no more", spool_failed.clone());
        registry.register("wakes_waiting", "Devices that wait to be woken by a push", wakes_waiting.clone());
        self.register_operation();
    }

    fn register_operation(&mut self) {
        let Self { registry, reloads, reload_success, certificate_expiry, certificate_problem, .. } = self;
        registry.register("reloads", "Reloads of the configuration, by what came of them", reloads.clone());
        let name = "reload_success_timestamp_seconds";
        registry.register(
            name,
            "When the configuration was last taken, at a start or a reload",
            reload_success.clone(),
        );
        let name = "certificate_expiry_timestamp_seconds";
        registry.register(name, "When a host's certificate ends", certificate_expiry.clone());
        let name = "certificate_problem";
        registry.register(name, "1 if a host's certificate has the problem", certificate_problem.clone());
    }

    /// The configuration was taken, at this time in Unix seconds.
    pub fn configured(&self, at: u64) {
        self.reload_success.set(gauge(at));
    }

    /// A reload has come to this outcome.
    pub fn reload(&self, outcome: &'static str) {
        self.reloads.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Nothing is known of any certificate.
    pub fn forget_certificates(&self) {
        self.certificate_expiry.clear();
        self.certificate_problem.clear();
    }

    /// What is known of the certificate of a domain that the operator named; `not_after`: Unix seconds.
    pub fn certificate<const N: usize>(&self, domain: &str, not_after: u64, problems: [(&'static str, bool); N]) {
        let domain = || ("domain", domain.to_owned());
        self.certificate_expiry.get_or_create(&[domain()]).set(gauge(not_after));
        for (problem, has) in problems {
            let labels = [domain(), ("problem", problem.to_owned())];
            self.certificate_problem.get_or_create(&labels).set(i64::from(has));
        }
    }

    /// Where it is counted who reaches a limit.
    pub fn limits_reached(&self) -> LimitsReached {
        self.limits_reached.clone()
    }

    /// A client has connected; it counts as logging in until the value is dropped.
    pub fn logging_in(&self) -> LoggingIn {
        self.logging_in.fetch_add(1, Ordering::Relaxed);
        LoggingIn(Arc::clone(&self.logging_in))
    }

    /// How many clients are connected, given how many sessions are live.
    pub fn connections(&self, live: usize) -> usize {
        self.logging_in.load(Ordering::Relaxed).saturating_add(live)
    }

    /// It was decided about a stanza for a device that cannot be reached: to push, or not to, and why.
    pub fn verdict(&self, verdict: &'static str) {
        self.verdicts.get_or_create(&[("verdict", verdict)]).inc();
    }

    /// A notification has come to this outcome by this transport.
    pub fn publish(&self, transport: &'static str, outcome: &'static str) {
        self.publishes.get_or_create(&[("transport", transport), ("outcome", outcome)]).inc();
    }

    /// A session ends since the spool takes no more.
    pub fn spool_failed(&self) {
        self.spool_failed.inc();
    }

    /// All of it, as OpenMetrics text.
    ///
    /// # Errors
    /// Never in practice: a string takes all that is written to it.
    pub fn text(&self, measured: Measured) -> Result<String, fmt::Error> {
        let Measured { live, dark, wakes_waiting } = measured;
        self.connections.set(gauge(self.connections(live)));
        self.sessions.get_or_create(&[("state", "live")]).set(gauge(live));
        self.sessions.get_or_create(&[("state", "dark")]).set(gauge(dark));
        if let Some(wakes_waiting) = wakes_waiting {
            self.wakes_waiting.set(gauge(wakes_waiting));
        }
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

fn gauge(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_shown_under_its_names() {
        let metrics = Metrics::new();
        metrics.verdict("no_text");
        metrics.verdict("no_text");
        metrics.publish("session", "accepted");
        metrics.spool_failed();
        metrics.configured(5);
        metrics.reload("done");
        metrics.certificate("gone.test", 1, [("expired", true)]);
        metrics.forget_certificates();
        metrics.certificate("one.test", 2_000_000_000, [("expired", false), ("expires_soon", true)]);
        let _client = metrics.logging_in();
        drop(metrics.logging_in());
        let text = metrics.text(Measured { live: 2, dark: 3, wakes_waiting: Some(4) }).unwrap();
        for line in [
            concat!("pushward_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "pushward_connections 3",
            "pushward_sessions{state=\"live\"} 2",
            "pushward_sessions{state=\"dark\"} 3",
            "pushward_verdicts_total{verdict=\"no_text\"} 2",
            "pushward_publishes_total{transport=\"session\",outcome=\"accepted\"} 1",
            "pushward_spool_failed_total 1",
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

    #[test]
    fn what_was_measured_before_is_forgotten() {
        let metrics = Metrics::new();
        metrics.text(Measured { live: 2, dark: 3, wakes_waiting: Some(4) }).unwrap();
        let text = metrics.text(Measured::default()).unwrap();
        assert!(text.contains("pushward_sessions{state=\"dark\"} 0\n"), "{text}");
    }
}
