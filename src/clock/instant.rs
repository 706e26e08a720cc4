//! [`Instant`]: a time for deadlines, which another process can continue with.

use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A time on the clock that counts from the start of the machine and also while it is suspended (`CLOCK_BOOTTIME`). It never
/// jumps, and all processes of a machine read the same value, so that a session can be handed over with its deadlines.
///
/// Sums and differences stop at the ends of the range, which is 292 years in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Instant(i64);

impl Instant {
    /// Reads the clock, through the C library: Valgrind, which `benches/guard` uses, cannot run rustix's own access to it.
    ///
    /// # Panics
    ///
    /// Panics on systems without `CLOCK_BOOTTIME` (Linux before 2.6.39).
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("every Linux since 2.6.39 has this clock");
        Self(time.tv_sec().saturating_mul(1_000_000_000).saturating_add(time.tv_nsec()))
    }

    /// Returns the time from `earlier` to this one; zero if `earlier` is later.
    pub fn duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or_default())
    }

    /// Returns the time from `earlier` to this one, or `None` if `earlier` is later.
    pub fn checked_duration_since(self, earlier: Self) -> Option<Duration> {
        (earlier <= self).then(|| self.duration_since(earlier))
    }

    /// Returns the time since this one.
    pub fn elapsed(self) -> Duration {
        Self::now().duration_since(self)
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(duration)))
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.duration_since(earlier)
    }
}

/// The same time for a timer of the runtime, whose clock stands still while the machine is suspended.
impl From<Instant> for tokio::time::Instant {
    fn from(at: Instant) -> Self {
        let (now, timer) = (Instant::now(), Self::now());
        match at.checked_duration_since(now) {
            Some(left) => timer.checked_add(left).unwrap_or_else(|| timer + Duration::from_secs(u32::MAX.into())),
            None => timer.checked_sub(now - at).unwrap_or(timer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_differences_do_not_overflow() {
        let now = Instant::now();
        assert_eq!(now + Duration::MAX, Instant(i64::MAX));
        assert_eq!((now + Duration::from_secs(5)) - now, Duration::from_secs(5));
        assert_eq!(now - (now + Duration::from_secs(5)), Duration::ZERO);
        assert!(now - Duration::from_secs(3_000_000_000) < now);
        assert_eq!(now.checked_duration_since(now + Duration::from_nanos(1)), None);
    }

    #[test]
    fn it_is_written_as_a_number() {
        assert_eq!(serde_json::to_string(&Instant(5)).unwrap(), "5");
    }

    #[tokio::test]
    async fn a_timer_fires_at_its_time() {
        let at = Instant::now() + Duration::from_millis(20);
        tokio::time::sleep_until(at.into()).await;
        assert!(Instant::now() + Duration::from_millis(1) >= at);
        assert!(tokio::time::Instant::from(Instant(i64::MAX)) > tokio::time::Instant::now());
    }
}
