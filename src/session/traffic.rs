//! Frames of both streams, and stanzas on their way from one to the other.

use std::time::Instant;

use bytes::Bytes;

use super::account::request::ClientRequest;
use super::answer::{self, iq_error, iq_result, message_error};
use super::backlog::FirstPresence;
use super::client::{Activity, PingAnswer};
use super::contract::Output;
use super::csi::{Urgency, urgency};
use super::delivery::{Incoming, Placed};
use super::event::{Cause, EndReason, Event};
use super::kind::{is_request, refusal};
use super::notifier::{Fresh, Kept};
use super::presence::Own;
use super::server::{Answered, StreamError};
use super::sm::{self, failed};
use super::{Session, rewrite};
use crate::push::account::Change;
use crate::push::mucsub::MUCSUB;
use crate::push::outcome::Outcome;
use crate::xml::{self, Element, ErrorType, Frame, Kind, Node, Skipped, StanzaCondition, StreamCondition, ns};

impl Session {
    // The client's frames

    pub(super) fn on_client_frame(&mut self, now: Instant, frame: Frame) {
        self.client.on_frame(now);
        if self.succession.on_sign_of_life() {
            self.effects.push(Output::Answered);
        }
        if self.lifecycle.is_ending() || self.lifecycle.is_leaving() {
            return;
        }
        if let Some(frame) = self.backlog.follow(frame, |element| self.client.is_ping_answer(element)) {
            self.take_client_frame(now, frame);
        }
    }

    /// Takes a frame whose turn it is.
    fn take_client_frame(&mut self, now: Instant, frame: Frame) {
        if matches!(frame, Frame::Close) {
            self.on_client_ends(now);
            return self.on_client_closes(now);
        }
        self.send_parting(now);
        match frame {
            Frame::Whitespace | Frame::Skipped(_) | Frame::Close => {}
            Frame::Element(element) if element.kind() == Kind::Other => self.on_client_nonza(now, element),
            Frame::Element(element) => self.on_client_stanza(now, element),
            Frame::Open(_) => self.refuse_client(now, StreamCondition::BadFormat),
        }
    }

    /// The presence that waited has been forwarded: what came behind it follows.
    pub(super) fn go_on_behind_presence(&mut self, now: Instant) {
        while !self.lifecycle.is_ending()
            && let Some(frame) = self.backlog.next_behind()
        {
            self.take_client_frame(now, frame);
        }
    }

    fn refuse_client(&mut self, now: Instant, condition: StreamCondition) {
        self.effects.reply_to_client(xml::stream_error(condition, None, None));
        self.begin_end(now, EndReason::ClientError);
    }

    fn on_client_nonza(&mut self, now: Instant, element: Element) {
        let node = element.node();
        match (node.ns(), node.name()) {
            (ns::SM, "r") if self.client.counts() => {
                self.server.on_client_asks(now, self.backlog.stanzas_behind());
                self.answer_client(now);
            }
            (ns::SM, "r") => {}
            (ns::SM, "a") => self.on_client_ack(now, &node),
            (ns::SM, "enable") => self.on_client_enables(&node),
            (ns::SM, _) => self.effects.reply_to_client(failed(StanzaCondition::UnexpectedRequest, None)),
            (ns::CSI, "active" | "inactive") => {
                let inactive = node.name() == "inactive";
                self.client.on_activity(if inactive { Activity::Inactive } else { Activity::Active });
                self.write_held_back(now);
                if self.identity.server_has_csi() {
                    self.server.forward(now, element, &mut self.effects);
                }
            }
            // It is about the client's stream, which it closes now (RFC 6120 §4.9.1.1), and no fault of the server's.
            (ns::STREAMS, "error") => self.on_client_ends(now),
            // Elements that would change the upstream stream behind our back.
            (ns::TLS | ns::SASL | ns::SASL2 | ns::COMPRESS_PROTOCOL | ns::SM2, _) => {
                self.refuse_client(now, StreamCondition::UnsupportedStanzaType);
            }
            _ => self.server.forward(now, element, &mut self.effects),
        }
    }

