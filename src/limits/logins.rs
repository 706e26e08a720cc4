//! Failed logins: after too many in a minute, an address may not try again for a while. Logins check and update
//! [`FailedLogins`].
//!
//! A login over the limit is answered `temporary-auth-failure` (RFC 6120 §6.5.10) at once, whether the password is right or
//! wrong, and the server is not asked. An attacker who guesses passwords learns nothing. A phone that shares the address with
//! the attacker keeps its password and retries later. A stream error would look like a broken network, and `not-authorized`
//! like a wrong password.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bucket::{Bucket, Rate};
use super::network::Network;
use crate::clock::Instant;
use crate::sync::lock;

/// The longest time that an address is locked out. Failures of simultaneous logins are all counted, so the debt could
/// otherwise grow without bound.
const LONGEST: Duration = Duration::from_secs(600);
/// The most addresses that are remembered. An attacker with more addresses needs only few attempts from each, so remembering
/// more would not help.
const REMEMBERED: usize = 100_000;
/// The least time between two searches for addresses to forget.
const SWEEP: Duration = Duration::from_secs(1);

/// The addresses with recent failed logins.
#[derive(Debug, Default)]
pub struct FailedLogins(Mutex<Failures>);

/// The failures by network, for another process.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct FailedLoginsRecord {
    by_network: BTreeMap<Network, Bucket>,
}

#[derive(Debug, Default)]
struct Failures {
    rate: Option<Rate>,
    by_network: HashMap<Network, Bucket>,
    swept: Option<Instant>,
}

impl Failures {
    /// Returns whether another address can be remembered, after forgetting those whose failures no longer count.
    fn has_room(&mut self, now: Instant) -> bool {
        let is_time = self.swept.is_none_or(|at| now.duration_since(at) >= SWEEP);
        if self.by_network.len() >= REMEMBERED && is_time {
            self.swept = Some(now);
            self.by_network.retain(|_, bucket| !bucket.is_full(now));
        }
        self.by_network.len() < REMEMBERED
    }
}

impl FailedLogins {
    /// Sets the number of failures that an address may have per minute; 0 means no limit.
    pub fn update(&self, per_minute: usize) {
        self.lock().rate = Rate::per_minute(per_minute);
    }

    /// Notes a failed login from this address.
    pub fn failed(&self, now: Instant, address: IpAddr) {
        let mut failures = self.lock();
        let Some(rate) = failures.rate else { return };
        let network = Network::from(address);
        if !failures.by_network.contains_key(&network) && !failures.has_room(now) {
            return;
        }
        failures.by_network.entry(network).or_default().take_at_most(now, rate, 1, LONGEST);
    }

    /// Returns whether logins from this address are to be refused now.
    pub fn is_locked_out(&self, now: Instant, address: IpAddr) -> bool {
        let failures = self.lock();
        let Some(rate) = failures.rate else { return false };
        failures.by_network.get(&Network::from(address)).is_some_and(|bucket| bucket.is_empty(now, rate))
    }

    /// Returns the failures that still count, for another process.
    pub fn freeze(&self, now: Instant) -> FailedLoginsRecord {
        let failures = self.lock();
        let counts = |(_, bucket): &(&Network, &Bucket)| !bucket.is_full(now);
        let by_network = failures.by_network.iter().filter(counts).map(|(network, bucket)| (*network, *bucket));
        FailedLoginsRecord { by_network: by_network.collect() }
    }

    /// Continues with the failures of another process.
    pub fn thaw(&self, record: FailedLoginsRecord) {
        self.lock().by_network.extend(record.by_network.into_iter().take(REMEMBERED));
    }

    fn lock(&self) -> MutexGuard<'_, Failures> {
        lock(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logins(per_minute: usize) -> FailedLogins {
        let logins = FailedLogins::default();
        logins.update(per_minute);
        logins
    }

    const ADDRESS: &str = "192.0.2.1";

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn failures_up_to_the_rate_pass_and_then_one_per_interval() {
        let (start, logins, address) = (Instant::now(), logins(30), address(ADDRESS));
        for _ in 0..30 {
            assert!(!logins.is_locked_out(start, address));
            logins.failed(start, address);
        }
        assert!(logins.is_locked_out(start, address));
        assert!(!logins.is_locked_out(start, "192.0.2.2".parse().unwrap()));
        let later = start + Duration::from_secs(2);
        assert!(!logins.is_locked_out(later, address));
        logins.failed(later, address);
        assert!(logins.is_locked_out(later, address));
    }

    #[test]
    fn many_failures_at_once_lock_out_longer_but_not_without_bound() {
        let (start, logins, address) = (Instant::now(), logins(30), address(ADDRESS));
        for _ in 0..60 {
            logins.failed(start, address);
        }
        assert!(logins.is_locked_out(start + Duration::from_secs(59), address));
        assert!(!logins.is_locked_out(start + Duration::from_secs(62), address));
        for _ in 0..100_000 {
            logins.failed(start, address);
        }
        assert!(logins.is_locked_out(start + Duration::from_secs(599), address));
        assert!(!logins.is_locked_out(start + Duration::from_secs(603), address));
    }

    #[test]
    fn failures_count_in_the_next_process() {
        let (start, logins, address) = (Instant::now(), logins(3), address(ADDRESS));
        (0..3).for_each(|_| logins.failed(start, address));
        logins.failed(start - Duration::from_secs(300), "2001:db8::1".parse().unwrap());
        let bytes = rmp_serde::to_vec_named(&logins.freeze(start)).unwrap();
        let record: FailedLoginsRecord = rmp_serde::from_slice(&bytes).unwrap();
        assert_eq!(record.by_network.len(), 1, "the other one is over");
        let after = FailedLogins::default();
        after.update(3);
        after.thaw(record);
        assert!(after.is_locked_out(start, address));
        assert!(!after.is_locked_out(start + Duration::from_secs(21), address));
    }

    #[test]
    fn zero_is_no_limit() {
        let (start, logins, address) = (Instant::now(), logins(0), address(ADDRESS));
        for _ in 0..1000 {
            logins.failed(start, address);
        }
        assert!(!logins.is_locked_out(start, address));
    }

    #[test]
    fn the_remembered_addresses_are_bounded_and_forgotten_in_time() {
        let (start, logins) = (Instant::now(), logins(30));
        for number in 0..=u32::try_from(REMEMBERED).unwrap() {
            logins.failed(start, IpAddr::V4(number.into()));
        }
        assert_eq!(logins.lock().by_network.len(), REMEMBERED);
        logins.failed(start + Duration::from_secs(61), address(ADDRESS));
        assert_eq!(logins.lock().by_network.len(), 1);
    }
}
