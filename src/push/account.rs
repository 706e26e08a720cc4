//! What is kept about an account: its devices, and what each asked to be notified with.
//!
//! A device is what a person holds in the hand. Within an account it is, the first that matches: the id of its user agent
//! (XEP-0388 §2.3), the resumption id that it presented, the push target that it enables, its resource.

use serde::{Deserialize, Deserializer, Serialize};

use super::guard::Guard;
use super::mucsub::{Subscription, Subscriptions};
use super::registration::{Registration, Target};
use crate::jid::Jid;

/// Names a device within its account: random, never reused. The default, 0, is none's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeviceId(pub u64);

/// Names a login, and so the session that came of it. Ids rise in the order of the binds, across restarts too, and are never
/// given out twice: of two sessions the one with the smaller id is the older. 0 is never given out: it stands for the logins
/// of an older database, whose ids were random. They are older than all others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LoginId(pub u64);

/// A login of an older database.
const OLD: LoginId = LoginId(0);

/// One device of an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its name.
    pub id: DeviceId,
    /// The resource that it bound last.
    pub resource: String,
    /// The id of its user agent (XEP-0388 §2.3), if it ever said one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The resumption ids that it was given, oldest first: it may present any of them.
    #[serde(default)]
    pub sm_ids: Vec<String>,
    /// Unix seconds of its last contact.
    pub last_seen: u64,
    /// The logins whose sessions are open on the server, oldest first. Still so at a start: they were lost with the process.
    ///
    /// None is ever left out while its session lives. Each stands for a session that was admitted (`connections`, and
    /// `held_per_account` without a client), and the list is emptied at a start, so it is as long as an account has sessions.
    #[serde(default, deserialize_with = "open_logins")]
    pub open: Vec<LoginId>,
    /// The stanzas that its client breaks on, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<Box<Guard>>,
}

impl Device {
    fn new(id: DeviceId) -> Self {
        Self {
            id,
            resource: String::new(),
            agent: None,
            sm_ids: Vec::new(),
            last_seen: 0,
            open: Vec::new(),
            guard: None,
        }
    }

    /// Whether a session of it is open on the server.
    pub fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    fn opened(&mut self, logins: impl IntoIterator<Item = LoginId>) {
        self.open.extend(logins);
        self.open.sort_unstable();
        self.open.dedup();
    }

    fn resumable(&mut self, sm_ids: impl IntoIterator<Item = String>) {
        self.sm_ids.extend(sm_ids);
        forget_oldest(&mut self.sm_ids, SM_IDS);
    }
}

fn forget_oldest<T>(list: &mut Vec<T>, at_most: usize) {
    list.drain(..list.len().saturating_sub(at_most));
}

/// Older records say only whether there is one.
fn open_logins<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<LoginId>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Open {
        Logins(Vec<LoginId>),
        Is(bool),
    }
    Ok(match Open::deserialize(deserializer)? {
        Open::Logins(logins) => logins,
        Open::Is(open) => open.then_some(OLD).into_iter().collect(),
    })
}

/// All that is kept about an account.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Account {
    /// Grows with every change that is stored, so that of two states the newer is known.
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
}

impl PartialEq for Account {
    /// What keeps the same is equal, whenever it was stored.
    fn eq(&self, other: &Self) -> bool {
        let Self { revision: _, devices, registrations, subscriptions } = self;
        *devices == other.devices && *registrations == other.registrations && *subscriptions == other.subscriptions
    }
}

impl Eq for Account {}

