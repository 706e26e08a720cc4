//! Failed log-ins: beyond so many in a minute an address is not let try any more.
//!
//! A log-in beyond is answered `temporary-auth-failure` (RFC 6120 §6.5.10) at once, right or wrong, and the server is not asked:
//! who guesses learns nothing, and a phone that shares the address with somebody who does keeps its password and comes again
//! later. A stream error would look like a broken network, `not-authorized` like a wrong password.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::bucket::{Bucket, Rate};
use super::network::Network;
use crate::sync::lock;

/// Failures that ran at the same time count all; but an address is let try again after so long.
const LONGEST: Duration = Duration::from_secs(600);
/// Addresses that are remembered. An attack from more than these has no use for many tries of each.
const REMEMBERED: usize = 100_000;
/// The least time between two searches for addresses to forget.
const SWEEP: Duration = Duration::from_secs(1);

/// Addresses whose logins failed lately.
#[derive(Debug, Default)]
pub struct FailedLogins(Mutex<Failures>);

#[derive(Debug, Default)]
struct Failures {
    rate: Option<Rate>,
    by_network: HashMap<Network, Bucket>,
    swept: Option<Instant>,
}

impl Failures {
    /// Returns whether an address more can be remembered, once those that are forgiven are forgotten.
    fn has_room(&mut self, now: Instant) -> bool {
        let is_time = self.swept.is_none_or(|at| now.saturating_duration_since(at) >= SWEEP);
        if self.by_network.len() >= REMEMBERED && is_time {
            self.swept = Some(now);
            self.by_network.retain(|_, bucket| !bucket.is_full(now));
        }
        self.by_network.len() < REMEMBERED
    }
}

impl FailedLogins {
    /// Sets the number of failures in a minute that are tolerated; 0: all.
    pub fn update(&self, per_minute: usize) {
        self.lock().rate = Rate::per_minute(per_minute);
    }

    /// A log-in from this address has failed.
    pub fn failed(&self, now: Instant, address: IpAddr) {
        let mut failures = self.lock();
        let Some(rate) = failures.rate else { return };
        let network = Network::from(address);
        if !failures.by_network.contains_key(&network) && !failures.has_room(now) {
            return;
        }
        failures.by_network.entry(network).or_default().take_at_most(now, rate, 1, LONGEST);
    }

    /// Returns whether log-ins from this address are not to be tried now.
    pub fn is_locked_out(&self, now: Instant, address: IpAddr) -> bool {
        let failures = self.lock();
        let Some(rate) = failures.rate else { return false };
        failures.by_network.get(&Network::from(address)).is_some_and(|bucket| bucket.is_empty(now, rate))
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
    fn so_many_failures_pass_and_then_one_in_each_share_of_a_minute() {
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
    fn many_at_once_are_made_up_for_but_not_for_ever() {
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
    fn nothing_is_no_limit() {
        let (start, logins, address) = (Instant::now(), logins(0), address(ADDRESS));
        for _ in 0..1000 {
            logins.failed(start, address);
        }
        assert!(!logins.is_locked_out(start, address));
    }

    #[test]
    fn who_is_remembered_is_bounded_and_forgotten_in_time() {
        let (start, logins) = (Instant::now(), logins(30));
        for number in 0..=u32::try_from(REMEMBERED).unwrap() {
            logins.failed(start, IpAddr::V4(number.into()));
        }
        assert_eq!(logins.lock().by_network.len(), REMEMBERED);
        logins.failed(start + Duration::from_secs(61), address(ADDRESS));
        assert_eq!(logins.lock().by_network.len(), 1);
    }
}
