//! How stanzas travel to the client: at once, from memory, or through the spool.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use super::csi::Urgency;
use super::ending::{is_request, refusal};
use super::presence::{Coalesced, is_durable};
use super::queue::{Budget, Place, Queued, Spooled};
use super::{Cause, EndReason, Event, Greeting, Output, Session, Source, Tracking, rewrite, server};
use crate::jid::{BareJid, Jid};
use crate::xml::{Element, Header, Kind, Node, ns};

/// How long a durable stanza may be the server's and an unacknowledging live client's only, where the server keeps it.
const SPOOL_BEHIND_SERVER: Duration = Duration::from_secs(30);

impl Session {
    /// Lets what waits for the client share memory with what waits for others. To be called before the first input.
    pub fn share_memory(&mut self, budget: Arc<Budget>) {
        self.queue.share(budget);
    }

    /// Writes a stanza to the client, or lets it wait.
    pub(super) fn deliver(&mut self, now: Instant, element: Element, ordinal: Option<u64>) {
        self.deliver_for(now, element, ordinal, Cause::Relayed);
    }

    fn deliver_for(&mut self, now: Instant, element: Element, ordinal: Option<u64>, cause: Cause) {
        if self.gives_back() {
            // Not acknowledged any more, so the server sends it elsewhere.
            return;
        }
        if self.is_ending() && is_request(&element) {
            return self.answer_upstream(now, refusal(&element));
        }
        if matches!(self.tracking, Tracking::None) && !self.is_dark() && !self.is_ending() {
            if element.kind() == Kind::Presence {
                self.waiting_presence.written(&element);
            }
            let bytes = element.on_stream(&self.attached_header);
            return self.out(to_client(bytes, cause));
        }
        let urgency = if self.holds_back() { self.urgency(&element) } else { Urgency::Now };
        let waits = self.is_dark() || urgency != Urgency::Now;
        if waits && self.made_obsolete(&element) {
            return;
        }
        let received = self.epoch.unix_ms(now);
        match self.queue.place(element.bytes().len(), ordinal) {
            Place::Memory(seq) => {
                if waits && element.kind() == Kind::Presence {
                    self.waiting_presence.queued(&element, seq);
                }
                // What may wait long keeps no more alive than itself.
                let element = if self.is_dark() { element.compact() } else { element };
                let pushed = self.may_push(&element).then(|| element.clone());
                let durable = is_durable(&element);
                self.queue.hold(Queued::new(element, seq, received).of_leg(ordinal, durable).because(cause));
                if !self.keep_back(urgency, seq) {
                    self.write_waiting(now);
                }
                if let Some(element) = pushed {
                    self.consider_push(now, &element, seq, false);
                }
            }
            Place::SpoolOnly(seq) => {
                if cause == Cause::Reply {
                    self.behind.reply_goes_to_spool(seq, element.bytes().len());
                }
                self.deliver_by_spool(now, &element, seq, received);
            }
        }
    }

    /// A stanza has no place in memory: the spool takes it, and before it what it must not pass.
    fn deliver_by_spool(&mut self, now: Instant, element: &Element, seq: u64, received: u64) {
        if let Some(full) = self.queue.take_full() {
            self.event(Event::QueueFull(full));
        }
        let mut items = self.take_unspooled();
        let item = self.spooled_form(element, seq, received);
        if is_request(element) {
            self.queue.noted().note_request(seq, refusal(element));
        }
        if item.archived {
            self.queue.noted().note_archived(seq);
        }
        items.push(item);
        self.spool(items);
        self.consider_push(now, element, seq, true);
    }

    /// Lets presence replace what the same sender said before, and says whether the two cancel out.
    fn made_obsolete(&mut self, element: &Element) -> bool {
        if element.kind() != Kind::Presence {
            return false;
        }
        match self.waiting_presence.coalesce(element, &self.own_presence) {
            Coalesced::Keep => false,
            Coalesced::Replace(older) => {
                self.queue.remove_unwritten(older);
                false
            }
            Coalesced::Cancel(older) => self.queue.remove_unwritten(older),
        }
    }

    /// A stanza of our own making counts and waits like any other.
    pub(super) fn deliver_own(&mut self, now: Instant, bytes: Bytes) {
        if let Ok(element) = Element::parse(bytes, &self.attached_header) {
            self.deliver_for(now, element, None, Cause::Reply);
        }
    }

