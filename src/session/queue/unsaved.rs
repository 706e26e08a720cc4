//! A count of the stanzas that must not be lost and are in memory alone.

use super::queued::Queued;

/// Stanzas that neither the client nor the disk has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unsaved {
    /// The number of stanzas.
    pub stanzas: usize,
    /// Their memory charge, in bytes.
    pub bytes: usize,
}

impl Unsaved {
    /// The count with this stanza added.
    pub(super) fn plus(self, item: &Queued) -> Self {
        Self { stanzas: self.stanzas + 1, bytes: self.bytes + item.weight() }
    }
}
