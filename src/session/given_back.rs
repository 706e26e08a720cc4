//! What a session gave back to its server when it ended (XEP-0198 §4): a server that breaks its connection then, instead of
//! closing its stream, may be dead and send it to nobody. Until it closes its stream, the messages are held.

use std::time::Instant;

use super::queue::{Place, Queued};
use super::{Output, Session};
use crate::xml::Kind;

/// Bytes of messages that come behind the footer and are held, where a queue has less.
const FEW: usize = 64 << 10;

/// Messages that the server has to send elsewhere, oldest first.
#[derive(Debug, Default)]
pub(super) struct GivenBack {
    messages: Vec<Queued>,
    /// Bytes of those that came since.
    since: usize,
}

impl GivenBack {
    fn hold(&mut self, item: Queued) {
        if item.durable && item.element.kind() == Kind::Message {
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
        if !theirs.is_empty() {
            let given_back = self.given_back.get_or_insert_default();
            theirs.into_iter().for_each(|item| given_back.hold(item));
        }
        for item in self.queue.remove_aside(|item| is_theirs(&item)) {
            self.discard(&item);
        }
        for given in self.queue.give_back(acked) {
            for places in self.queue.spare(None, given) {
                self.out(Output::Unspool { spool: None, places });
            }
        }
    }

    /// The same for a stanza that comes now, as far as there is room.
    pub(super) fn give_back_new(&mut self, item: Queued) {
        let given_back = self.given_back.get_or_insert_default();
        given_back.since += item.element.bytes().len();
        if given_back.since <= self.settings.session_queue.max(FEW) {
            given_back.hold(item);
        }
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
