//! Prefixes of the stanzas in memory for which a question is already answered.

/// The number of stanzas at the front that need not be checked again.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Prefixes {
    /// Stanzas that the server need not keep.
    pub(super) settled: usize,
    /// Stanzas that were handed to the spool, or do not need it.
    pub(super) handed: usize,
}

impl Prefixes {
    /// Adjusts the prefixes after the first stanza was removed.
    pub(super) fn on_first_removed(&mut self) {
        (self.settled, self.handed) = (self.settled.saturating_sub(1), self.handed.saturating_sub(1));
    }

    /// Adjusts the prefixes after stanzas were inserted, removed or changed from this index on.
    pub(super) fn on_changed_from(&mut self, at: usize) {
        (self.settled, self.handed) = (self.settled.min(at), self.handed.min(at));
    }
}