    /// Sends the client its `<a/>`, if one is due: never ahead of a replay.
    pub(super) fn answer_client(&mut self, now: Instant) {
        if self.may_answer_client() {
            let count = self.server.take_answers(now);
            self.client.send_acks(count, self.server.handled(), &mut self.effects);
        }
    }

    /// Whether an `<a/>` may be sent to the client: it is there, and all that it missed has been written.
    pub(super) fn may_answer_client(&self) -> bool {
        let replaying = self.client.is_resuming() || self.delivery.queue().has_tail();
        !self.client.is_dark() && !replaying && self.client.counts()
    }

    fn on_client_ack(&mut self, now: Instant, node: &Node<'_>) {
        let Some(h) = node.attr("h").and_then(|h| sm::Handled::parse(&h)) else {
            if self.client.counts() {
                self.refuse_client(now, StreamCondition::BadFormat);
            }
            return;
        };
        match self.client.on_ack(h) {
            None => {}
            Some(Ok(count)) => self.on_acknowledged(now, count),
            Some(Err(too_high)) => {
                let (condition, text) = (too_high.condition(), too_high.to_string());
                let error = xml::stream_error(StreamCondition::UndefinedCondition, Some(&condition), Some(&text));
                self.effects.reply_to_client(error);
                self.begin_end(now, EndReason::ClientError);
            }
        }
    }

    fn on_acknowledged(&mut self, now: Instant, count: usize) {
        self.take_acknowledged(now, count);
        let Self { client, account, effects, .. } = self;
        self.delivery.go_on_behind_suspect(now, client, account, effects);
    }

    /// The client has the first so many stanzas that were written to it.
    pub(super) fn take_acknowledged(&mut self, now: Instant, count: usize) {
        self.delivery.clear_of_suspicion(now, count, &mut self.account, &mut self.effects);
        self.delivery.on_acknowledged(count, &mut self.effects);
        self.client.on_acknowledged(now, &mut self.effects);
        self.notifier.on_acknowledged(&self.delivery);
    }

    fn on_client_enables(&mut self, node: &Node<'_>) {
        let Some(preceding) = self.client.may_enable() else {
            return self.effects.reply_to_client(failed(StanzaCondition::UnexpectedRequest, None));
        };
        let enabled = sm::Enable::read(node).grant(self.identity.random_source());
        self.effects.reply_to_client(enabled.xml(self.settings.push.max_hibernation_timeout));
        self.on_client_counts(enabled, preceding);
    }

    /// XEP-0198 §4: both counters are zero from here on; so many stanzas went out before and are not known to have arrived.
    pub(super) fn on_client_counts(&mut self, enabled: sm::Enabled, preceding: usize) {
        if let Some(id) = self.client.on_enabled(enabled, preceding) {
            let (device, sm_id) = (self.account.device(), id.as_str().to_owned());
            self.account.change(Change::Resumable { device, sm_id }, &mut self.effects);
            self.effects.push(Output::Resumable(id));
        }
        self.server.on_client_enabled();
        if self.backlog.on_enabled() {
            self.take_over_if_settled();
        }
    }

    fn on_client_stanza(&mut self, now: Instant, element: Element) {
        self.write_held_back(now);
        if element.kind() == Kind::Iq && (self.is_ping_answer(now, &element) || self.answers_request(now, &element)) {
            // XEP-0198 §4: handled, whoever answers it.
            return self.server.on_answered_here();
        }
        if element.kind() == Kind::Iq
            && element.mentions(MUCSUB)
            && self.account.on_subscription(&element.node(), &mut self.effects)
        {
            self.notifier.on_subscriptions(&self.account);
        }
        if element.kind() == Kind::Presence {
            if Own::is_parting(&element) && self.may_come_to_linger() {
                return self.presence.part(element);
            }
            if self.presence.sent(&element) && self.waits_for_backlog(&element) {
                return;
            }
        }
        self.forward_stanza(now, element);
    }

    /// Whether the client's available presence waits until what the device missed before has been written.
    fn waits_for_backlog(&mut self, presence: &Element) -> bool {
        match self.backlog.on_presence(presence) {
            FirstPresence::Passes => false,
            FirstPresence::Waits => true,
            FirstPresence::ReadsBacklog => {
                // What comes meanwhile is not certain to be read, whatever the client enables behind its presence.
                self.track_if_needed();
                self.take_over_if_settled();
                true
            }
        }
    }

