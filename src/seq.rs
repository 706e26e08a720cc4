//! [`Seq`]: the place of a stanza in a session's queue and in the spool.

use std::fmt;
use std::num::NonZeroU64;

/// The number of a stanza in a session's queue and in its spool. Stanzas are delivered in this order. A number is never
/// reused in a spool.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Seq(u64);

impl Seq {
    /// The place before all stanzas.
    pub const ZERO: Self = Self(0);
    /// The highest number.
    pub const MAX: Self = Self(u64::MAX);

    /// Creates the place with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Returns the number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Returns the following place. The highest place returns itself.
    #[must_use]
    pub const fn next(self) -> Self {
        self.plus(1)
    }

    /// Returns the following place, if there is one.
    pub fn checked_next(self) -> Option<Self> {
        self.checked_plus(1)
    }

    /// Returns the preceding place. Zero returns itself.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// Returns the place `by` further on, or the highest place if there is none.
    #[must_use]
    pub const fn plus(self, by: u64) -> Self {
        Self(self.0.saturating_add(by))
    }

    /// Returns the place `by` further on, if there is one.
    pub fn checked_plus(self, by: u64) -> Option<Self> {
        self.0.checked_add(by).map(Self)
    }

    /// Returns the place `by` before, if there is one.
    pub fn checked_minus(self, by: u64) -> Option<Self> {
        self.0.checked_sub(by).map(Self)
    }

    /// Returns the distance from `earlier` to this place, or zero if `earlier` is the later one.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a stanza on the stream to or from the server, which is also the count of stanzas up to it: the `h` of XEP-0198 §4
/// for that stream, before it wraps. The first stanza has the number 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct ServerSeq(
    /// One more than the number, so that an `Option` of it costs nothing.
    NonZeroU64,
);

impl ServerSeq {
    /// Before all stanzas.
    pub const ZERO: Self = Self::new(0);

    /// The place behind so many stanzas.
    pub const fn new(count: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(count))
    }

    /// Returns the number.
    pub const fn get(self) -> u64 {
        self.0.get() - 1
    }

    /// Returns the number that follows.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Returns the number before; zero comes before itself.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self::new(self.get().saturating_sub(1))
    }

    /// Returns the number that is `by` before, if there is one.
    pub fn checked_minus(self, by: u64) -> Option<Self> {
        self.get().checked_sub(by).map(Self::new)
    }

    /// Returns the count of stanzas from `earlier` to this one; zero if `earlier` is behind it.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.get().saturating_sub(earlier.0.get())
    }
}

impl Default for ServerSeq {
    fn default() -> Self {
        Self::ZERO
    }
}

impl fmt::Debug for ServerSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

#[cfg(test)]
impl Seq {
    /// Returns the range of the places with these numbers.
    pub(crate) fn range(numbers: std::ops::RangeInclusive<u64>) -> std::ops::RangeInclusive<Self> {
        Self(*numbers.start())..=Self(*numbers.end())
    }
}
