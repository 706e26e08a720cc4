//! Push services that have sent more than answers on a stream that was for answers: they are not offered one for a day.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long a push service is published to without answers on the stream.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Push services that are remembered; of more, the one whose day ends first is forgotten.
const KNOWN: usize = 4096;

/// Until when each of them is not asked for answers on the stream.
#[derive(Debug, Default)]
pub(super) struct OneWay(HashMap<String, Instant>);

impl OneWay {
    /// A push service has sent what it may not.
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

    /// Until when a push service is not asked; `None`: it is.
    pub(super) fn until(&self, now: Instant, domain: &str) -> Option<Instant> {
        self.0.get(domain).copied().filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_service_is_remembered_for_a_day_and_their_number_is_bounded() {
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