    /// Writes what has not been written to the current attachment.
    pub(super) fn write_waiting(&mut self, now: Instant) {
        if !self.is_written_to() {
            return;
        }
        self.release();
        while let Some(item) = self.queue.write_next() {
            let bytes = for_client(item, self.bound.jid.domain().as_str(), &self.attached_header);
            if item.element.kind() == Kind::Presence {
                self.waiting_presence.written(&item.element);
            }
            self.outputs.push_back(to_client(bytes, item.cause));
            if let Tracking::Sm(leg) | Tracking::Ping(leg, _) = &mut self.tracking {
                leg.on_sent();
            }
            self.unasked += 1;
            if self.unasked >= REPLAY_BURST {
                self.ask_client(now);
            }
        }
    }

    /// Whether the client is there, and has heard that it is back.
    fn is_written_to(&self) -> bool {
        !self.is_dark() && !self.is_ending() && self.resuming.is_none()
    }

    // The spool

    /// When durable stanzas are to be handed to the spool that nobody else is certain to keep.
    pub(super) fn spool_due(&self) -> Option<Instant> {
        let oldest = self.queue.oldest_unspooled()?;
        let wait = if self.is_dark() {
            Duration::ZERO
        } else if oldest.ordinal.is_some() {
            SPOOL_BEHIND_SERVER
        } else {
            // The server does not count it, so it does not keep it either.
            self.settings.stream_management.spool_after
        };
        let since_start = oldest.received.saturating_sub(self.epoch.unix_ms(self.epoch.now));
        Some(self.epoch.now + Duration::from_millis(since_start) + wait)
    }

    pub(super) fn spool_if_due(&mut self, now: Instant) {
        let first = self.queue.first_unsettled();
        let crowded = self.server.is_on() && self.server.unsettled(first) >= server::UNACKED;
        if self.spool_due().is_some_and(|at| at <= now) || crowded {
            self.spool_all();
        }
    }

    /// Hands all durable stanzas that the spool does not have to it.
    pub(super) fn spool_all(&mut self) {
        let items = self.take_unspooled();
        self.spool(items);
    }

    fn spool(&mut self, items: Vec<Spooled>) {
        // Nothing is kept of a removed account.
        if !items.is_empty() && !self.removed {
            self.out(Output::Spool(items));
        }
    }

    fn take_unspooled(&mut self) -> Vec<Spooled> {
        let items = self.queue.take_unspooled();
        items.iter().map(|item| self.spooled_form(&item.element, item.seq, item.received)).collect()
    }

    fn spooled_form(&self, element: &Element, seq: u64, received: u64) -> Spooled {
        let node = element.node();
        Spooled {
            seq,
            received,
            shared: is_shared(element, &node, &self.account),
            archived: self.is_archived(element),
            bytes: element.on_stream(&self.bare_header),
        }
    }

    /// Whether the own archive has it.
    pub(super) fn is_archived(&self, element: &Element) -> bool {
        is_archived(element, &self.account)
    }

    /// A message that is on disk need not be in memory while nobody can read it, unless a push may have to tell of it: that is
    /// always the newest of its conversation.
    fn rest(&mut self) {
        // With more registrations it may have to be judged anew for one of them.
        if !self.is_dark() || self.is_ending() || self.loading.is_some() || self.owned().count() != 1 {
            return;
        }
        let (pusher, account) = (&self.pusher, &self.account);
        self.queue.rest(self.server.acked(), &self.bare_header, |item| {
            pusher.is_followed(item.seq).then(|| is_archived(&item.element, account))
        });
    }

    pub(super) fn spooled(&mut self, now: Instant, seq: u64) {
        if self.spool_has_failed() {
            // There is a gap before it.
            return;
        }
        self.queue.committed(seq);
        self.behind.committed(seq);
        self.settle_with_server(now, self.is_dark());
        self.rest();
        if self.is_ending() {
            self.drive_end(now);
        }
    }

    /// A bound of the spool, or the disk: nothing is acknowledged any more, and the server may send it elsewhere.
    pub(super) fn spool_failed(&mut self, now: Instant) {
        if self.spool_has_failed() {
            return;
        }
        self.event(Event::SpoolFailed);
        if self.is_ending() {
            return self.keep_no_more(now);
        }
        self.wake_push();
        self.begin_end(now, EndReason::SpoolFailed);
    }

    /// Reads back what only the spool has, as far as there is room.
    pub(super) fn refill(&mut self, now: Instant) {
        if self.loading.is_some() || self.resuming.is_some() {
            return;
        }
        if !self.load() && matches!(self.greeting, Greeting::Sending(_)) {
            self.greeted(now);
        }
    }

