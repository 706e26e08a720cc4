//! How a [`Session`] reacts to its server, and how stanzas travel to the client.

use std::time::Instant;

use bytes::Bytes;

use super::answer::{self, iq_result};
use super::sender::is_server;
use super::sm::ack;
use super::{EndReason, Event, Output, Peer, Session, rewrite, sm};
use crate::push::account::Change;
use crate::push::outcome::Outcome;
use crate::xml::{self, Element, Frame, Kind, Node, XmlWriter, ns};

impl Session {
    /// Whether the server's next frame can be taken now: else the disk is too slow for what comes, or refuses it.
    pub fn wants_upstream(&self) -> bool {
        let sheds = !self.spool.accepts() && self.is_dark() && !self.is_ending();
        sheds || self.queue.has_room() && !self.is_paused()
    }

    /// Our own stream management with the server (XEP-0198 §3): without resumption, and nothing of the client's.
    pub(super) fn enable_server_sm(&mut self, now: Instant) {
        if self.server.confirms() {
            let mut xml = XmlWriter::new();
            xml.start("enable").attr("xmlns", ns::SM);
            self.write_upstream(now, xml.finish());
        }
    }

    /// When the server's answer to our `<enable/>` is late. It has the time of an answer during the login.
    pub(super) fn enable_deadline(&self) -> Option<Instant> {
        self.server.deadline(self.settings.server_timeout).filter(|_| !self.confirm.is_server_paused())
    }

    /// The server has not answered in time: the client is to come back.
    pub(super) fn upstream_silent(&mut self, now: Instant) {
        self.event(Event::ServerSilent);
        if !self.is_dark() {
            self.write_client(xml::stream_error("remote-connection-failed", None, None));
        }
        self.begin_end(now, EndReason::UpstreamSilent);
    }

    pub(super) fn upstream_frame(&mut self, now: Instant, frame: Frame) {
        match frame {
            // Never relayed: there are clients that give up on whitespace.
            Frame::Whitespace => {}
            Frame::Element(element) if element.kind() == Kind::Other => self.upstream_nonza(now, &element),
            Frame::Element(element) => {
                self.server_sends(now);
                let ordinal = self.server.on_received();
                self.upstream_stanza(now, element, ordinal);
            }
            Frame::Skipped(skipped) => self.upstream_skipped(now, &skipped),
            Frame::Close => self.upstream_closed(now),
            Frame::Open(_) => self.upstream_lost(now),
        }
    }

    /// An answer for the client came by another way than the server's stream, which therefore does not count it.
    pub(super) fn routed(&mut self, now: Instant, answer: Element) {
        if answer.kind() == Kind::Iq && !self.upstream_answer(now, &answer, None) {
            self.deliver(now, answer, None);
        }
    }

    fn upstream_closed(&mut self, now: Instant) {
        if self.is_ending() {
            return self.upstream_closed_while_ending(now);
        }
        // RFC 6120 §4.4: it is answered.
        self.write_upstream(now, Bytes::from_static(xml::STREAM_CLOSE));
        if !self.is_dark() {
            self.write_client(Bytes::from_static(xml::STREAM_CLOSE));
        }
        self.begin_end(now, EndReason::UpstreamClosed);
    }

    /// Without a footer the client comes back and logs in again.
    pub(super) fn upstream_lost(&mut self, now: Instant) {
        if self.is_ending() {
            return self.upstream_lost_while_ending(now);
        }
        self.begin_end(now, EndReason::UpstreamLost);
    }

    fn upstream_nonza(&mut self, now: Instant, element: &Element) {
        let node = element.node();
        if node.is("error", ns::STREAMS) {
            self.heed_stream_error(now, &node);
        }
        match (node.ns(), node.name()) {
            (ns::SM, "enabled") => self.server.enabled(),
            (ns::SM, "failed") => self.server.refused(),
            (ns::SM, "r") => {
                // What was given back stays unacknowledged.
                let given_back = self.gives_back().then(|| self.server.acked() + 1);
                let unsettled = given_back.or_else(|| self.queue.first_unsettled());
                let h = self.server.answer(unsettled);
                self.reply_upstream(now, ack(h));
            }
            (ns::SM, "a") => {
                if let Some(h) = node.attr("h").and_then(|h| sm::Handled::parse(&h)) {
                    self.confirm.server_acked(h);
                    self.server_confirmed(now);
                }
            }
            // RFC 6120 §4.9.3.19: where the server sends its clients, nobody is there for ours; they come back here.
            (ns::STREAMS, "error") if node.child("see-other-host", ns::STREAM_ERRORS).is_some() => {
                self.server.says_why();
                self.upstream_lost(now)
            }
            (ns::STREAMS, "error") => {
                self.server.says_why();
                self.pass_nonza(element);
            }
            _ => self.pass_nonza(element),
        }
    }

    fn pass_nonza(&mut self, element: &Element) {
        if !self.is_dark() && !self.is_ending() {
            let bytes = element.on_stream(&self.attached_header);
            self.write_client(bytes);
        }
    }

    /// Asks the server how far it is: by `<r/>`, or by a ping behind what was sent.
    pub(super) fn ask_server(&mut self, now: Instant) {
        if self.confirm.must_ask() {
            self.ask(now);
        }
    }

