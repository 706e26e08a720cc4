//! The stream to the server: the writing end, the stanzas that the server confirms, and our requests that it has not
//! answered. `Session` owns one [`ServerStream`].

mod answered;
mod handled_count;
mod leg;
mod pending;
mod requests;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::answer::iq_result;
use super::contract::{Output, Replies};
use super::effects::Effects;
use super::event::Peer;
use super::identity::Identity;
use super::settings::Settings;
use super::sm::Handled;
use super::sm::nonza::{self, ack};
use crate::clock::Instant;
use crate::push::outcome::Outcome;
use crate::seq::ServerSeq;
use crate::xml::{self, Element, Node, XmlWriter, ns};
pub(super) use answered::{AnsweredRequest, SessionPublish, StreamError};
use handled_count::Confirmation;
use leg::ServerLeg;
pub(super) use leg::{Settling, UNACKED};
use pending::{OpenPublish, Pending};
use writer::ServerWriter;

/// The stream to the server.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct ServerStream {
    #[serde(skip)]
    identity: Arc<Identity>,
    leg: ServerLeg,
    confirmation: Confirmation,
    pending: Pending,
    writer: ServerWriter,
}

impl ServerStream {
    /// Creates the stream. `is_answer_due`: a request of the login is not answered.
    pub(super) fn new(identity: Arc<Identity>, is_answer_due: bool) -> Self {
        let now = identity.clock().now;
        Self {
            leg: if identity.server_has_sm() { ServerLeg::asking(now) } else { ServerLeg::off() },
            confirmation: Confirmation::default(),
            pending: Pending::new(Arc::clone(&identity), is_answer_due),
            writer: ServerWriter::new(now),
            identity,
        }
    }

    /// Completes a stream that was read from a record. Returns whether it is consistent.
    pub(super) fn restore(&mut self, identity: &Arc<Identity>) -> bool {
        self.identity = Arc::clone(identity);
        self.pending.restore(identity);
        self.confirmation.is_consistent()
    }

    /// Enables our own stream management with the server (XEP-0198 §3): without resumption, and independent of the
    /// client's.
    pub(super) fn enable(&mut self, now: Instant, effects: &mut Effects) {
        if self.leg.confirms() {
            self.write(now, nonza::enable(), effects);
        }
    }

    /// Writes bytes that do not answer the server.
    pub(super) fn write(&mut self, now: Instant, bytes: Bytes, effects: &mut Effects) {
        self.writer.write(now, Output::ToUpstream(bytes), effects);
    }

    /// Answers something that the server itself has sent.
    fn reply(&mut self, now: Instant, bytes: Bytes, effects: &mut Effects) {
        self.writer.write(now, Output::ReplyToUpstream(bytes), effects);
    }

    /// Forwards an element of the client unchanged.
    pub(super) fn forward(&mut self, now: Instant, element: Element, effects: &mut Effects) {
        let bytes = element.into_stream(self.identity.client_header());
        self.write(now, bytes, effects);
    }

    /// Forwards a stanza of the client.
    pub(super) fn forward_stanza(&mut self, now: Instant, stanza: Element, effects: &mut Effects) {
        self.confirmation.forwarded();
        self.forward(now, stanza, effects);
    }

    /// Answers a stanza of the server with a stanza of our own.
    pub(super) fn answer(&mut self, now: Instant, stanza: Bytes, effects: &mut Effects) {
        self.confirmation.injected();
        self.reply(now, stanza, effects);
    }

    /// Answers a ping (XEP-0199) in place of the client; returns whether the iq is one.
    pub(super) fn answer_ping(&mut self, now: Instant, iq: &Element, effects: &mut Effects) -> bool {
        let node = iq.node();
        let is_ping = node.attr("type").as_deref() == Some("get") && node.child("ping", ns::PING).is_some();
        if is_ping {
            self.answer(now, iq_result(&node), effects);
        }
        is_ping
    }

    /// Writes a stanza of our own.
    pub(super) fn inject(&mut self, now: Instant, stanza: Bytes, effects: &mut Effects) {
        self.confirmation.injected();
        self.write(now, stanza, effects);
    }

    /// Sends `<active/>` to the server (XEP-0352 §5.2).
    pub(super) fn send_active(&mut self, now: Instant, effects: &mut Effects) {
        let mut xml = XmlWriter::new();
        xml.start("active").attr("xmlns", ns::CSI);
        self.write(now, xml.finish(), effects);
    }

    /// Requests the roster.
    pub(super) fn ask_for_roster(&mut self, now: Instant, effects: &mut Effects) {
        let id = self.pending.id();
        let mut xml = XmlWriter::new();
        xml.start("iq").attr("type", "get").attr("id", &id).start("query").attr("xmlns", ns::ROSTER);
        self.inject(now, xml.finish(), effects);
    }

