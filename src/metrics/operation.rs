//! What is counted of how it is run: limits, reloads, certificates.

use super::{Metrics, gauge};

impl Metrics {
    pub(super) fn register_operation(&mut self) {
        let registry = self.registry.sub_registry_with_prefix("pushward");
        registry.register("limit_reached", "Who was slowed, refused or cut off", self.limits_reached.clone());
        registry.register("reloads", "Reloads of the configuration, by what came of them", self.reloads.clone());
        let help = "When the configuration was last taken, at a start or a reload";
        registry.register("reload_success_timestamp_seconds", help, self.reload_success.clone());
        let help = "When a host's certificate ends";
        registry.register("certificate_expiry_timestamp_seconds", help, self.certificate_expiry.clone());
        let help = "1 if a host's certificate has the problem";
        registry.register("certificate_problem", help, self.certificate_problem.clone());
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
}
