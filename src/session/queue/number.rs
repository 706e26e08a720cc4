//! Sequence numbers of queued stanzas. They define the order, and they are the keys of stanzas in the session's own spool.
//!
//! A new stanza gets the next multiple of [`STRIDE`]. The numbers in between are for other stanzas: adopted stanzas
//! directly follow a multiple, and stanzas inherited from earlier sessions use the upper half.

use std::ops::RangeInclusive;

use crate::seq::Seq;

/// The distance between the numbers of two consecutive stanzas.
pub const STRIDE: u64 = 1 << 32;

/// The number of the first stanza.
pub(super) const FIRST: Seq = Seq::new(STRIDE);

/// The size of a range that is reserved for adopted stanzas.
const RESERVED: u64 = 1 << 20;

/// The first offset within a stride that belongs to inherited stanzas: they use the upper half.
const INHERITED: u64 = 1 << 31;

/// The number at which the session has to end. Enough numbers remain for the stanzas that come until then.
const LAST: Seq = Seq::new(u64::MAX - (STRIDE << 16));

/// Returns whether this is the number of a stanza in the spool of an earlier session.
pub(super) fn is_inherited(seq: Seq) -> bool {
    seq.get() % STRIDE >= INHERITED
}

/// The first number after this one that a new stanza could have.
pub(super) fn next_own(seq: Seq) -> Seq {
    Seq::new((seq.get() / STRIDE).saturating_add(1).saturating_mul(STRIDE))
}

/// The number of the session's n-th inherited stanza, in the stride before `before`. `None` if there are too many.
pub(super) fn inherited(before: Seq, n: u64) -> Option<Seq> {
    before.checked_minus(STRIDE).filter(|_| n < STRIDE - INHERITED).map(|slot| slot.plus(INHERITED + n))
}

/// Returns whether the numbers are nearly used up. A session has 2^32 of them.
fn is_last(seq: Seq) -> bool {
    seq >= LAST
}

/// Allocates numbers for new stanzas.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
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

    /// Reserves numbers for adopted stanzas, which come before all later stanzas.
    pub(super) fn reserve(&mut self) -> RangeInclusive<Seq> {
        let first = self.take();
        first..=first.plus(RESERVED - 1)
    }

    /// The number of the newest stanza, or the number before the first one.
    pub(super) fn newest(&self) -> Seq {
        self.next.previous()
    }

    /// Returns whether the numbers are nearly used up.
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
