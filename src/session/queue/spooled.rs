//! A stanza as it waits on disk, and what it weighs in memory.

use std::fmt;

use bytes::Bytes;

use crate::clock::UnixMillis;
use crate::push::account::LoginId;
use crate::seq::Seq;

/// What a queued stanza costs beside its bytes.
const OVERHEAD: usize = 160;

/// What a stanza of so many bytes takes of the queue's memory.
pub(super) fn weight(len: usize) -> usize {
    len.saturating_add(OVERHEAD)
}

/// A stanza that waits on disk. Its bytes are self-contained: they mean the same on any stream.
#[derive(Clone, PartialEq, Eq)]
pub struct Spooled {
    /// Its place among all stanzas for the device, ascending, never reused.
    pub seq: Seq,
    /// When it came.
    pub received: UnixMillis,
    /// Addressed to the account itself, so that another device may have it.
    pub shared: bool,
    /// The server's archive has it: `<stanza-id/>` (XEP-0359) by the own bare JID.
    pub archived: bool,
    /// The stanza.
    pub bytes: Bytes,
}

impl Spooled {
    /// What it takes of a session's memory once it is read back, in bytes: more than its own.
    pub fn weight(&self) -> usize {
        weight(self.bytes.len())
    }
}

/// A request to read stanzas back from a spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// The session that wrote the spool; `None` for the own one.
    pub spool: Option<LoginId>,
    /// Behind this place.
    pub after: Seq,
    /// Stanzas of so much [`Spooled::weight`], one at least.
    pub weight: usize,
}

impl fmt::Debug for Spooled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spooled").field("seq", &self.seq).field("len", &self.bytes.len()).finish_non_exhaustive()
    }
}
