//! How a [`Session`] reacts to its client.

use std::time::Instant;

use super::presence::Own;
use super::sm::{ack, failed};
use super::{EndReason, Greeting, Output, Peer, Session, Tracking, sm};
use crate::push::account::Change;
use crate::push::mucsub::MUCSUB;
use crate::xml::{self, Element, Frame, Kind, Node, ns};

impl Session {
    /// Whether the client's next frame can be taken now.
    pub fn wants_client(&self) -> bool {
        self.resuming.is_none() && self.confirm.has_room() && !self.behind.owes_too_much()
    }

    pub(super) fn client_frame(&mut self, now: Instant, frame: Frame) {
        self.liveness.heard(now);
        self.on_sign_of_life();
        if self.is_ending() || self.leaving.is_some() {
            return;
        }
        if let Some(frame) = self.follow_presence(frame) {
            self.follow(now, frame);
        }
    }

    /// Takes a frame whose turn it is.
    pub(super) fn follow(&mut self, now: Instant, frame: Frame) {
        if matches!(frame, Frame::Close) {
            self.client_ends(now);
            return self.client_closes(now);
        }
        self.part(now);
        match frame {
            Frame::Whitespace | Frame::Skipped(_) | Frame::Close => {}
            Frame::Element(element) if element.kind() == Kind::Other => self.client_nonza(now, element),
            Frame::Element(element) => self.client_stanza(now, element),
            Frame::Open(_) => self.client_error(now, "bad-format"),
        }
    }

    /// The stream error for bytes of the client that are no XML stream (RFC 6120 §4.9.3); the session ends.
    pub fn refuse_bytes(&mut self, now: Instant, error: &xml::FrameError) {
        self.reply_client(error.stream_error());
        self.begin_end(now, EndReason::ClientError);
    }

    fn client_error(&mut self, now: Instant, condition: &str) {
        self.reply_client(xml::stream_error(condition, None, None));
        self.begin_end(now, EndReason::ClientError);
    }

    // Nonzas

    fn client_nonza(&mut self, now: Instant, element: Element) {
        let node = element.node();
        match (node.ns(), node.name()) {
            (ns::SM, "r") => {
                if let Tracking::Sm(_) = self.tracking {
                    self.confirm.client_asks(now, self.behind.stanzas());
                    self.answer_client(now);
                }
            }
            (ns::SM, "a") => self.client_acked(now, &node),
            (ns::SM, "enable") => self.enable_client_sm(&node),
            (ns::SM, _) => self.reply_client(failed("unexpected-request", None)),
            (ns::CSI, "active" | "inactive") => {
                self.client_inactive = node.name() == "inactive";
                self.client_is_awake(now);
                if self.bound.server_csi {
                    self.forward(now, element);
                }
            }
            // It is about the client's stream, which it closes now (RFC 6120 §4.9.1.1), and no fault of the server's.
            (ns::STREAMS, "error") => self.client_ends(now),
            // Elements that would change the upstream stream behind our back.
            (ns::TLS | ns::SASL | ns::SASL2 | ns::COMPRESS_PROTOCOL | ns::SM2, _) => {
                self.client_error(now, "unsupported-stanza-type");
            }
            _ => self.forward(now, element),
        }
    }

    /// Sends the client its `<a/>`, if one is due: never ahead of a replay.
    pub(super) fn answer_client(&mut self, now: Instant) {
        if !self.may_answer_client() {
            return;
        }
        for _ in 0..self.confirm.take_answers(now) {
            self.reply_client(ack(self.confirm.handled()));
        }
    }

    /// Whether an `<a/>` may be sent to the client: it is there, and all that it missed has been written.
    pub(super) fn may_answer_client(&self) -> bool {
        let replaying = self.resuming.is_some() || self.queue.has_tail();
        !self.is_dark() && !replaying && matches!(self.tracking, Tracking::Sm(_))
    }

    fn client_acked(&mut self, now: Instant, node: &Node<'_>) {
        let Tracking::Sm(leg) = &mut self.tracking else { return };
        let Some(h) = node.attr("h").and_then(|h| sm::Handled::parse(&h)) else {
            return self.client_error(now, "bad-format");
        };
        match leg.acknowledge(h) {
            Ok(count) => {
                self.client_has(now, count);
                self.go_on_behind_suspect(now);
            }
            Err(too_high) => {
                let text = too_high.to_string();
                self.reply_client(xml::stream_error("undefined-condition", Some(&too_high.condition()), Some(&text)));
                self.begin_end(now, EndReason::ClientError);
            }
        }
    }

    /// The client has the first so many stanzas that were written to it.
    pub(super) fn client_has(&mut self, now: Instant, count: usize) {
        self.clear_of_suspicion(now, count);
        for (spool, last) in self.queue.acknowledge(count) {
            for places in self.queue.spare(spool, 0..=last) {
                self.out(Output::Unspool { spool, places });
            }
        }
        let complete = match &self.tracking {
            // Each earlier ping is obsolete.
            Tracking::None | Tracking::Ping(..) => true,
            Tracking::Sm(leg) => leg.unacked() <= self.unasked,
        };
        if self.liveness.acked(now, complete) {
            self.out(Output::Watch(Peer::Client));
        }
        self.contact();
    }

