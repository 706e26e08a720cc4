//! The stream to the client: its current attachment, its acknowledgements, and its resumption id. `DeviceSide` owns one
//! [`ClientStream`].

mod client_acks;
mod resumption;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::contract::Output;
use super::csi::Activity;
use super::effects::Effects;
use super::event::{Closing, Peer};
use super::identity::{Identity, Resumption};
use super::liveness::{Alarm, Liveness, Reach};
use super::names::{Attachment, SmId};
use super::rewrite::sasl2;
use super::settings::Settings;
use super::sm::nonza::{self, Enabled, ack};
use super::sm::{Handled, TooHigh};
use crate::clock::Instant;
use crate::xml::{Element, Header, HeaderPool, Node};
use client_acks::Acknowledgements;
pub(super) use client_acks::PingAnswer;
use resumption::ResumptionId;

/// The stream to the client, over one connection after another.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct ClientStream {
    #[serde(skip)]
    identity: Arc<Identity>,
    attachment: Attachment,
    /// The header of the stream that the current attachment reads.
    header: Arc<Header>,
    acknowledgements: Acknowledgements,
    resumption_id: ResumptionId,
    /// The deadline of a resumption that waits until the server has confirmed what the client sent before.
    resuming: Option<Instant>,
    /// The `<success/>` of SASL2 in which the client learns that it has resumed.
    success: Option<Box<Element>>,
    liveness: Liveness,
    activity: Activity,
    /// True once the end of the session has begun: nothing is written any more.
    is_closed: bool,
}

impl ClientStream {
    pub(super) fn new(identity: Arc<Identity>, header: Arc<Header>, activity: Activity, liveness: Liveness) -> Self {
        Self {
            identity,
            attachment: Attachment::FIRST,
            header,
            acknowledgements: Acknowledgements::default(),
            resumption_id: ResumptionId::default(),
            resuming: None,
            success: None,
            liveness,
            activity,
            is_closed: false,
        }
    }

    /// Completes a stream that was read from a record.
    pub(super) fn restore(&mut self, identity: &Arc<Identity>, headers: &mut HeaderPool<'_>) {
        self.identity = Arc::clone(identity);
        headers.share(&mut self.header);
    }

    pub(super) fn attachment(&self) -> Attachment {
        self.attachment
    }

    /// The header of the stream that the current attachment reads.
    pub(super) fn header(&self) -> &Arc<Header> {
        &self.header
    }

    pub(super) fn on_settings(&mut self, settings: &Settings) {
        self.liveness.change(&settings.stream_management);
    }

    // Reachability

    pub(super) fn reach(&self) -> Reach {
        self.liveness.reach()
    }

    /// Returns whether there is no usable connection.
    pub(super) fn is_dark(&self) -> bool {
        self.liveness.is_dark()
    }

    /// Returns whether the client is connected and the end of the session has not begun.
    pub(super) fn is_open(&self) -> bool {
        !self.is_dark() && !self.is_closed
    }

    /// Returns whether the session is held without its client and its end has not begun.
    pub(super) fn is_held(&self) -> bool {
        self.is_dark() && !self.is_closed
    }

    /// Returns whether stanzas are written to the client: it is connected, and its resumption is complete.
    pub(super) fn is_written_to(&self) -> bool {
        self.is_open() && self.resuming.is_none()
    }

    /// The time since which stanzas cannot be expected to be read; `None` while the client is live.
    pub(super) fn unreachable_since(&self) -> Option<Instant> {
        self.liveness.unreachable_since()
    }

    /// Returns whether the client is connected and not read.
    pub(super) fn is_paused(&self) -> bool {
        self.liveness.is_paused()
    }

    /// Notes that the client sent something.
    pub(super) fn on_frame(&mut self, now: Instant) {
        self.liveness.on_frame(now);
    }

    /// The next alarm that is due.
    pub(super) fn on_timeout(&mut self, now: Instant) -> Option<Alarm> {
        self.liveness.alarm(now)
    }

    /// Stops the clocks for the client's answers while the client is not read.
    pub(super) fn on_paused(&mut self, now: Instant) {
        self.liveness.stop_clock(now);
    }

    /// Starts the clocks again when the client is read again.
    pub(super) fn on_unpaused(&mut self, now: Instant) {
        self.liveness.go_on(now);
    }

    /// Stops the clock for the open question while it waits to be written.
    pub(super) fn on_question_waits(&mut self) {
        self.liveness.question_waits();
    }

    /// Starts the clock for the open question once it is written.
    pub(super) fn on_question_left(&mut self, now: Instant) {
        self.liveness.question_left(now);
    }

