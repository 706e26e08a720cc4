//! Throttling of a client that sends too fast: it is read more slowly, and nothing that it sent is dropped. Each session has
//! one [`Throttle`].

use super::Limit;
use super::bucket::{Bucket, Rate};
use crate::clock::Instant;

/// The current rates; `None` means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// `stanza_rate`
    pub stanzas: Option<Rate>,
    /// `bandwidth`
    pub bytes: Option<Rate>,
}

/// The allowances of a session for both rates.
#[derive(Clone, Copy, Debug, Default)]
pub struct Throttle {
    stanzas: Bucket,
    bytes: Bucket,
    /// True if the client is being throttled and this was reported.
    held: bool,
}

impl Throttle {
    /// Counts a stanza of the client. Nonzas and white space are not counted here, so this rate does not slow stream
    /// management and keepalives.
    pub fn stanza(&mut self, now: Instant, rates: Rates) {
        if let Some(rate) = rates.stanzas {
            self.stanzas.take(now, rate, 1);
        }
    }

    /// Counts bytes of the client.
    pub fn bytes(&mut self, now: Instant, rates: Rates, count: usize) {
        if let Some(rate) = rates.bytes {
            self.bytes.take(now, rate, count as u64);
        }
    }

    /// Returns the time at which the client may be read again, if not now.
    pub fn resumes_at(&self, now: Instant, rates: Rates) -> Option<Instant> {
        let stanzas = rates.stanzas.and_then(|rate| self.stanzas.ready_at(now, rate));
        stanzas.max(rates.bytes.and_then(|rate| self.bytes.ready_at(now, rate)))
    }

    /// Returns the limit that throttles the client, once for each time that throttling begins.
    pub fn newly_held(&mut self, now: Instant, rates: Rates) -> Option<Limit> {
        let stanzas = rates.stanzas.and_then(|rate| self.stanzas.ready_at(now, rate));
        let held = self.resumes_at(now, rates);
        let was = std::mem::replace(&mut self.held, held.is_some());
        let limit = if held == stanzas { Limit::StanzaRate } else { Limit::Bandwidth };
        (held.is_some() && !was).then_some(limit)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn rates(stanzas: usize, bytes: usize) -> Rates {
        Rates { stanzas: Rate::per_second(stanzas), bytes: Rate::per_second(bytes) }
    }

    #[test]
    fn without_rates_no_client_is_throttled() {
        let (now, mut throttle) = (Instant::now(), Throttle::default());
        for _ in 0..100_000 {
            throttle.stanza(now, Rates::default());
            throttle.bytes(now, Rates::default(), 1 << 20);
        }
        assert_eq!(throttle.resumes_at(now, Rates::default()), None);
        assert_eq!(throttle.newly_held(now, Rates::default()), None);
    }

    #[test]
    fn the_slower_of_both_rates_throttles_and_is_reported_once() {
        let (now, rates, mut throttle) = (Instant::now(), rates(10, 1000), Throttle::default());
        throttle.stanza(now, rates);
        throttle.bytes(now, rates, 5000);
        assert_eq!(throttle.resumes_at(now, rates), Some(now + Duration::from_secs(3)));
        assert_eq!(throttle.newly_held(now, rates), Some(Limit::Bandwidth));
        assert_eq!(throttle.newly_held(now, rates), None);
        let later = now + Duration::from_secs(3);
        assert_eq!(throttle.newly_held(later, rates), None);
        for _ in 0..60 {
            throttle.stanza(later, rates);
        }
        assert_eq!(throttle.resumes_at(later, rates), Some(later + Duration::from_secs(4)));
        assert_eq!(throttle.newly_held(later, rates), Some(Limit::StanzaRate));
    }
}
