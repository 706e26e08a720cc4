//! Frames of both streams, the end of the server's stream, and stanzas on their way from one stream to the other.

use bytes::Bytes;

use super::Session;
use super::account::request::ClientRequest;
use super::answer;
use super::cause::Cause;
use super::contract::Output;
use super::csi::Activity;
use super::delivery::Incoming;
use super::event::{EndReason, Event};
use super::kind::{is_request, postponement, refusal};
use super::presence::Linger;
use super::server::{AnsweredRequest, SessionPublish, StreamError};
use super::sm::{Handled, nonza};
use crate::clock::Instant;
use crate::push::mucsub::MUCSUB;
use crate::push::notification::Publish;
use crate::seq::ServerSeq;
use crate::xml::{
    self, Element, ErrorType, Frame, Kind, Node, Skipped, StanzaCondition, StreamCondition, ns, stanza_error,
};

impl Session {
    pub(super) fn on_client_frame(&mut self, now: Instant, frame: Frame) {
        self.device.on_frame(now, &mut self.effects);
        if self.lifecycle.is_ending() || self.lifecycle.is_leaving() {
            return;
        }
        if let Some(frame) = self.device.follow(frame) {
            self.take_client_frame(now, frame);
        }
    }

    /// Takes a frame that need not wait.
    fn take_client_frame(&mut self, now: Instant, frame: Frame) {
        if matches!(frame, Frame::Close) {
            self.device.on_client_ends(now, &mut self.effects);
            return self.on_client_closes(now);
        }
        self.device.send_parting(now, &mut self.server, &mut self.effects);
        match frame {
            Frame::Whitespace | Frame::Skipped(_) | Frame::Close => {}
            Frame::Element(element) if element.kind() == Kind::Other => self.on_client_nonza(now, element),
            Frame::Element(element) => self.on_client_stanza(now, element),
            Frame::Open(_) => self.refuse_client(now, StreamCondition::BadFormat),
        }
    }

