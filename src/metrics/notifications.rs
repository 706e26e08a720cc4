//! Counters of decisions to notify and of notifications.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::fate::Fates;
use super::labels::{Labels, gauge};
use super::latency::Latency;
use super::outcome::verdicts;
use crate::config::Transport;
use crate::push::outcome::Outcome;

/// The counters of decisions and notifications.
#[derive(Debug)]
pub(super) struct Notifications {
    verdicts: Family<Labels<1>, Counter>,
    publishes: Family<Labels<2>, Counter>,
    publish_times: Family<Labels<1>, Histogram>,
    delay: Latency,
    fates: Fates,
    wakes_waiting: Gauge,
}

impl Default for Notifications {
    fn default() -> Self {
        Self {
            verdicts: Family::default(),
            publishes: Family::default(),
            publish_times: Family::new_with_constructor(Latency::histogram),
            delay: Latency::default(),
            fates: Fates::default(),
            wakes_waiting: Gauge::default(),
        }
    }
}

impl Notifications {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "verdicts",
            "Push verdicts: why a stanza caused a notification, or why not",
            self.verdicts.clone(),
        );
        registry.register("publishes", "Push notifications, by outcome and transport", self.publishes.clone());
        let help =
            "Time from sending a push notification to the answer of the push service or to the timeout, by transport";
        registry.register_with_unit("publish", help, Unit::Seconds, self.publish_times.clone());
        let help =
            "Time from the first stanza that notifies to its push notification; includes batch_delay and min_interval";
        registry.register_with_unit("notification_delay", help, Unit::Seconds, self.delay.shared());
        let help =
            "Stanzas from push services on server-to-server streams that are not answers to notifications, by fate";
        registry.register("push_service_stanzas", help, self.fates.shared());
        registry.register("wakes_waiting", "Devices waiting for a wake push", self.wakes_waiting.clone());
    }

    pub(super) fn begin_at_zero(&self) {
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

    pub(super) fn set_wakes_waiting(&self, devices: u64) {
        self.wakes_waiting.set(gauge(devices));
    }

    pub(super) fn fates(&self) -> Fates {
        self.fates.clone()
    }

    pub(super) fn verdict(&self, verdict: &'static str) {
        self.verdicts.get_or_create(&[("verdict", verdict)]).inc();
    }

    /// Returns the number of decisions of each kind.
    pub(super) fn verdicts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        verdicts()
            .map(|verdict| verdict.name())
            .map(|name| (name, self.verdicts.get_or_create(&[("verdict", name)]).get()))
    }

    pub(super) fn publish(&self, transport: &'static str, outcome: &'static str) {
        self.publishes.get_or_create(&[("transport", transport), ("outcome", outcome)]).inc();
    }

    /// Returns the number of publishes, by transport and outcome.
    pub(super) fn publishes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let transports = Transport::ALL.map(Transport::name).into_iter().chain(["none"]);
        let each = transports.flat_map(|transport| Outcome::NAMES.into_iter().map(move |outcome| (transport, outcome)));
        each.map(|(transport, outcome)| {
            let count = self.publishes.get(&[("transport", transport), ("outcome", outcome)]);
            (outcome, count.map_or(0, |count| count.get()))
        })
    }

    pub(super) fn publish_took(&self, transport: Transport, took: Duration) {
        self.publish_times.get_or_create(&[("transport", transport.name())]).observe(took.as_secs_f64());
    }

    pub(super) fn notified(&self, delay: Duration) {
        self.delay.observe(delay);
    }
}
