//! Replies of Pushward that did not fit into memory and are on their way to the disk.

use crate::seq::Seq;

/// The bytes of replies that may be on their way to the disk.
const REPLIES: usize = 64 << 10;

/// Replies on their way to the disk. Few sessions have any.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct SpooledReplies(Option<Box<StoredReplies>>);

#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
struct StoredReplies {
    bytes: usize,
    last: Seq,
}

impl SpooledReplies {
    /// Adds a reply to the client that did not fit into memory.
    pub(super) fn add(&mut self, seq: Seq, len: usize) {
        let replies = self.0.get_or_insert_default();
        **replies = StoredReplies { bytes: replies.bytes.saturating_add(len), last: seq };
    }

    /// Notes that everything handed to the spool up to this sequence number is on disk.
    pub(super) fn on_spooled(&mut self, seq: Seq) {
        self.0 = self.0.take().filter(|replies| replies.last > seq);
    }

    /// Returns whether they exceed the limit for replies that wait to be written.
    pub(super) fn are_over_limit(&self) -> bool {
        self.0.as_ref().is_some_and(|replies| replies.bytes >= REPLIES)
    }
}
