//! The stanzas that must not be lost and are in memory alone, counted.

use super::queued::Queued;

/// Stanzas that neither the client nor the disk has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unsaved {
    /// Stanzas.
    pub stanzas: usize,
    /// What they count for, in bytes.
    pub bytes: usize,
}

impl Unsaved {
    /// The same with this stanza.
    pub(super) fn plus(self, item: &Queued) -> Self {
        Self { stanzas: self.stanzas + 1, bytes: self.bytes + item.weight() }
    }
}
