//! The numbers of the store as PostgreSQL has them: `bigint` is signed.

use std::ops::RangeInclusive;

use crate::push::account::{DeviceId, LoginId};
use crate::seq::Seq;

/// Converts a number that counts up from zero. Those that do not fit are never reached.
pub(super) fn counted(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Converts back what [`counted`] gave.
pub(super) fn count_of(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// Converts a random number bit by bit.
pub(super) fn random(number: u64) -> i64 {
    i64::from_ne_bytes(number.to_ne_bytes())
}

pub(super) fn device(device: DeviceId) -> i64 {
    random(device.0)
}

pub(super) fn device_of(number: i64) -> DeviceId {
    DeviceId(u64::from_ne_bytes(number.to_ne_bytes()))
}

pub(super) fn login(login: LoginId) -> i64 {
    counted(login.0)
}

pub(super) fn login_of(number: i64) -> LoginId {
    LoginId(count_of(number))
}

pub(super) fn seq(seq: Seq) -> i64 {
    counted(seq.get())
}

pub(super) fn seq_of(number: i64) -> Seq {
    Seq::new(count_of(number))
}

/// Converts both ends of a range.
pub(super) fn seqs(range: &RangeInclusive<Seq>) -> (i64, i64) {
    (seq(*range.start()), seq(*range.end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_as_they_were() {
        for number in [0, 1, u64::MAX, u64::MAX / 2 + 1] {
            assert_eq!(device_of(device(DeviceId(number))), DeviceId(number));
        }
        assert_eq!((seq(Seq::new(7)), seq(Seq::MAX)), (7, i64::MAX));
        assert_eq!((seq_of(7), login_of(login(LoginId(9)))), (Seq::new(7), LoginId(9)));
    }
}
