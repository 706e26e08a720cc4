//! [`Seq`]: the place of a stanza in a session's queue and in the spool.

use std::fmt;

/// The number of a stanza in a session's queue and in its spool. Stanzas are delivered in this order. A number is never
/// reused in a spool.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

#[cfg(test)]
impl Seq {
    /// Returns the range of the places with these numbers.
    pub(crate) fn range(numbers: std::ops::RangeInclusive<u64>) -> std::ops::RangeInclusive<Self> {
        Self(*numbers.start())..=Self(*numbers.end())
    }
}
