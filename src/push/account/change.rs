//! Changes of an account. The store applies each [`Change`] in one transaction.

use crate::clock::UnixSecs;
use crate::jid::Jid;
use crate::push::device::{DeviceId, DeviceRecognition, LoginId};
use crate::push::fast::TokenChange;
use crate::push::guard::Guard;
use crate::push::mucsub::Subscription;
use crate::push::registration::{Registration, Target};

/// A change of an account, applied in one transaction of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A device has bound a resource.
    Login {
        /// The id that the device gets if it is new.
        candidate: DeviceId,
        /// The id of its session.
        login: LoginId,
        /// The resource that it bound.
        resource: String,
        /// The id of its user agent (XEP-0388 §2.3).
        agent: Option<String>,
        /// The resumption id that the client presented before, in a resumption that failed.
        presented: Option<String>,
        /// The time.
        at: UnixSecs,
    },
    /// A device has received a resumption id.
    Resumable {
        /// The device.
        device: DeviceId,
        /// The id.
        sm_id: String,
    },
    /// The session of a login has ended in order. It does not matter which device it belongs to. Sessions of the
    /// device's other logins continue.
    Ended {
        /// The login.
        login: LoginId,
    },
    /// Adds a registration, or replaces the one with the same target. Beyond `max_devices`, the least recently seen
    /// registrations are removed. If the target belonged to another device, and this device is not recognized by a
    /// resumption id, both are one device, and the other's id is kept.
    Enable {
        /// The new registration.
        registration: Registration,
        /// The way in which its device was recognized.
        recognition: DeviceRecognition,
        /// The number of registrations that an account may have.
        max_devices: usize,
    },
    /// Removes one node of a push service, or all nodes of the service if `node` is `None`.
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
    /// A publish was answered with an error that counts. The registration is removed after `max_errors` in a row.
    Failed {
        /// The registration's target.
        target: Target,
        /// The number of errors in a row that ends the registration.
        max_errors: u32,
    },
    /// A publish was accepted.
    Succeeded {
        /// The registration's target.
        target: Target,
        /// The time.
        at: UnixSecs,
    },
    /// A publish was not delivered: its service is unreachable, or asks to wait.
    Undelivered {
        /// The registration's target.
        target: Target,
        /// The time.
        at: UnixSecs,
    },
    /// A client subscribes to a room or unsubscribes (MUC/Sub).
    Subscribes(Subscription),
    /// The device's client has failed on a stanza, or has acknowledged a stanza on which it failed before.
    Guarded {
        /// The device.
        device: DeviceId,
        /// Its new state.
        guard: Guard,
    },
    /// The operator releases the stanzas that were set aside for the account's devices. They go back to their places.
    Released,
    /// A token of a client was issued, used or ended (XEP-0484).
    Token(TokenChange),
    /// The account was removed from the server. Its whole record is deleted.
    Removed,
}

impl Change {
    /// Returns whether the account's other sessions depend on this change.
    pub fn concerns_others(&self) -> bool {
        !matches!(
            self,
            Self::Seen { .. }
                | Self::Succeeded { .. }
                | Self::Undelivered { .. }
                | Self::Resumable { .. }
                | Self::Token(_)
        )
    }
}
