//! The state of the device on which the notifier bases its decisions.

use crate::clock::Instant;
use crate::seq::Seq;
use crate::session::account::AccountView;
use crate::session::delivery::Delivery;
use crate::xml::Element;

/// The state of the device at the time of a decision.
#[derive(Clone, Copy)]
pub(in crate::session) struct Situation<'a> {
    pub(in crate::session) account: &'a AccountView,
    pub(in crate::session) delivery: &'a Delivery,
    /// The time since which stanzas cannot be expected to be read; `None` while the client is live.
    pub(in crate::session) unreachable_since: Option<Instant>,
}

impl Situation<'_> {
    /// The time since which the device has been unreachable, if it has a registration.
    pub(super) fn since(&self) -> Option<Instant> {
        self.unreachable_since.filter(|_| self.account.has_registration())
    }
}

/// A stanza that has just come.
#[derive(Clone, Copy)]
pub(in crate::session) struct Fresh<'a> {
    pub(in crate::session) stanza: &'a Element,
    pub(in crate::session) seq: Seq,
    pub(in crate::session) kept: Kept,
}

/// The storage of a stanza that has just come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::session) enum Kept {
    InMemory,
    OnDiskOnly,
}
