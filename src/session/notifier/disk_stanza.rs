//! [`DiskStanza`]: the stanza that a push is about, after it left the memory.

use crate::seq::Seq;
use crate::xml::Element;

/// A stanza that only the disk has.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct DiskStanza {
    pub(super) seq: Seq,
    pub(super) stanza: Element,
}
