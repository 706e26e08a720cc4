//! [`WakeRetries`]: the devices whose push services were out of reach when they were to be woken.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use crate::clock::Instant;
use crate::push::retry::Backoff;
use crate::store::Slot;
use crate::sync::lock;

/// The devices that are woken again later.
#[derive(Debug, Default)]
pub(super) struct WakeRetries(Mutex<BTreeMap<Slot, WakeRetry>>);

/// The retries for one device.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct WakeRetry {
    backoff: Backoff,
    /// The time of the next attempt.
    at: Instant,
}

impl WakeRetries {
    /// Notes that no push service was reached. Returns whether there is another attempt; after an hour there is none.
    pub(super) fn on_out_of_reach(&self, now: Instant, slot: &Slot) -> bool {
        let mut retries = self.retries();
        let mut backoff = retries.get(slot).map_or_else(|| Backoff::new(now), |retry| retry.backoff);
        match backoff.next(now) {
            Some(at) => retries.insert(slot.clone(), WakeRetry { backoff, at }),
            None => {
                retries.remove(slot);
                return false;
            }
        };
        true
    }

    /// Ends the attempts for a device.
    pub(super) fn settle(&self, slot: &Slot) {
        self.retries().remove(slot);
    }

    /// Ends the attempts for the devices for which `stays` returns false.
    pub(super) fn retain(&self, stays: impl Fn(&Slot) -> bool) {
        self.retries().retain(|slot, _| stays(slot));
    }

    /// Returns whether the next attempt for a device is later than `now`.
    pub(super) fn waits(&self, slot: &Slot, now: Instant) -> bool {
        self.retries().get(slot).is_some_and(|retry| retry.at > now)
    }

    /// Returns all retries, for another process.
    pub(super) fn freeze(&self) -> Vec<(Slot, WakeRetry)> {
        self.retries().iter().map(|(slot, retry)| (slot.clone(), *retry)).collect()
    }

    /// Continues with the retries of another process.
    pub(super) fn thaw(&self, retries: Vec<(Slot, WakeRetry)>) {
        self.retries().extend(retries);
    }

    fn retries(&self) -> MutexGuard<'_, BTreeMap<Slot, WakeRetry>> {
        lock(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jid::BareJid;
    use crate::push::account::DeviceId;

    fn slot() -> Slot {
        Slot { account: BareJid::new("juliet@example.org").unwrap(), device: DeviceId(1) }
    }

    #[test]
    fn a_device_whose_push_services_are_out_of_reach_is_woken_again_for_an_hour() {
        let (retries, slot, start) = (WakeRetries::default(), slot(), Instant::now());
        let (mut now, mut times) = (start, Vec::new());
        while retries.on_out_of_reach(now, &slot) {
            let at = retries.freeze()[0].1.at;
            assert!(retries.waits(&slot, now) && !retries.waits(&slot, at));
            times.push((at - start).as_secs());
            now = at;
        }
        assert_eq!((times.first(), times.last(), times.len()), (Some(&10), Some(&3600), 9));
        assert!(!retries.waits(&slot, now), "its note is deleted");
        assert!(retries.on_out_of_reach(now, &slot));
        retries.settle(&slot);
        assert!(!retries.waits(&slot, now) && retries.freeze().is_empty());
    }

    #[test]
    fn another_process_waits_as_long() {
        let (retries, after, now) = (WakeRetries::default(), WakeRetries::default(), Instant::now());
        retries.on_out_of_reach(now, &slot());
        after.thaw(retries.freeze());
        let ends = |retries: &WakeRetries| retries.freeze()[0].1.at;
        assert!(after.waits(&slot(), now) && ends(&after) == ends(&retries));
    }
}
