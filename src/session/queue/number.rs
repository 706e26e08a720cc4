//! The numbers of the stanzas in a queue: they give the order, and for stanzas of the own spool they are its keys.
//!
//! A stanza that comes now gets the next multiple of [`STRIDE`]. Between two such numbers there is room: adopted stanzas follow
//! the multiple directly, stanzas inherited from earlier sessions have the upper half.

use std::ops::RangeInclusive;

use crate::seq::Seq;

/// The distance between the numbers of two stanzas that came one after the other.
pub const STRIDE: u64 = 1 << 32;

/// The number of the first stanza that comes.
pub(super) const FIRST: Seq = Seq::new(STRIDE);

/// How many numbers are reserved for adopted stanzas at once.
const RESERVED: u64 = 1 << 20;

/// Inherited stanzas have numbers in the upper half of a stride.
const INHERITED: u64 = 1 << 31;

/// Numbers that are left when the session has to end, so that what comes until its end still has one.
const LAST: Seq = Seq::new(u64::MAX - (STRIDE << 16));

/// Whether this is the number of a stanza that lies in the spool of an earlier session.
pub(super) fn is_inherited(seq: Seq) -> bool {
    seq.get() % STRIDE >= INHERITED
}

/// The first number of the kind that a new stanza gets, behind this one.
pub(super) fn next_own(seq: Seq) -> Seq {
    Seq::new((seq.get() / STRIDE).saturating_add(1).saturating_mul(STRIDE))
}

/// The number of the n-th inherited stanza of the session, in the room before `before`. `None` if there are too many.
pub(super) fn inherited(before: Seq, n: u64) -> Option<Seq> {
    before.checked_minus(STRIDE).filter(|_| n < STRIDE - INHERITED).map(|slot| slot.plus(INHERITED + n))
}

/// Whether the numbers come to their end: a session has 2^32 of them.
fn is_last(seq: Seq) -> bool {
    seq >= LAST
}

/// Gives numbers to the stanzas that come.
#[derive(Debug)]
pub(super) struct Numbers {
    next: Seq,
}

impl Default for Numbers {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Numbers {
    /// Returns the number of a stanza that comes now.
    pub(super) fn take(&mut self) -> Seq {
        let seq = self.next;
        self.next = seq.plus(STRIDE);
        seq
    }

    /// Returns numbers for adopted stanzas, which come before all stanzas that come from now on.
    pub(super) fn reserve(&mut self) -> RangeInclusive<Seq> {
        let first = self.take();
        first..=first.plus(RESERVED - 1)
    }

    /// The number of the newest stanza, or of none that came yet.
    pub(super) fn newest(&self) -> Seq {
        self.next.previous()
    }

    /// Whether the numbers come to their end.
    pub(super) fn is_exhausted(&self) -> bool {
        is_last(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inherited_stanzas_are_between_the_adopted_ones_and_the_next_own_one() {
        let own = Seq::new(3 * STRIDE);
        let adopted = own.plus(RESERVED - 1);
        let inherited = inherited(next_own(adopted), 0).unwrap();
        assert!(adopted < inherited && inherited < next_own(own), "{adopted} {inherited}");
        assert_eq!([own, adopted, inherited].map(is_inherited), [false, false, true]);
    }

    #[test]
    fn the_numbers_end_before_they_overflow() {
        assert!(is_last(next_own(Seq::new(u64::MAX - STRIDE))) && !is_last(Seq::new(STRIDE << 31)));
        assert_eq!(inherited(next_own(Seq::new(5)), STRIDE), None);
        assert_eq!(inherited(Seq::ZERO, 0), None);
    }
}
