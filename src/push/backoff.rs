//! The times at which a publish that did not get to its service is repeated.

use std::time::{Duration, Instant};

/// The first pause; it doubles.
const PAUSE: Duration = Duration::from_secs(10);
/// The time for which a publish is repeated.
const PATIENCE: Duration = Duration::from_secs(60 * 60);

/// The repetitions of one publish: ever later, the last one an hour after the first failure.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    since: Instant,
    attempt: u32,
}

impl Backoff {
    /// A publish failed for the first time.
    pub fn new(now: Instant) -> Self {
        Self { since: now, attempt: 0 }
    }

    /// Returns when it is repeated after it failed now; `None`: not again.
    pub fn next(&mut self, now: Instant) -> Option<Instant> {
        let end = self.since + PATIENCE;
        let due = now + PAUSE * 2u32.saturating_pow(self.attempt.min(16));
        self.attempt = self.attempt.saturating_add(1);
        (now < end).then(|| due.min(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_is_repeated_ever_later_for_an_hour() {
        let start = Instant::now();
        let (mut backoff, mut now, mut times) = (Backoff::new(start), start, Vec::new());
        while let Some(at) = backoff.next(now) {
            times.push((at - start).as_secs());
            now = at;
        }
        assert_eq!(times, [10, 30, 70, 150, 310, 630, 1270, 2550, 3600]);
    }
}
