//! The stream to the client: its current attachment, what it acknowledges, and under which id it can be resumed.

mod acknowledgements;
mod resumption;

use std::sync::Arc;
use std::time::{Duration, Instant};

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
use crate::xml::{Element, Header, Node};
use acknowledgements::Acknowledgements;
pub(super) use acknowledgements::PingAnswer;
use resumption::ResumptionId;

/// The stream to the client, over one connection after the other.
pub(super) struct ClientStream {
    identity: Arc<Identity>,
    attachment: Attachment,
    /// The header of the stream that the current attachment reads.
    header: Arc<Header>,
    acknowledgements: Acknowledgements,
    resumption_id: ResumptionId,
    /// A resumption that waits until the server has confirmed what the client sent before.
    resuming: Option<Instant>,
    /// The `<success/>` of SASL2 that is to tell the client of its resumption.
    success: Option<Box<Element>>,
    liveness: Liveness,
    activity: Activity,
    /// The end of the session has begun: nothing is written any more.
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

    // Whether the client can be reached

    pub(super) fn reach(&self) -> Reach {
        self.liveness.reach()
    }

    /// Whether there is no usable connection.
    pub(super) fn is_dark(&self) -> bool {
        self.liveness.is_dark()
    }

    /// Whether the client is there, and the end of the session has not begun.
    pub(super) fn is_open(&self) -> bool {
        !self.is_dark() && !self.is_closed
    }

    /// Whether the session is held without its client, and its end has not begun.
    pub(super) fn is_held(&self) -> bool {
        self.is_dark() && !self.is_closed
    }

    /// Whether the client is there, and has been told that it is back.
    pub(super) fn is_written_to(&self) -> bool {
        self.is_open() && self.resuming.is_none()
    }

    /// Since when stanzas cannot be expected to be read: `None` while the client is live.
    pub(super) fn unreachable_since(&self) -> Option<Instant> {
        self.liveness.unreachable_since()
    }

    /// Whether the client is there, and not read.
    pub(super) fn is_paused(&self) -> bool {
        self.liveness.is_paused()
    }

    /// The client sent something.
    pub(super) fn on_frame(&mut self, now: Instant) {
        self.liveness.heard(now);
    }

    /// The next alarm whose time has come.
    pub(super) fn on_timeout(&mut self, now: Instant) -> Option<Alarm> {
        self.liveness.alarm(now)
    }

    /// The client is not read from now on: no clock runs for what it was asked.
    pub(super) fn on_paused(&mut self, now: Instant) {
        self.liveness.stop_clock(now);
    }

    /// The client is read again.
    pub(super) fn on_unpaused(&mut self, now: Instant) {
        self.liveness.go_on(now);
    }

    /// The open question waits to be written: no clock runs for its answer.
    pub(super) fn on_question_waits(&mut self) {
        self.liveness.question_waits();
    }

    /// The open question has left: from now on the client may be late with its answer.
    pub(super) fn on_question_left(&mut self, now: Instant) {
        self.liveness.question_left(now);
    }

    // Loss and resumption

    /// How long the session of a device without a registration is held without its client.
    pub(super) fn hold(&self, settings: &Settings) -> Duration {
        let asked = self.resumption_id.asked_max().map_or(Duration::MAX, Duration::from_secs);
        settings.stream_management.resume_timeout.min(asked)
    }

    /// The connection is gone; the session is held for this long.
    pub(super) fn on_lost(&mut self, now: Instant, hold: Duration) {
        (self.resuming, self.success) = (None, None);
        self.liveness.go_dark(now, now + hold);
    }

    /// A dark client is held for this long since it was lost.
    pub(super) fn hold_for(&mut self, hold: Duration) {
        if let Some(since) = self.liveness.unreachable_since().filter(|_| self.is_dark()) {
            self.liveness.hold_until(since + hold);
        }
    }

