//! The places that a session's stanzas have in its spool, where they are others than the session's numbers.
//!
//! Usually both are the same. If the store says that a place is taken by something else, all numbers from there on get places
//! behind everything that the spool ever had. What is in between is not this session's: it is neither read nor deleted.

use std::ops::RangeInclusive;

use crate::session::queue::STRIDE;

/// Numbers from this one on have places that are higher by so much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shift {
    from: u64,
    by: u64,
}

/// Where each number is, in the order of the numbers. Empty if all are at their own places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::relay) struct Places(Vec<Shift>);

impl Places {
    /// The place of a number.
    pub(super) fn place(&self, number: u64) -> u64 {
        let shift = self.0.iter().rev().find(|shift| shift.from <= number);
        number.saturating_add(shift.map_or(0, |shift| shift.by))
    }

    /// The number at a place, if one is there.
    pub(super) fn number(&self, place: u64) -> Option<u64> {
        let shift = self.0.iter().rev().find(|shift| shift.from.saturating_add(shift.by) <= place);
        let number = place.checked_sub(shift.map_or(0, |shift| shift.by))?;
        (self.place(number) == place).then_some(number)
    }

    /// The last place before that of the number behind this one.
    pub(super) fn behind(&self, number: u64) -> u64 {
        number.checked_add(1).map_or(u64::MAX, |next| self.place(next).saturating_sub(1))
    }

    /// The places of numbers side by side.
    pub(super) fn ranges(&self, numbers: RangeInclusive<u64>) -> impl Iterator<Item = RangeInclusive<u64>> {
        let (first, last) = numbers.into_inner();
        let begins = std::iter::once(0).chain(self.0.iter().map(|shift| shift.from));
        let ends = self.0.iter().map(|shift| shift.from.saturating_sub(1)).chain([u64::MAX]);
        let parts = begins.zip(ends).map(move |(begin, end)| begin.max(first)..=end.min(last));
        parts.filter(|part| part.start() <= part.end()).map(|part| self.place(*part.start())..=self.place(*part.end()))
    }

    /// This place is taken, and the last one that was ever used is known: the number there, and all behind it, get places behind
    /// that. Returns whether there are any.
    pub(super) fn avoid(&mut self, taken: u64, last: u64) -> bool {
        let Some(from) = self.number(taken) else { return false };
        let strides = (last.saturating_sub(from) / STRIDE).saturating_add(1);
        let Some(by) = strides.checked_mul(STRIDE).filter(|by| from.checked_add(*by).is_some()) else { return false };
        self.0.retain(|shift| shift.from < from);
        self.0.push(Shift { from, by });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = STRIDE;

    fn ranges(places: &Places, numbers: RangeInclusive<u64>) -> Vec<RangeInclusive<u64>> {
        places.ranges(numbers).collect()
    }

    #[test]
    fn numbers_are_their_own_places_until_one_is_taken() {
        let places = Places::default();
        for number in [0, 1, S, 7 * S, u64::MAX] {
            assert_eq!((places.place(number), places.number(number)), (number, Some(number)));
        }
        assert_eq!((places.behind(4), places.behind(u64::MAX)), (4, u64::MAX));
        assert_eq!(ranges(&places, 0..=u64::MAX), [0..=u64::MAX]);
    }

    #[test]
    fn behind_a_place_that_is_taken_all_numbers_move_and_stay_in_their_order() {
        let mut places = Places::default();
        assert!(places.avoid(3 * S, 9 * S + 5));
        // 3 is behind 9 now.
        let at = |n: u64| places.place(n * S) / S;
        assert_eq!([1, 2, 3, 4].map(at), [1, 2, 10, 11]);
        assert_eq!(
            (places.behind(2 * S), places.behind(3 * S - 1)),
            (2 * S, 10 * S - 1),
            "what is between is not read"
        );
        for (place, number) in [(2 * S, Some(2 * S)), (3 * S, None), (9 * S, None), (10 * S, Some(3 * S))] {
            assert_eq!(places.number(place), number);
        }
        assert_eq!(ranges(&places, 0..=4 * S), [0..=3 * S - 1, 10 * S..=11 * S]);
        assert_eq!(ranges(&places, S..=S), [S..=S]);
        assert_eq!(ranges(&places, 5 * S..=u64::MAX), [12 * S..=u64::MAX]);
        // A second time, further on, and a third time before that.
        assert!(places.avoid(12 * S, 20 * S));
        let at = |n: u64| places.place(n * S) / S;
        assert_eq!([2, 4, 5, 6].map(at), [2, 11, 21, 22]);
        assert_eq!(ranges(&places, 0..=6 * S).len(), 3);
        assert!(places.avoid(11 * S, 30 * S));
        let at = |n: u64| places.place(n * S) / S;
        assert_eq!([2, 3, 4, 5, 6].map(at), [2, 10, 31, 32, 33]);
    }

    #[test]
    fn where_no_places_are_left_nothing_moves() {
        let mut places = Places::default();
        assert!(!places.avoid(S, u64::MAX));
        assert_eq!(places, Places::default());
    }
}
