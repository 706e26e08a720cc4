//! When a device that cannot be reached is notified: at the leading edge of a burst, then at most once per interval.

use std::time::{Duration, Instant};

/// The push clock of one device.
///
/// A stanza for a device that has been unreachable for `batch_delay` notifies at once; one that came earlier, or was unacked
/// when the device became unreachable, when that time is over. Then at most one push leaves per `min_interval`, and the
/// trailing one is never lost.
#[derive(Clone, Debug)]
pub struct Schedule {
    batch_delay: Duration,
    min_interval: Duration,
    last_push: Option<Instant>,
    due: Option<Instant>,
    /// The newest stanza that a push was about. None before it notifies again.
    notified: u64,
}

impl Schedule {
    /// A device about which nothing was pushed yet.
    pub fn new(batch_delay: Duration, min_interval: Duration) -> Self {
        Self { batch_delay, min_interval, last_push: None, due: None, notified: 0 }
    }

    /// The important stanza at place `seq` waits for a device that has been unreachable since `since`.
    pub fn waiting(&mut self, now: Instant, since: Instant, seq: u64) {
        if seq <= self.notified || self.due.is_some() {
            return;
        }
        let settled = since + self.batch_delay;
        let allowed = self.last_push.map_or(settled, |last| settled.max(last + self.min_interval));
        self.due = Some(allowed.max(now));
    }

    /// When the next push leaves.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether the push is due now; it then covers all important stanzas up to place `newest`.
    pub fn fire(&mut self, now: Instant, newest: u64) -> bool {
        if self.due.is_none_or(|due| due > now) {
            return false;
        }
        self.due = None;
        self.last_push = Some(now);
        self.notified = newest;
        true
    }

    /// The device is in contact: nothing need be said.
    pub fn cancel(&mut self) {
        self.due = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BATCH: Duration = Duration::from_secs(1);
    const INTERVAL: Duration = Duration::from_secs(20);

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn the_first_stanza_for_a_device_long_dark_notifies_at_once() {
        let start = Instant::now();
        let mut schedule = Schedule::new(BATCH, INTERVAL);
        schedule.waiting(at(start, 5_000), start, 1);
        assert_eq!(schedule.due(), Some(at(start, 5_000)));
        assert!(schedule.fire(at(start, 5_000), 1));
    }

    #[test]
    fn a_burst_around_going_dark_is_one_push_when_the_batch_delay_is_over() {
        let start = Instant::now();
        let mut schedule = Schedule::new(BATCH, INTERVAL);
        schedule.waiting(start, start, 1);
        schedule.waiting(at(start, 300), start, 2);
        assert!(!schedule.fire(at(start, 999), 2));
        assert!(schedule.fire(at(start, 1_000), 2));
        assert!(!schedule.fire(at(start, 2_000), 2));
    }

    #[test]
    fn what_comes_within_the_interval_is_pushed_at_its_end() {
        let start = Instant::now();
        let mut schedule = Schedule::new(BATCH, INTERVAL);
        schedule.waiting(at(start, 5_000), start, 1);
        assert!(schedule.fire(at(start, 5_000), 1));
        schedule.waiting(at(start, 6_000), start, 2);
        schedule.waiting(at(start, 7_000), start, 3);
        assert_eq!(schedule.due(), Some(at(start, 25_000)));
        assert!(schedule.fire(at(start, 25_000), 3));
        assert_eq!(schedule.due(), None);
    }

    #[test]
    fn a_stanza_notifies_only_once_and_contact_cancels() {
        let start = Instant::now();
        let mut schedule = Schedule::new(BATCH, INTERVAL);
        schedule.waiting(at(start, 5_000), start, 7);
        assert!(schedule.fire(at(start, 5_000), 7));
        schedule.waiting(at(start, 60_000), at(start, 50_000), 7);
        assert_eq!(schedule.due(), None);
        schedule.waiting(at(start, 60_000), at(start, 50_000), 8);
        schedule.cancel();
        assert!(!schedule.fire(at(start, 90_000), 8));
    }
}
