//! Succession: two sessions of one device, of which the older one ends, or both stay.
//!
//! A fresh bind or a registration may show that two sessions belong to one device. The older session ends at once if its
//! client is not connected or has the same full JID. Otherwise its client is asked for a sign of life. If it answers, it is
//! a second copy of the same installation, and both sessions stay until the older one loses its client.

use std::time::Duration;

use crate::clock::Instant;

/// The time that the asked client has to send anything.
const ANSWER: Duration = Duration::from_secs(2);

/// The newest other session of the device, or of the full JID, that logged in after this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Successor {
    /// True if it has the same full JID.
    pub same_address: bool,
}

/// The state of the newer session of the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum NewerSession {
    /// There is no newer session.
    #[default]
    Newest,
    /// There is one. The client has to send anything until this time.
    Asked(Instant),
    /// There is one, and this session's client is connected as well.
    Both,
}

impl NewerSession {
    /// Returns whether a newer session of the device exists.
    pub(super) fn has_successor(self) -> bool {
        self != Self::Newest
    }

    /// Notes that the newer session is gone.
    pub(super) fn forget(&mut self) {
        *self = Self::Newest;
    }

    /// Notes that the client is asked for a sign of life.
    pub(super) fn ask(&mut self, now: Instant) {
        *self = Self::Asked(now + ANSWER);
    }

    /// Notes that the client has sent something. Returns whether it was asked for that.
    pub(super) fn on_sign_of_life(&mut self) -> bool {
        let is_asked = matches!(self, Self::Asked(_));
        if is_asked {
            *self = Self::Both;
        }
        is_asked
    }

    /// Restarts the client's time to answer, because the client is read again.
    pub(super) fn on_client_unpaused(&mut self, now: Instant) {
        if let Self::Asked(_) = self {
            self.ask(now);
        }
    }

    /// The time at which the client counts as silent.
    pub(super) fn deadline(self) -> Option<Instant> {
        if let Self::Asked(at) = self { Some(at) } else { None }
    }
}
