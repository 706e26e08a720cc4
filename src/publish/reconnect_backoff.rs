//! [`ReconnectBackoff`]: the pause before one of our own streams is connected again.

use std::time::Duration;

use super::error::UnsentReason;
use crate::clock::Instant;

/// The minimum pause between two attempts to connect.
const SHORTEST: Duration = Duration::from_secs(1);
/// The maximum pause between two attempts to connect.
const LONGEST: Duration = Duration::from_secs(5 * 60);

/// The pause after failed attempts to connect. It doubles with each failure. The actual pause is random, from half of that
/// value to all of it.
#[derive(Debug, Default)]
pub(super) struct ReconnectBackoff {
    failures: u32,
    until: Option<Instant>,
    reason: Option<UnsentReason>,
}

impl ReconnectBackoff {
    /// Records a failure and starts the next pause.
    pub(super) fn on_failure(&mut self, now: Instant, reason: UnsentReason) {
        let pause = SHORTEST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        self.until = Some(now + pause.mul_f64(rand::random_range(0.5..1.0)));
        self.reason = Some(reason);
    }

    /// Returns the end of the current pause, if there is one.
    pub(super) fn until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }

    /// Returns the failure that caused the current pause.
    pub(super) fn reason(&self, now: Instant) -> Option<&UnsentReason> {
        self.until(now).and(self.reason.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_bounded() {
        let (mut backoff, now) = (ReconnectBackoff::default(), Instant::now());
        for failures in 0..40 {
            backoff.on_failure(now, UnsentReason::StreamOver);
            let pause = backoff.until(now).unwrap() - now;
            let most = SHORTEST.saturating_mul(1 << failures.min(16)).min(LONGEST);
            assert!(pause <= most && pause >= most / 2, "{pause:?} after {failures}");
        }
    }
}