    /// Takes the frames that waited for a presence, after the presence has been forwarded.
    pub(super) fn go_on_behind_presence(&mut self, now: Instant) {
        while !self.lifecycle.is_ending()
            && let Some(frame) = self.device.next_behind()
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
            (ns::SM, "r") if self.device.client().counts() => {
                self.server.on_client_asks(now, self.device.backlog().stanzas_behind());
                self.device.answer(now, &mut self.server, &mut self.effects);
            }
            (ns::SM, "r") => {}
            (ns::SM, "a") => self.on_client_ack(now, &node),
            (ns::SM, "enable") => self.on_client_enables(&node),
            (ns::SM, _) => self.effects.reply_to_client(nonza::failed(StanzaCondition::UnexpectedRequest, None)),
            (ns::CSI, "active" | "inactive") => {
                let inactive = node.name() == "inactive";
                let activity = if inactive { Activity::Inactive } else { Activity::Active };
                self.device.client_mut().on_activity(activity);
                self.device.write_held_back(now, &mut self.effects);
                if self.identity.server_has_csi() {
                    self.server.forward(now, element, &mut self.effects);
                }
            }
            // An error about the client's stream, which it closes now (RFC 6120 §4.9.1.1). The server is not at fault.
            (ns::STREAMS, "error") => self.device.on_client_ends(now, &mut self.effects),
            // Elements that would change the upstream stream without Pushward's knowledge.
            (ns::TLS | ns::SASL | ns::SASL2 | ns::COMPRESS_PROTOCOL | ns::SM2, _) => {
                self.refuse_client(now, StreamCondition::UnsupportedStanzaType);
            }
            _ => self.server.forward(now, element, &mut self.effects),
        }
    }

    fn on_client_ack(&mut self, now: Instant, node: &Node<'_>) {
        let client = self.device.client_mut();
        let Some(h) = node.attr("h").and_then(|h| Handled::parse(&h)) else {
            if client.counts() {
                self.refuse_client(now, StreamCondition::BadFormat);
            }
            return;
        };
        match client.on_ack(h) {
            None => {}
            Some(Ok(count)) => self.device.on_acknowledged(now, count, &mut self.effects),
            Some(Err(too_high)) => {
                let (condition, text) = (too_high.condition(), too_high.to_string());
                let error = xml::stream_error(StreamCondition::UndefinedCondition, Some(&condition), Some(&text));
                self.effects.reply_to_client(error);
                self.begin_end(now, EndReason::ClientError);
            }
        }
    }

    fn on_client_enables(&mut self, node: &Node<'_>) {
        let Some(preceding) = self.device.client().may_enable() else {
            return self.effects.reply_to_client(nonza::failed(StanzaCondition::UnexpectedRequest, None));
        };
        let enabled = nonza::Enable::read(node).grant(&self.settings.sm_ids, self.identity.random_source());
        self.effects.reply_to_client(enabled.nonza(self.settings.hibernation.max_timeout));
        self.device.on_enabled(enabled, preceding, &mut self.server, &mut self.effects);
    }

    fn on_client_stanza(&mut self, now: Instant, element: Element) {
        self.device.write_held_back(now, &mut self.effects);
        if element.kind() == Kind::Iq {
            let is_ours = self.device.is_ping_answer(now, &element, &mut self.effects);
            if is_ours || self.answers_request(now, &element) {
                // XEP-0198 §4: it counts as handled, no matter who answers it.
                return self.server.on_answered_here();
            }
            if element.mentions(MUCSUB) {
                self.device.on_subscription(&element.node(), &mut self.effects);
            }
        }
        let forwarded = if element.kind() == Kind::Presence {
            let linger = if self.device.may_come_to_linger() { Linger::Possible } else { Linger::Impossible };
            self.device.on_presence(element, linger, &mut self.effects)
        } else {
            Some(element)
        };
        if let Some(stanza) = forwarded {
            self.device.forward(now, stanza, &mut self.server, &mut self.effects);
        }
    }

    /// Answers an iq that Pushward has to answer, and notes one whose answer concerns Pushward.
    fn answers_request(&mut self, now: Instant, iq: &Element) -> bool {
        let node = iq.node();
        let id = || node.attr("id").unwrap_or_default();
        match ClientRequest::read(iq, &self.identity, &self.settings.push) {
            None => {}
            Some(ClientRequest::Features) => self.server.on_features_request(&id()),
            Some(ClientRequest::Removal) => self.server.on_removal_request(now, &id()),
            Some(ClientRequest::Password) => self.server.on_password_request(&id()),
            Some(ClientRequest::Archive) => self.device.account_mut().on_archive_query(),
            Some(ClientRequest::Bind) => {
                self.deliver_reply(now, stanza_error(&node, ErrorType::Cancel, StanzaCondition::NotAllowed));
                return true;
            }
            Some(ClientRequest::Push(request)) => {
                let Self { settings, effects, device, .. } = self;
                let reply = device.account_mut().on_push_request(now, &node, request, settings, effects);
                if let Some(reply) = reply {
                    self.deliver_reply(now, reply);
                }
                return true;
            }
        }
        false
    }

    // Frames of the server

    pub(super) fn on_server_frame(&mut self, now: Instant, frame: Frame) {
        match frame {
            // Whitespace is never relayed: some clients fail on it.
            Frame::Whitespace => {}
            Frame::Element(element) if element.kind() == Kind::Other => self.on_server_nonza(now, &element),
            Frame::Element(element) => {
                self.lifecycle.on_server_sends(now);
                let server_seq = self.server.on_stanza();
                self.on_server_stanza(now, element, server_seq);
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
                // Stanzas that were given back stay unacknowledged.
                let given_back = self.gives_back().then(|| self.server.acked().next());
                let unsettled = given_back.or_else(|| self.device.delivery_mut().first_unsettled());
                self.server.on_ack_request(now, unsettled, &mut self.effects);
            }
            (ns::SM, "a") => {
                if self.server.on_ack(&node) {
                    self.on_server_confirms(now);
                }
            }
            (ns::STREAMS, "error") => {
                match self.server.on_stream_error(now, &node) {
                    StreamError::SeeOtherHost => return self.on_server_lost(now),
                    StreamError::AccountRemoved => self.device.remove_account(&mut self.effects),
                    StreamError::NotTrusted => self.device.revoke_tokens(&mut self.effects),
                    StreamError::Passed => {}
                }
                self.device.client().pass(element, &mut self.effects);
            }
            _ => self.device.client().pass(element, &mut self.effects),
        }
    }

    fn on_server_confirms(&mut self, now: Instant) {
        let Self { device, server, effects, .. } = self;
        if self.lifecycle.is_ending() {
            return device.save_tombstone(server, effects);
        }
        if device.client().is_resuming() && server.has_all() {
            device.send_resumed(now, server, effects);
        }
        device.answer(now, server, effects);
    }

    fn on_server_stanza(&mut self, now: Instant, element: Element, server_seq: Option<ServerSeq>) {
        if self.device.delivery().is_redelivered(now, &element) {
            return self.effects.event(Event::Redelivered);
        }
        if element.kind() == Kind::Iq {
            self.device.learn_from_iq(&element);
            let awaits_answer = !self.server.awaits_nothing() || self.device.client().was_pinged();
            if awaits_answer && self.takes_answer(now, &element, server_seq) {
                return;
            }
            // XEP-0199: pings are answered for a dark client, so that it does not seem offline.
            if !self.device.client().is_open() && self.server.answer_ping(now, &element, &mut self.effects) {
                return;
            }
        }
        self.device.learn(now, &element, &mut self.server, &mut self.effects);
        self.deliver(now, Incoming { element, server_seq, cause: Cause::Relayed });
    }

    /// Delivers an answer that came by another way than the server's stream, which therefore does not count it.
    pub(super) fn on_routed(&mut self, now: Instant, answer: Element) {
        if answer.kind() == Kind::Iq && !self.takes_answer(now, &answer, None) {
            self.deliver(now, Incoming { element: answer, server_seq: None, cause: Cause::Relayed });
        }
    }

    /// Sends a publish through the user's own stream.
    pub(super) fn publish_on_stream(&mut self, now: Instant, number: u64, publish: &Publish) {
        let deadline = now + self.settings.publish_timeout;
        self.server.publish(now, &SessionPublish { number, publish, deadline }, &mut self.effects);
    }

    /// Takes the answers to our own requests, and rewrites those that concern Pushward.
    fn takes_answer(&mut self, now: Instant, element: &Element, server_seq: Option<ServerSeq>) -> bool {
        match self.server.on_answer(&element.node()) {
            AnsweredRequest::Client => false,
            AnsweredRequest::Late => true,
            AnsweredRequest::Ping => {
                self.on_server_confirms(now);
                true
            }
            AnsweredRequest::Publish { number, outcome } => {
                self.effects.push(Output::PublishedOnStream { number, outcome: Box::new(outcome) });
                true
            }
            AnsweredRequest::Removal => {
                self.device.remove_account(&mut self.effects);
                false
            }
            AnsweredRequest::Password => {
                self.device.revoke_tokens(&mut self.effects);
                false
            }
            AnsweredRequest::Features => {
                let element = answer::account_features(element, &self.settings.push);
                self.deliver(now, Incoming { element, server_seq, cause: Cause::Relayed });
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
        let server_seq = self.server.on_stanza();
        if self.gives_back() {
            // It is not acknowledged, so the server delivers it elsewhere.
            return;
        }
        let node = element.node();
        let answer = match (element.kind(), node.attr("type").as_deref()) {
            (Kind::Iq, Some("get" | "set")) => {
                Some(stanza_error(&node, xml::ErrorType::Modify, StanzaCondition::NotAcceptable))
            }
            (Kind::Iq, Some("result" | "error")) => return self.on_skipped_answer(now, element, server_seq),
            (Kind::Message, Some("error" | "groupchat" | "headline")) => None,
            // Other messages get no error: another client may have them, and an error would show strangers who is online.
            (Kind::Message, _) if self.identity.is_addressed_from_elsewhere(&node) => {
                Some(stanza_error(&node, xml::ErrorType::Wait, StanzaCondition::ResourceConstraint))
            }
            (Kind::Message | Kind::Presence | Kind::Iq | Kind::Other, _) => None,
        };
        if let Some(answer) = answer.filter(|_| self.lifecycle.can_answer()) {
            self.server.answer(now, answer, &mut self.effects);
        }
    }

    /// Handles a skipped iq result or error. If it answers our own request, its remains are used as the answer. The client
    /// gets an error in place of the answer to its request.
    fn on_skipped_answer(&mut self, now: Instant, element: &Element, server_seq: Option<ServerSeq>) {
        let node = element.node();
        let is_ours = node.attr("id").is_some_and(|id| self.server.is_ours(&id));
        if is_ours && self.takes_answer(now, element, server_seq) {
            return;
        }
        if let Ok(error) = Element::parse(answer::unreadable(&node), element.header()) {
            self.on_server_stanza(now, error, server_seq);
        }
    }

    // Loss of the server

    pub(super) fn on_server_closes(&mut self, now: Instant) {
        let close = Bytes::from_static(xml::STREAM_CLOSE);
        if self.lifecycle.is_ending() {
            if self.lifecycle.last().is_some() {
                self.server.write(now, close, &mut self.effects);
            }
            return self.on_server_ended_in_order();
        }
        // RFC 6120 §4.4: the footer is answered.
        self.server.write(now, close.clone(), &mut self.effects);
        self.device.client().write(close, &mut self.effects);
        self.begin_end(now, EndReason::UpstreamClosed);
    }

    /// Ends without a footer, so that the client reconnects and logs in again.
    pub(super) fn on_server_lost(&mut self, now: Instant) {
        if !self.lifecycle.is_ending() {
            return self.begin_end(now, EndReason::UpstreamLost);
        }
        if self.server.has_stream_error() {
            return self.on_server_ended_in_order();
        }
        if self.lifecycle.last().is_some_and(|last| self.keeps(last.reason)) {
            self.keep_what_may_come_again(now);
        }
        if self.device.delivery_mut().take_given_back() {
            self.keep_what_may_come_again(now);
        }
        self.end();
    }

    /// Ends after the server ended its stream in order: it delivers all unacknowledged stanzas elsewhere.
    fn on_server_ended_in_order(&mut self) {
        let keeps = self.lifecycle.last().is_some_and(|last| self.keeps(last.reason));
        if keeps && self.server.counts() {
            self.give_back();
        }
        self.end();
    }

    /// Ends because the server has not answered our `<enable/>` in time. The client is expected to reconnect.
    pub(super) fn on_server_silent(&mut self, now: Instant) {
        self.effects.event(Event::ServerSilent);
        self.send_stream_error(StreamCondition::RemoteConnectionFailed);
        self.begin_end(now, EndReason::UpstreamSilent);
    }

    /// Writes a stanza to the client, or makes it wait.
    pub(super) fn deliver(&mut self, now: Instant, stanza: Incoming) {
        if self.gives_back() {
            // The stanza is not acknowledged any more, so the server delivers it elsewhere.
            return self.device.hold_given_back(now, stanza);
        }
        if self.lifecycle.is_ending() && is_request(&stanza.element) {
            let is_fenced = self.lifecycle.end_reason() == Some(EndReason::Fenced);
            let error = if is_fenced { postponement(&stanza.element) } else { refusal(&stanza.element) };
            return self.server.answer(now, error, &mut self.effects);
        }
        if self.device.delivery().queue().is_exhausted() {
            self.begin_end(now, EndReason::Exhausted);
        }
        self.device.deliver(now, stanza, &mut self.server, &mut self.effects);
    }
}
