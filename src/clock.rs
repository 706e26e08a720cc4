//! Calendar time: [`UnixSecs`] and [`UnixMillis`], and the only functions that read the calendar clock. Time for deadlines:
//! [`Instant`], since the calendar clock may jump.
//!
//! The core (`xml`, `session`, `push`, `jid`) uses the types and never calls [`now`], [`unix_secs`], [`unix_millis`] or
//! [`Instant::now`]; its callers pass the time.

mod instant;

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

pub use instant::Instant;

/// Seconds since the Unix epoch. Times before it count as zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixSecs(u64);

/// Milliseconds since the Unix epoch. Times before it count as zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMillis(u64);

/// Reads the calendar clock.
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// Reads the calendar clock, in seconds.
pub fn unix_secs() -> UnixSecs {
    now().into()
}

/// Reads the calendar clock, in milliseconds.
pub fn unix_millis() -> UnixMillis {
    now().into()
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

impl UnixSecs {
    /// Creates the time `secs` seconds after the epoch.
    pub const fn new(secs: u64) -> Self {
        Self(secs)
    }

    /// Returns the seconds since the epoch.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Returns the time from `earlier` to this one; zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }

    /// Returns the time that is `by` later, in whole seconds.
    #[must_use]
    pub const fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by.as_secs()))
    }

    /// Returns the time that is `by` earlier, in whole seconds; the epoch at the earliest.
    #[must_use]
    pub const fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(by.as_secs()))
    }

    /// Returns the same time in milliseconds.
    pub const fn to_millis(self) -> UnixMillis {
        UnixMillis(self.0.saturating_mul(1000))
    }

    /// Returns the same time as a [`SystemTime`], or `None` if that type cannot represent it.
    pub fn to_time(self) -> Option<SystemTime> {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(self.0))
    }
}

impl UnixMillis {
    /// Creates the time `millis` milliseconds after the epoch.
    pub const fn new(millis: u64) -> Self {
        Self(millis)
    }

    /// Returns the milliseconds since the epoch.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Returns the time from `earlier` to this one; zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Returns the time that is `by` later, in whole milliseconds.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Returns the time that is `by` earlier, in whole milliseconds; the epoch at the earliest.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Returns the same time in whole seconds.
    pub const fn to_secs(self) -> UnixSecs {
        UnixSecs(self.0 / 1000)
    }

    /// Returns the same time as a [`SystemTime`], or `None` if that type cannot represent it.
    pub fn to_time(self) -> Option<SystemTime> {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(self.0))
    }
}

impl From<SystemTime> for UnixSecs {
    fn from(time: SystemTime) -> Self {
        Self(since_epoch(time).as_secs())
    }
}

impl From<SystemTime> for UnixMillis {
    fn from(time: SystemTime) -> Self {
        Self(u64::try_from(since_epoch(time).as_millis()).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for UnixSecs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_milliseconds_are_of_the_same_clock() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(12_345);
        let (secs, millis) = (UnixSecs::from(time), UnixMillis::from(time));
        assert_eq!((secs, millis), (UnixSecs::new(12), UnixMillis::new(12_345)));
        assert_eq!((millis.to_secs(), secs.to_millis()), (secs, UnixMillis::new(12_000)));
        assert_eq!(millis.to_time(), Some(time));
        assert_eq!(UnixSecs::from(SystemTime::UNIX_EPOCH - Duration::from_secs(1)), UnixSecs::default());
    }

    #[test]
    fn differences_do_not_go_below_zero() {
        let (early, late) = (UnixSecs::new(1), UnixSecs::new(3));
        assert_eq!((late.since(early), early.since(late)), (Duration::from_secs(2), Duration::ZERO));
        assert_eq!((early.plus(Duration::from_secs(2)), early.minus(Duration::from_secs(5))), (late, UnixSecs::new(0)));
    }

    #[test]
    fn it_is_written_as_a_number() {
        assert_eq!(serde_json::to_string(&UnixSecs::new(5)).unwrap(), "5");
        assert_eq!(serde_json::from_str::<UnixMillis>("7").unwrap(), UnixMillis::new(7));
    }
}
