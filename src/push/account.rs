//! The stored record of an account: [`Account`] holds its devices and their registrations, [`Change`] is a change of
//! them.
//!
//! A device is identified within its account by the first of these that matches: the id of its user agent (XEP-0388
//! §2.3), the resumption id that it presented, the push target that it enables, its resource.

mod change;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use self::change::Change;
pub use super::device::{Device, DeviceId, DeviceRecognition, LoginId};
use super::fast::TokenList;
use super::guard::Guard;
use super::mucsub::Subscriptions;
use super::registration::{Registration, Target};
use crate::clock::UnixSecs;

/// The stored record of an account.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Account {
    /// The number of the revision. Each stored change increases it, so the newer of two records is known.
    #[serde(default)]
    pub revision: u64,
    /// Its devices.
    #[serde(default)]
    pub devices: Vec<Device>,
    /// Its registrations, the most recently seen first.
    #[serde(default)]
    pub registrations: Vec<Registration>,
    /// The rooms that it has subscribed to (MUC/Sub).
    #[serde(default, skip_serializing_if = "Subscriptions::is_empty")]
    pub subscriptions: Subscriptions,
    /// The tokens by which its clients return to their sessions (XEP-0484).
    #[serde(default, skip_serializing_if = "TokenList::is_empty")]
    pub tokens: TokenList,
}

impl PartialEq for Account {
    /// Compares the content, not the revision.
    fn eq(&self, other: &Self) -> bool {
        let Self { revision: _, devices, registrations, subscriptions, tokens } = self;
        *devices == other.devices
            && *registrations == other.registrations
            && *subscriptions == other.subscriptions
            && *tokens == other.tokens
    }
}

impl Eq for Account {}

/// The number of devices of an account that are remembered.
const DEVICES: usize = 32;

impl Account {
    /// Applies a change. Returns the device that logged in, or the device that an enabling client turned out to be.
    pub fn apply(&mut self, change: Change) -> Option<DeviceId> {
        match change {
            Change::Login { candidate, login, resource, agent, presented, at } => {
                let device = self.known(agent.as_deref(), presented.as_deref(), &resource).unwrap_or(candidate);
                if self.device(device).is_none() {
                    self.devices.reserve_exact(1);
                    self.devices.push(Device::new(device));
                }
                if let Some(device) = self.device_mut(device) {
                    device.resource = resource;
                    device.agent = agent.or(device.agent.take());
                    device.add_logins([login]);
                }
                self.seen(device, at);
                self.forget_devices();
                return Some(device);
            }
            Change::Enable { registration, recognition, max_devices } => {
                return Some(self.enable(registration, recognition, max_devices));
            }
            Change::Resumable { device, sm_id } => {
                if let Some(device) = self.device_mut(device) {
                    device.add_sm_ids([sm_id]);
                }
            }
            Change::Ended { login } => {
                self.devices.iter_mut().for_each(|device| device.open.retain(|open| *open != login));
            }
            Change::Disable { service, node } => {
                self.registrations.retain(|r| r.target.service != service || (node.is_some() && r.target.node != node));
            }
            Change::Seen { device, at } => self.seen(device, at),
            Change::Failed { target, max_errors } => {
                for r in self.registrations.iter_mut().filter(|r| r.target == target) {
                    r.errors = r.errors.saturating_add(1);
                    r.undelivered_since = None;
                }
                self.registrations.retain(|r| r.target != target || r.errors < max_errors);
            }
            Change::Succeeded { target, at } => {
                for r in self.registrations.iter_mut().filter(|r| r.target == target) {
                    r.succeeded(at);
                }
            }
            Change::Undelivered { target, at } => {
                for r in self.registrations.iter_mut().filter(|r| r.target == target) {
                    r.undelivered_since.get_or_insert(at);
                }
            }
            Change::Subscribes(subscription) => self.subscriptions.note(subscription),
            Change::Guarded { device, guard } => {
                if let Some(device) = self.device_mut(device) {
                    device.set_guard(guard);
                }
            }
            Change::Released => self.devices.iter_mut().for_each(Device::release_set_aside),
            Change::Token(change) => self.tokens.apply(change),
            Change::Removed => *self = Self::default(),
        }
        None
    }

    /// Returns whether [`Change::Succeeded`] at this time would make no difference to the registration.
    pub fn knows_success(&self, target: &Target, at: UnixSecs) -> bool {
        self.registrations.iter().find(|r| r.target == *target).is_some_and(|r| r.knows_success(at))
    }

    /// Returns whether [`Change::Undelivered`] would make no difference to the registration.
    pub fn knows_undelivered(&self, target: &Target) -> bool {
        self.registrations.iter().find(|r| r.target == *target).is_some_and(|r| r.undelivered_since.is_some())
    }

    /// Forgets the outcomes of publishes, since they may not have been stored. The outcomes of the next publishes are
    /// stored again.
    pub fn doubt_publishes(&mut self) {
        self.registrations.iter_mut().for_each(|r| (r.last_success, r.undelivered_since) = (None, None));
    }

    /// Forgets the registrations and the devices that have no open session and were not seen since `before`. Forgets
    /// also the registrations whose push service has been unreachable since then, and tokens that had expired by then.
    /// Returns the number of registrations forgotten.
    pub fn forget_unseen(&mut self, before: UnixSecs) -> usize {
        let had = self.registrations.len();
        let open: Vec<_> = self.devices.iter().filter(|d| d.is_open()).map(|d| d.id).collect();
        let is_out_of_reach = |r: &Registration| r.undelivered_since.is_some_and(|since| since < before);
        self.registrations.retain(|r| (r.last_seen >= before || open.contains(&r.device)) && !is_out_of_reach(r));
        let registrations = &self.registrations;
        self.devices.retain(|d| d.is_open() || d.last_seen >= before || registrations.iter().any(|r| r.device == d.id));
        if self.devices.is_empty() && self.registrations.is_empty() {
            self.subscriptions = Subscriptions::default();
        }
        self.tokens.forget_expired(before);
        had.saturating_sub(self.registrations.len())
    }

