//! Counters of sessions and of the stanzas that they hold in memory.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::labels::{HostLabels, Labels, gauge, of_host};
use super::measured::Measured;
use super::waits::Wait;
use crate::session::liveness::Reach;
use crate::xml::SkipReason;

/// The counters of sessions.
#[derive(Debug, Default)]
pub(super) struct SessionMetrics {
    by_state: Family<HostLabels, Gauge>,
    queued: Gauge,
    queue_bytes: Gauge,
    skipped: Family<Labels<1>, Counter>,
    deadlines_passed: Family<Labels<1>, Counter>,
    failed: Counter,
}

impl SessionMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Sessions by state: live, suspect (acknowledgement overdue), dark (no usable client connection)";
        registry.register("sessions", help, self.by_state.clone());
        let help = "Stanzas from upstream servers that were skipped, not relayed, by reason";
        registry.register("skipped_stanzas", help, self.skipped.clone());
        let help = "Internal waits that exceeded their deadline, by wait";
        registry.register("deadlines_passed", help, self.deadlines_passed.clone());
        let help = "Sessions whose task failed because of a bug in Pushward";
        registry.register("sessions_failed", help, self.failed.clone());
        registry.register(
            "queue_stanzas",
            "Stanzas in memory that wait for an acknowledgement of the client",
            self.queued.clone(),
        );
        let help = "Bytes in memory of stanzas that wait for an acknowledgement of the client, including overhead";
        registry.register_with_unit("queue", help, Unit::Bytes, self.queue_bytes.clone());
    }

    pub(super) fn begin_at_zero(&self) {
        for wait in Wait::ALL {
            drop(self.deadlines_passed.get_or_create(&[("wait", wait.name())]));
        }
        for reason in SkipReason::ALL {
            drop(self.skipped.get_or_create(&[("reason", reason.name())]));
        }
    }

    /// Sets the gauges. A host that is not served any more and has no sessions has no series.
    pub(super) fn measure(&self, measured: &Measured) {
        self.by_state.clear();
        for (host, counts) in &measured.sessions {
            for (state, sessions) in
                [(Reach::Live, counts.live), (Reach::Suspect, counts.suspect), (Reach::Dark, counts.dark)]
            {
                self.by_state.get_or_create(&of_host(host, "state", state.name())).set(gauge(sessions));
            }
        }
        let total = measured.total();
        self.queued.set(gauge(total.queued));
        self.queue_bytes.set(gauge(total.queue_bytes));
    }

    pub(super) fn skipped(&self, reason: SkipReason) {
        self.skipped.get_or_create(&[("reason", reason.name())]).inc();
    }

    pub(super) fn deadline_passed(&self, wait: Wait) {
        self.deadlines_passed.get_or_create(&[("wait", wait.name())]).inc();
    }

    pub(super) fn failed(&self) {
        self.failed.inc();
    }
}
