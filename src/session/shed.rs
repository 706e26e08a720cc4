//! What a [`Session`] does while the spool refuses stanzas: a bound is reached, or the disk fails.
//!
//! The session goes on. Memory keeps what the spool refuses, and offers it again. While the client is there, the server is not
//! read beyond a bound. While it is not, the oldest stanzas beyond the bound go back to their senders, so that the
//! acknowledgements to the server move on.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::answer::{iq_error, message_error};
use super::ending::is_request;
use super::queue::{Company, Queued, Unsaved};
use super::{Event, Output, Session, server};
use crate::jid::{BareJid, Jid};
use crate::xml::{Element, Kind};

/// How long after a refusal the spool is asked again.
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(5);
/// What the spool is asked to take then, in bytes: the rest follows once it has.
const TRIAL: usize = 64 << 10;

/// Whether the spool takes what it is handed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spool {
    Accepts,
    /// It has refused, and is asked again then.
    Refuses(Instant),
    /// It has refused, and was asked again.
    Asked,
}

impl Spool {
    pub(super) fn accepts(self) -> bool {
        self == Self::Accepts
    }

    /// When it is asked again.
    pub(super) fn deadline(self) -> Option<Instant> {
        match self {
            Self::Refuses(at) => Some(at),
            Self::Accepts | Self::Asked => None,
        }
    }
}

/// Stanzas that the spool did not take and memory could not keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shed {
    /// How many went back to their senders with an error.
    pub returned: u32,
    /// How many are lost: those that must not be answered, or whose server is gone.
    pub lost: u32,
}

impl Session {
    /// What is neither the client's nor on disk while the spool refuses: a crash loses it, unless the server has it too.
    pub fn unsaved(&self) -> Unsaved {
        if self.spool.accepts() { Unsaved::default() } else { self.queue.unsaved() }
    }

    /// Whether the spool takes what it is handed.
    pub fn spool_accepts(&self) -> bool {
        self.spool.accepts()
    }

    /// Other clients of the account are there, or not: they have what comes to the account.
    pub fn note_company(&mut self, has_company: bool) {
        self.has_company = has_company;
    }

    /// The store has so many bytes of the session in its hands; they count for the memory that all sessions share.
    pub fn charge_store(&mut self, bytes: usize) {
        self.queue.charge_store(bytes);
    }

    /// Nothing of what the spool was handed is on disk.
    pub(super) fn spool_refused(&mut self, now: Instant) {
        if self.queue.refused() {
            self.orphans_due.get_or_insert((now + ASK_AGAIN, false));
        }
        if self.spool.accepts() {
            self.event(Event::SpoolRefuses);
        }
        self.spool = Spool::Refuses(now + ASK_AGAIN);
        if self.is_ending() {
            return self.drive_end(now);
        }
        self.keep_within_bounds(now);
    }

    /// The spool has taken what it was handed.
    pub(super) fn spool_accepted(&mut self) {
        if !self.spool.accepts() {
            self.spool = Spool::Accepts;
            self.event(Event::SpoolAccepts);
            self.spool_all();
        }
    }

    /// Asks a spool that has refused again.
    pub(super) fn ask_spool_again(&mut self, now: Instant) {
        if self.spool.deadline().is_none_or(|at| at > now) {
            return;
        }
        let items = self.queue.take_unspooled(TRIAL);
        if items.is_empty() {
            return self.spool_accepted();
        }
        self.spool = Spool::Asked;
        self.spool(items);
    }

    /// Whether the server is not read: the spool refuses, and memory has as much as it may of what the client has not got.
    pub(super) fn is_paused(&self) -> bool {
        !self.spool.accepts()
            && !self.is_dark()
            && !self.is_ending()
            && (self.queue.has_too_much_unsaved() || self.owes(0))
    }

    /// Whether the server keeps more for us than it may, and so many stanzas besides.
    fn owes(&self, besides: u64) -> bool {
        self.server.is_on() && self.server.unsettled(self.queue.find_unsettled()) >= server::leg::UNACKED + besides
    }

    /// Gives up the oldest stanzas that no disk has, as many as are too many while nobody is there to read them.
    pub(super) fn keep_within_bounds(&mut self, now: Instant) {
        if self.spool.accepts() || !self.is_dark() || self.is_ending() {
            return;
        }
        while self.queue.has_too_much_unsaved() || self.owes(1) {
            let Some(item) = self.queue.take_oldest_unsaved() else { break };
            self.shed(now, &item);
        }
        self.settle_with_server(now, true);
    }

    /// Gives up all that no disk has.
    pub(super) fn shed_all(&mut self, now: Instant) {
        while let Some(item) = self.queue.take_oldest_unsaved() {
            self.shed(now, &item);
        }
    }

    /// A stanza goes back to its sender if it may, and is not kept.
    fn shed(&mut self, now: Instant, item: &Queued) {
        if item.is_spooled() {
            self.out(Output::Unspool { spool: None, places: item.seq..=item.seq });
        }
        match returned(&item.element, &self.account, item.company != Company::Others).filter(|_| self.can_answer()) {
            Some(error) => {
                self.inject(now, error);
                self.shed.returned = self.shed.returned.saturating_add(1);
            }
            None if item.element.kind() == Kind::Presence && !item.durable => {}
            None => self.shed.lost = self.shed.lost.saturating_add(1),
        }
    }

    /// Reports what was given up since the last report.
    pub(super) fn report_shed(&mut self) {
        if self.shed != Shed::default() {
            let shed = std::mem::take(&mut self.shed);
            self.event(Event::Shed(shed));
        }
    }
}

/// The error with which a stanza goes back that nobody can keep; `None` if it must not be answered. What came to the account is
/// only answered if no other client was there to get it (`alone`).
pub(super) fn returned(element: &Element, account: &BareJid, alone: bool) -> Option<Bytes> {
    let node = element.node();
    if is_request(element) {
        return Some(iq_error(&node, "wait", "resource-constraint"));
    }
    let conversational = matches!(node.attr("type").as_deref(), None | Some("chat" | "normal"));
    if element.kind() != Kind::Message || !conversational {
        return None;
    }
    let from = Jid::new(&node.attr("from")?);
    let to_client = node.attr("to").is_some_and(|to| Jid::new(&to).resource().is_some());
    let foreign = from.to_bare() != *account;
    (foreign && (to_client || alone)).then(|| message_error(&node, "wait", "resource-constraint"))
}
