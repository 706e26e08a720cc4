//! Messages that an ending session leaves to its server, which delivers them elsewhere (XEP-0198 §4). The session holds
//! them until the server has closed its stream. If the connection breaks instead, the server may be gone, so the session
//! keeps them for the device.

use super::queue::Queued;
use crate::xml::{HeaderPool, Kind};

/// Messages left to the server, oldest first.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct GivenBack {
    messages: Vec<Queued>,
    /// The bytes of the messages that came after the session's end.
    later: usize,
}

impl GivenBack {
    /// Completes the messages after they were read from a record.
    pub(super) fn restore(&mut self, headers: &mut HeaderPool<'_>) {
        self.messages.iter_mut().for_each(|item| item.element.share_header(headers));
    }

    /// Holds the messages among these stanzas. Their bytes are already accounted for.
    pub(super) fn hold(&mut self, stanzas: impl Iterator<Item = Queued>) {
        self.messages.extend(stanzas.filter(is_kept));
    }

    /// The messages, to be kept for the device.
    pub(super) fn into_messages(self) -> Vec<Queued> {
        self.messages
    }

    /// Holds a message that came after the session's end, if `limit` leaves room for its bytes.
    pub(super) fn hold_later(&mut self, item: Queued, limit: usize) {
        let later = self.later.saturating_add(item.element.bytes().len());
        if is_kept(&item) && later <= limit {
            self.later = later;
            self.messages.push(item);
        }
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn messages(&self) -> &[Queued] {
        &self.messages
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn later(&self) -> usize {
        self.later
    }

    /// The bytes of memory in use.
    pub(super) fn memory(&self) -> usize {
        self.messages.iter().map(|item| size_of::<Queued>() + item.element.bytes().len()).sum()
    }
}

fn is_kept(item: &Queued) -> bool {
    item.durable && item.element.kind() == Kind::Message
}
