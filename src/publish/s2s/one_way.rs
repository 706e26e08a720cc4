//! [`OneWay`]: push services that have sent more than answers on a stream for answers. For a day, no answers are requested
//! from them on the stream.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Instant;

/// The time for which no answers are requested on the stream of a push service.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The limit for push services in the list. Over it, the entry that expires first is dropped.
const KNOWN: usize = 4096;

/// For each push service, the time until which no answers are requested on the stream.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(in crate::publish) struct OneWay(BTreeMap<String, Instant>);

impl OneWay {
    /// Records that a push service has sent something forbidden.
    pub(super) fn note(&mut self, now: Instant, domain: &str) {
        if self.0.len() >= KNOWN && !self.0.contains_key(domain) {
            self.0.retain(|_, until| *until > now);
            let first = self.0.iter().min_by_key(|(_, until)| **until).map(|(domain, _)| domain.clone());
            if let Some(first) = first.filter(|_| self.0.len() >= KNOWN) {
                self.0.remove(&first);
            }
        }
        self.0.insert(domain.to_owned(), now + DAY);
    }

    /// Returns the time until which no answers are requested from a push service. `None`: they are requested.
    pub(super) fn until(&self, now: Instant, domain: &str) -> Option<Instant> {
        self.0.get(domain).copied().filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_service_is_kept_for_a_day_and_their_number_is_limited() {
        let (mut one_way, now) = (OneWay::default(), Instant::now());
        one_way.note(now, "a");
        assert!(one_way.until(now + DAY / 2, "a").is_some() && one_way.until(now, "b").is_none());
        assert!(one_way.until(now + DAY, "a").is_none());
        for n in 0..2 * KNOWN as u64 {
            one_way.note(now + Duration::from_secs(n), &n.to_string());
        }
        assert_eq!(one_way.0.len(), KNOWN);
        assert!(one_way.until(now, "0").is_none() && one_way.until(now, "8000").is_some());
    }
}
