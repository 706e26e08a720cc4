//! When stanzas came, for their delay stamps: no two of a session came at once, so that no client shows them in another order.

/// The newest stamp of a session, in Unix milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stamps(u64);

/// How much later a stamp is than the clock said, in steps of 32 ms: there is one in every stanza that waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ahead(u8);

impl Ahead {
    const STEP: u64 = 32;

    fn of(milliseconds: u64) -> Self {
        Self(u8::try_from(milliseconds.div_ceil(Self::STEP)).unwrap_or(u8::MAX))
    }

    /// In milliseconds, rounded up.
    pub(super) fn milliseconds(self) -> u64 {
        u64::from(self.0) * Self::STEP
    }
}

/// The stamp of a stanza.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Unix milliseconds, higher than all that were given before.
    pub(super) received: u64,
    /// How much later that is than the clock said, as far as it fits.
    pub(super) ahead: Ahead,
}

impl Stamps {
    /// The stamp of a stanza that comes at this time in Unix milliseconds.
    pub(super) fn next(&mut self, now: u64) -> Stamp {
        self.0 = now.max(self.0.saturating_add(1));
        Stamp { received: self.0, ahead: Ahead::of(self.0 - now) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_rise_whatever_the_clock_does() {
        let mut stamps = Stamps::default();
        let given = [105, 105, 105, 107, 108, 109, 3, 70_000].map(|now| stamps.next(now));
        assert_eq!(given.map(|stamp| stamp.received), [105, 106, 107, 108, 109, 110, 111, 70_000]);
        assert_eq!(given.map(|stamp| stamp.ahead.milliseconds()), [0, 32, 32, 32, 32, 32, 128, 0]);
        assert_eq!(stamps.next(0), Stamp { received: 70_001, ahead: Ahead(u8::MAX) });
    }
}