    /// The `unavailable` that waited for a footer passes, because something else came.
    pub(super) fn send_parting(&mut self, now: Instant) {
        if let Some(parting) = self.presence.take_parting() {
            self.presence.sent(&parting);
            self.forward_stanza(now, parting);
        }
    }

    /// Forwards a stanza of the client, which counts it.
    pub(super) fn forward_stanza(&mut self, now: Instant, stanza: Element) {
        if stanza.kind() == Kind::Presence {
            self.notifier.on_presence_sent(&stanza.node());
            if self.presence.is_available() && self.backlog.on_available() {
                self.await_orphans(now);
                self.ask_for_roster(now);
            }
        }
        self.server.forward_stanza(now, stanza, &mut self.effects);
    }

    /// Takes the client's answer to our own ping; whether it is one.
    fn is_ping_answer(&mut self, now: Instant, iq: &Element) -> bool {
        match self.client.on_ping_answer(&iq.node()) {
            PingAnswer::Not => return false,
            PingAnswer::Late => {}
            PingAnswer::Acknowledges(count) => self.on_acknowledged(now, count),
        }
        true
    }

    /// Answers an iq that is ours to answer, and notes one whose answer concerns us.
    fn answers_request(&mut self, now: Instant, iq: &Element) -> bool {
        let node = iq.node();
        let id = || node.attr("id").unwrap_or_default();
        match ClientRequest::read(iq, &self.identity, &self.settings.push) {
            None => {}
            Some(ClientRequest::Features) => self.server.on_features_request(&id()),
            Some(ClientRequest::Removal) => self.server.on_removal_request(now, &id()),
            Some(ClientRequest::Archive) => self.account.on_archive_query(),
            Some(ClientRequest::Push(request)) => {
                let Self { settings, effects, .. } = self;
                if let Some(reply) = self.account.on_push_request(now, &node, request, settings, effects) {
                    self.deliver_own(now, reply);
                }
                return true;
            }
        }
        false
    }

    // The server's frames

    pub(super) fn on_server_frame(&mut self, now: Instant, frame: Frame) {
        match frame {
            // Never relayed: there are clients that give up on whitespace.
            Frame::Whitespace => {}
            Frame::Element(element) if element.kind() == Kind::Other => self.on_server_nonza(now, &element),
            Frame::Element(element) => {
                self.lifecycle.on_server_sends(now);
                let ordinal = self.server.on_stanza();
                self.on_server_stanza(now, element, ordinal);
            }
            Frame::Skipped(skipped) => self.on_skipped(now, &skipped),
            Frame::Close => self.on_server_closes(now),
            Frame::Open(_) => self.on_server_lost(now),
        }
    }

    fn on_server_nonza(&mut self, now: Instant, element: &Element) {
        let node = element.node();
        match (node.ns(), node.name()) {
            (ns::SM, "enabled") => self.server.on_enabled(),
            (ns::SM, "failed") => self.server.on_refused(),
            (ns::SM, "r") => {
                // What was given back stays unacknowledged.
                let given_back = self.gives_back().then(|| self.server.acked() + 1);
                let unsettled = given_back.or_else(|| self.delivery.first_unsettled());
                self.server.on_ack_request(now, unsettled, &mut self.effects);
            }
            (ns::SM, "a") => {
                if self.server.on_ack(&node) {
                    self.on_server_confirms(now);
                }
            }
            (ns::STREAMS, "error") => {
                if self.server.takes_back_account(now, &node) {
                    self.remove_account();
                }
                match self.server.on_stream_error(&node) {
                    StreamError::SeeOtherHost => self.on_server_lost(now),
                    StreamError::Passed => self.client.pass(element, &mut self.effects),
                }
            }
            _ => self.client.pass(element, &mut self.effects),
        }
    }

    fn on_server_confirms(&mut self, now: Instant) {
        if self.lifecycle.is_ending() {
            return self.save_tombstone();
        }
        if self.client.is_resuming() && self.server.has_all() {
            self.send_resumed(now);
        }
        self.answer_client(now);
    }

