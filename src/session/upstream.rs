//! How a [`Session`] reacts to its server, and how stanzas travel to the client.

use std::time::Instant;

use bytes::Bytes;

use super::answer::{self, iq_result};
use super::presence::{Coalesced, is_durable};
use super::queue::{Place, Queued, Spooled};
use super::sm::ack;
use super::{EndReason, Event, Greeting, Output, Session, Source, Tracking, rewrite, server, sm};
use crate::jid::Jid;
use crate::push::account::Change;
use crate::xml::{self, Element, Frame, Kind, Node, XmlWriter, ns};

/// How long a durable stanza may be the server's and an unacknowledging live client's only, where the server keeps it.
const SPOOL_BEHIND_SERVER: std::time::Duration = std::time::Duration::from_secs(30);

impl Session {
    /// Our own stream management with the server (XEP-0198 §3): without resumption, and nothing of the client's.
    pub(super) fn enable_server_sm(&mut self, now: Instant) {
        if self.server.confirms() {
            let mut xml = XmlWriter::new();
            xml.start("enable").attr("xmlns", ns::SM);
            self.write_upstream(now, xml.finish());
        }
    }

    pub(super) fn upstream_frame(&mut self, now: Instant, frame: Frame) {
        match frame {
            // Never relayed: there are clients that give up on whitespace.
            Frame::Whitespace => {}
            Frame::Element(element) if element.kind() == Kind::Other => self.upstream_nonza(now, &element),
            Frame::Element(element) => {
                let ordinal = self.server.on_received();
                self.upstream_stanza(now, element, ordinal);
            }
            Frame::Close => self.upstream_closed(now),
            Frame::Open(_) => self.upstream_lost(now),
        }
    }

    fn upstream_closed(&mut self, now: Instant) {
        if self.is_ending() {
            return self.over();
        }
        if !self.is_dark() {
            self.write_client(Bytes::from_static(xml::STREAM_CLOSE));
        }
        self.begin_end(now, EndReason::UpstreamClosed);
    }

    /// Without a footer the client comes back and logs in again.
    pub(super) fn upstream_lost(&mut self, now: Instant) {
        if self.is_ending() {
            return self.upstream_lost_while_ending();
        }
        self.begin_end(now, EndReason::UpstreamLost);
    }

    fn upstream_nonza(&mut self, now: Instant, element: &Element) {
        let node = element.node();
        match (node.ns(), node.name()) {
            (ns::SM, "enabled") => self.server.enabled(),
            (ns::SM, "failed") => self.server.refused(),
            (ns::SM, "r") => {
                let unsettled = self.queue.first_unsettled();
                let h = self.server.answer(unsettled);
                self.write_upstream(now, ack(h));
            }
            (ns::SM, "a") => {
                if let Some(h) = node.attr("h").and_then(|h| sm::Handled::parse(&h)) {
                    self.confirm.server_acked(h);
                    self.server_confirmed(now);
                }
            }
            _ if self.is_dark() || self.is_ending() => {}
            _ => {
                let bytes = element.on_stream(&self.attached_header);
                self.write_client(bytes);
            }
        }
    }

    /// Asks the server how far it is: by `<r/>`, or by a ping behind what was sent.
    pub(super) fn ask_server(&mut self, now: Instant) {
        if !self.confirm.must_ask() {
            return;
        }
        let mut xml = XmlWriter::new();
        if self.server.confirms() {
            xml.start("r").attr("xmlns", ns::SM);
            self.confirm.asked(now);
        } else {
            let id = self.pending.id((self.dice)());
            xml.start("iq").attr("type", "get").attr("id", &id).attr("to", self.bound.jid.domain().as_str());
            xml.start("ping").attr("xmlns", ns::PING);
            self.confirm.injected();
            self.confirm.pinged(now, id);
        }
        self.write_upstream(now, xml.finish());
    }

    fn server_confirmed(&mut self, now: Instant) {
        if self.is_ending() {
            return;
        }
        if self.resuming.is_some() && self.confirm.is_complete() {
            self.resumed(now);
        }
        self.answer_client(now);
    }

    /// Sends the server the `<a/>` that it is owed.
    pub(super) fn settle_with_server(&mut self, now: Instant) {
        let unsettled = self.queue.first_unsettled();
        if let Some(h) = self.server.take_owed(unsettled, self.is_dark()) {
            self.write_upstream(now, ack(h));
        }
    }

    /// The last `<a/>`: nothing more is acknowledged after it.
    pub(super) fn settle_finally(&mut self, now: Instant) {
        let unsettled = self.queue.first_unsettled();
        let h = self.server.answer(unsettled);
        self.write_upstream(now, ack(h));
    }

    fn upstream_stanza(&mut self, now: Instant, element: Element, ordinal: Option<u64>) {
        if element.kind() == Kind::Iq {
            if !self.pending.is_idle() && self.upstream_answer(now, &element, ordinal) {
                return;
            }
            if (self.is_dark() || self.is_ending()) && self.answer_ping(now, &element) {
                return;
            }
        }
        self.deliver(now, element, ordinal);
    }

