//! The stream to the client: its current attachment, what it acknowledges, and under which id it can be resumed.

mod resumption;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::contract::Output;
use super::effects::Effects;
use super::event::{Closing, Peer};
use super::identity::{Attachment, Identity, Resumption, SmId};
use super::ids::RequestIds;
use super::liveness::{Alarm, Liveness, Reach};
use super::rewrite;
use super::settings::Settings;
use super::sm::{ClientLeg, Enabled, Handled, TooHigh, Tracking, ack};
use crate::xml::{Element, Header, Kind, Node, XmlWriter, ns};
use resumption::ResumptionId;

/// The stream to the client. Connections come and go, the stream stays.
pub(super) struct ClientStream {
    identity: Arc<Identity>,
    ids: RequestIds,
    attachment: Attachment,
    /// The header of the stream that the current attachment reads.
    header: Arc<Header>,
    tracking: Tracking,
    resumption_id: ResumptionId,
    /// A resumption that waits until the server has confirmed what the client sent before.
    resuming: Option<Instant>,
    /// The `<success/>` of SASL2 that is to tell the client of its resumption.
    success: Option<Box<Element>>,
    liveness: Liveness,
    /// Stanzas written since the client was last asked for an acknowledgement.
    unasked: usize,
    activity: Activity,
    /// The end of the session has begun: nothing is written any more.
    is_closed: bool,
}

/// Whether the client's user looks at it (XEP-0352).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activity {
    Active,
    Inactive,
}

/// What an iq of the client is to the open ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PingAnswer {
    /// It is no answer to a request of Pushward.
    Not,
    /// It answers a request that is not waited for (invariant 5: it is still ours).
    Late,
    /// It acknowledges so many more stanzas.
    Acknowledges(usize),
}