    fn on_server_stanza(&mut self, now: Instant, element: Element, ordinal: Option<u64>) {
        if self.delivery.is_redelivered(now, &element) {
            return self.effects.event(Event::Redelivered);
        }
        if element.kind() == Kind::Iq {
            self.notifier.on_iq(&element);
            let awaits_answer = !self.server.awaits_nothing() || self.client.was_pinged();
            if awaits_answer && self.takes_answer(now, &element, ordinal) {
                return;
            }
            if !self.client.is_open() && self.answers_ping(now, &element) {
                return;
            }
        }
        if element.kind() == Kind::Presence {
            self.notifier.on_room_presence(&element);
        }
        if element.kind() == Kind::Message && self.account.has_any_registration() {
            self.take_revocation(now, &element);
        }
        self.delivery.note_had(&element, &self.account);
        self.deliver(now, element, ordinal, Cause::Relayed);
    }

    /// An answer for the client came by another way than the server's stream, which therefore does not count it.
    pub(super) fn on_routed(&mut self, now: Instant, answer: Element) {
        if answer.kind() == Kind::Iq && !self.takes_answer(now, &answer, None) {
            self.deliver(now, answer, None, Cause::Relayed);
        }
    }

    /// Takes the answers to our own requests, and rewrites those that concern us.
    fn takes_answer(&mut self, now: Instant, element: &Element, ordinal: Option<u64>) -> bool {
        match self.server.on_answer(&element.node()) {
            Answered::Client => false,
            Answered::Late => true,
            Answered::Ping => {
                self.on_server_confirms(now);
                true
            }
            Answered::Publish { number, outcome } => {
                self.effects.push(Output::Carried { number, outcome: Box::new(outcome) });
                true
            }
            Answered::Removal => {
                self.remove_account();
                false
            }
            Answered::Features => {
                let (node, push) = (element.node(), &self.settings.push);
                let info = match node.attr("type").as_deref() {
                    Some("error") => Some(answer::account_info(&node, push)),
                    _ => rewrite::account_info(element, push),
                };
                let rewritten = info.and_then(|bytes| Element::parse(bytes, element.header()).ok());
                self.deliver(now, rewritten.unwrap_or_else(|| element.clone()), ordinal, Cause::Relayed);
                true
            }
        }
    }

    /// Handles a skipped element. Stanzas count for the server's stream management like all others.
    fn on_skipped(&mut self, now: Instant, skipped: &Skipped) {
        let element = &skipped.element;
        if element.kind() == Kind::Other {
            return;
        }
        let ordinal = self.server.on_stanza();
        if self.gives_back() {
            // The server sends it elsewhere, since it is not acknowledged.
            return;
        }
        let node = element.node();
        let answer = match (element.kind(), node.attr("type").as_deref()) {
            (Kind::Iq, Some("get" | "set")) => Some(iq_error(&node, ErrorType::Modify, StanzaCondition::NotAcceptable)),
            (Kind::Iq, Some("result" | "error")) => return self.on_skipped_answer(now, element, ordinal),
            (Kind::Message, Some("error" | "groupchat" | "headline")) => None,
            // Other messages get no error: another client may have them, and an error would show strangers who is online.
            (Kind::Message, _) if self.identity.is_addressed_from_elsewhere(&node) => {
                Some(message_error(&node, ErrorType::Wait, StanzaCondition::ResourceConstraint))
            }
            (Kind::Message | Kind::Presence | Kind::Iq | Kind::Other, _) => None,
        };
        if let Some(answer) = answer.filter(|_| self.lifecycle.can_answer()) {
            self.server.answer(now, answer, &mut self.effects);
        }
    }

    /// Handles a skipped iq result or error. A request of our own is answered by what is left of it. The client gets an error in
    /// place of the answer to its request.
    fn on_skipped_answer(&mut self, now: Instant, element: &Element, ordinal: Option<u64>) {
        let node = element.node();
        let is_ours = node.attr("id").is_some_and(|id| self.server.is_ours(&id));
        if is_ours && self.takes_answer(now, element, ordinal) {
            return;
        }
        if let Ok(error) = Element::parse(answer::unreadable(&node), element.header()) {
            self.on_server_stanza(now, error, ordinal);
        }
    }

