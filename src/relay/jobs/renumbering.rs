//! The mapping from the numbers of a session's stanzas to the sequence numbers in its spool.
//!
//! Usually both are equal. If the store reports that a sequence number is taken by another stanza, that stanza and all later
//! ones get sequence numbers above every one that the spool ever had. The sequence numbers in between belong to others: the
//! session neither reads nor deletes them.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::seq::Seq;
use crate::session::queue::STRIDE;

/// An offset: numbers from `from` on have sequence numbers that are higher by `by`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Shift {
    from: Seq,
    by: u64,
}

/// The shifts, in ascending order. Empty if all sequence numbers equal the session's numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::relay) struct Renumbering(Vec<Shift>);

impl Renumbering {
    /// Returns the sequence number of a stanza number.
    pub(super) fn seq(&self, number: Seq) -> Seq {
        let shift = self.0.iter().rev().find(|shift| shift.from <= number);
        number.plus(shift.map_or(0, |shift| shift.by))
    }

    /// Returns the stanza number that has a sequence number, if there is one.
    pub(super) fn number(&self, seq: Seq) -> Option<Seq> {
        let shift = self.0.iter().rev().find(|shift| shift.from.plus(shift.by) <= seq);
        let number = seq.checked_minus(shift.map_or(0, |shift| shift.by))?;
        (self.seq(number) == seq).then_some(number)
    }

    /// Returns the sequence number directly below that of the next stanza number.
    pub(super) fn behind(&self, number: Seq) -> Seq {
        number.checked_next().map_or(Seq::MAX, |next| self.seq(next).previous())
    }

    /// Returns the ranges of sequence numbers for a range of stanza numbers.
    pub(super) fn ranges(&self, numbers: RangeInclusive<Seq>) -> impl Iterator<Item = RangeInclusive<Seq>> {
        let (first, last) = numbers.into_inner();
        let begins = std::iter::once(Seq::ZERO).chain(self.0.iter().map(|shift| shift.from));
        let ends = self.0.iter().map(|shift| shift.from.previous()).chain([Seq::MAX]);
        let parts = begins.zip(ends).map(move |(begin, end)| begin.max(first)..=end.min(last));
        parts.filter(|part| part.start() <= part.end()).map(|part| self.seq(*part.start())..=self.seq(*part.end()))
    }

    /// Moves the stanza number at a taken sequence number, and all later ones, above `last`, the last sequence number ever
    /// used. Returns whether there was anything to move.
    pub(super) fn avoid(&mut self, taken: Seq, last: Seq) -> bool {
        let Some(from) = self.number(taken) else { return false };
        let strides = (last.since(from) / STRIDE).saturating_add(1);
        let Some(by) = strides.checked_mul(STRIDE).filter(|by| from.checked_plus(*by).is_some()) else { return false };
        self.0.retain(|shift| shift.from < from);
        self.0.push(Shift { from, by });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = STRIDE;

    fn ranges(renumbering: &Renumbering, numbers: RangeInclusive<u64>) -> Vec<RangeInclusive<u64>> {
        let ranges = renumbering.ranges(Seq::range(numbers));
        ranges.map(|range| range.start().get()..=range.end().get()).collect()
    }

    #[test]
    fn numbers_are_their_own_sequence_numbers_until_one_is_taken() {
        let renumbering = Renumbering::default();
        for number in [0, 1, S, 7 * S, u64::MAX].map(Seq::new) {
            assert_eq!((renumbering.seq(number), renumbering.number(number)), (number, Some(number)));
        }
        assert_eq!((renumbering.behind(Seq::new(4)), renumbering.behind(Seq::MAX)), (Seq::new(4), Seq::MAX));
        assert_eq!(ranges(&renumbering, 0..=u64::MAX), [0..=u64::MAX]);
    }

    #[test]
    fn all_numbers_from_a_taken_sequence_number_on_move_and_keep_their_order() {
        let mut renumbering = Renumbering::default();
        assert!(renumbering.avoid(Seq::new(3 * S), Seq::new(9 * S + 5)));
        // 3 now follows 9.
        let at = |n: u64| renumbering.seq(Seq::new(n * S)).get() / S;
        assert_eq!([1, 2, 3, 4].map(at), [1, 2, 10, 11]);
        assert_eq!(
            (renumbering.behind(Seq::new(2 * S)), renumbering.behind(Seq::new(3 * S - 1))),
            (Seq::new(2 * S), Seq::new(10 * S - 1)),
            "what is between is not read"
        );
        for (place, number) in [(2 * S, Some(2 * S)), (3 * S, None), (9 * S, None), (10 * S, Some(3 * S))] {
            assert_eq!(renumbering.number(Seq::new(place)), number.map(Seq::new));
        }
        assert_eq!(ranges(&renumbering, 0..=4 * S), [0..=3 * S - 1, 10 * S..=11 * S]);
        assert_eq!(ranges(&renumbering, S..=S), [S..=S]);
        assert_eq!(ranges(&renumbering, 5 * S..=u64::MAX), [12 * S..=u64::MAX]);
        // A second time, at a higher number, and a third time at a lower one.
        assert!(renumbering.avoid(Seq::new(12 * S), Seq::new(20 * S)));
        let at = |n: u64| renumbering.seq(Seq::new(n * S)).get() / S;
        assert_eq!([2, 4, 5, 6].map(at), [2, 11, 21, 22]);
        assert_eq!(ranges(&renumbering, 0..=6 * S).len(), 3);
        assert!(renumbering.avoid(Seq::new(11 * S), Seq::new(30 * S)));
        let at = |n: u64| renumbering.seq(Seq::new(n * S)).get() / S;
        assert_eq!([2, 3, 4, 5, 6].map(at), [2, 10, 31, 32, 33]);
    }

    #[test]
    fn where_no_sequence_numbers_are_left_nothing_moves() {
        let mut renumbering = Renumbering::default();
        assert!(!renumbering.avoid(Seq::new(S), Seq::MAX));
        assert_eq!(renumbering, Renumbering::default());
    }
}