/// A change of an account, applied in one transaction of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A device bound a resource.
    Login {
        /// What to call it if it is a new one.
        candidate: DeviceId,
        /// What to call its session.
        login: LoginId,
        /// The resource that it bound.
        resource: String,
        /// The id of its user agent (XEP-0388 §2.3).
        agent: Option<String>,
        /// The resumption id that it presented before, in vain.
        presented: Option<String>,
        /// Unix seconds.
        at: u64,
    },
    /// A device was given a resumption id.
    Resumable {
        /// The device.
        device: DeviceId,
        /// The id.
        sm_id: String,
    },
    /// The session of a login has ended in order, whichever device it turned out to be of. Those of its other logins go on.
    Ended {
        /// The login.
        login: LoginId,
    },
    /// Adds a registration, or replaces the one with the same target; the least recently seen go beyond `max_devices`. If the
    /// target was another device's, and this one is not known by a resumption id, the two are one: the other.
    Enable {
        /// The new registration.
        registration: Registration,
        /// Whether the owner presented a resumption id of its own, and so is known for certain.
        certain: bool,
        /// How many an account may have.
        max_devices: usize,
    },
    /// Removes one node of a service, or all of the service's when `node` is absent.
    Disable {
        /// The push service.
        service: Jid,
        /// The node, or all of them.
        node: Option<String>,
    },
    /// The device was in contact.
    Seen {
        /// The device.
        device: DeviceId,
        /// Unix seconds.
        at: u64,
    },
    /// A publish was answered with an error that counts; the registration goes once `max_errors` came in a row.
    Failed {
        /// Which registration.
        target: Target,
        /// How many errors in a row end it.
        max_errors: u32,
    },
    /// A publish was accepted.
    Succeeded {
        /// Which registration.
        target: Target,
        /// Unix seconds.
        at: u64,
    },
    /// A publish was not delivered: its service is out of reach, or asks to wait.
    Undelivered {
        /// Which registration.
        target: Target,
        /// Unix seconds.
        at: u64,
    },
    /// A client subscribes to a room, or not any more (MUC/Sub).
    Subscribes(Subscription),
    /// The device's client has broken on a stanza, or has acknowledged one that it broke on.
    Guarded {
        /// The device.
        device: DeviceId,
        /// What is known of it now.
        guard: Guard,
    },
    /// The operator has the stanzas go back to their places that were set aside for the account's devices.
    Released,
    /// The account was removed from the server: nothing of it is kept.
    Removed,
}

impl Change {
    /// Whether the account's other sessions decide anything by it.
    pub fn concerns_others(&self) -> bool {
        !matches!(self, Self::Seen { .. } | Self::Succeeded { .. } | Self::Undelivered { .. } | Self::Resumable { .. })
    }
}

/// How many resumption ids of a device are remembered.
const SM_IDS: usize = 4;
/// How many devices of an account are remembered.
const DEVICES: usize = 32;