    /// The hold of a dark client ends then, unless it ends before.
    pub(super) fn hold_at_most(&mut self, end: Instant) {
        self.liveness.hold_at_most(end);
    }

    /// Whether the session can be resumed.
    pub(super) fn is_resumable(&self) -> bool {
        self.resumption_id.id().is_some()
    }

    /// Whether a connection may resume with this `h`.
    pub(super) fn check_resume(&self, h: Handled) -> Result<(), TooHigh> {
        self.acknowledgements.check(h)
    }

    /// Takes the `h` of a client that resumes: the number of stanzas that it acknowledges. All others are to be written again.
    pub(super) fn rewind(&mut self, h: Handled) -> Option<usize> {
        self.acknowledgements.rewind(h)
    }

    /// A new connection takes the stream up.
    pub(super) fn attach(&mut self, now: Instant, resumption: Resumption) {
        self.acknowledgements.on_attached();
        self.attachment = self.attachment.next();
        self.header = resumption.server_header;
        self.success = resumption.success.map(Box::new);
        self.liveness.attach(now);
    }

    /// The client is told of its resumption once the server has confirmed what it sent, or at this time.
    pub(super) fn await_confirmation(&mut self, until: Instant) {
        self.resuming = Some(until);
    }

    /// Whether a resumption waits for the server.
    pub(super) fn is_resuming(&self) -> bool {
        self.resuming.is_some()
    }

    /// Whether a resumption has waited long enough.
    pub(super) fn is_resumption_due(&self, now: Instant) -> bool {
        self.resuming.is_some_and(|at| at <= now)
    }

    /// Begins to tell the client that it is back; whether it can be told.
    pub(super) fn begin_resumed(&mut self) -> bool {
        self.resuming = None;
        self.is_resumable()
    }

    /// Tells the client that it is back.
    pub(super) fn send_resumed(&mut self, h: Handled, effects: &mut Effects) {
        let Some(id) = self.resumption_id.id() else { return };
        let resumed = nonza::resumed(id, h);
        effects.reply_to_client(match self.success.take() {
            Some(success) => sasl2::resumed(&success, self.identity.jid(), &resumed),
            None => resumed,
        });
    }

    /// Ends the time of the resumption id; whether there was one.
    pub(super) fn retire_id(&mut self) -> bool {
        self.resumption_id.retire()
    }

    /// Whether the resumption id was retired.
    pub(super) fn has_tombstone(&self) -> bool {
        self.resumption_id.is_retired()
    }

    /// Saves the count of what the client sent for the retired id, so that the client need not send that again.
    pub(super) fn save_tombstone(&mut self, h: Handled, effects: &mut Effects) {
        if let Some(id) = self.resumption_id.save(h) {
            effects.push(Output::SaveTombstone { id, h });
        }
    }

    /// Closes the connection; nothing is written from now on.
    pub(super) fn close(&mut self, closing: Closing, effects: &mut Effects) {
        self.is_closed = true;
        effects.push(Output::CloseClient(closing));
    }

    /// Whether the client counts stanzas (XEP-0198).
    pub(super) fn counts(&self) -> bool {
        self.acknowledgements.counts()
    }

    /// Whether it is known what the client has.
    pub(super) fn is_tracked(&self) -> bool {
        self.acknowledgements.are_known()
    }

    /// Whether the client may enable stream management: if so, the number of stanzas that it has not acknowledged.
    pub(super) fn may_enable(&self) -> Option<usize> {
        self.acknowledgements.may_enable()
    }

    /// XEP-0198 §4: both counters are zero from here on; so many stanzas went out before and are not known to have arrived.
    /// Returns the id under which the session can be resumed from now on.
    pub(super) fn on_enabled(&mut self, enabled: Enabled, preceding: usize) -> Option<SmId> {
        self.acknowledgements.enable(preceding);
        self.liveness.enable();
        self.resumption_id.grant(enabled)
    }