    /// Takes the answers to our own requests, and rewrites those that concern us.
    fn upstream_answer(&mut self, now: Instant, element: &Element, ordinal: Option<u64>) -> bool {
        let node = element.node();
        let (Some(id), Some(kind)) = (node.attr("id"), node.attr("type")) else { return false };
        if kind != "result" && kind != "error" {
            return false;
        }
        if self.pending.is_ours(&id) {
            let from = node.attr("from");
            if let Some(open) = self.pending.take_publish(&id, from.as_deref()) {
                self.publish_answered(open, &node);
            } else if from.is_none_or(|from| self.is_server(&from)) && self.confirm.ping_answered(&id) {
                self.server_confirmed(now);
            }
            // Invariant 5: a late answer is still ours.
            return true;
        }
        if self.pending.take_removal(&id) && kind == "result" {
            self.removed = true;
            self.change(None, Change::Removed);
            return false;
        }
        if !self.pending.take_query(&id) {
            return false;
        }
        let info = if kind == "error" { Some(answer::account_info(&node)) } else { rewrite::account_info(element) };
        let rewritten = info.and_then(|bytes| Element::parse(bytes, element.header()).ok());
        self.deliver(now, rewritten.unwrap_or_else(|| element.clone()), ordinal);
        true
    }

    /// Whether an answer may come from the server itself: its domain, or the account.
    fn is_server(&self, from: &str) -> bool {
        Jid::new(from).is_ok_and(|from| from.domain() == self.bound.jid.domain())
    }

    /// XEP-0199: while the client is dark, pings are answered for it, so that nobody takes it for gone.
    fn answer_ping(&mut self, now: Instant, element: &Element) -> bool {
        let node = element.node();
        if node.attr("type").as_deref() != Some("get") || node.child("ping", ns::PING).is_none() {
            return false;
        }
        self.inject(now, iq_result(&node));
        true
    }

    /// A client that has just gone will not answer what it may have read: its pings are answered all the same.
    pub(super) fn answer_waiting_pings(&mut self, now: Instant) {
        let iqs: Vec<_> =
            self.queue.iter().filter(|q| q.element.kind() == Kind::Iq).map(|q| q.element.clone()).collect();
        for iq in iqs {
            self.answer_ping(now, &iq);
        }
    }

    /// Writes a stanza of our own to the server.
    pub(super) fn inject(&mut self, now: Instant, stanza: Bytes) {
        self.confirm.injected();
        self.write_upstream(now, stanza);
    }

    // To the client

