//! Counters of the operation of the process: limits, reloads, handovers, certificates.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::labels::{Labels, gauge};
use super::outcome::{HandoverOutcome, ReloadOutcome};
use crate::clock::UnixSecs;

/// The number of times that each limit was reached.
pub type LimitsReached = Family<Labels<1>, Counter>;

/// The label of sessions that went on in another process.
const KEPT: &str = "kept";
/// The label of sessions that ended at a handover.
const ENDED: &str = "ended";

/// The counters of the operation of the process.
#[derive(Debug, Default)]
pub(super) struct Operation {
    limits_reached: LimitsReached,
    reloads: Family<Labels<1>, Counter>,
    reload_success: Gauge,
    handovers: Family<Labels<1>, Counter>,
    handover_sessions: Family<Labels<1>, Counter>,
    certificate_expiry: Family<[(&'static str, String); 1], Gauge>,
    certificate_problem: Family<[(&'static str, String); 2], Gauge>,
}

impl Operation {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("limit_reached", "Times that a limit was reached, by limit", self.limits_reached.clone());
        registry.register("reloads", "Configuration reloads, by outcome", self.reloads.clone());
        let help = "Time of the last successful configuration load, at start or reload";
        registry.register("reload_success_timestamp_seconds", help, self.reload_success.clone());
        let help = "Handovers between processes, by outcome, as counted by the process that goes on";
        registry.register("handovers", help, self.handovers.clone());
        let help = "Sessions of the previous process, by whether they went on in this one";
        registry.register("handover_sessions", help, self.handover_sessions.clone());
        let help = "Expiry time of the certificate of a host";
        registry.register("certificate_expiry_timestamp_seconds", help, self.certificate_expiry.clone());
        let help = "1 if the certificate of a host has the problem";
        registry.register("certificate_problem", help, self.certificate_problem.clone());
    }

    pub(super) fn begin_at_zero(&self) {
        for outcome in ReloadOutcome::ALL {
            drop(self.reloads.get_or_create(&[("outcome", outcome.name())]));
        }
        for outcome in HandoverOutcome::ALL {
            drop(self.handovers.get_or_create(&[("outcome", outcome.name())]));
        }
        for outcome in [KEPT, ENDED] {
            drop(self.handover_sessions.get_or_create(&[("outcome", outcome)]));
        }
    }

    pub(super) fn limits_reached(&self) -> LimitsReached {
        self.limits_reached.clone()
    }

    pub(super) fn configured(&self, at: UnixSecs) {
        self.reload_success.set(gauge(at.get()));
    }

    pub(super) fn reload(&self, outcome: ReloadOutcome) {
        self.reloads.get_or_create(&[("outcome", outcome.name())]).inc();
    }

    pub(super) fn handover(&self, outcome: HandoverOutcome) {
        self.handovers.get_or_create(&[("outcome", outcome.name())]).inc();
    }

    pub(super) fn handover_sessions(&self, kept: usize, ended: usize) {
        for (outcome, sessions) in [(KEPT, kept), (ENDED, ended)] {
            self.handover_sessions.get_or_create(&[("outcome", outcome)]).inc_by(sessions as u64);
        }
    }

    pub(super) fn forget_certificates(&self) {
        self.certificate_expiry.clear();
        self.certificate_problem.clear();
    }

    pub(super) fn certificate<const N: usize>(
        &self,
        domain: &str,
        not_after: UnixSecs,
        problems: [(&'static str, bool); N],
    ) {
        let domain = || ("domain", domain.to_owned());
        self.certificate_expiry.get_or_create(&[domain()]).set(gauge(not_after.get()));
        for (problem, has) in problems {
            let labels = [domain(), ("problem", problem.to_owned())];
            self.certificate_problem.get_or_create(&labels).set(i64::from(has));
        }
    }
}