    // Loss and resumption

    /// The time for which the session of a device without a registration is held without its client.
    pub(super) fn hold(&self, settings: &Settings) -> Duration {
        let asked = self.resumption_id.asked_max().map_or(Duration::MAX, Duration::from_secs);
        settings.stream_management.resume_timeout.min(asked)
    }

    /// Notes that the connection was lost. The session is held for this long.
    pub(super) fn on_lost(&mut self, now: Instant, hold: Duration) {
        (self.resuming, self.success) = (None, None);
        self.liveness.go_dark(now, now + hold);
    }

    /// Sets the hold of a dark client, counted from the loss of its connection.
    pub(super) fn hold_for(&mut self, hold: Duration) {
        if let Some(since) = self.liveness.unreachable_since().filter(|_| self.is_dark()) {
            self.liveness.hold_until(since + hold);
        }
    }

    /// Limits the hold of a dark client to end at this time.
    pub(super) fn hold_at_most(&mut self, end: Instant) {
        self.liveness.hold_at_most(end);
    }

    /// The id under which the session can be resumed, or could be.
    pub(super) fn resumption_id(&self) -> &ResumptionId {
        &self.resumption_id
    }

    /// Checks the `h` of a connection that wants to resume.
    pub(super) fn check_resume(&self, h: Handled) -> Result<(), TooHigh> {
        self.acknowledgements.check(h)
    }

    /// Takes the `h` of a client that resumes. Returns the number of stanzas that it acknowledges. All others are to be
    /// written again.
    pub(super) fn rewind(&mut self, h: Handled) -> Option<usize> {
        self.acknowledgements.rewind(h)
    }

    /// Attaches a new connection.
    pub(super) fn attach(&mut self, now: Instant, resumption: Resumption) {
        self.acknowledgements.on_attached();
        self.attachment = self.attachment.next();
        self.header = resumption.server_header;
        self.success = resumption.success.map(Box::new);
        self.liveness.attach(now);
    }

    /// Delays the answer to a resumption until the server has confirmed what the client sent, or until this time.
    pub(super) fn await_confirmation(&mut self, until: Instant) {
        self.resuming = Some(until);
    }

    /// Returns whether a resumption waits for the server.
    pub(super) fn is_resuming(&self) -> bool {
        self.resuming.is_some()
    }

    /// Returns whether a resumption has waited long enough.
    pub(super) fn is_resumption_due(&self, now: Instant) -> bool {
        self.resuming.is_some_and(|at| at <= now)
    }

    /// Ends the wait of a resumption; returns whether `<resumed/>` can be sent.
    pub(super) fn begin_resumed(&mut self) -> bool {
        self.resuming = None;
        self.resumption_id.id().is_some()
    }

    /// Sends `<resumed/>`.
    pub(super) fn send_resumed(&mut self, h: Handled, effects: &mut Effects) {
        let Some(id) = self.resumption_id.id() else { return };
        let resumed = nonza::resumed(id, h);
        effects.reply_to_client(match self.success.take() {
            Some(success) => sasl2::resumed(&success, self.identity.jid(), &resumed),
            None => resumed,
        });
    }

    /// Retires the resumption id; returns whether there was one.
    pub(super) fn retire_id(&mut self) -> bool {
        self.resumption_id.retire()
    }

    /// Saves the count of the client's stanzas for the retired id, so that the client need not send those again.
    pub(super) fn save_tombstone(&mut self, h: Handled, effects: &mut Effects) {
        if let Some(id) = self.resumption_id.save(h) {
            effects.push(Output::SaveTombstone { id, h });
        }
    }

    /// Closes the connection. Nothing is written from now on.
    pub(super) fn close(&mut self, closing: Closing, effects: &mut Effects) {
        self.is_closed = true;
        effects.push(Output::CloseClient(closing));
    }

    /// Returns whether the client counts stanzas (XEP-0198).
    pub(super) fn counts(&self) -> bool {
        self.acknowledgements.counts()
    }

    /// Returns whether the client acknowledges stanzas.
    pub(super) fn is_tracked(&self) -> bool {
        self.acknowledgements.are_known()
    }

    /// The number of unacknowledged stanzas, if the client may enable stream management.
    pub(super) fn may_enable(&self) -> Option<usize> {
        self.acknowledgements.may_enable()
    }

    /// Enables stream management. XEP-0198 §4: both counters are zero from here on. `preceding` stanzas were sent before
    /// and are not known to have arrived. Returns the id under which the session can be resumed from now on.
    pub(super) fn on_enabled(&mut self, enabled: Enabled, preceding: usize) -> Option<SmId> {
        self.acknowledgements.enable(preceding);
        self.liveness.enable();
        self.resumption_id.grant(enabled)
    }

