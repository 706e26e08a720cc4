//! The lease of this node ([`Lease`]): until it ends, no other node acts in its place.

use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::Instant;
use crate::sync::lock;

/// The right of this node to act. It counts from just before the last successful renewal was sent, by the clock of this
/// machine, so it ends here before another node can act on its end.
#[derive(Debug)]
pub struct Lease {
    state: Mutex<LeaseState>,
    passed: watch::Sender<bool>,
    deaths: watch::Sender<u64>,
}

#[derive(Debug)]
struct LeaseState {
    /// `None` once the epoch has passed.
    epoch: Option<i64>,
    until: Instant,
}

impl Lease {
    pub(super) fn new(epoch: i64, until: Instant) -> Self {
        Self {
            state: Mutex::new(LeaseState { epoch: Some(epoch), until }),
            passed: watch::Sender::new(false),
            deaths: watch::Sender::new(0),
        }
    }

    /// Returns whether this node may publish, claim, and acknowledge what it has stored.
    pub fn is_valid(&self, now: Instant) -> bool {
        let state = lock(&self.state);
        state.epoch.is_some() && now < state.until
    }

    /// Returns how long the lease has been over; `None` while it holds. A node whose epoch has passed has none.
    pub fn lapsed(&self, now: Instant) -> Option<Duration> {
        let state = lock(&self.state);
        if state.epoch.is_none() {
            return Some(Duration::MAX);
        }
        (now >= state.until).then(|| now.duration_since(state.until))
    }

    /// Returns the epoch, unless it has passed.
    pub fn epoch(&self) -> Option<i64> {
        lock(&self.state).epoch
    }

    /// Returns a receiver that is true once the epoch has passed: another node has taken this node's place.
    pub fn passed(&self) -> watch::Receiver<bool> {
        self.passed.subscribe()
    }

    /// Returns a receiver of the number of nodes whose place this one has taken. Their accounts are to be freed.
    pub fn deaths(&self) -> watch::Receiver<u64> {
        self.deaths.subscribe()
    }

    pub(super) fn note_death(&self) {
        self.deaths.send_modify(|deaths| *deaths = deaths.saturating_add(1));
    }

    /// Extends the lease after a successful renewal.
    pub(super) fn renew(&self, epoch: i64, until: Instant) {
        let mut state = lock(&self.state);
        if state.epoch == Some(epoch) {
            state.until = state.until.max(until);
        }
    }

    /// Notes that an epoch has passed.
    pub(super) fn pass(&self, epoch: i64) {
        let mut state = lock(&self.state);
        if state.epoch == Some(epoch) {
            state.epoch = None;
            self.passed.send_replace(true);
        }
    }

    /// Gives the epoch up: nothing more is written, and the node has to join again.
    pub fn give_up(&self) {
        self.pass_current();
    }

    /// Notes that the current epoch has passed.
    pub(super) fn pass_current(&self) {
        if let Some(epoch) = self.epoch() {
            self.pass(epoch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_by_its_clock_and_with_its_epoch() {
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        let lease = Lease::new(7, after(10));
        let passed = lease.passed();
        assert!(lease.is_valid(after(9)) && !lease.is_valid(after(10)));
        assert_eq!((lease.lapsed(after(9)), lease.lapsed(after(12))), (None, Some(Duration::from_secs(2))));
        lease.renew(6, after(99));
        assert!(!lease.is_valid(after(11)), "a renewal of another epoch");
        lease.renew(7, after(20));
        lease.renew(7, after(15));
        assert!(lease.is_valid(after(19)));
        lease.pass(6);
        assert!(!*passed.borrow() && lease.epoch() == Some(7));
        lease.pass(7);
        assert!(*passed.borrow() && !lease.is_valid(now) && lease.lapsed(now).is_some());
        lease.renew(7, after(99));
        assert!(!lease.is_valid(now), "a passed epoch is not renewed");
    }
}
