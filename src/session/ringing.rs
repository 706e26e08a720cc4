//! A call that a live client has not acknowledged.

use std::time::Duration;

use super::account::AccountView;
use crate::clock::Instant;
use crate::seq::Seq;
use crate::xml::{Element, ns};

/// The time that a live client has to acknowledge a call before it is pushed.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// A call that is to be pushed if the client does not acknowledge it.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Ringing {
    seq: Seq,
    until: Instant,
}

impl Ringing {
    pub(super) fn new(now: Instant, seq: Seq) -> Self {
        Self { seq, until: now + PATIENCE }
    }

    /// The sequence number of the call's stanza.
    pub(super) fn seq(self) -> Seq {
        self.seq
    }

    /// The time at which it is pushed.
    pub(super) fn until(self) -> Instant {
        self.until
    }

    /// Restarts the client's time if it is over.
    pub(super) fn prolonged(self, now: Instant) -> Self {
        if self.until <= now { Self::new(now, self.seq) } else { self }
    }
}

/// Returns whether a stanza may be about a call, for a device with a registration.
pub(super) fn may_ring(element: &Element, account: &AccountView) -> bool {
    // The common prefix of the namespaces of Jingle and XEP-0353.
    const CALLS: [&str; 2] = ["urn:xmpp:jingle", ns::CALL_INVITES];
    account.has_registration() && CALLS.iter().any(|ns| element.mentions(ns))
}