    /// Asks a client without stream management by ping what it has read, from now on.
    pub(super) fn track_by_ping(&mut self) {
        if !self.is_tracked() {
            self.track_silently();
            self.liveness.enable();
        }
    }

    /// Makes stanzas wait until the client has shown that it has them, without asking it.
    pub(super) fn track_silently(&mut self) {
        if !self.is_tracked() {
            self.acknowledgements.track_by_ping();
        }
    }

    /// Counts a stanza that was written.
    pub(super) fn on_stanza_written(&mut self) {
        self.acknowledgements.on_written();
    }

    /// The number of stanzas written since the client was last asked for an acknowledgement.
    pub(super) fn unasked(&self) -> usize {
        self.acknowledgements.unasked()
    }

    /// Asks what the client has read: by `<r/>`, or by ping.
    pub(super) fn ask(&mut self, now: Instant, effects: &mut Effects) {
        let Some(question) = self.acknowledgements.ask(&self.identity) else { return };
        effects.write_to_client(question);
        if self.liveness.asked(now) {
            effects.push(Output::Watch(Peer::Client));
        }
    }

    /// Asks what the client has read, unless it was asked about everything.
    pub(super) fn ask_about_written(&mut self, now: Instant, effects: &mut Effects) {
        if self.acknowledgements.unasked() > 0 {
            self.ask(now, effects);
        }
    }

    /// Returns whether the client is to be asked about written stanzas. A client that does not acknowledge everything is
    /// asked again only when more was written.
    pub(super) fn may_be_asked(&self) -> bool {
        self.acknowledgements.unasked() > 0 && self.liveness.may_ask() && self.resuming.is_none()
    }

    /// The end of the pause between two questions; `None` if there is none.
    pub(super) fn question_pause(&self) -> Option<Instant> {
        self.liveness.pause()
    }

    /// Takes the client's `<a/>`. Returns the number of stanzas that it newly acknowledges, `None` if the client does not
    /// count.
    pub(super) fn on_ack(&mut self, h: Handled) -> Option<Result<usize, TooHigh>> {
        self.acknowledgements.on_ack(h)
    }

    /// Notes that the client has acknowledged stanzas.
    pub(super) fn on_acknowledged(&mut self, now: Instant, effects: &mut Effects) {
        if self.liveness.acked(now, self.acknowledgements.coverage()) {
            effects.push(Output::Watch(Peer::Client));
        }
    }

    /// Returns whether this is the client's answer to our open ping.
    pub(super) fn is_ping_answer(&self, element: &Element) -> bool {
        self.acknowledgements.is_ping_answer(element)
    }

    /// Takes the client's answer to our ping.
    pub(super) fn on_ping_answer(&mut self, node: &Node<'_>) -> PingAnswer {
        self.acknowledgements.on_ping_answer(node, &self.identity)
    }

    /// Returns whether a request of Pushward was sent to the client.
    pub(super) fn was_pinged(&self) -> bool {
        self.acknowledgements.was_pinged()
    }

    /// Sends `count` `<a/>`s.
    pub(super) fn send_acks(&self, count: usize, h: Handled, effects: &mut Effects) {
        for _ in 0..count {
            effects.reply_to_client(ack(h));
        }
    }

    /// Sets whether the client is in the foreground.
    pub(super) fn on_activity(&mut self, activity: Activity) {
        self.activity = activity;
    }

    /// Returns whether the client is in the background, connected, and acknowledges stanzas.
    pub(super) fn is_in_background(&self) -> bool {
        self.activity == Activity::Inactive && self.is_tracked() && self.is_open()
    }

    /// Resets the client to active (XEP-0352 §5.2: a resumed stream begins active). Returns whether it was inactive before.
    pub(super) fn become_active(&mut self) -> bool {
        std::mem::replace(&mut self.activity, Activity::Active) == Activity::Inactive
    }

    /// Writes an element that is not a stanza, if the client is connected.
    pub(super) fn pass(&self, element: &Element, effects: &mut Effects) {
        if self.is_open() {
            effects.write_to_client(element.on_stream(&self.header));
        }
    }

    /// Writes these bytes, if the client is connected.
    pub(super) fn write(&self, bytes: Bytes, effects: &mut Effects) {
        if !self.is_dark() {
            effects.write_to_client(bytes);
        }
    }

    /// The time at which the next alarm is due, or a resumption has waited long enough.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.liveness.deadline().into_iter().chain(self.resuming).min()
    }
}
