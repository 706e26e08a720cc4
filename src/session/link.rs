//! How a [`Session`] loses its client, holds on without it, and is taken up again.

use std::time::{Duration, Instant};

use super::ending::Leave;
use super::liveness::Alarm;
use super::sm::nonza;
use super::{Closing, EndReason, Event, Greeting, Output, Peer, Resumption, Session, Tracking, rewrite, shed, sm};
use crate::xml::{XmlWriter, ns};

/// How long a resumption waits for the server to confirm what the client sent before.
const RESUME_PATIENCE: Duration = Duration::from_secs(2);

impl Session {
    pub(super) fn client_lost(&mut self, now: Instant) {
        if self.is_ending() || self.is_dark() {
            return;
        }
        if self.leaving.is_some() {
            // It closed its stream before: nobody resumes it.
            self.bury();
            return self.vanish(now);
        }
        self.release_behind(now);
        self.part(now);
        if self.has_successor() {
            return self.begin_end(now, EndReason::Superseded);
        }
        if !self.is_to_be_held() && self.awaits_registration() {
            self.wait_to_leave(now, Leave::Lost);
            return self.vanish(now);
        }
        self.client_gone(now);
    }

    /// The client has gone, and nothing is awaited that the session could be held for.
    pub(super) fn client_gone(&mut self, now: Instant) {
        if !self.is_to_be_held() {
            return self.begin_end(now, EndReason::ClientLost);
        }
        self.go_dark(now);
    }

    /// Whether the session is held without its client.
    fn is_to_be_held(&self) -> bool {
        self.sm_id.is_some() || self.owned().next().is_some()
    }

    /// The connection is gone, and what becomes of the session is decided later.
    fn vanish(&mut self, now: Instant) {
        (self.resuming, self.welcome) = (None, None);
        self.queue.compact();
        self.liveness.go_dark(now, now + self.hold());
    }

    pub(super) fn go_dark(&mut self, now: Instant) {
        self.leaving = None;
        self.vanish(now);
        self.event(Event::Dark { queued: self.queue.len(), registrations: self.owned().count() });
        self.answer_waiting_pings(now);
        self.push_for_waiting(now);
        self.keep_within_bounds(now);
    }

    /// How long the session is held without its client.
    pub(super) fn hold(&self) -> Duration {
        if self.owned().next().is_some() {
            return self.settings.hibernation.max_timeout;
        }
        let asked = self.asked_max.map_or(Duration::MAX, Duration::from_secs);
        self.settings.stream_management.resume_timeout.min(asked)
    }

    /// Whether a connection may resume with this `h`; asked before the old attachment is given up.
    ///
    /// # Errors
    /// The client claims stanzas that were never sent.
    pub fn check_resume(&self, h: sm::Handled) -> Result<(), sm::TooHigh> {
        match &self.tracking {
            Tracking::Sm(leg) => leg.check(h),
            Tracking::None | Tracking::Ping(..) => Ok(()),
        }
    }

    pub(super) fn attach(&mut self, now: Instant, resumption: Resumption) {
        let Tracking::Sm(leg) = &mut self.tracking else { return };
        // Refused beforehand by `check_resume`.
        let Ok(acked) = leg.acknowledge(resumption.h) else { return };
        leg.rewind();
        self.begin_vigil(now);
        self.client_has(now, acked);
        self.unasked = 0;
        self.queue.rewind();
        self.take_back_released();
        self.leaving = None;
        if self.queue.rests() {
            // First, so that it need not wait for what else the store is told.
            self.load();
        }
        self.waiting_presence.clear();
        self.attachment = self.attachment.next();
        self.attached_header = resumption.server_header;
        self.welcome = resumption.success.map(Box::new);
        self.liveness.attach(now);
        self.seen(now);
        self.part(now);
        if let Greeting::Sending(presence) = &mut self.greeting {
            // It was not counted, so the client sends it again.
            *presence = None;
            self.behind.forget();
        }
        if self.confirm.is_complete() {
            return self.resumed(now);
        }
        // What the client sent last is on its way to the server: a client that is told less would send it twice.
        self.resuming = Some(now + RESUME_PATIENCE);
        self.ask_server(now);
    }

    /// Tells the client that it is back, then all that it missed, then asks for its ack; if messages rest, once they are read back.
    pub(super) fn resumed(&mut self, now: Instant) {
        self.resuming = None;
        let Some(id) = self.sm_id.clone() else { return };
        self.confirm.rewind();
        let resumed = nonza::resumed(&id, self.confirm.handled());
        let success = self.welcome.take();
        self.reply_client(match success {
            Some(success) => rewrite::sasl2::resumed(&success, &self.bound.jid, &resumed),
            None => resumed,
        });
        self.event(Event::Resumed { replayed: self.queue.len() });
        self.write_waiting(now);
        if !self.queue.rests() && !self.is_alone() {
            self.ask_client(now);
        }
        // XEP-0352 §5.2: a resumed stream begins active, whatever the server last heard.
        if std::mem::take(&mut self.client_inactive) && self.bound.server_csi {
            let mut xml = XmlWriter::new();
            xml.start("active").attr("xmlns", ns::CSI);
            self.write_upstream(now, xml.finish());
        }
    }

