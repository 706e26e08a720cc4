//! What a [`Session`] learns of the account's contacts, for devices that want to hear of no strangers.

use std::time::Instant;

use super::Session;
use crate::xml::{Element, XmlWriter, ns};

impl Session {
    fn wants_roster(&self) -> bool {
        self.owner.account.registrations.iter().any(|r| r.extensions.ignore_unknown)
    }

    /// Asks the server for the roster, once, if it matters: the client may have it stored, and ask for changes only (RFC 6121
    /// §2.6).
    pub(super) fn ask_for_roster(&mut self, now: Instant) {
        if self.roster_asked || !self.wants_roster() {
            return;
        }
        self.roster_asked = true;
        let id = self.pending.id((self.dice)());
        let mut xml = XmlWriter::new();
        xml.start("iq").attr("type", "get").attr("id", &id).start("query").attr("xmlns", ns::ROSTER);
        self.inject(now, xml.finish());
    }

    /// Takes a roster, or a change of it, on its way to the client.
    pub(super) fn learn_contacts(&mut self, iq: &Element) {
        if self.roster_asked && iq.mentions(ns::ROSTER) && self.is_server(iq.node().attr("from").as_deref()) {
            self.roster.learn(&iq.node());
        }
    }
}