    /// Sends a publish through the user's own stream, where the server stamps the full JID.
    pub(super) fn publish(&mut self, now: Instant, request: &SessionPublish<'_>, effects: &mut Effects) {
        let SessionPublish { number, publish, deadline } = *request;
        let id = self.pending.id();
        let iq = publish.iq(&id, None);
        let service = publish.target.service.clone();
        self.pending.publish(OpenPublish { id, number, service, deadline: Some(deadline) });
        self.inject(now, iq, effects);
    }

    /// Writes whitespace if nothing was written for this long.
    pub(super) fn keep_alive(&mut self, now: Instant, every: Duration, effects: &mut Effects) {
        self.writer.keep_alive(now, every, effects);
    }

    /// Writes the footer.
    pub(super) fn close(&mut self, now: Instant, effects: &mut Effects) {
        self.write(now, Bytes::from_static(xml::STREAM_CLOSE), effects);
        self.writer.end();
    }

    /// Stops writing.
    pub(super) fn end(&mut self) {
        self.writer.end();
    }

    // Stream management

    /// Returns whether the server counts the stanzas that it sends.
    pub(super) fn counts(&self) -> bool {
        self.leg.is_on()
    }

    /// The number of stanzas that are acknowledged to the server.
    pub(super) fn acked(&self) -> ServerSeq {
        self.leg.acked()
    }

    /// The number of stanzas that the server keeps for us.
    pub(super) fn unsettled(&self, first_unsettled: Option<ServerSeq>) -> u64 {
        self.leg.unsettled(first_unsettled)
    }

    /// Returns whether a stream error came.
    pub(super) fn has_stream_error(&self) -> bool {
        self.leg.has_stream_error()
    }

    /// Counts a stanza that came. Returns its number, if the server counts it.
    pub(super) fn on_stanza(&mut self) -> Option<ServerSeq> {
        self.leg.on_received()
    }

    /// Notes the server's `<enabled/>`.
    pub(super) fn on_enabled(&mut self) {
        self.leg.enabled();
    }

    /// Notes that the server refused our `<enable/>`.
    pub(super) fn on_refused(&mut self) {
        self.leg.refused();
    }

    /// Answers the server's `<r/>`.
    pub(super) fn on_ack_request(&mut self, now: Instant, unsettled: Option<ServerSeq>, effects: &mut Effects) {
        let h = self.leg.answer(unsettled);
        self.reply(now, ack(h), effects);
    }

    /// Takes the server's `<a/>`; returns whether its `h` is valid.
    pub(super) fn on_ack(&mut self, node: &Node<'_>) -> bool {
        let h = node.attr("h").and_then(|h| Handled::parse(&h));
        h.map(|h| self.confirmation.server_acked(h)).is_some()
    }

    /// Takes a stream error.
    pub(super) fn on_stream_error(&mut self, now: Instant, error: &Node<'_>) -> StreamError {
        self.leg.on_stream_error();
        StreamError::of(error, || self.pending.take_unnamed_removal(now))
    }

    /// Sends an `<a/>`, if there is anything to acknowledge. `first` is the first unsettled stanza.
    pub(super) fn settle(&mut self, now: Instant, settling: Settling, first: Option<ServerSeq>, effects: &mut Effects) {
        if let Some(h) = self.leg.settle(settling, first) {
            self.reply(now, ack(h), effects);
        }
    }

    // Confirmation of the client's stanzas

    /// Asks the server for a confirmation, unless a question is open or everything is confirmed.
    pub(super) fn ask_if_needed(&mut self, now: Instant, effects: &mut Effects) {
        if self.confirmation.must_ask() {
            self.ask(now, effects);
        }
    }

    /// Asks the server for a confirmation: by `<r/>`, or by a ping sent after the stanzas.
    pub(super) fn ask(&mut self, now: Instant, effects: &mut Effects) {
        let question = if self.leg.confirms() {
            self.confirmation.asked(now);
            nonza::request()
        } else {
            let mut xml = XmlWriter::new();
            let id = self.pending.id();
            xml.start("iq").attr("type", "get").attr("id", &id).attr("to", self.identity.domain());
            xml.start("ping").attr("xmlns", ns::PING);
            self.confirmation.injected();
            self.confirmation.pinged(now, id);
            xml.finish()
        };
        self.write(now, question, effects);
        effects.push(Output::Watch(Peer::Server));
    }

    /// Asks the server for a confirmation, if the pause between two questions is over.
    pub(super) fn ask_if_due(&mut self, now: Instant, effects: &mut Effects) {
        if self.confirmation.must_ask() && self.confirmation.pause().is_none_or(|at| at <= now) {
            self.ask(now, effects);
        }
    }

