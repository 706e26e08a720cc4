//! A device of an account, and the logins whose sessions it has open.

use serde::{Deserialize, Deserializer, Serialize};

use super::guard::Guard;
use crate::clock::UnixSecs;

/// The id of a device within its account: random and never reused. The default, 0, belongs to no device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeviceId(pub u64);

/// The id of a login, and of the session that resulted from it. Ids increase in the order of the binds, also across
/// restarts, and are never reused: of two sessions, the one with the smaller id is the older. 0 is never assigned. It
/// stands for the logins of an older database, whose ids were random; those logins are older than all others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LoginId(pub u64);

/// A login of an older database.
const OLD: LoginId = LoginId(0);

/// The number of resumption ids that are remembered per device.
const SM_IDS: usize = 4;

/// The way in which the device of a login was recognized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum DeviceRecognition {
    /// By its user agent, or by a resumption id of its own.
    Certain,
    /// By its resource, or not at all. It may turn out to be another device.
    Guessed,
}

/// One device of an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its id.
    pub id: DeviceId,
    /// The resource that it bound last.
    pub resource: String,
    /// The id of its user agent (XEP-0388 §2.3), if the client ever sent one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The resumption ids that it received, oldest first. It may present any of them.
    #[serde(default)]
    pub sm_ids: Vec<String>,
    /// The time of its last contact.
    pub last_seen: UnixSecs,
    /// The logins whose sessions are open on the server, oldest first. Logins that are still listed at a start were
    /// lost with the previous process.
    ///
    /// No login is removed while its session lives. Each stands for a session that was admitted (`connections`, and
    /// `held_per_account` without a client), and the list is emptied at a start. So the list is as long as the account
    /// has sessions.
    #[serde(default, deserialize_with = "open_logins")]
    pub open: Vec<LoginId>,
    /// The stanzas on which its client fails, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<Box<Guard>>,
}

impl Device {
    /// Creates a device about which nothing else is known yet.
    pub(super) fn new(id: DeviceId) -> Self {
        Self {
            id,
            resource: String::new(),
            agent: None,
            sm_ids: Vec::new(),
            last_seen: UnixSecs::default(),
            open: Vec::new(),
            guard: None,
        }
    }

    /// Returns whether the device has an open session on the server.
    pub fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Replaces the logins, if there are any, by one of an older database.
    pub(super) fn make_logins_old(&mut self) {
        if self.is_open() {
            self.open = vec![OLD];
        }
    }

    /// Merges another, newer record of the same device into this one.
    pub(super) fn absorb(&mut self, newer: Device) {
        self.resource = newer.resource;
        self.agent = newer.agent.or(self.agent.take());
        self.last_seen = self.last_seen.max(newer.last_seen);
        self.add_logins(newer.open);
        self.add_sm_ids(newer.sm_ids);
        self.guard = newer.guard.or(self.guard.take());
    }

    /// Replaces the poison guard. An empty one is not stored.
    pub(super) fn set_guard(&mut self, guard: Guard) {
        self.guard = Some(guard).filter(|guard| !guard.is_empty()).map(Box::new);
    }

    /// Returns the stanzas that were set aside to their places.
    pub(super) fn release_set_aside(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            guard.release();
            self.guard = Some(guard).filter(|guard| !guard.is_empty());
        }
    }

    /// Adds logins whose sessions are open.
    pub(super) fn add_logins(&mut self, logins: impl IntoIterator<Item = LoginId>) {
        self.open.extend(logins);
        self.open.sort_unstable();
        self.open.dedup();
    }

    /// Adds resumption ids and forgets the oldest beyond the limit.
    pub(super) fn add_sm_ids(&mut self, sm_ids: impl IntoIterator<Item = String>) {
        self.sm_ids.extend(sm_ids);
        forget_oldest(&mut self.sm_ids, SM_IDS);
    }
}

fn forget_oldest<T>(list: &mut Vec<T>, at_most: usize) {
    list.drain(..list.len().saturating_sub(at_most));
}

/// Reads the list of logins. Older records say only whether there is one.
fn open_logins<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<LoginId>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OpenField {
        Logins(Vec<LoginId>),
        Is(bool),
    }
    Ok(match OpenField::deserialize(deserializer)? {
        OpenField::Logins(logins) => logins,
        OpenField::Is(open) => open.then_some(OLD).into_iter().collect(),
    })
}
