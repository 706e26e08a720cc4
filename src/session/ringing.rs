//! A call that a live client has not acknowledged.

use std::time::{Duration, Instant};

use super::account::AccountView;
use crate::seq::Seq;
use crate::xml::{Element, ns};

/// How long a live client may leave a call unacknowledged before it is pushed.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// A call that is to be pushed if the client does not acknowledge it.
#[derive(Clone, Copy, Debug)]
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

    /// When it is pushed.
    pub(super) fn until(self) -> Instant {
        self.until
    }

    /// The client has its whole time again, if that was over.
    pub(super) fn prolonged(self, now: Instant) -> Self {
        if self.until <= now { Self::new(now, self.seq) } else { self }
    }
}

/// Whether a stanza may be about a call, for a device that is there and has a registration.
pub(super) fn may_ring(element: &Element, account: &AccountView) -> bool {
    // What the namespaces of Jingle and of XEP-0353 begin with.
    const CALLS: [&str; 2] = ["urn:xmpp:jingle", ns::CALL_INVITES];
    account.has_registration() && CALLS.iter().any(|ns| element.mentions(ns))
}
