//! The prefixes of the stanzas in memory about which a question is already answered.

/// How many stanzas at the front need not be looked at again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Prefixes {
    /// The server need not keep them.
    pub(super) settled: usize,
    /// The spool was asked to take them, or need not have them.
    pub(super) handed: usize,
}

impl Prefixes {
    /// The first stanza was removed.
    pub(super) fn on_first_removed(&mut self) {
        (self.settled, self.handed) = (self.settled.saturating_sub(1), self.handed.saturating_sub(1));
    }

    /// From this index on, stanzas were inserted, removed or changed.
    pub(super) fn on_changed_from(&mut self, at: usize) {
        (self.settled, self.handed) = (self.settled.min(at), self.handed.min(at));
    }
}
