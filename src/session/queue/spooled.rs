//! A stanza on disk, and its memory charge. The store writes and reads [`Spooled`]; [`Load`] is the session's request to
//! read.

use std::fmt;

use bytes::Bytes;

use crate::clock::UnixMillis;
use crate::push::account::LoginId;
use crate::seq::Seq;

/// The memory charge of a queued stanza in addition to its bytes.
const OVERHEAD: usize = 160;

/// The memory charge of a stanza of this length.
pub(super) fn weight(len: usize) -> usize {
    len.saturating_add(OVERHEAD)
}

/// A stanza on disk. Its bytes are self-contained: they mean the same on any stream.
#[derive(Clone, PartialEq, Eq)]
pub struct Spooled {
    /// Its sequence number among all stanzas of the device: ascending, never reused.
    pub seq: Seq,
    /// The time of its arrival.
    pub received: UnixMillis,
    /// True if it is addressed to the account itself, so that another device may have it.
    pub shared: bool,
    /// True if the server's archive has it: it carries a `<stanza-id/>` (XEP-0359) by the own bare JID.
    pub archived: bool,
    /// The stanza.
    pub bytes: Bytes,
}

impl Spooled {
    /// The memory charge once it is read back, in bytes. It is larger than its length.
    pub fn weight(&self) -> usize {
        weight(self.bytes.len())
    }
}

/// A request to read stanzas back from a spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// The session that wrote the spool; `None` for the own session.
    pub spool: Option<LoginId>,
    /// The number after which to read.
    pub after: Seq,
    /// The total [`Spooled::weight`] to read, but one stanza at least.
    pub weight: usize,
}

impl fmt::Debug for Spooled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spooled").field("seq", &self.seq).field("len", &self.bytes.len()).finish_non_exhaustive()
    }
}
