//! Checks the certificates: reports those that clients reject, or soon will, in the log and in the metrics.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use super::snapshot::{Current, Snapshot};
use crate::clock;
use crate::metrics::Metrics;
use crate::net::certificate::{self, Defect};
use crate::sync::lock;

/// The interval between two checks of the certificates.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// The time during which a logged defect is not logged again.
const LOG_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// Checks the current certificates.
pub(super) struct CertificateCheck {
    current: Arc<Current>,
    metrics: Arc<Metrics>,
    logged: Mutex<LoggedDefects>,
}

/// The defects that were logged, each with the time.
#[derive(Debug, Default)]
struct LoggedDefects(HashMap<(String, Defect), SystemTime>);

impl LoggedDefects {
    /// Returns whether a defect is new or was last logged a day ago. If so, records it as logged now.
    fn is_due(&mut self, domain: &str, defect: Defect, now: SystemTime) -> bool {
        let last = self.0.get(&(domain.to_owned(), defect));
        let is_due = last.is_none_or(|at| now.duration_since(*at).is_ok_and(|age| age >= LOG_INTERVAL));
        if is_due {
            self.0.insert((domain.to_owned(), defect), now);
        }
        is_due
    }

    /// Forgets all logged defects, so that they are logged again.
    fn forget(&mut self) {
        self.0.clear();
    }
}

impl CertificateCheck {
    pub(super) fn new(current: Arc<Current>, metrics: Arc<Metrics>) -> Self {
        Self { current, metrics, logged: Mutex::default() }
    }

    /// Checks certificates that have just been loaded, and logs every defect.
    pub(super) fn on_loaded(&self) {
        lock(&self.logged).forget();
        self.check();
    }

    /// Checks the certificates, and logs each defect once a day.
    pub(super) fn check(&self) {
        let (snapshot, now) = (self.current.load_full(), clock::now());
        self.metrics.forget_certificates();
        for (domain, key) in &snapshot.keys {
            let defects = certificate::judge(key, domain, now);
            let problems = Defect::ALL.map(|defect| (defect.name(), defects.contains(&defect)));
            self.metrics.certificate(domain, certificate::not_after(key), problems);
            for defect in defects {
                let is_due = lock(&self.logged).is_due(domain, defect, now);
                if is_due {
                    let file = file(&snapshot, domain);
                    tracing::warn!(%domain, file, cause = %defect, remedy = defect.remedy(), "certificate problem");
                }
            }
        }
    }
}

fn file(snapshot: &Snapshot, domain: &str) -> String {
    let host = snapshot.config.hosts.iter().find(|host| host.domain == domain);
    host.map_or_else(String::new, |host| host.certificate.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_defect_is_logged_once_a_day_for_each_host() {
        let (mut logged, start) = (LoggedDefects::default(), SystemTime::now());
        let expires =
            |logged: &mut LoggedDefects, domain, after| logged.is_due(domain, Defect::ExpiresSoon, start + after);
        assert!(expires(&mut logged, "one.test", Duration::ZERO));
        assert!(!expires(&mut logged, "one.test", LOG_INTERVAL - CHECK_INTERVAL));
        assert!(expires(&mut logged, "two.test", LOG_INTERVAL - CHECK_INTERVAL));
        assert!(logged.is_due("one.test", Defect::Expired, start));
        assert!(expires(&mut logged, "one.test", LOG_INTERVAL));
        assert!(!expires(&mut logged, "one.test", LOG_INTERVAL + CHECK_INTERVAL));
        logged.forget();
        assert!(expires(&mut logged, "one.test", LOG_INTERVAL + CHECK_INTERVAL));
    }
}