impl ClientStream {
    pub(super) fn new(
        identity: Arc<Identity>,
        ids: RequestIds,
        header: Arc<Header>,
        activity: Activity,
        liveness: Liveness,
    ) -> Self {
        Self {
            identity,
            ids,
            attachment: Attachment::FIRST,
            header,
            tracking: Tracking::None,
            resumption_id: ResumptionId::default(),
            resuming: None,
            success: None,
            liveness,
            unasked: 0,
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

    /// How long the session is held without its client; `has_push`: its device has a registration.
    pub(super) fn hold(&self, settings: &Settings, has_push: bool) -> Duration {
        if has_push {
            return settings.push.max_hibernation_timeout;
        }
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
        match &self.tracking {
            Tracking::Sm(leg) => leg.check(h),
            Tracking::None | Tracking::Ping(..) => Ok(()),
        }
    }

    /// Takes the `h` of a client that resumes: the number of stanzas that it acknowledges. All others are to be written again.
    pub(super) fn rewind(&mut self, h: Handled) -> Option<usize> {
        let Tracking::Sm(leg) = &mut self.tracking else { return None };
        let acked = leg.acknowledge(h).ok()?;
        leg.rewind();
        Some(acked)
    }

    /// A new connection takes the stream up.
    pub(super) fn attach(&mut self, now: Instant, resumption: Resumption) {
        self.unasked = 0;
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

    /// Whether the time of a resumption that waits is over.
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
        let mut xml = XmlWriter::new();
        xml.start("resumed").attr("xmlns", ns::SM).attr("h", &h.get().to_string()).attr("previd", id.as_str());
        let resumed = xml.finish();
        effects.reply_to_client(match self.success.take() {
            Some(success) => rewrite::sasl2::resumed(&success, self.identity.jid(), &resumed),
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

    // Stream management

    /// Whether the client counts stanzas (XEP-0198).
    pub(super) fn counts(&self) -> bool {
        matches!(self.tracking, Tracking::Sm(_))
    }

    /// Whether it is known what the client has.
    pub(super) fn is_tracked(&self) -> bool {
        !matches!(self.tracking, Tracking::None)
    }

    /// Whether the client may enable stream management: if so, the number of stanzas that it has not acknowledged.
    pub(super) fn may_enable(&self) -> Option<usize> {
        match &self.tracking {
            Tracking::Sm(_) => None,
            Tracking::Ping(leg, _) => Some(leg.unacked()),
            Tracking::None => Some(0),
        }
    }

    /// XEP-0198 §4: both counters are zero from here on; so many stanzas went out before and are not known to have arrived. Returns
    /// the id under which the session can be resumed from now on.
    pub(super) fn on_enabled(&mut self, enabled: Enabled, preceding: usize) -> Option<SmId> {
        self.tracking = Tracking::Sm(ClientLeg::behind(preceding));
        self.unasked = preceding;
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
            self.tracking = Tracking::Ping(ClientLeg::default(), None);
        }
    }

    /// A stanza was written.
    pub(super) fn on_stanza_written(&mut self) {
        if let Tracking::Sm(leg) | Tracking::Ping(leg, _) = &mut self.tracking {
            leg.on_sent();
        }
        self.unasked += 1;
    }

    /// Stanzas written since the client was last asked for an acknowledgement.
    pub(super) fn unasked(&self) -> usize {
        self.unasked
    }

    /// Asks what the client has read: by `<r/>`, or by ping.
    pub(super) fn ask(&mut self, now: Instant, effects: &mut Effects) {
        let mut xml = XmlWriter::new();
        match &mut self.tracking {
            Tracking::None => return,
            // One that waits behind a long backlog would be obsolete before its answer comes.
            Tracking::Ping(_, Some(_)) => return,
            Tracking::Sm(_) => xml.start("r").attr("xmlns", ns::SM),
            Tracking::Ping(leg, open) => {
                let id = self.ids.next(self.identity.random());
                let (from, to) = (self.identity.domain(), self.identity.jid().as_str());
                xml.start("iq").attr("type", "get").attr("id", &id).attr("from", from).attr("to", to);
                *open = Some((id, leg.sent()));
                xml.start("ping").attr("xmlns", ns::PING)
            }
        };
        effects.to_client(xml.finish());
        self.unasked = 0;
        if self.liveness.asked(now) {
            effects.push(Output::Watch(Peer::Client));
        }
    }

    /// Asks what the client has read, unless it was asked about all of it.
    pub(super) fn ask_about_written(&mut self, now: Instant, effects: &mut Effects) {
        if self.unasked > 0 {
            self.ask(now, effects);
        }
    }

    /// Whether the client is to be asked about stanzas that were written. A client whose count stays behind is asked again only
    /// when there is more for it to count.
    pub(super) fn may_be_asked(&self) -> bool {
        self.unasked > 0 && self.liveness.may_ask() && self.resuming.is_none()
    }

    /// When the pause between two questions is over; `None` if there is none.
    pub(super) fn question_pause(&self) -> Option<Instant> {
        self.liveness.pause()
    }

    /// Whether the pause between two questions is over.
    pub(super) fn is_pause_over(&self, now: Instant) -> bool {
        self.liveness.pause().is_none_or(|at| at <= now)
    }

    /// Takes the client's `<a/>`: the number of stanzas that it newly acknowledges; `None` if it does not count.
    pub(super) fn on_ack(&mut self, h: Handled) -> Option<Result<usize, TooHigh>> {
        let Tracking::Sm(leg) = &mut self.tracking else { return None };
        Some(leg.acknowledge(h))
    }

    /// The client has acknowledged stanzas.
    pub(super) fn on_acknowledged(&mut self, now: Instant, effects: &mut Effects) {
        let complete = match &self.tracking {
            // Each earlier ping is obsolete.
            Tracking::None | Tracking::Ping(..) => true,
            Tracking::Sm(leg) => leg.unacked() <= self.unasked,
        };
        if self.liveness.acked(now, complete) {
            effects.push(Output::Watch(Peer::Client));
        }
    }

    /// Whether this is the client's answer to our own ping, which is still to be taken.
    pub(super) fn is_ping_answer(&self, element: &Element) -> bool {
        let Tracking::Ping(_, Some((ping, _))) = &self.tracking else { return false };
        element.kind() == Kind::Iq && element.node().attr("id").is_some_and(|id| id == ping.as_str())
    }

    /// Takes the client's answer to our own ping.
    pub(super) fn on_ping_answer(&mut self, node: &Node<'_>) -> PingAnswer {
        if !matches!(node.attr("type").as_deref(), Some("result" | "error")) {
            return PingAnswer::Not;
        }
        let Some(id) = node.attr("id").filter(|id| self.ids.is_ours(id)) else { return PingAnswer::Not };
        // An answer that came behind the client's `<enable/>` is late as well.
        let Tracking::Ping(leg, open) = &mut self.tracking else { return PingAnswer::Late };
        let Some((_, covers)) = open.take_if(|(ping, _)| *ping == id) else { return PingAnswer::Late };
        PingAnswer::Acknowledges(leg.acknowledge(covers).unwrap_or_default())
    }

    /// Whether a request of Pushward was sent to the client.
    pub(super) fn was_pinged(&self) -> bool {
        self.ids.are_used()
    }

    /// Sends so many `<a/>`s.
    pub(super) fn send_acks(&self, count: usize, h: Handled, effects: &mut Effects) {
        for _ in 0..count {
            effects.reply_to_client(ack(h));
        }
    }

    // Client state indication

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
            effects.to_client(element.on_stream(&self.header));
        }
    }

    /// Writes this, if the client is there.
    pub(super) fn write(&self, bytes: Bytes, effects: &mut Effects) {
        if !self.is_dark() {
            effects.to_client(bytes);
        }
    }

    /// When the next alarm is due, or a resumption has waited long enough.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.liveness.deadline().into_iter().chain(self.resuming).min()
    }
}
