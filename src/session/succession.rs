//! Two sessions of one device: the older one gives way to the newer, or both stay.
//!
//! A fresh bind or a registration may show that two sessions are one device. The older gives way at once if its client is not
//! there or has the same full JID; else its client is asked. If it answers, it is a second living copy of the installation, and
//! both sessions stay until the older one loses its client.

use std::time::{Duration, Instant};

/// How long a client that is asked whether it is there may take to send anything.
const ANSWER: Duration = Duration::from_secs(2);

/// The newest other session of the device, or of the full JID, that logged in behind this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Successor {
    /// Whether it has the same full JID.
    pub same_address: bool,
}

/// What is known of a newer session of the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum NewerSession {
    /// There is none.
    #[default]
    Newest,
    /// There is one, and the client has until then to show that it is there as well.
    Asked(Instant),
    /// There is one, and the client is there as well.
    Both,
}

impl NewerSession {
    /// Whether a newer session of the device exists.
    pub(super) fn has_successor(self) -> bool {
        self != Self::Newest
    }

    /// The newer session is gone.
    pub(super) fn forget(&mut self) {
        *self = Self::Newest;
    }

    /// The client is asked whether it is there.
    pub(super) fn ask(&mut self, now: Instant) {
        *self = Self::Asked(now + ANSWER);
    }

    /// The client has sent something. Returns whether it was asked for that.
    pub(super) fn on_sign_of_life(&mut self) -> bool {
        let is_asked = matches!(self, Self::Asked(_));
        if is_asked {
            *self = Self::Both;
        }
        is_asked
    }

    /// The client is read again: its time to answer begins again.
    pub(super) fn on_client_unpaused(&mut self, now: Instant) {
        if let Self::Asked(_) = self {
            self.ask(now);
        }
    }

    /// When the client counts as silent.
    pub(super) fn deadline(self) -> Option<Instant> {
        if let Self::Asked(at) = self { Some(at) } else { None }
    }
}