    /// From now on a client that knows no stream management is asked by ping what it has read.
    pub(super) fn track_by_ping(&mut self) {
        if !self.is_tracked() {
            self.track_silently();
            self.liveness.enable();
        }
    }

    /// From now on stanzas wait until the client has shown that it has them; it is not asked.
    pub(super) fn track_silently(&mut self) {
        if !self.is_tracked() {
            self.acknowledgements.track_by_ping();
        }
    }

    /// A stanza was written.
    pub(super) fn on_stanza_written(&mut self) {
        self.acknowledgements.on_written();
    }

    /// Stanzas written since the client was last asked for an acknowledgement.
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

    /// Asks what the client has read, unless it was asked about all of it.
    pub(super) fn ask_about_written(&mut self, now: Instant, effects: &mut Effects) {
        if self.acknowledgements.unasked() > 0 {
            self.ask(now, effects);
        }
    }

    /// Whether the client is to be asked about stanzas that were written. A client whose count stays behind is asked again only
    /// when there is more for it to count.
    pub(super) fn may_be_asked(&self) -> bool {
        self.acknowledgements.unasked() > 0 && self.liveness.may_ask() && self.resuming.is_none()
    }

    /// When the pause between two questions is over; `None` if there is none.
    pub(super) fn question_pause(&self) -> Option<Instant> {
        self.liveness.pause()
    }

    /// Takes the client's `<a/>`: the number of stanzas that it newly acknowledges; `None` if it does not count.
    pub(super) fn on_ack(&mut self, h: Handled) -> Option<Result<usize, TooHigh>> {
        self.acknowledgements.on_ack(h)
    }

    /// The client has acknowledged stanzas.
    pub(super) fn on_acknowledged(&mut self, now: Instant, effects: &mut Effects) {
        if self.liveness.acked(now, self.acknowledgements.coverage()) {
            effects.push(Output::Watch(Peer::Client));
        }
    }

    /// Whether this is the client's answer to our own ping, which is still to be taken.
    pub(super) fn is_ping_answer(&self, element: &Element) -> bool {
        self.acknowledgements.is_ping_answer(element)
    }

    /// Takes the client's answer to our own ping.
    pub(super) fn on_ping_answer(&mut self, node: &Node<'_>) -> PingAnswer {
        self.acknowledgements.on_ping_answer(node, &self.identity)
    }

    /// Whether a request of Pushward was sent to the client.
    pub(super) fn was_pinged(&self) -> bool {
        self.acknowledgements.was_pinged()
    }

    /// Sends so many `<a/>`s.
    pub(super) fn send_acks(&self, count: usize, h: Handled, effects: &mut Effects) {
        for _ in 0..count {
            effects.reply_to_client(ack(h));
        }
    }

    /// The client says whether its user looks at it.
    pub(super) fn on_activity(&mut self, activity: Activity) {
        self.activity = activity;
    }

    /// Whether the client is in the background, there, and acknowledges.
    pub(super) fn is_in_background(&self) -> bool {
        self.activity == Activity::Inactive && self.is_tracked() && self.is_open()
    }

    /// XEP-0352 §5.2: a resumed stream begins active. Returns whether it was inactive before.
    pub(super) fn become_active(&mut self) -> bool {
        std::mem::replace(&mut self.activity, Activity::Active) == Activity::Inactive
    }

    /// Writes an element that is no stanza, if the client is there.
    pub(super) fn pass(&self, element: &Element, effects: &mut Effects) {
        if self.is_open() {
            effects.write_to_client(element.on_stream(&self.header));
        }
    }

    /// Writes this, if the client is there.
    pub(super) fn write(&self, bytes: Bytes, effects: &mut Effects) {
        if !self.is_dark() {
            effects.write_to_client(bytes);
        }
    }

    /// When the next alarm is due, or a resumption has waited long enough.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.liveness.deadline().into_iter().chain(self.resuming).min()
    }
}
