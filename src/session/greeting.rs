//! What a device gets before anything new: what waits for it from earlier sessions, and later what nobody else fetches.

use std::time::Instant;

use super::Session;
use crate::xml::Element;

/// What stands before the client's first available presence.
#[derive(Debug)]
pub(super) enum Greeting {
    /// The device's spool has stanzas of earlier sessions: they go first.
    Backlog,
    /// They are on their way; the presence waits.
    Sending(Option<Box<Element>>),
    /// None was sent yet.
    Awaited,
    /// It was forwarded.
    Done,
}

impl Session {
    /// The first available presence waits until what the device missed before has been written (true), or passes.
    pub(super) fn greet(&mut self, element: &Element) -> bool {
        match self.greeting {
            Greeting::Backlog => {
                self.greeting = Greeting::Sending(Some(Box::new(element.compact())));
                // What comes meanwhile is not certain to be read, whatever the client enables behind its presence.
                self.track_by_ping();
                self.take_over_if_settled();
                true
            }
            // What follows a presence that waits comes after it.
            Greeting::Sending(_) => {
                self.greeting = Greeting::Sending(Some(Box::new(element.compact())));
                true
            }
            Greeting::Awaited | Greeting::Done => false,
        }
    }

    /// Whether the client's presence waits.
    pub(super) fn holds_presence(&self) -> bool {
        matches!(self.greeting, Greeting::Sending(Some(_)))
    }

    /// The presence that waited goes on its way, once no more of the backlog can be written before it.
    pub(super) fn greeted(&mut self, now: Instant) {
        if self.loading.is_some() || self.owner.older || self.queue.awaits_spools() {
            return;
        }
        if self.queue.has_tail() && !self.queue.is_full() {
            return;
        }
        if let Greeting::Sending(Some(presence)) = std::mem::replace(&mut self.greeting, Greeting::Awaited) {
            self.forward_counted(now, *presence);
        }
    }

    /// What no other device will fetch comes to this one, a while after its first presence (XEP-0160 in spirit).
    pub(super) fn await_orphans(&mut self, now: Instant) {
        if self.owner.account.devices.len() > 1 {
            self.orphans_due = Some((now + self.settings.stream_management.orphan_grace, false));
        }
    }
}