impl Account {
    /// Applies a change, and says which device it is about where that is not what the change says itself: the device that
    /// logged in, or that an enabling one turned out to be.
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
                    device.opened([login]);
                }
                self.seen(device, at);
                self.forget_devices();
                return Some(device);
            }
            Change::Enable { registration, certain, max_devices } => {
                return Some(self.enable(registration, certain, max_devices));
            }
            Change::Resumable { device, sm_id } => {
                if let Some(device) = self.device_mut(device) {
                    device.resumable([sm_id]);
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
            Change::Guarded { device, guard } => self.set_guard(device, guard),
            Change::Released => self.release(),
            Change::Removed => *self = Self::default(),
        }
        None
    }

    /// Whether [`Change::Succeeded`] at these unix seconds would make no difference to the registration.
    pub fn knows_success(&self, target: &Target, at: u64) -> bool {
        self.registrations.iter().find(|r| r.target == *target).is_some_and(|r| r.knows_success(at))
    }

    /// Whether [`Change::Undelivered`] would make no difference to the registration.
    pub fn knows_undelivered(&self, target: &Target) -> bool {
        self.registrations.iter().find(|r| r.target == *target).is_some_and(|r| r.undelivered_since.is_some())
    }

    /// What was said of publishes may not have been stored: it is to be said again of the next ones.
    pub fn doubt_publishes(&mut self) {
        self.registrations.iter_mut().for_each(|r| (r.last_success, r.undelivered_since) = (None, None));
    }

    /// Forgets the registrations and devices without an open session that were not seen since `before`, unix seconds, and the
    /// registrations whose service has been out of reach since then; returns how many registrations went.
    pub fn forget_unseen(&mut self, before: u64) -> usize {
        let had = self.registrations.len();
        let open: Vec<_> = self.devices.iter().filter(|d| d.is_open()).map(|d| d.id).collect();
        let is_out_of_reach = |r: &Registration| r.undelivered_since.is_some_and(|since| since < before);
        self.registrations.retain(|r| (r.last_seen >= before || open.contains(&r.device)) && !is_out_of_reach(r));
        let registrations = &self.registrations;
        self.devices.retain(|d| d.is_open() || d.last_seen >= before || registrations.iter().any(|r| r.device == d.id));
        if self.devices.is_empty() && self.registrations.is_empty() {
            self.subscriptions = Subscriptions::default();
        }
        had.saturating_sub(self.registrations.len())
    }

    /// The device with this id.
    pub fn device(&self, id: DeviceId) -> Option<&Device> {
        self.devices.iter().find(|d| d.id == id)
    }

    /// The device of which a login's session is open.
    pub fn device_of(&self, login: LoginId) -> Option<DeviceId> {
        self.devices.iter().find(|d| d.open.contains(&login)).map(|d| d.id)
    }

    /// Whether a device, known or not, has no open session.
    pub fn is_away(&self, device: DeviceId) -> bool {
        !self.device(device).is_some_and(Device::is_open)
    }

    /// The same account if its logins are those of an older database, whose ids say nothing about their order.
    #[must_use]
    pub fn with_old_logins(mut self) -> Self {
        for device in self.devices.iter_mut().filter(|d| d.is_open()) {
            device.open = vec![OLD];
        }
        self
    }

    /// The registrations of a device.
    pub fn owned(&self, device: DeviceId) -> impl Iterator<Item = &Registration> {
        self.registrations.iter().filter(move |r| r.device == device)
    }

    /// The registrations of other devices than this one that have no session.
    pub fn absent(&self, device: DeviceId) -> impl Iterator<Item = &Registration> {
        self.registrations.iter().filter(move |r| r.device != device && self.is_away(r.device))
    }

    /// The poison guard of a device, unless it is empty.
    pub fn guard(&self, device: DeviceId) -> Option<&Guard> {
        self.device(device).and_then(|device| device.guard.as_deref())
    }

    fn set_guard(&mut self, device: DeviceId, guard: Guard) {
        if let Some(device) = self.device_mut(device) {
            device.guard = Some(guard).filter(|guard| !guard.is_empty()).map(Box::new);
        }
    }

    fn release(&mut self) {
        for device in &mut self.devices {
            if let Some(guard) = &mut device.guard {
                guard.release();
            }
            device.guard = device.guard.take().filter(|guard| !guard.is_empty());
        }
    }

    fn device_mut(&mut self, id: DeviceId) -> Option<&mut Device> {
        self.devices.iter_mut().find(|d| d.id == id)
    }

    fn seen(&mut self, device: DeviceId, at: u64) {
        if let Some(device) = self.device_mut(device) {
            device.last_seen = device.last_seen.max(at);
        }
        for r in self.registrations.iter_mut().filter(|r| r.device == device) {
            r.last_seen = r.last_seen.max(at);
        }
    }

    /// The device that has just bound a resource, if it is known.
    fn known(&self, agent: Option<&str>, presented: Option<&str>, resource: &str) -> Option<DeviceId> {
        let by_agent = |d: &&Device| agent.is_some() && d.agent.as_deref() == agent;
        let by_id = |d: &&Device| presented.is_some_and(|id| d.sm_ids.iter().any(|known| known == id));
        let by_resource = |d: &&Device| d.resource == resource;
        let mut devices = [self.devices.iter().find(by_agent), self.devices.iter().find(by_id)].into_iter().flatten();
        devices.next().or_else(|| self.devices.iter().find(by_resource)).map(|device| device.id)
    }

    /// Of too many devices those go that nobody notifies, the longest unseen first; never one with an open session.
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

    fn enable(&mut self, mut registration: Registration, certain: bool, max_devices: usize) -> DeviceId {
        // A re-enable with the same options keeps the error count: it is no proof that the service works again.
        let old = self.registrations.iter().find(|r| r.target == registration.target);
        let same = old.filter(|old| old.options == registration.options);
        registration.errors = same.map_or(0, |old| old.errors);
        registration.undelivered_since = same.and_then(|old| old.undelivered_since);
        registration.last_success = old.and_then(|old| old.last_success);
        let owner = old.map(|old| old.device).filter(|owner| *owner != registration.device && !certain);
        if let Some(owner) = owner.filter(|owner| self.device(*owner).is_some()) {
            self.merge(registration.device, owner);
            registration.device = owner;
        }
        let device = registration.device;
        self.registrations.retain(|r| r.target != registration.target);
        // First, so that the stable sort keeps it ahead of a device seen in the same second.
        self.registrations.reserve_exact(1);
        self.registrations.insert(0, registration);
        self.registrations.sort_by_key(|r| std::cmp::Reverse(r.last_seen));
        self.registrations.truncate(max_devices.max(1));
        device
    }

    /// The newcomer turns out to be a device that is known already.
    fn merge(&mut self, newcomer: DeviceId, known: DeviceId) {
        let Some(at) = self.devices.iter().position(|d| d.id == newcomer) else { return };
        let gone = self.devices.remove(at);
        for r in self.registrations.iter_mut().filter(|r| r.device == newcomer) {
            r.device = known;
        }
        if let Some(device) = self.device_mut(known) {
            device.resource = gone.resource;
            device.agent = gone.agent.or(device.agent.take());
            device.last_seen = device.last_seen.max(gone.last_seen);
            device.opened(gone.open);
            device.resumable(gone.sm_ids);
            device.guard = gone.guard.or(device.guard.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(candidate: u64, resource: &str, presented: Option<&str>, at: u64) -> Change {
        let presented = presented.map(str::to_owned);
        let (candidate, login) = (DeviceId(candidate), LoginId(candidate));
        Change::Login { candidate, login, resource: resource.to_owned(), agent: None, presented, at }
    }

    fn ended(login: u64) -> Change {
        Change::Ended { login: LoginId(login) }
    }

    fn target(node: &str) -> Target {
        Target { service: "push.example.net".parse().unwrap(), node: Some(node.to_owned()) }
    }

    fn enable(device: u64, node: &str, certain: bool, last_seen: u64) -> Change {
        let registration = Registration {
            target: target(node),
            options: None,
            device: DeviceId(device),
            last_seen,
            errors: 0,
            extensions: Default::default(),
            last_success: None,
            undelivered_since: None,
        };
        Change::Enable { registration, certain, max_devices: 3 }
    }

    fn applied(changes: impl IntoIterator<Item = Change>) -> Account {
        let mut account = Account::default();
        for change in changes {
            account.apply(change);
        }
        account
    }

    fn ids(account: &Account) -> Vec<u64> {
        account.devices.iter().map(|d| d.id.0).collect()
    }

    #[test]
    fn a_device_is_known_by_its_resumption_id_before_its_resource() {
        let given = |device, sm_id: &str| Change::Resumable { device: DeviceId(device), sm_id: sm_id.to_owned() };
        let mut account = applied([login(1, "a", None, 1), given(1, "one"), login(2, "b", None, 2), given(2, "two")]);
        assert_eq!(account.apply(login(3, "b", Some("one"), 3)), Some(DeviceId(1)));
        assert_eq!(account.device(DeviceId(1)).map(|d| d.resource.as_str()), Some("b"));
        assert_eq!(account.apply(login(3, "c", Some("two"), 3)), Some(DeviceId(2)));
        assert_eq!(account.apply(login(3, "d", Some("unknown"), 3)), Some(DeviceId(3)));
        assert_eq!(account.apply(login(4, "d", None, 3)), Some(DeviceId(3)));
        assert_eq!(ids(&account), [1, 2, 3]);
    }

    #[test]
    fn a_device_is_known_by_its_user_agent_before_all_else() {
        let by_agent = |candidate: u64, name: &str, resource: &str, presented: Option<&str>| {
            let mut change = login(candidate, resource, presented, candidate);
            if let Change::Login { agent, .. } = &mut change {
                *agent = Some(name.to_owned());
            }
            change
        };
        let given = Change::Resumable { device: DeviceId(2), sm_id: "two".to_owned() };
        let mut account = applied([by_agent(1, "x", "a", None), by_agent(2, "y", "b", None), given]);
        assert_eq!(account.apply(by_agent(3, "x", "b", Some("two"))), Some(DeviceId(1)));
        assert_eq!(
            account.apply(by_agent(3, "z", "c", Some("two"))),
            Some(DeviceId(2)),
            "a new one, but the same phone"
        );
        assert_eq!(account.apply(login(3, "c", None, 3)), Some(DeviceId(2)), "it need not say so each time");
        assert_eq!(account.apply(by_agent(3, "z", "d", None)), Some(DeviceId(2)));
        assert_eq!(account.apply(by_agent(3, "y", "e", None)), Some(DeviceId(3)));
        assert_eq!(ids(&account), [1, 2, 3]);
        let record = serde_json::to_string(&account).unwrap();
        assert_eq!(serde_json::from_str::<Account>(&record).unwrap(), account);
    }

    /// Its device is seen every day, so that alone would keep it for ever.
    #[test]
    fn a_registration_ends_whose_service_stays_out_of_reach() {
        let undelivered = |at| Change::Undelivered { target: target("n"), at };
        let away = |changes: Vec<Change>| {
            let mut account = applied([login(1, "a", None, 1), enable(1, "n", false, 1)]);
            for change in changes {
                account.apply(change);
            }
            account.apply(Change::Seen { device: DeviceId(1), at: 100 });
            account
        };
        let ends = |mut account: Account, before| account.forget_unseen(before) == 1;
        let change = undelivered(10);
        assert!(!change.concerns_others());
        assert!(ends(away(vec![change.clone(), undelivered(50)]), 11));
        assert!(!ends(away(vec![change.clone(), undelivered(50)]), 10));
        assert!(!ends(away(vec![]), 11));
        let answers =
            [Change::Succeeded { target: target("n"), at: 20 }, Change::Failed { target: target("n"), max_errors: 16 }];
        for answer in answers {
            assert!(!ends(away(vec![change.clone(), answer]), 11), "the service has answered");
        }
        assert!(ends(away(vec![change.clone(), enable(1, "n", false, 20)]), 11), "a re-enable proves nothing");
        let mut account = away(vec![change]);
        assert!(account.knows_undelivered(&target("n")) && !account.knows_success(&target("n"), 10));
        account.doubt_publishes();
        assert!(!account.knows_undelivered(&target("n")));
        assert_eq!(account.registrations[0].errors, 0);
    }

    #[test]
    fn only_the_latest_resumption_ids_are_remembered() {
        let mut account = applied([login(1, "a", None, 1)]);
        for n in 0..10 {
            account.apply(Change::Resumable { device: DeviceId(1), sm_id: n.to_string() });
        }
        assert_eq!(account.device(DeviceId(1)).unwrap().sm_ids, ["6", "7", "8", "9"]);
    }

    #[test]
    fn the_target_of_another_device_tells_that_the_two_are_one() {
        let mut account = applied([login(1, "a", None, 1), enable(1, "n", false, 1), login(2, "b", None, 2)]);
        account.apply(ended(1));
        assert_eq!(account.apply(enable(2, "n", false, 2)), Some(DeviceId(1)));
        assert_eq!(ids(&account), [1]);
        let device = account.device(DeviceId(1)).unwrap();
        assert_eq!((device.resource.as_str(), device.is_open(), device.last_seen), ("b", true, 2));
        assert_eq!(account.owned(DeviceId(1)).count(), 1);
        account.apply(ended(2));
        assert!(!account.device(DeviceId(1)).unwrap().is_open(), "its session is known by its login, whoever it is of");
    }

    #[test]
    fn what_a_client_breaks_on_is_known_of_the_device_until_it_is_released() {
        let guard = crate::push::guard::tests::with_aside(crate::push::guard::Mark(1));
        let guarded = |device| Change::Guarded { device: DeviceId(device), guard: guard.clone() };
        let mut account =
            applied([login(1, "a", None, 1), enable(1, "n", false, 1), login(2, "b", None, 2), guarded(2)]);
        assert_eq!((account.guard(DeviceId(1)), account.guard(DeviceId(2))), (None, Some(&guard)));
        // The registration shows that both are one device.
        account.apply(enable(2, "n", false, 2));
        assert_eq!((ids(&account), account.guard(DeviceId(1))), (vec![1], Some(&guard)));
        account.apply(guarded(9));
        account.apply(Change::Released);
        assert_eq!((ids(&account), account.guard(DeviceId(1))), (vec![1], None));
        account.apply(guarded(1));
        account.apply(Change::Guarded { device: DeviceId(1), guard: Guard::default() });
        assert_eq!(account.guard(DeviceId(1)), None);
    }

    /// A device logged in again in the very moment in which its earlier session noted its end. The note came last, and the
    /// device was taken for gone while it was there.
    #[test]
    fn the_end_of_a_session_says_nothing_about_another_of_the_device() {
        let mut account = applied([login(1, "a", None, 1), login(2, "a", None, 2)]);
        assert_eq!(ids(&account), [1]);
        account.apply(ended(1));
        assert!(account.device(DeviceId(1)).unwrap().is_open());
        account.apply(login(3, "a", None, 3));
        account.apply(ended(3));
        assert!(account.device(DeviceId(1)).unwrap().is_open(), "the second one goes on");
        account.apply(ended(2));
        assert!(!account.device(DeviceId(1)).unwrap().is_open());
    }

    /// A device with more than 16 open logins was forgotten when the newest 16 had ended, though the older ones went on, and
    /// nothing more was spooled for them.
    #[test]
    fn no_open_login_is_left_out_however_many_there_are() {
        let mut account = applied([login(1, "a", None, 1)]);
        for n in 2..=100 {
            account.apply(login(n, "a", None, 1));
        }
        assert_eq!(account.device(DeviceId(1)).unwrap().open.len(), 100);
        for n in 2..=100 {
            account.apply(ended(n));
        }
        assert_eq!(account.device_of(LoginId(1)), Some(DeviceId(1)));
        for n in 1000..1100 {
            account.apply(login(n, &n.to_string(), None, n));
            account.apply(ended(n));
        }
        assert!(account.device(DeviceId(1)).is_some_and(Device::is_open));
        assert_eq!(account.forget_unseen(u64::MAX), 0);
        assert_eq!(ids(&account), [1]);
    }

    #[test]
    fn a_device_of_an_older_record_is_open_until_it_is_found_lost() {
        let read = |open: &str| -> Device {
            serde_json::from_str(&format!("{{\"id\":1,\"resource\":\"a\",\"last_seen\":1{open}}}")).unwrap()
        };
        for (open, is_open) in
            [(",\"open\":true", true), (",\"open\":false", false), ("", false), (",\"open\":[7]", true)]
        {
            assert_eq!(read(open).is_open(), is_open, "{open}");
        }
        let device = read(",\"open\":[7,8]");
        assert_eq!(serde_json::from_str::<Device>(&serde_json::to_string(&device).unwrap()).unwrap(), device);
    }

    #[test]
    fn a_device_that_is_known_for_certain_takes_the_target_over() {
        let mut account = applied([login(1, "a", None, 1), enable(1, "n", false, 1), login(2, "b", None, 2)]);
        assert_eq!(account.apply(enable(2, "n", true, 2)), Some(DeviceId(2)));
        assert_eq!(ids(&account), [1, 2]);
        assert_eq!((account.owned(DeviceId(1)).count(), account.owned(DeviceId(2)).count()), (0, 1));
    }

    #[test]
    fn enabling_again_forgives_errors_only_with_other_options() {
        let failed = || Change::Failed { target: target("n"), max_errors: 3 };
        let mut account = applied([login(1, "a", None, 1), enable(1, "n", false, 1), failed(), failed()]);
        account.apply(enable(1, "n", false, 2));
        assert_eq!(account.registrations.first().map(|r| r.errors), Some(2));
        let mut changed = enable(1, "n", false, 3);
        if let Change::Enable { registration, .. } = &mut changed {
            registration.options = Some(Vec::new());
        }
        account.apply(changed);
        assert_eq!(account.registrations.first().map(|r| r.errors), Some(0));
        for _ in 0..3 {
            account.apply(failed());
        }
        assert_eq!(account.registrations, []);
    }

    #[test]
    fn the_last_success_is_kept_to_the_minute_and_survives_enabling_again() {
        let succeeded = |at| Change::Succeeded { target: target("n"), at };
        let mut account = applied([login(1, "a", None, 1), enable(1, "n", false, 1)]);
        for (at, kept) in [(100, 100), (159, 100), (160, 160), (90, 160)] {
            account.apply(succeeded(at));
            assert_eq!(account.registrations.first().and_then(|r| r.last_success), Some(kept), "{at}");
        }
        account.apply(enable(1, "n", false, 2));
        assert_eq!(account.registrations.first().and_then(|r| r.last_success), Some(160));
    }

    #[test]
    fn of_too_many_devices_the_longest_unseen_goes_but_none_with_a_session_or_push() {
        let mut account = applied([login(1000, "here", None, 0), login(1001, "push", None, 0)]);
        account.apply(enable(1001, "n", false, 0));
        account.apply(ended(1001));
        for n in 1..=100 {
            account.apply(login(n, &n.to_string(), None, n));
            account.apply(ended(n));
        }
        let kept: Vec<_> = [1000, 1001].into_iter().chain(71..=100).collect();
        assert_eq!(ids(&account), kept);
    }

    #[test]
    fn the_unseen_are_forgotten_unless_they_are_here() {
        let mut account = Account::default();
        for (device, at) in [(1, 10), (2, 10), (3, 20)] {
            account.apply(login(device, &device.to_string(), None, at));
            account.apply(enable(device, &device.to_string(), false, at));
        }
        account.apply(ended(1));
        account.apply(ended(3));
        assert_eq!(account.forget_unseen(20), 1);
        assert_eq!(ids(&account), [2, 3]);
        assert_eq!(account.registrations.len(), 2);
    }
}