    /// Writes a stanza to the client, or lets it wait.
    fn deliver(&mut self, now: Instant, element: Element, ordinal: Option<u64>) {
        if self.gives_back() {
            // Not acknowledged any more, so the server sends it elsewhere.
            return;
        }
        if matches!(self.tracking, Tracking::None) && !self.is_dark() && !self.is_ending() {
            let bytes = element.on_stream(&self.attached_header);
            return self.write_client(bytes);
        }
        if self.is_dark() && self.made_obsolete(&element) {
            return;
        }
        let received = self.unix_ms(now);
        match self.queue.push(element.clone(), received, ordinal, is_durable(&element)) {
            Place::Memory(seq) => {
                if self.is_dark() && element.kind() == Kind::Presence {
                    self.waiting_presence.queued(&element, seq);
                }
                self.write_waiting(now);
                self.consider_push(now, &element, seq, false);
            }
            Place::SpoolOnly(seq) => {
                let mut items = self.take_unspooled();
                items.push(self.spooled_form(&element, seq, received));
                self.out(Output::Spool(items));
                self.consider_push(now, &element, seq, true);
            }
        }
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
            self.deliver(now, element, None);
        }
    }

    /// Writes what has not been written to the current attachment.
    pub(super) fn write_waiting(&mut self, now: Instant) {
        if self.is_dark() || self.is_ending() || self.resuming.is_some() {
            return;
        }
        while let Some(item) = self.queue.write_next().cloned() {
            let bytes = self.for_client(&item);
            self.write_client(bytes);
            if let Tracking::Sm(leg) | Tracking::Ping(leg, _) = &mut self.tracking {
                leg.on_sent();
            }
            self.unasked += 1;
            if self.unasked >= REPLAY_BURST {
                self.ask_client(now);
            }
        }
    }

    fn for_client(&self, item: &Queued) -> Bytes {
        let delayed = || {
            let stamp = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(item.received);
            let bytes = rewrite::delayed(&item.element, self.bound.jid.domain().as_str(), stamp)?;
            Element::parse(bytes, item.element.header()).ok()
        };
        let delayed = if item.waited { delayed() } else { None };
        delayed.as_ref().unwrap_or(&item.element).on_stream(&self.attached_header)
    }

    // The spool

    /// When durable stanzas are to be handed to the spool that nobody else is certain to keep.
    pub(super) fn spool_due(&self) -> Option<Instant> {
        let oldest = self.queue.oldest_unspooled()?;
        let wait = if self.is_dark() {
            std::time::Duration::ZERO
        } else if oldest.ordinal.is_some() {
            SPOOL_BEHIND_SERVER
        } else {
            // The server does not count it, so it does not keep it either.
            self.settings.stream_management.spool_after
        };
        let since_start = oldest.received.saturating_sub(self.unix_ms(self.epoch.now));
        Some(self.epoch.now + std::time::Duration::from_millis(since_start) + wait)
    }

    pub(super) fn spool_if_due(&mut self, now: Instant) {
        let first = self.queue.first_unsettled();
        let crowded = self.server.is_on() && self.server.unsettled(first) >= server::UNACKED;
        if self.spool_due().is_some_and(|at| at <= now) || crowded {
            let items = self.take_unspooled();
            if !items.is_empty() {
                self.out(Output::Spool(items));
            }
        }
    }

    pub(super) fn take_unspooled(&mut self) -> Vec<Spooled> {
        let items = self.queue.take_unspooled();
        items.iter().map(|item| self.spooled_form(&item.element, item.seq, item.received)).collect()
    }

    fn spooled_form(&self, element: &Element, seq: u64, received: u64) -> Spooled {
        let node = element.node();
        Spooled {
            seq,
            received,
            shared: is_shared(element, &node),
            archived: self.is_archived(&node),
            bytes: element.on_stream(&self.bare_header),
        }
    }

    /// XEP-0359: only the own bare JID says that the own archive has it.
    pub(super) fn is_archived(&self, node: &Node<'_>) -> bool {
        let own = self.bound.jid.to_bare();
        let by_own = |id: &Node<'_>| id.attr("by").and_then(|by| Jid::new(&by).ok()).is_some_and(|by| by == own);
        node.children().any(|child| child.is("stanza-id", ns::STANZA_ID) && by_own(&child))
    }

    pub(super) fn spooled(&mut self, now: Instant, seq: u64) {
        self.queue.committed(seq);
        self.settle_with_server(now);
        if self.is_ending() {
            self.drive_end(now);
        }
    }

    /// A bound of the spool, or the disk: nothing is acknowledged any more, and the server may send it elsewhere.
    pub(super) fn spool_failed(&mut self, now: Instant) {
        self.event(Event::SpoolFailed);
        if self.is_ending() {
            return self.over();
        }
        self.wake_push(now);
        self.begin_end(now, EndReason::SpoolFailed);
    }

    /// Reads back what only the spool has, as far as there is room.
    pub(super) fn refill(&mut self, now: Instant) {
        if self.loading.is_some() || self.resuming.is_some() {
            return;
        }
        if let Some((after, bytes)) = self.queue.wants_load() {
            self.loading = Some(self.queue.last_committed());
            self.out(Output::Load(after, bytes));
        } else if matches!(self.greeting, Greeting::Sending(_)) {
            self.greeted(now);
        }
    }

    /// None means that there is no more up to what was on disk when it was asked for.
    pub(super) fn loaded(&mut self, now: Instant, items: Vec<Spooled>) {
        let committed = self.loading.take().unwrap_or_default();
        if items.is_empty() {
            self.queue.loaded_all(committed);
        }
        for item in items {
            match Element::parse(item.bytes, &self.bare_header) {
                // It joined the queue for its place in it; to a later session it says nothing.
                Ok(element) if self.queue.is_adopted(item.seq) && !is_durable(&element) => {
                    self.queue.skip_loaded(item.seq);
                    self.out(Output::Unspool(item.seq..=item.seq));
                }
                Ok(element) => self.queue.push_loaded(item.seq, element, item.received),
                Err(_) => self.queue.skip_loaded(item.seq),
            }
        }
        self.queue.loaded_some();
        self.beyond = self.beyond.take().filter(|_| self.queue.has_tail());
        self.write_waiting(now);
        if matches!(self.greeting, Greeting::Sending(_)) {
            self.greeted(now);
        }
    }

    /// Takes over what the spool has for others: it joins behind what waits already.
    pub(super) fn adopt(&mut self, source: Source) {
        // What came before has lower places, and the spool takes places in their order.
        let items = self.take_unspooled();
        if !items.is_empty() {
            self.out(Output::Spool(items));
        }
        let places = self.queue.reserve();
        self.track_by_ping();
        self.out(Output::Adopt(source, places));
    }
}

/// After so many stanzas of a replay the client is asked for an ack.
const REPLAY_BURST: usize = 100;

/// Whether a stanza was addressed to the account rather than to one of its devices, and may go to another.
fn is_shared(element: &Element, node: &Node<'_>) -> bool {
    let conversational = matches!(node.attr("type").as_deref(), None | Some("chat" | "normal"));
    let to_account = node.attr("to").is_none_or(|to| Jid::new(&to).is_ok_and(|to| to.resource().is_none()));
    let restricted = |c: &Node<'_>| {
        c.is("no-copy", ns::HINTS)
            || c.is("private", ns::CARBONS)
            || c.is("sent", ns::CARBONS)
            || c.is("received", ns::CARBONS)
    };
    element.kind() == Kind::Message && conversational && to_account && !node.children().any(|c| restricted(&c))
}