    /// The same, also where a question about what was sent earlier is open.
    pub(super) fn ask(&mut self, now: Instant) {
        let mut xml = XmlWriter::new();
        if self.server.confirms() {
            xml.start("r").attr("xmlns", ns::SM);
            self.confirm.asked(now);
        } else {
            let id = self.pending.id((self.dice)());
            xml.start("iq").attr("type", "get").attr("id", &id).attr("to", self.bound.jid.domain());
            xml.start("ping").attr("xmlns", ns::PING);
            self.confirm.injected();
            self.confirm.pinged(now, id);
        }
        self.write_upstream(now, xml.finish());
        self.out(Output::Watch(Peer::Server));
    }

    fn server_confirmed(&mut self, now: Instant) {
        if self.is_ending() {
            return self.engrave();
        }
        if self.resuming.is_some() && self.confirm.is_complete() {
            self.resumed(now);
        }
        self.answer_client(now);
    }

    /// Sends the server the `<a/>` that it is owed; if `eager`, also one that nobody waits for.
    pub(super) fn settle_with_server(&mut self, now: Instant, eager: bool) {
        if self.gives_back() {
            return;
        }
        let unsettled = self.queue.first_unsettled();
        if let Some(h) = self.server.take_owed(unsettled, eager) {
            self.reply_upstream(now, ack(h));
        }
    }

    pub(super) fn upstream_stanza(&mut self, now: Instant, element: Element, ordinal: Option<u64>) {
        if self.is_redelivered(now, &element) {
            return;
        }
        if element.kind() == Kind::Iq {
            self.learn_contacts(&element);
            if !self.pending.is_idle() && self.upstream_answer(now, &element, ordinal) {
                return;
            }
            if (self.is_dark() || self.is_ending()) && self.answer_ping(now, &element) {
                return;
            }
        }
        if element.kind() == Kind::Presence && element.mentions(ns::MUC_USER) {
            self.rooms.received(&element.node());
        }
        if element.kind() == Kind::Message && !self.owner.account.registrations.is_empty() {
            self.heed_service(now, &element);
        }
        self.note_had(&element);
        self.deliver(now, element, ordinal);
    }

    /// Takes the answers to our own requests, and rewrites those that concern us.
    pub(super) fn upstream_answer(&mut self, now: Instant, element: &Element, ordinal: Option<u64>) -> bool {
        let node = element.node();
        let (id, Some(kind)) = (node.attr("id").unwrap_or_default(), node.attr("type")) else { return false };
        if kind != "result" && kind != "error" {
            return false;
        }
        let from = node.attr("from");
        if self.pending.is_ours(&id) {
            let of_server = self.is_server(from.as_deref()) && matches!(Outcome::of(&node), Outcome::Wait(_));
            if let Some(open) = self.pending.take_publish(&id, from.as_deref(), of_server) {
                self.carried(&open, &node);
            } else if self.is_server(from.as_deref()) && self.confirm.ping_answered(&id) {
                self.server_confirmed(now);
            }
            // Invariant 5: a late answer is still ours.
            return true;
        }
        // The ids are the client's, and others may know them.
        if !self.is_server(from.as_deref()) {
            return false;
        }
        if self.pending.take_removal(&id, &kind) {
            self.account_removed();
            return false;
        }
        if !self.pending.take_query(&id) {
            return false;
        }
        let push = &self.settings.push;
        let info = match kind.as_ref() {
            "error" => Some(answer::account_info(&node, push)),
            _ => rewrite::account_info(element, push),
        };
        let rewritten = info.and_then(|bytes| Element::parse(bytes, element.header()).ok());
        self.deliver(now, rewritten.unwrap_or_else(|| element.clone()), ordinal);
        true
    }

    /// Whether an answer with this sender is the server's.
    pub(super) fn is_server(&self, from: Option<&str>) -> bool {
        is_server(from, &self.bound.jid)
    }

    /// The server has removed the account: nothing of it is kept.
    fn account_removed(&mut self) {
        self.forget_account();
        self.change(None, Change::Removed);
    }

    /// A stream error of the server. XEP-0077 §3.2: with the account its streams end, with one of these conditions.
    fn heed_stream_error(&mut self, now: Instant, error: &Node<'_>) {
        let removed = ["not-authorized", "conflict"].iter().any(|name| error.child(name, ns::STREAM_ERRORS).is_some());
        if removed && self.pending.take_unnamed_removal(now) {
            self.account_removed();
        }
    }

    /// XEP-0199: while the client is dark, pings are answered for it, so that nobody takes it for gone.
    fn answer_ping(&mut self, now: Instant, element: &Element) -> bool {
        let node = element.node();
        if node.attr("type").as_deref() != Some("get") || node.child("ping", ns::PING).is_none() {
            return false;
        }
        self.answer_upstream(now, iq_result(&node));
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

    /// Answers a stanza of the server by one of our own.
    pub(super) fn answer_upstream(&mut self, now: Instant, stanza: Bytes) {
        self.confirm.injected();
        self.reply_upstream(now, stanza);
    }

    /// Writes a stanza of our own to the server.
    pub(super) fn inject(&mut self, now: Instant, stanza: Bytes) {
        self.confirm.injected();
        self.write_upstream(now, stanza);
    }
}