    /// The server has removed the account: nothing of it is kept.
    fn remove_account(&mut self) {
        self.on_account_removed();
        self.account.change(Change::Removed, &mut self.effects);
    }

    /// XEP-0199: while the client is dark, pings are answered for it, so that nobody takes it for gone.
    pub(super) fn answers_ping(&mut self, now: Instant, iq: &Element) -> bool {
        let node = iq.node();
        if node.attr("type").as_deref() != Some("get") || node.child("ping", ns::PING).is_none() {
            return false;
        }
        self.server.answer(now, iq_result(&node), &mut self.effects);
        true
    }

    // Stanzas for the client

    /// Writes a stanza to the client, or lets it wait.
    fn deliver(&mut self, now: Instant, element: Element, ordinal: Option<u64>, cause: Cause) {
        if self.gives_back() {
            // Not acknowledged any more, so the server sends it elsewhere.
            return self.delivery.hold_given_back(now, Incoming { element, ordinal, cause }, self.notifier.rooms());
        }
        if self.lifecycle.is_ending() && is_request(&element) {
            return self.server.answer(now, refusal(&element), &mut self.effects);
        }
        if self.delivery.is_exhausted() {
            self.begin_end(now, EndReason::Exhausted);
        }
        if !self.client.is_tracked() && self.client.is_open() {
            let stanza = Incoming { element, ordinal, cause };
            return self.delivery.write_untracked(&stanza, &self.client, &mut self.effects);
        }
        let urgency = self.urgency(&element);
        let waits = self.client.is_dark() || urgency != Urgency::Now;
        if waits && self.delivery.cancels_out(&element, &self.presence) {
            return;
        }
        let fresh = self.notifier.may_push(&element, self.situation()).then(|| element.clone());
        let Self { client, notifier, effects, .. } = self;
        let stanza = Incoming { element, ordinal, cause };
        let (seq, kept) = match self.delivery.accept(now, stanza, urgency, client, notifier.rooms(), effects) {
            Placed::Memory(seq) => {
                self.write_waiting(now);
                (seq, Kept::InMemory)
            }
            Placed::HeldBack(seq) => (seq, Kept::InMemory),
            Placed::Spool(seq) => {
                self.delivery.spool_all(&self.account, &mut self.effects);
                (seq, Kept::OnDiskOnly)
            }
        };
        if let Some(stanza) = &fresh {
            self.give_up_late_publishes(now);
            self.notify(|notifier, situation, effects| {
                notifier.on_stanza(now, Fresh { stanza, seq, kept }, situation, effects)
            });
        }
        self.keep_within_bounds(now);
    }

    /// How urgent a stanza is for the client. Where the server has no client state indication, Pushward keeps from a client in the
    /// background what it need not be woken for.
    fn urgency(&self, element: &Element) -> Urgency {
        let holds_back = self.client.is_in_background() && !self.identity.server_has_csi();
        if holds_back { urgency(element.kind(), &self.notifier.read(element)) } else { Urgency::Now }
    }

    /// A stanza of our own making counts and waits like any other.
    pub(super) fn deliver_own(&mut self, now: Instant, bytes: Bytes) {
        if let Ok(element) = Element::parse(bytes, self.client.header()) {
            self.deliver(now, element, None, Cause::Reply);
        }
    }

    /// Writes what has not been written to the current attachment.
    pub(super) fn write_waiting(&mut self, now: Instant) {
        self.delivery.write_waiting(now, &mut self.client, &self.account, &mut self.effects);
    }

    /// The client is busy anyway: what was held goes to it, before anything that it says takes effect (XEP-0352 §5.1).
    fn write_held_back(&mut self, now: Instant) {
        if self.delivery.has_held_back() {
            self.write_waiting(now);
        }
    }

    /// Declares the outcome of carried publishes unknown whose time is over.
    pub(super) fn give_up_late_publishes(&mut self, now: Instant) {
        while let Some(number) = self.server.take_late_publish(now) {
            self.effects.push(Output::Carried { number, outcome: Box::new(Outcome::Unknown) });
        }
    }
}