    fn enable_client_sm(&mut self, node: &Node<'_>) {
        let preceding = match &self.tracking {
            Tracking::Sm(_) => return self.reply_client(failed("unexpected-request", None)),
            Tracking::Ping(leg, _) => leg.unacked(),
            Tracking::None => 0,
        };
        let enabled = sm::Enable::read(node).grant(self.dice);
        self.reply_client(enabled.xml(self.settings.push.max_hibernation_timeout));
        self.client_counts(enabled, preceding);
    }

    /// XEP-0198 §4: both counters are zero from here on; so many stanzas went out before and are not known to have arrived.
    pub(super) fn client_counts(&mut self, enabled: sm::Enabled, preceding: usize) {
        if let Some(id) = enabled.id {
            self.asked_max = enabled.asked_max;
            self.sm_id = Some(id.clone());
            let (device, sm_id) = (self.owner.device, id.as_str().to_owned());
            self.change(None, Change::Resumable { device, sm_id });
            self.out(Output::Resumable(id));
        }
        self.tracking = Tracking::Sm(sm::ClientLeg::behind(preceding));
        self.unasked = preceding;
        self.confirm.enable();
        self.liveness.enable();
        if matches!(self.greeting, Greeting::Backlog) {
            self.greeting = Greeting::Sending(None);
            self.take_over_if_settled();
        }
    }

    /// A client with a registration that knows no stream management is asked by ping what it has read.
    pub(super) fn track_by_ping(&mut self) {
        let needed = self.owned().next().is_some() || self.queue.has_tail() || self.holds_presence();
        if needed && matches!(self.tracking, Tracking::None) {
            self.tracking = Tracking::Ping(sm::ClientLeg::default(), None);
            self.liveness.enable();
        }
    }

    // Stanzas

    fn client_stanza(&mut self, now: Instant, element: Element) {
        self.client_is_awake(now);
        if element.kind() == Kind::Iq && (self.answers_ping(now, &element) || self.answer_iq(now, &element)) {
            // XEP-0198 §4: handled, whoever answers it.
            return self.confirm.consumed();
        }
        if element.kind() == Kind::Iq && element.mentions(MUCSUB) {
            self.subscribes(now, &element);
        }
        if element.kind() == Kind::Presence {
            if Own::is_parting(&element) && self.may_come_to_linger() {
                return self.own_presence.part(element);
            }
            if self.own_presence.sent(&element) && self.greet(&element) {
                return;
            }
        }
        self.forward_counted(now, element);
    }

    /// The `unavailable` that waited for a footer passes, because something else came.
    pub(super) fn part(&mut self, now: Instant) {
        if let Some(parting) = self.own_presence.take_parting() {
            self.own_presence.sent(&parting);
            self.forward_counted(now, parting);
        }
    }

    pub(super) fn forward_counted(&mut self, now: Instant, element: Element) {
        if element.kind() == Kind::Presence {
            self.rooms.sent(&element.node());
            if matches!(self.greeting, Greeting::Awaited) && self.own_presence.is_available() {
                self.greeting = Greeting::Done;
                self.await_orphans(now);
                self.ask_for_roster(now);
            }
        }
        self.confirm.forwarded();
        self.forward(now, element);
    }

    fn forward(&mut self, now: Instant, element: Element) {
        let bytes = element.into_stream(&self.bound.client_header);
        self.write_upstream(now, bytes);
    }

    /// Whether this is the client's answer to our own ping, which is still to be taken.
    pub(super) fn is_ping_answer(&self, element: &Element) -> bool {
        let Tracking::Ping(_, Some((ping, _))) = &self.tracking else { return false };
        element.kind() == Kind::Iq && element.node().attr("id").is_some_and(|id| id == ping.as_str())
    }

    /// Whether this is the client's answer to our own ping.
    fn answers_ping(&mut self, now: Instant, element: &Element) -> bool {
        let node = element.node();
        if !matches!(node.attr("type").as_deref(), Some("result" | "error")) {
            return false;
        }
        let Some(id) = node.attr("id").filter(|id| self.pending.is_ours(id)) else { return false };
        let Tracking::Ping(leg, open) = &mut self.tracking else {
            // Invariant 5: an answer that came behind the client's `<enable/>` is still ours.
            return true;
        };
        let Some((_, covers)) = open.take_if(|(ping, _)| *ping == id) else { return true };
        let count = leg.acknowledge(covers).unwrap_or_default();
        self.client_has(now, count);
        self.go_on_behind_suspect(now);
        true
    }

    /// The client has read something: what it was notified about is its own now.
    fn contact(&mut self) {
        self.pusher.contact(|seq| self.queue.is_on_disk_only(seq));
        let unread = self.queue.iter().next().map_or(u64::MAX, |item| item.seq);
        self.ringing = self.ringing.filter(|(seq, _)| *seq >= unread);
        self.beyond = self.beyond.take().filter(|_| self.queue.has_tail());
    }
}
