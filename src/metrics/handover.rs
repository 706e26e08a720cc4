//! What is counted of stanzas that change hands between the sessions of an account.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

/// Stanzas that came again, had to move, or were fetched by nobody.
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
        let help = "Messages that a server sent a second time after its connection broke, and that were dropped";
        registry.register("redelivered_messages", help, self.redelivered.clone());
        let help = "Times that a place in a spool was taken: the stanzas went behind all that the spool ever had";
        registry.register("spool_places_taken", help, self.places_taken.clone());
        let help = "Stanzas deleted from disk because no device fetched them in time";
        registry.register("stanzas_never_fetched", help, self.never_fetched.clone());
        let help = "Stanzas that a device gets no more because its client breaks on them";
        registry.register("stanzas_set_aside", help, self.set_aside.clone());
        let help =
            "Stanzas that were set aside and went back to their places, because the client breaks without them, too";
        registry.register("stanzas_given_back", help, self.given_back.clone());
    }
}

impl super::Metrics {
    /// A message that was kept came a second time.
    pub fn redelivered(&self) {
        self.handover.redelivered.inc();
    }

    /// A place in a spool was taken by something else.
    pub fn place_taken(&self) {
        self.handover.places_taken.inc();
    }

    /// A device gets a stanza no more.
    pub fn set_aside(&self) {
        self.handover.set_aside.inc();
    }

    /// So many stanzas that were set aside went back to their places.
    pub fn given_back(&self, stanzas: u64) {
        self.handover.given_back.inc_by(stanzas);
    }

    /// So many stanzas were deleted that no device has fetched.
    pub fn never_fetched(&self, stanzas: u64) {
        self.handover.never_fetched.inc_by(stanzas);
    }
}
