//! Changes of an account.

use crate::clock::UnixSecs;
use crate::jid::Jid;
use crate::push::device::{DeviceId, DeviceRecognition, LoginId};
use crate::push::guard::Guard;
use crate::push::mucsub::Subscription;
use crate::push::registration::{Registration, Target};

/// A change of an account, applied in one transaction of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A device bound a resource.
    Login {
        /// Its id if it is a new one.
        candidate: DeviceId,
        /// The id of its session.
        login: LoginId,
        /// The resource that it bound.
        resource: String,
        /// The id of its user agent (XEP-0388 §2.3).
        agent: Option<String>,
        /// The resumption id that it presented before, in vain.
        presented: Option<String>,
        /// The time.
        at: UnixSecs,
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
        /// How its device was recognized.
        recognition: DeviceRecognition,
        /// The number of registrations that an account may have.
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
        /// The time.
        at: UnixSecs,
    },
    /// A publish was answered with an error that counts; the registration goes once `max_errors` came in a row.
    Failed {
        /// The registration's target.
        target: Target,
        /// The number of errors in a row that ends it.
        max_errors: u32,
    },
    /// A publish was accepted.
    Succeeded {
        /// The registration's target.
        target: Target,
        /// The time.
        at: UnixSecs,
    },
    /// A publish was not delivered: its service is out of reach, or asks to wait.
    Undelivered {
        /// The registration's target.
        target: Target,
        /// The time.
        at: UnixSecs,
    },
    /// A client subscribes to a room, or not any more (MUC/Sub).
    Subscribes(Subscription),
    /// The device's client has broken on a stanza, or has acknowledged one that it broke on.
    Guarded {
        /// The device.
        device: DeviceId,
        /// Its new state.
        guard: Guard,
    },
    /// The operator has the stanzas go back to their places that were set aside for the account's devices.
    Released,
    /// The account was removed from the server: nothing of it is kept.
    Removed,
}

impl Change {
    /// Returns whether the account's other sessions depend on it.
    pub fn concerns_others(&self) -> bool {
        !matches!(self, Self::Seen { .. } | Self::Succeeded { .. } | Self::Undelivered { .. } | Self::Resumable { .. })
    }
}
