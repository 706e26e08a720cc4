//! One leg of stream management (XEP-0198): exact counters, modulo 2^32.

pub mod nonza;

use thiserror::Error;

use crate::xml::{XmlWriter, ns};

/// A count of handled stanzas: XEP-0198 §4 `h`, which wraps from 2^32-1 to 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Handled(u32);

impl Handled {
    /// Creates a count from its value on the wire.
    pub fn new(h: u32) -> Self {
        Self(h)
    }

    /// Reads an `h` attribute: decimal digits only, below 2^32.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        text.parse().ok().map(Self)
    }

    /// Converts the count of a whole session to its value on the wire.
    pub fn wrapping(count: u64) -> Self {
        // The remainder is below 2^32, so the conversion cannot fail.
        Self(u32::try_from(count & u64::from(u32::MAX)).unwrap_or_default())
    }

    /// The number for the wire.
    pub fn get(self) -> u32 {
        self.0
    }

    fn plus(self, n: u32) -> Self {
        Self(self.0.wrapping_add(n))
    }

    /// The difference to an earlier count.
    pub fn since(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }
}

/// Error: the peer acknowledged stanzas that were never sent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the peer acknowledged {} stanzas, but only {} were sent", h.0, sent.0)]
pub struct TooHigh {
    /// The count that the peer claims.
    pub h: Handled,
    /// The count of sent stanzas.
    pub sent: Handled,
}

impl TooHigh {
    /// The `<handled-count-too-high/>` of XEP-0198 §6.
    pub fn condition(self) -> bytes::Bytes {
        let mut xml = XmlWriter::new();
        xml.start("handled-count-too-high")
            .attr("xmlns", ns::SM)
            .attr("h", &self.h.0.to_string())
            .attr("send-count", &self.sent.0.to_string());
        xml.finish()
    }
}

/// The counters of one leg since `<enabled/>`.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct ClientLeg {
    sent: Handled,
    acked: Handled,
    /// The number of stanzas written before `<enable/>`. The first ack confirms them as well.
    preceding: usize,
}

impl ClientLeg {
    /// Creates a leg on whose stream `preceding` stanzas were sent before, and not acknowledged.
    pub fn behind(preceding: usize) -> Self {
        Self { preceding, ..Self::default() }
    }

    /// Counts a stanza that was written to the peer.
    pub fn on_sent(&mut self) {
        self.sent = self.sent.plus(1);
    }

    /// The count of stanzas written to the peer.
    pub fn sent(&self) -> Handled {
        self.sent
    }

    /// The number of stanzas that were written and not acknowledged.
    pub fn unacked(&self) -> usize {
        let unacked = self.sent.since(self.acked);
        usize::try_from(unacked).unwrap_or(usize::MAX).saturating_add(self.preceding)
    }

    /// Checks an `h` of the peer.
    ///
    /// # Errors
    /// [`TooHigh`] when it claims stanzas that were never sent.
    pub fn check(&self, h: Handled) -> Result<(), TooHigh> {
        self.newly_acked(h).map(drop)
    }

    /// Takes the peer's `h`, and returns the number of newly acknowledged stanzas.
    ///
    /// # Errors
    /// [`TooHigh`] when it claims stanzas that were never sent.
    pub fn acknowledge(&mut self, h: Handled) -> Result<usize, TooHigh> {
        let newly = self.newly_acked(h)?;
        self.acked = self.acked.plus(newly);
        let newly = usize::try_from(newly).unwrap_or(usize::MAX);
        Ok(newly.saturating_add(std::mem::take(&mut self.preceding)))
    }

    /// Resets the count of sent stanzas. Those after the peer's last `h` will be written again, with the same numbers
    /// (XEP-0198 §5).
    pub fn rewind(&mut self) {
        self.sent = self.acked;
    }

    fn newly_acked(&self, h: Handled) -> Result<u32, TooHigh> {
        let newly = h.since(self.acked);
        if newly <= self.sent.since(self.acked) {
            Ok(newly)
        } else if newly > u32::MAX / 2 {
            // Serial arithmetic: an `h` below the last one is old, not an error.
            Ok(0)
        } else {
            Err(TooHigh { h, sent: self.sent })
        }
    }
}

/// The way in which the client acknowledges written stanzas.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) enum Tracking {
    /// It does not: written stanzas count as read.
    None,
    /// By stream management.
    Sm(ClientLeg),
    /// By answers to pings, for a client with a registration and without stream management. Contains the open ping's id and
    /// count.
    Ping(ClientLeg, Option<(String, Handled)>),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leg(sent: u32, acked: u32) -> ClientLeg {
        ClientLeg { sent: Handled(sent), acked: Handled(acked), preceding: 0 }
    }

    #[test]
    fn counters_wrap_at_two_to_the_thirty_two() {
        let mut wrapped = leg(u32::MAX, u32::MAX);
        wrapped.on_sent();
        wrapped.on_sent();
        assert_eq!(wrapped.acknowledge(Handled(1)), Ok(2));
        assert_eq!(wrapped.acknowledge(Handled(1)), Ok(0));
        assert_eq!(Handled::wrapping(1 << 32), Handled(0));
    }

    #[test]
    fn an_h_beyond_what_was_sent_is_too_high() {
        assert_eq!(leg(8, 3).acknowledge(Handled(10)), Err(TooHigh { h: Handled(10), sent: Handled(8) }));
        assert_eq!(leg(8, 3).acknowledge(Handled(8)), Ok(5));
    }

    #[test]
    fn an_h_behind_the_last_one_acknowledges_nothing() {
        assert_eq!(leg(8, 3).acknowledge(Handled(2)), Ok(0));
    }

    #[test]
    fn an_h_is_digits_below_two_to_the_thirty_two() {
        assert_eq!(Handled::parse("4294967295"), Some(Handled(u32::MAX)));
        for bad in ["", "4294967296", "-1", "+1", " 1", "1.0", "x"] {
            assert_eq!(Handled::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_was_not_acked_gets_the_same_numbers_again() {
        let mut leg = leg(8, 3);
        leg.rewind();
        leg.on_sent();
        assert_eq!(leg.acknowledge(Handled(4)), Ok(1));
    }
}
