//! Certificates that clients will object to, or soon will: said in the log and in the metrics, in time to be renewed.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::Relay;
use super::snapshot::Snapshot;
use crate::net::certificate::{self, Defect};

/// How often they are looked at.
pub(super) const EVERY: Duration = Duration::from_secs(60 * 60);
/// How long nothing more is said of a defect.
const SAID: Duration = Duration::from_secs(24 * 60 * 60);

/// What was said, and when.
#[derive(Debug, Default)]
pub(super) struct Said(Mutex<HashMap<(String, Defect), SystemTime>>);

impl Said {
    /// Whether a defect is news, or was not told for a day; if so, it is told now.
    fn is_due(&self, domain: &str, defect: Defect, now: SystemTime) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = said.get(&(domain.to_owned(), defect));
        let is_due = last.is_none_or(|at| now.duration_since(*at).is_ok_and(|age| age >= SAID));
        if is_due {
            said.insert((domain.to_owned(), defect), now);
        }
        is_due
    }

    /// All are told again.
    fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Relay {
    /// Says what is wrong with the current certificates, each defect at once.
    pub(super) fn look_at_certificates(&self) {
        self.certificates_said.forget();
        self.watch_certificates();
    }

    /// Says what is wrong with the current certificates, each defect once a day.
    pub(super) fn watch_certificates(&self) {
        let (snapshot, now) = (self.current(), SystemTime::now());
        self.metrics.forget_certificates();
        for (domain, key) in &snapshot.keys {
            let defects = certificate::judge(key, domain, now);
            let problems = Defect::ALL.map(|defect| (defect.name(), defects.contains(&defect)));
            self.metrics.certificate(domain, certificate::not_after(key), problems);
            for defect in defects.into_iter().filter(|defect| self.certificates_said.is_due(domain, *defect, now)) {
                let file = file(&snapshot, domain);
                tracing::warn!(%domain, file, cause = %defect, remedy = defect.remedy(), "certificate problem");
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
    fn a_defect_is_told_once_a_day_for_each_host() {
        let (said, start) = (Said::default(), SystemTime::now());
        let is_due = |domain, after| said.is_due(domain, Defect::ExpiresSoon, start + after);
        assert!(is_due("one.test", Duration::ZERO));
        assert!(!is_due("one.test", SAID - EVERY));
        assert!(is_due("two.test", SAID - EVERY));
        assert!(said.is_due("one.test", Defect::Expired, start));
        assert!(is_due("one.test", SAID));
        assert!(!is_due("one.test", SAID + EVERY));
        said.forget();
        assert!(is_due("one.test", SAID + EVERY));
    }
}
