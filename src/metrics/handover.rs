//! Counters of stanzas on their way to a device: redelivered, moved, never fetched, set aside, given back.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

/// The counters of stanzas on their way to a device.
#[derive(Debug, Default)]
pub(super) struct Handover {
    redelivered: Counter,
    places_taken: Counter,
    never_fetched: Counter,
    set_aside: Counter,
    given_back: Counter,
}

impl Handover {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Messages dropped because an upstream server sent them again after its connection was lost";
        registry.register("redelivered_messages", help, self.redelivered.clone());
        let help = "Spool writes whose sequence number was already taken: the stanzas were stored behind the last one";
        registry.register("spool_places_taken", help, self.places_taken.clone());
        let help = "Stanzas deleted from disk because no device fetched them in time";
        registry.register("stanzas_never_fetched", help, self.never_fetched.clone());
        let help = "Stanzas set aside because a client breaks on them: the device does not receive them again";
        registry.register("stanzas_set_aside", help, self.set_aside.clone());
        let help = "Stanzas that were set aside and given back because the client also breaks without them";
        registry.register("stanzas_given_back", help, self.given_back.clone());
    }

    /// Counts a message that the server sent a second time and that was dropped.
    pub(super) fn redelivered(&self) {
        self.redelivered.inc();
    }

    /// Counts a sequence number in a spool that was already taken.
    pub(super) fn sequence_taken(&self) {
        self.places_taken.inc();
    }

    /// Counts a stanza that was set aside.
    pub(super) fn set_aside(&self) {
        self.set_aside.inc();
    }

    /// Counts stanzas that were set aside and returned to their original positions.
    pub(super) fn given_back(&self, stanzas: u64) {
        self.given_back.inc_by(stanzas);
    }

    /// Counts stanzas that were deleted because no device had fetched them.
    pub(super) fn never_fetched(&self, stanzas: u64) {
        self.never_fetched.inc_by(stanzas);
    }
}
