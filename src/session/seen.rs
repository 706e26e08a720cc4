//! What an operator sees of a [`Session`].

use super::Session;
use super::liveness::Reach;
use crate::jid::Jid;

impl Session {
    /// Whether the client can be reached.
    pub fn reach(&self) -> Reach {
        self.liveness.reach()
    }

    /// Whether the session is held without a usable client connection.
    pub fn is_dark(&self) -> bool {
        self.liveness.is_dark()
    }

    /// How many stanzas wait in memory for the client's acknowledgement, and what they count for in bytes.
    pub fn queued(&self) -> (usize, usize) {
        (self.queue.len(), self.queue.bytes())
    }

    /// The push services that notify the device.
    pub fn services(&self) -> Vec<Jid> {
        let mut services: Vec<_> = self.owned().map(|registration| registration.target.service.clone()).collect();
        services.shrink_to_fit();
        services
    }
}
