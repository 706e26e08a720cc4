//! Messages that an ending session leaves to its server, which sends them elsewhere (XEP-0198 §4). The session holds them until
//! the server has closed its stream. If the connection breaks instead, the server may be dead, so the session keeps them for the
//! device.

use std::time::Instant;

use super::queue::{Place, Queued};
use super::{Output, Session};
use crate::xml::Kind;

/// Messages left to the server, oldest first.
#[derive(Debug, Default)]
pub(super) struct GivenBack {
    pub(super) messages: Vec<Queued>,
    /// Bytes of the messages that came after the session's end.
    pub(super) later: usize,
}

impl GivenBack {
    /// Holds a message that came after the session's end, if `limit` leaves room for its bytes.
    fn hold_later(&mut self, item: Queued, limit: usize) {
        let later = self.later + item.element.bytes().len();
        if is_kept(&item) && later <= limit {
            self.later = later;
            self.messages.push(item);
        }
    }

    /// Bytes of memory in use.
    pub(super) fn memory(&self) -> usize {
        self.messages.iter().map(|item| size_of::<Queued>() + item.element.bytes().len()).sum()
    }
}

fn is_kept(item: &Queued) -> bool {
    item.durable && item.element.kind() == Kind::Message
}

impl Session {
    /// Leaves all stanzas to the server that were not acknowledged to it. The server sends them elsewhere.
    pub(super) fn give_back(&mut self) {
        let acked = self.server.acked();
        let is_theirs = |item: &&Queued| item.ordinal.is_some_and(|ordinal| ordinal.get() > acked);
        let theirs: Vec<Queued> = self.queue.iter().chain(self.queue.in_flight()).filter(is_theirs).cloned().collect();
        // Their bytes are already accounted for, so `hold_later` does not count them.
        let messages = theirs.into_iter().filter(is_kept);
        self.given_back.get_or_insert_default().messages.extend(messages);
        for item in self.queue.remove_aside(|item| is_theirs(&item)) {
            self.discard(&item);
        }
        for given in self.queue.give_back(acked) {
            for places in self.queue.spare(None, given) {
                self.out(Output::Unspool { spool: None, places });
            }
        }
    }

    /// Holds a stanza that came after the session's end and is not acknowledged to the server.
    pub(super) fn hold_given_back(&mut self, item: Queued) {
        self.given_back.get_or_insert_default().hold_later(item, self.settings.session_queue);
    }

    /// Keeps for the device what was left to the server, because the server's connection has broken.
    pub(super) fn keep_given_back(&mut self, now: Instant) {
        let Some(given_back) = self.given_back.take() else { return };
        for item in given_back.messages {
            match self.queue.place(item.element.bytes().len()) {
                Place::Memory(seq) => self.queue.hold(item.anew(seq)),
                Place::SpoolOnly(seq) => self.queue.hold_for_spool(item.anew(seq)),
            }
        }
        self.keep_what_may_come_again(now);
    }
}