    /// The time at which the server is to be asked; `None` if at once, or not at all.
    pub(super) fn question_due(&self) -> Option<Instant> {
        self.confirmation.pause().filter(|_| self.confirmation.must_ask())
    }

    /// Returns whether the server was asked and has not answered.
    pub(super) fn is_asked(&self) -> bool {
        self.confirmation.is_asked()
    }

    /// The `h` for the client: the number of its stanzas that the server has confirmed.
    pub(super) fn handled(&self) -> Handled {
        self.confirmation.handled()
    }

    /// Returns whether the server has confirmed everything that the client sent.
    pub(super) fn has_all(&self) -> bool {
        self.confirmation.is_complete()
    }

    /// Returns whether the client may send more.
    pub(super) fn has_room(&self) -> bool {
        self.confirmation.has_room()
    }

    /// The time at which the client's `<r/>` is answered, even if the server confirms nothing.
    pub(super) fn answer_deadline(&self) -> Option<Instant> {
        self.confirmation.answer_deadline()
    }

    /// The bytes of memory in use.
    pub(super) fn memory(&self) -> usize {
        self.confirmation.memory()
    }

    /// Starts counting the client's stanzas, after its `<enable/>`.
    pub(super) fn on_client_enabled(&mut self) {
        self.confirmation.enable();
    }

    /// Counts a stanza of the client that was answered here.
    pub(super) fn on_answered_here(&mut self) {
        self.confirmation.consumed();
    }

    /// Resets the count for a client that resumes, and returns it. The client sends later stanzas again.
    pub(super) fn on_client_resumed(&mut self) -> Handled {
        self.confirmation.rewind();
        self.confirmation.handled()
    }

    /// Takes the client's `<r/>`, which came after `unforwarded` stanzas that were not forwarded yet.
    pub(super) fn on_client_asks(&mut self, now: Instant, unforwarded: u64) {
        self.confirmation.client_asks(now, unforwarded);
    }

    /// Notes that replies to the client exceed half their limit, or have all been written since.
    pub(super) fn on_replies_wait(&mut self, now: Instant, many: Replies, unforwarded: u64) {
        self.confirmation.answer_together(now, many, unforwarded);
    }

    /// Takes the number of `<a/>`s that are to be sent to the client now.
    pub(super) fn take_answers(&mut self, now: Instant) -> usize {
        self.confirmation.take_answers(now)
    }

    /// Declares the outcome of late publishes unknown. A late answer is still not passed to the client.
    pub(super) fn give_up_late_publishes(&mut self, now: Instant, effects: &mut Effects) {
        while let Some(number) = self.pending.take_late(now) {
            effects.push(Output::PublishedOnStream { number, outcome: Box::new(Outcome::Unknown) });
        }
    }

    /// Stops the clocks for the server's answers while the server is not read.
    pub(super) fn on_paused(&mut self, now: Instant) {
        self.confirmation.pause_server(now);
    }

    /// Starts the clocks again when the server is read again.
    pub(super) fn on_unpaused(&mut self, now: Instant) {
        let later = self.confirmation.unpause_server(now);
        if let Some(since) = self.leg.asked() {
            *since += later(*since);
        }
    }

    /// Stops the clock for the open question while it waits to be written.
    pub(super) fn on_question_waits(&mut self) {
        self.confirmation.question_waits();
    }

    /// Starts the clock for the open question once it is written.
    pub(super) fn on_question_left(&mut self, now: Instant) {
        self.confirmation.question_left(now);
    }

    /// Returns whether the server has confirmed nothing for too long, so that its connection counts as lost.
    pub(super) fn is_lost(&self, now: Instant) -> bool {
        self.confirmation.server_deadline().is_some_and(|at| at <= now)
    }

    /// Returns whether the server's answer to our `<enable/>` is late, if it may take this long.
    pub(super) fn is_silent(&self, now: Instant, patience: Duration) -> bool {
        self.enable_deadline(patience).is_some_and(|at| at <= now)
    }

    fn enable_deadline(&self, patience: Duration) -> Option<Instant> {
        self.leg.deadline(patience).filter(|_| !self.confirmation.is_server_paused())
    }

    /// The time at which the stream has something to do.
    pub(super) fn deadline(&self, settings: &Settings) -> Option<Instant> {
        let enabled = self.enable_deadline(settings.server_timeout);
        let keepalive = self.writer.deadline(settings.stream_management.upstream_keepalive);
        let waits = [self.pending.deadline(), self.confirmation.server_deadline(), enabled, Some(keepalive)];
        waits.into_iter().flatten().min()
    }
}
