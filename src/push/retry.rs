//! The retry times of a publish that did not reach its push service.

use std::time::Duration;

use crate::clock::Instant;

/// The first pause. Each following pause is twice as long.
const PAUSE: Duration = Duration::from_secs(10);
/// The time for which a publish is retried.
const PATIENCE: Duration = Duration::from_secs(60 * 60);

/// The retries of one publish. The pauses double, and the last retry is one hour after the first failure.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub struct Backoff {
    since: Instant,
    attempt: u32,
}

impl Backoff {
    /// Starts at the first failure of a publish.
    pub fn new(now: Instant) -> Self {
        Self { since: now, attempt: 0 }
    }

    /// Returns the time of the next retry after a failure at `now`, or `None` if there is no further retry.
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
    fn a_publish_is_retried_with_growing_pauses_for_an_hour() {
        let start = Instant::now();
        let (mut backoff, mut now, mut times) = (Backoff::new(start), start, Vec::new());
        while let Some(at) = backoff.next(now) {
            times.push((at - start).as_secs());
            now = at;
        }
        assert_eq!(times, [10, 30, 70, 150, 310, 630, 1270, 2550, 3600]);
    }
}