    /// Returns the device with this id.
    pub fn device(&self, id: DeviceId) -> Option<&Device> {
        self.devices.iter().find(|d| d.id == id)
    }

    /// Returns the device that has the open session of this login.
    pub fn device_of(&self, login: LoginId) -> Option<DeviceId> {
        self.devices.iter().find(|d| d.open.contains(&login)).map(|d| d.id)
    }

    /// Returns whether a device, known or not, has no open session.
    pub fn is_away(&self, device: DeviceId) -> bool {
        !self.device(device).is_some_and(Device::is_open)
    }

    /// Returns the account with its logins replaced by those of an older database, whose ids say nothing about their
    /// order.
    #[must_use]
    pub fn with_old_logins(mut self) -> Self {
        self.devices.iter_mut().for_each(Device::make_logins_old);
        self
    }

    /// Returns the registrations of a device.
    pub fn owned(&self, device: DeviceId) -> impl Iterator<Item = &Registration> {
        self.registrations.iter().filter(move |r| r.device == device)
    }

    /// Returns the registrations of the other devices that have no session.
    pub fn absent(&self, device: DeviceId) -> impl Iterator<Item = &Registration> {
        self.registrations.iter().filter(move |r| r.device != device && self.is_away(r.device))
    }

    /// Returns the poison guard of a device, unless it is empty.
    pub fn guard(&self, device: DeviceId) -> Option<&Guard> {
        self.device(device).and_then(|device| device.guard.as_deref())
    }

    fn device_mut(&mut self, id: DeviceId) -> Option<&mut Device> {
        self.devices.iter_mut().find(|d| d.id == id)
    }

    fn seen(&mut self, device: DeviceId, at: UnixSecs) {
        if let Some(device) = self.device_mut(device) {
            device.last_seen = device.last_seen.max(at);
        }
        for r in self.registrations.iter_mut().filter(|r| r.device == device) {
            r.last_seen = r.last_seen.max(at);
        }
        self.tokens.forget_expired(at);
    }

    /// Returns the known device that has just bound a resource, if there is one.
    fn known(&self, agent: Option<&str>, presented: Option<&str>, resource: &str) -> Option<DeviceId> {
        let by_agent = |d: &&Device| agent.is_some() && d.agent.as_deref() == agent;
        let by_id = |d: &&Device| presented.is_some_and(|id| d.sm_ids.iter().any(|known| known == id));
        let by_resource = |d: &&Device| d.resource == resource;
        let mut devices = [self.devices.iter().find(by_agent), self.devices.iter().find(by_id)].into_iter().flatten();
        devices.next().or_else(|| self.devices.iter().find(by_resource)).map(|device| device.id)
    }

    /// Forgets devices beyond the limit: those without registrations first, then the longest unseen. Never forgets a
    /// device with an open session.
    fn forget_devices(&mut self) {
        while self.devices.len() > DEVICES {
            let registrations = &self.registrations;
            let key = |d: &Device| (registrations.iter().any(|r| r.device == d.id), d.last_seen);
            let closed = self.devices.iter().filter(|d| !d.is_open());
            let Some(oldest) = closed.min_by_key(|d| key(d)).map(|d| d.id) else { return };
            self.devices.retain(|d| d.id != oldest);
            self.registrations.retain(|r| r.device != oldest);
        }
    }

    fn enable(
        &mut self,
        mut registration: Registration,
        recognition: DeviceRecognition,
        max_devices: usize,
    ) -> DeviceId {
        // Enabling again with the same options keeps the error count, because it does not prove that the service works
        // again.
        let old = self.registrations.iter().find(|r| r.target == registration.target);
        let same = old.filter(|old| old.options == registration.options);
        registration.errors = same.map_or(0, |old| old.errors);
        registration.undelivered_since = same.and_then(|old| old.undelivered_since);
        registration.last_success = old.and_then(|old| old.last_success);
        let may_be_another = recognition == DeviceRecognition::Guessed;
        let owner = old.map(|old| old.device).filter(|owner| *owner != registration.device && may_be_another);
        if let Some(owner) = owner.filter(|owner| self.device(*owner).is_some()) {
            self.merge(registration.device, owner);
            registration.device = owner;
        }
        let device = registration.device;
        self.registrations.retain(|r| r.target != registration.target);
        // Inserted first, so that the stable sort keeps it ahead of a device seen in the same second.
        self.registrations.reserve_exact(1);
        self.registrations.insert(0, registration);
        self.registrations.sort_by_key(|r| std::cmp::Reverse(r.last_seen));
        self.registrations.truncate(max_devices.max(1));
        device
    }

    /// Merges the device `newcomer` into the device `known`, since both are the same.
    fn merge(&mut self, newcomer: DeviceId, known: DeviceId) {
        let Some(at) = self.devices.iter().position(|d| d.id == newcomer) else { return };
        let gone = self.devices.remove(at);
        for r in self.registrations.iter_mut().filter(|r| r.device == newcomer) {
            r.device = known;
        }
        if let Some(device) = self.device_mut(known) {
            device.absorb(gone);
        }
    }
}
