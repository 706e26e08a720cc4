//! What a session gave back to its server when it ended (XEP-0198 §4): a server that breaks its connection then, instead of
//! closing its stream, may be dead and send it to nobody. Until it closes its stream, the messages are held.

use std::time::Instant;

use super::queue::{Place, Queued};
use super::{Output, Session};
use crate::xml::Kind;

/// Messages that the server has to send elsewhere, oldest first.
#[derive(Debug, Default)]
pub(super) struct GivenBack {
    messages: Vec<Queued>,
    bytes: usize,
}

impl GivenBack {
    /// Holds a message, as far as there is room for its bytes.
    fn hold(&mut self, item: Queued, limit: usize) {
        let bytes = item.element.bytes().len();
        if item.durable && item.element.kind() == Kind::Message && self.bytes + bytes <= limit {
            self.bytes += bytes;
            self.messages.push(item);
        }
    }
}

impl Session {
    /// What the server was not acknowledged is its own: it sends it elsewhere.
    pub(super) fn give_back(&mut self) {
        let acked = self.server.acked();
        let is_theirs = |item: &&Queued| item.ordinal.is_some_and(|ordinal| ordinal.get() > acked);
        let theirs: Vec<Queued> = self.queue.iter().chain(self.queue.in_flight()).filter(is_theirs).cloned().collect();
        theirs.into_iter().for_each(|item| self.hold_given_back(item));
        for item in self.queue.remove_aside(|item| is_theirs(&item)) {
            self.discard(&item);
        }
        for given in self.queue.give_back(acked) {
            for places in self.queue.spare(None, given) {
                self.out(Output::Unspool { spool: None, places });
            }
        }
    }

    /// The server does not get this message acknowledged.
    pub(super) fn hold_given_back(&mut self, item: Queued) {
        let limit = self.settings.session_queue;
        self.given_back.get_or_insert_default().hold(item, limit);
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