    /// Asks for what only the spool has and there is room for; whether there is any.
    pub(super) fn load(&mut self) -> bool {
        let Some((after, weight)) = self.queue.wants_load().filter(|_| self.loading.is_none()) else { return false };
        self.loading = Some(self.queue.last_committed());
        self.out(Output::Load(after, weight));
        true
    }

    /// None means that there is no more up to what was on disk when it was asked for.
    pub(super) fn loaded(&mut self, now: Instant, items: Vec<Spooled>) {
        let (committed, rested) = (self.loading.take().unwrap_or_default(), self.queue.rests());
        if items.is_empty() {
            self.queue.loaded_all(committed);
        }
        let ttl = self.settings.stream_management.orphan_ttl;
        for item in items {
            let Some(item) = self.queue.read_back(item) else { continue };
            let age = Duration::from_millis(self.epoch.unix_ms(now).saturating_sub(item.received));
            match Element::parse(item.bytes, &self.bare_header) {
                // It joined the queue for its place in it; to a later session it says nothing.
                Ok(element) if self.queue.is_adopted(item.seq) && !is_durable(&element) => {
                    self.queue.skip_loaded(item.seq);
                    self.out(Output::Unspool(item.seq..=item.seq));
                }
                Ok(element) if age <= ttl => self.queue.push_loaded(item.seq, element, item.received),
                Ok(_) | Err(_) => {
                    self.queue.skip_loaded(item.seq);
                    self.out(Output::Unspool(item.seq..=item.seq));
                }
            }
        }
        self.queue.loaded_some();
        self.beyond = self.beyond.take().filter(|_| self.queue.has_tail());
        self.write_waiting(now);
        if rested && !self.queue.rests() && self.is_written_to() {
            self.ask_client(now);
        }
        if matches!(self.greeting, Greeting::Sending(_)) {
            self.greeted(now);
        }
    }

    /// Takes over what the spool has for others: it joins behind what waits already.
    pub(super) fn adopt(&mut self, source: Source) {
        // What came before has lower places, and the spool takes places in their order.
        self.spool_all();
        let places = self.queue.reserve();
        self.track_by_ping();
        self.out(Output::Adopt(source, places));
    }
}

/// After so many stanzas of a replay the client is asked for an ack.
const REPLAY_BURST: usize = 100;

fn to_client(bytes: Bytes, cause: Cause) -> Output {
    match cause {
        Cause::Relayed => Output::ToClient(bytes),
        Cause::Reply => Output::ReplyToClient(bytes),
    }
}

/// A stanza as it is written on the stream that `header` opened; if it waited, with its delay, stamped by `domain`.
fn for_client(item: &Queued, domain: &str, header: &Arc<Header>) -> Bytes {
    let delayed = || {
        let stamp = SystemTime::UNIX_EPOCH + Duration::from_millis(item.received);
        let bytes = rewrite::delayed(&item.element, domain, stamp)?;
        Element::parse(bytes, item.element.header()).ok()
    };
    let delayed = if item.waited { delayed() } else { None };
    delayed.as_ref().unwrap_or(&item.element).on_stream(header)
}

/// XEP-0359: only the own bare JID says that the own archive has it.
fn is_archived(element: &Element, account: &BareJid) -> bool {
    let by_own = |id: &Node<'_>| id.attr("by").and_then(|by| Jid::new(&by).ok()).is_some_and(|by| by == *account);
    let is_own = |child: Node<'_>| child.is("stanza-id", ns::STANZA_ID) && by_own(&child);
    element.mentions(ns::STANZA_ID) && element.node().children().any(is_own)
}

/// Whether a stanza was addressed to the account rather than to one of its devices, and may go to another.
fn is_shared(element: &Element, node: &Node<'_>, account: &BareJid) -> bool {
    let conversational = matches!(node.attr("type").as_deref(), None | Some("chat" | "normal"));
    let is_bare = |to: &str| to == account.as_str() || Jid::new(to).is_ok_and(|to| to.resource().is_none());
    let to_account = node.attr("to").is_none_or(|to| is_bare(&to));
    let restricted = |c: &Node<'_>| {
        c.is("no-copy", ns::HINTS)
            || c.is("private", ns::CARBONS)
            || c.is("sent", ns::CARBONS)
            || c.is("received", ns::CARBONS)
    };
    element.kind() == Kind::Message && conversational && to_account && !node.children().any(|c| restricted(&c))
}
