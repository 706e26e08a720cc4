//! Arrival times of stanzas, for their delay stamps. No two stanzas of a session have the same time, so that no client
//! reorders them.

use std::time::Duration;

use crate::clock::UnixMillis;

/// The newest stamp of a session.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Stamps(UnixMillis);

/// The difference by which a stamp is later than the clock, in steps of 32 ms. It is small because every waiting stanza has
/// one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Ahead(u8);

impl Ahead {
    const STEP: u32 = 32;

    fn of(by: Duration) -> Self {
        Self(u8::try_from(by.as_millis().div_ceil(Self::STEP.into())).unwrap_or(u8::MAX))
    }

    /// The difference, rounded up to a step.
    pub(super) fn duration(self) -> Duration {
        Duration::from_millis((u32::from(self.0) * Self::STEP).into())
    }
}

/// The stamp of a stanza.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The time of the stanza, later than all earlier stamps.
    pub(super) received: UnixMillis,
    /// The difference by which it is later than the clock, as far as it fits.
    pub(super) ahead: Ahead,
}

impl Stamps {
    /// Returns the stamp of a stanza that comes now.
    pub(super) fn next(&mut self, now: UnixMillis) -> Stamp {
        self.0 = now.max(self.0.plus(Duration::from_millis(1)));
        Stamp { received: self.0, ahead: Ahead::of(self.0.since(now)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_rise_whatever_the_clock_does() {
        let mut stamps = Stamps::default();
        let given = [105, 105, 105, 107, 108, 109, 3, 70_000].map(|now| stamps.next(UnixMillis::new(now)));
        assert_eq!(given.map(|stamp| stamp.received.get()), [105, 106, 107, 108, 109, 110, 111, 70_000]);
        assert_eq!(given.map(|stamp| stamp.ahead.duration().as_millis()), [0, 32, 32, 32, 32, 32, 128, 0]);
        assert_eq!(
            stamps.next(UnixMillis::default()),
            Stamp { received: UnixMillis::new(70_001), ahead: Ahead(u8::MAX) }
        );
    }
}
