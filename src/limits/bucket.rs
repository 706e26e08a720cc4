//! A token bucket without a clock of its own: bounds the rate of something and the length of a burst. [`Rate`] and [`Bucket`]
//! serve the throttle and the failed logins.

use std::time::Duration;

use crate::clock::Instant;

/// Nanoseconds in a second.
const SECOND: u128 = 1_000_000_000;

/// The rate at which a bucket fills, and its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Units per second, times `nanoseconds` in seconds.
    units: u128,
    nanoseconds: u128,
    /// The time in which an empty bucket becomes full.
    burst: Duration,
}

impl Rate {
    /// Returns a rate of `units` per second with a burst of two seconds' worth, as in Prosody's mod_limits; `None` for 0,
    /// which means no limit.
    pub fn per_second(units: usize) -> Option<Self> {
        let rate = Self { units: units as u128, nanoseconds: SECOND, burst: Duration::from_secs(2) };
        (units > 0).then_some(rate)
    }

    /// Returns a rate of `units` per minute, all of which may come at once; `None` for 0, which means no limit.
    pub fn per_minute(units: usize) -> Option<Self> {
        let rate = Self { units: units as u128, nanoseconds: 60 * SECOND, burst: Duration::from_secs(60) };
        (units > 0).then_some(rate)
    }

    /// Returns the time in which `units` are replenished.
    fn cost(self, units: u64) -> Duration {
        let nanoseconds = (u128::from(units) * self.nanoseconds).div_ceil(self.units.max(1));
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}

/// The rest of an allowance. More may be taken than there is; the caller has to wait until the debt is replenished.
///
/// The rate is an argument of each call, so it may change at any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Bucket {
    /// The time at which it is full again; `None` if it always was.
    full: Option<Instant>,
}

impl Bucket {
    /// Takes units, going into debt if there are not enough.
    pub fn take(&mut self, now: Instant, rate: Rate, units: u64) {
        self.take_at_most(now, rate, units, Duration::MAX);
    }

    /// As [`Bucket::take`], but bounds the time until the debt is replenished.
    pub fn take_at_most(&mut self, now: Instant, rate: Rate, units: u64, debt: Duration) {
        let full = self.full.map_or(now, |full| full.max(now));
        let (after, last) = (full + rate.cost(units), now + rate.burst.saturating_add(debt));
        self.full = Some(after.min(last));
    }

    /// Returns the time at which units are available again, if there are none now.
    pub fn ready_at(&self, now: Instant, rate: Rate) -> Option<Instant> {
        // At this time the last unit was taken; after it, the bucket is in debt.
        self.full.map(|full| full - rate.burst).filter(|at| *at > now)
    }

    /// Returns whether less than a whole unit is available.
    pub fn is_empty(&self, now: Instant, rate: Rate) -> bool {
        self.full.is_some_and(|full| full.duration_since(now) + rate.cost(1) > rate.burst)
    }

    /// Returns whether the bucket is full, so that it need not be kept.
    pub fn is_full(&self, now: Instant) -> bool {
        self.full.is_none_or(|full| full <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_burst_of_two_seconds_passes_and_then_the_rate_holds() {
        let (start, rate) = (Instant::now(), Rate::per_second(10).unwrap());
        let mut bucket = Bucket::default();
        for _ in 0..20 {
            assert_eq!(bucket.ready_at(start, rate), None);
            bucket.take(start, rate, 1);
        }
        // Empty, but not in debt.
        assert_eq!(bucket.ready_at(start, rate), None);
        bucket.take(start, rate, 1);
        let mut now = start;
        for _ in 0..50 {
            let at = bucket.ready_at(now, rate).expect("debt");
            assert_eq!(at - now, 100 * MS);
            now = at;
            bucket.take(now, rate, 1);
        }
        assert!(!bucket.is_full(now + 2099 * MS));
        assert!(bucket.is_full(now + 2100 * MS));
    }

    #[test]
    fn units_taken_at_once_are_replenished_at_the_rate() {
        let (start, rate) = (Instant::now(), Rate::per_second(1000).unwrap());
        let mut bucket = Bucket::default();
        bucket.take(start, rate, 8192);
        assert_eq!(bucket.ready_at(start, rate), Some(start + 6192 * MS));
        assert_eq!(bucket.ready_at(start + 6192 * MS, rate), None);
    }

    #[test]
    fn a_bucket_never_holds_more_than_its_burst() {
        let (start, rate) = (Instant::now(), Rate::per_second(10).unwrap());
        let mut bucket = Bucket::default();
        bucket.take(start, rate, 20);
        let later = start + Duration::from_secs(3600);
        bucket.take(later, rate, 21);
        assert_eq!(bucket.ready_at(later, rate), Some(later + 100 * MS));
    }

    #[test]
    fn a_debt_may_be_bounded_and_nothing_overflows() {
        let (start, rate) = (Instant::now(), Rate::per_minute(30).unwrap());
        let mut bucket = Bucket::default();
        for _ in 0..10_000 {
            bucket.take_at_most(start, rate, 1, Duration::from_secs(600));
        }
        assert_eq!(bucket.ready_at(start, rate), Some(start + Duration::from_secs(600)));
        bucket.take(start, Rate::per_second(1).unwrap(), u64::MAX);
        assert!(!bucket.is_full(start + Duration::from_secs(600)));
    }

    #[test]
    fn zero_is_no_limit_and_another_rate_applies_at_once() {
        assert_eq!(Rate::per_second(0), None);
        assert_eq!(Rate::per_minute(0), None);
        let start = Instant::now();
        let mut bucket = Bucket::default();
        bucket.take(start, Rate::per_second(1).unwrap(), 1);
        bucket.take(start, Rate::per_second(1000).unwrap(), 1000);
        assert_eq!(bucket.ready_at(start, Rate::per_second(1000).unwrap()), None);
    }
}