    pub(super) fn quiet(&mut self, now: Instant) {
        if self.is_ending() {
            self.spool_rest();
            return self.drive_end(now);
        }
        self.ask_server_if_due(now);
        self.spool_if_due(now);
        self.settle_with_server(now, self.is_dark());
        if self.is_dark() {
            return;
        }
        self.write_released(now);
        self.refill(now);
        // What the backlog held up has been forwarded.
        self.go_on_behind_presence(now);
        self.ask_server_if_due(now);
        self.answer_client(now);
        if self.has_client_question() && self.liveness.pause().is_none_or(|at| at <= now) {
            self.ask_client(now);
        }
    }

    fn ask_server_if_due(&mut self, now: Instant) {
        if self.has_server_question() && self.confirm.pause().is_none_or(|at| at <= now) {
            self.ask_server(now);
        }
    }

    /// When something is to be asked that had to wait, so that a stream of stanzas does not cost a question each.
    pub(super) fn next_question(&self) -> Option<Instant> {
        let server = self.confirm.pause().filter(|_| self.has_server_question());
        let client = self.liveness.pause().filter(|_| self.has_client_question());
        [server, client].into_iter().flatten().min()
    }

    /// Whether the server is to be asked what it has.
    fn has_server_question(&self) -> bool {
        self.confirm.must_ask() && matches!(self.tracking, Tracking::Sm(_))
    }

    /// Whether the client is to be asked what it has read.
    fn has_client_question(&self) -> bool {
        let unread = self.queue.notifying() > 0 && self.queue.awaits_ack();
        // A client whose count stays behind is asked again only when there is more for it to count.
        unread && self.unasked > 0 && self.liveness.may_ask() && self.resuming.is_none()
    }

    /// Asks the client for a sign of life, whatever it can be asked by.
    pub(super) fn ask_presence_of_client(&mut self, now: Instant) {
        if matches!(self.tracking, Tracking::None) {
            self.tracking = Tracking::Ping(sm::ClientLeg::default(), None);
            self.liveness.enable();
        }
        self.ask_client(now);
    }

    /// Asks what the client has read: by `<r/>`, or by ping.
    pub(super) fn ask_client(&mut self, now: Instant) {
        let question = match &mut self.tracking {
            Tracking::None => return,
            // One that waits behind a long backlog would be obsolete before its answer comes.
            Tracking::Ping(_, Some(_)) => return,
            Tracking::Sm(_) => nonza::request(),
            Tracking::Ping(leg, open) => {
                let id = self.pending.id((self.dice)());
                let (from, to) = (self.bound.jid.domain(), self.bound.jid.as_str());
                let mut xml = XmlWriter::new();
                xml.start("iq").attr("type", "get").attr("id", &id).attr("from", from).attr("to", to);
                xml.start("ping").attr("xmlns", ns::PING);
                *open = Some((id, leg.sent()));
                xml.finish()
            }
        };
        self.write_client(question);
        self.unasked = 0;
        if self.liveness.asked(now) {
            self.out(Output::Watch(Peer::Client));
        }
    }

    pub(super) fn timeout(&mut self, now: Instant) {
        if self.is_ending() {
            return self.drive_end(now);
        }
        self.succession_timeout(now);
        if self.is_ending() {
            return;
        }
        match self.liveness.alarm(now) {
            Some(Alarm::Probe) => self.ask_client(now),
            Some(Alarm::Suspect) => {
                self.event(Event::Suspect);
                self.push_for_waiting(now);
            }
            Some(Alarm::GiveUp) => {
                self.out(Output::CloseClient(Closing::Abrupt));
                self.client_lost(now);
            }
            Some(Alarm::Wake) => self.wake_push(),
            Some(Alarm::Expired) => return self.begin_end(now, EndReason::Expired),
            None => {}
        }
        if self.confirm.server_deadline().is_some_and(|at| at <= now) {
            return self.upstream_lost(now);
        }
        if self.enable_deadline().is_some_and(|at| at <= now) {
            return self.upstream_silent(now);
        }
        if self.resuming.is_some_and(|at| at <= now) {
            self.resumed(now);
        }
        self.leave_if_due(now);
        if self.is_ending() {
            return;
        }
        if let Some((_, registered)) = self.orphans_due.take_if(|(at, _)| *at <= now) {
            self.orphans_are_due(now, registered);
        }
        self.ask_spool_again(now);
        self.read_again(now);
        self.call_overdue(now);
        self.push_due(now);
        if self.upstream_written + self.settings.stream_management.upstream_keepalive <= now {
            self.write_upstream(now, bytes::Bytes::from_static(b" "));
        }
    }

    fn orphans_are_due(&mut self, now: Instant, registered: bool) {
        if !self.spool.accepts() {
            self.orphans_due = Some((now + shed::ASK_AGAIN, registered));
            return;
        }
        self.adopt(registered);
        // The owner of a registration is being woken, and has longer to come for what is its own.
        let longer = self.settings.stream_management.resume_timeout;
        self.orphans_due = (!registered).then_some((now + longer, true));
    }
}
