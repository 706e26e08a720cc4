//! What a session gave back to its server when it ended (XEP-0198 §4): a server that breaks its connection then, instead of
//! closing its stream, may be dead and send it to nobody. Until it closes its stream, the messages are held.

use std::time::Instant;

use super::queue::{Place, Queued};
use super::{Output, Session};
use crate::xml::Kind;

/// Messages that the server has to send elsewhere, oldest first.
#[derive(Debug, Default)]
pub(super) struct GivenBack {
    pub(super) messages: Vec<Queued>,
    /// Bytes of those that came after the session's end.
    pub(super) later: usize,
}

impl GivenBack {
    /// Holds a message that came after the end, as far as there is room for its bytes.
    fn hold_later(&mut self, item: Queued, limit: usize) {
        let later = self.later + item.element.bytes().len();
        if is_kept(&item) && later <= limit {
            self.later = later;
            self.messages.push(item);
        }
    }

    /// Bytes of memory that it has.
    pub(super) fn memory(&self) -> usize {
        self.messages.iter().map(|item| size_of::<Queued>() + item.element.bytes().len()).sum()
    }
}

fn is_kept(item: &Queued) -> bool {
    item.durable && item.element.kind() == Kind::Message
}

impl Session {
    /// What the server was not acknowledged is its own: it sends it elsewhere.
    pub(super) fn give_back(&mut self) {
        let acked = self.server.acked();
        let is_theirs = |item: &&Queued| item.ordinal.is_some_and(|ordinal| ordinal.get() > acked);
        let theirs: Vec<Queued> = self.queue.iter().chain(self.queue.in_flight()).filter(is_theirs).cloned().collect();
        // There was room for it so far.
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

    /// The server does not get this stanza acknowledged, which came after the end.
    pub(super) fn hold_given_back(&mut self, item: Queued) {
        self.given_back.get_or_insert_default().hold_later(item, self.settings.session_queue);
    }

    /// The server's connection has broken: what was given back to it is kept for the device, and remembered.
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
