//! The tail of the queue: the stanzas after those in memory, which only the spool holds.

use super::notes::Notes;
use crate::seq::Seq;

/// The stanzas after a number. While there are any, newer stanzas join them.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Tail {
    /// The number after which stanzas are to be read back.
    after: Option<Seq>,
    notes: Option<Box<Notes>>,
}

impl Tail {
    /// Completes a tail that was read from a record.
    pub(super) fn restore(&mut self) {
        self.notes.iter_mut().for_each(|notes| notes.restore());
    }

    /// Begins the tail after this number, unless it has begun before.
    pub(super) fn begin(&mut self, after: Seq) {
        self.after.get_or_insert(after);
    }

    /// Returns whether stanzas join the tail.
    pub(super) fn is_open(&self) -> bool {
        self.after.is_some()
    }

    /// The number after which the tail begins.
    pub(super) fn after(&self) -> Option<Seq> {
        self.after
    }

    /// Returns whether a stanza belongs to the tail.
    pub(super) fn has(&self, seq: Seq) -> bool {
        self.after.is_some_and(|after| seq > after)
    }

    /// Returns whether the tail is open, and all of it that was committed has been read back.
    pub(super) fn is_read_to(&self, committed: Seq) -> bool {
        self.after.is_some_and(|after| after >= committed)
    }

    /// Notes that the stanza with this number has been read back.
    pub(super) fn on_read(&mut self, seq: Seq) {
        self.after = Some(seq);
        self.forget_notes(seq);
    }

    /// Notes that everything up to this number has been read back.
    pub(super) fn on_read_all(&mut self, committed: Seq) {
        self.after = self.after.map(|after| after.max(committed));
        self.forget_notes(committed);
    }

    /// Closes the tail: newer stanzas go to memory again.
    pub(super) fn close(&mut self) {
        self.after = None;
    }

    /// The notes about stanzas that only the spool has.
    pub(super) fn notes(&mut self) -> &mut Notes {
        self.notes.get_or_insert_default()
    }

    fn forget_notes(&mut self, up_to: Seq) {
        if let Some(notes) = &mut self.notes {
            notes.forget(up_to);
        }
    }

    /// Removes the note about a stanza that was returned to its sender.
    pub(super) fn forget_note(&mut self, seq: Seq) {
        if let Some(notes) = &mut self.notes {
            notes.remove(seq);
        }
    }
}
