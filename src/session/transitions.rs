//! How a session loses its client, holds on without it, is resumed, and ends.

use std::time::{Duration, Instant};

use super::Session;
use super::contract::Output;
use super::event::{Closing, EndReason, Event, WakeReason};
use super::identity::Resumption;
use super::lifecycle::{Last, Leave};
use super::liveness::Alarm;
use super::refill::Again;
use super::shed::ASK_AGAIN;
use super::succession::Successor;
use crate::xml::{self, Element, Kind, StreamCondition};
use bytes::Bytes;

/// How long a resumption waits for the server to confirm what the client sent before.
const RESUME_PATIENCE: Duration = Duration::from_secs(2);

impl Session {
    // The client is lost

    /// The client itself ends its stream or connection.
    pub(super) fn on_client_ends(&mut self, now: Instant) {
        if self.client.is_open() {
            self.delivery.on_client_ends(now, &mut self.account, &mut self.effects);
        }
    }

    pub(super) fn on_client_lost(&mut self, now: Instant) {
        if !self.client.is_open() {
            return;
        }
        if self.lifecycle.is_leaving() {
            // It closed its stream before: nobody resumes it.
            self.retire_id();
            return self.detach(now);
        }
        self.release_backlog(now);
        self.send_parting(now);
        if self.succession.has_successor() {
            return self.begin_end(now, EndReason::Superseded);
        }
        if !self.is_to_be_held() && self.account.awaits_registration() {
            self.await_store(now, Leave::Lost);
            return self.detach(now);
        }
        self.on_client_gone(now);
    }

    /// The client has gone, and nothing is awaited that the session could be held for.
    fn on_client_gone(&mut self, now: Instant) {
        if !self.is_to_be_held() {
            return self.begin_end(now, EndReason::ClientLost);
        }
        self.go_dark(now);
    }

    /// Whether the session is held without its client.
    fn is_to_be_held(&self) -> bool {
        self.client.is_resumable() || self.account.has_registration()
    }

    /// What waits behind the presence of a client that does not count goes to the server.
    fn release_backlog(&mut self, now: Instant) {
        if self.client.counts() {
            return self.backlog.forget_behind();
        }
        for stanza in self.backlog.release() {
            self.forward_stanza(now, stanza);
        }
    }

    /// The connection is gone, and what becomes of the session is decided later.
    fn detach(&mut self, now: Instant) {
        self.delivery.on_client_lost();
        self.client.on_lost(now, self.hold());
    }

    fn go_dark(&mut self, now: Instant) {
        self.lifecycle.take_leave();
        self.detach(now);
        let (queued, registrations) = (self.delivery.queue().len(), self.account.owned().count());
        self.effects.event(Event::Dark { queued, registrations });
        self.answer_waiting_pings(now);
        self.push_for_waiting(now);
        self.keep_within_bounds(now);
    }

    /// A client that has just gone will not answer what it may have read: its pings are answered all the same.
    fn answer_waiting_pings(&mut self, now: Instant) {
        let iqs = self.delivery.queue().iter().map(|item| &item.element).filter(|element| element.kind() == Kind::Iq);
        let iqs: Vec<Element> = iqs.cloned().collect();
        for iq in iqs {
            self.answers_ping(now, &iq);
        }
    }

    /// How long the session is held without its client.
    pub(super) fn hold(&self) -> Duration {
        self.client.hold(&self.settings, self.account.has_registration())
    }

    // The client resumes

    pub(super) fn on_attach(&mut self, now: Instant, resumption: Resumption) {
        // Refused beforehand by `check_resume`.
        let Some(acked) = self.client.rewind(resumption.h) else { return };
        self.delivery.on_attached(now, &mut self.account, &mut self.effects);
        self.take_acknowledged(now, acked);
        self.delivery.rewind(&self.account);
        self.lifecycle.take_leave();
        if self.delivery.queue().rests() {
            // First, so that it need not wait for what else the store is told.
            self.delivery.load(&mut self.effects);
        }
        self.delivery.forget_waiting_presence();
        self.client.attach(now, resumption);
        self.account.note_contact(now, &mut self.effects);
        self.send_parting(now);
        self.backlog.on_resumed();
        if self.server.has_all() {
            return self.send_resumed(now);
        }
        // What the client sent last is on its way to the server: a client that is told less would send it twice.
        self.client.await_confirmation(now + RESUME_PATIENCE);
        self.server.ask_if_needed(now, &mut self.effects);
    }

    /// Tells the client that it is back, then all that it missed, then asks for its acknowledgement; if stanzas are only on disk,
    /// once they are read back.
    pub(super) fn send_resumed(&mut self, now: Instant) {
        if !self.client.begin_resumed() {
            return;
        }
        let h = self.server.on_client_resumed();
        self.client.send_resumed(h, &mut self.effects);
        self.effects.event(Event::Resumed { replayed: self.delivery.queue().len() });
        self.write_waiting(now);
        if !self.delivery.queue().rests() && !self.delivery.is_alone() {
            self.client.ask(now, &mut self.effects);
        }
        // XEP-0352 §5.2: a resumed stream begins active, whatever the server last heard.
        if self.client.become_active() && self.identity.server_has_csi() {
            self.server.send_active(now, &mut self.effects);
        }
    }

    // Time

    pub(super) fn on_quiet(&mut self, now: Instant) {
        if self.lifecycle.is_ending() {
            self.delivery.spool_all(&self.account, &mut self.effects);
            return self.drive_end(now);
        }
        self.ask_server_if_due(now);
        let Self { client, server, account, effects, .. } = self;
        self.delivery.spool_if_due(now, client, server, account, effects);
        if self.client.is_dark() {
            return self.settle(now);
        }
        let unsettled = self.delivery.first_unsettled();
        self.server.settle_owed(now, unsettled, &mut self.effects);
        let Self { client, account, effects, .. } = self;
        self.delivery.write_released(now, client, account, effects);
        self.refill(now);
        // What the backlog held up has been forwarded.
        self.go_on_behind_presence(now);
        self.ask_server_if_due(now);
        self.answer_client(now);
        if self.delivery.has_unread() && self.client.may_be_asked() && self.client.is_pause_over(now) {
            self.client.ask(now, &mut self.effects);
        }
    }

    fn ask_server_if_due(&mut self, now: Instant) {
        if self.client.counts() {
            self.server.ask_if_due(now, &mut self.effects);
        }
    }

    pub(super) fn on_timeout(&mut self, now: Instant) {
        if self.lifecycle.is_ending() {
            return self.drive_end(now);
        }
        if self.succession_deadline().is_some_and(|at| at <= now) {
            self.be_superseded(now);
        }
        if self.lifecycle.is_ending() || self.on_alarm(now) {
            return;
        }
        if self.server.is_lost(now) {
            return self.on_server_lost(now);
        }
        if self.server.is_silent(now, self.settings.server_timeout) {
            return self.on_server_silent(now);
        }
        if self.client.is_resumption_due(now) {
            self.send_resumed(now);
        }
        self.leave_if_due(now);
        if self.lifecycle.is_ending() {
            return;
        }
        self.take_orphans(now);
        match self.delivery.on_timeout(now, &self.account, &mut self.effects) {
            Some(Again::Spools) => {
                self.take_over();
                self.refill_if_there(now);
            }
            Some(Again::Stanzas) => self.refill_if_there(now),
            None => {}
        }
        if !self.client.is_paused() {
            self.notify(|notifier, situation, effects| notifier.on_call_timeout(now, situation, effects));
        }
        self.push_due(now);
        self.server.keep_alive(now, self.settings.stream_management.upstream_keepalive, &mut self.effects);
    }

    /// Follows the alarm of the client whose time has come; whether nothing else is to be done.
    fn on_alarm(&mut self, now: Instant) -> bool {
        match self.client.on_timeout(now) {
            Some(Alarm::Probe) => self.client.ask(now, &mut self.effects),
            Some(Alarm::Suspect) => {
                self.effects.event(Event::Suspect);
                self.push_for_waiting(now);
            }
            Some(Alarm::GiveUp) => {
                self.effects.push(Output::CloseClient(Closing::Abrupt));
                self.on_client_lost(now);
            }
            Some(Alarm::Wake) => self.notify(|notifier, situation, effects| {
                notifier.wake(situation, effects);
                None
            }),
            Some(Alarm::Expired) => {
                self.begin_end(now, EndReason::Expired);
                return true;
            }
            None => {}
        }
        false
    }

    fn take_orphans(&mut self, now: Instant) {
        let Some(orphans) = self.orphans.on_timeout(now) else { return };
        if !self.delivery.spool_accepts() {
            return self.orphans.postpone(now + ASK_AGAIN, orphans);
        }
        self.delivery.adopt(orphans, &self.account, &mut self.effects);
        self.track_if_needed();
        self.orphans.on_adopted(now, orphans, self.settings.stream_management.resume_timeout);
    }

    // A newer session

    pub(super) fn on_successor(&mut self, now: Instant, successor: Option<Successor>) {
        let Some(Successor { same_address }) = successor else {
            self.succession.forget();
            return;
        };
        if self.lifecycle.is_ending() {
            return;
        }
        if self.client.is_dark() || same_address {
            return self.be_superseded(now);
        }
        self.succession.ask(now);
        self.client.track_by_ping();
        self.client.ask(now, &mut self.effects);
    }

    /// Ends in favour of the newer session; a client that is still connected is told why (RFC 6120 §4.9.3.3).
    fn be_superseded(&mut self, now: Instant) {
        self.client.write(xml::stream_error(StreamCondition::Conflict, None, None), &mut self.effects);
        self.begin_end(now, EndReason::Superseded);
    }

    /// When the client counts as silent; never while it is not read.
    pub(super) fn succession_deadline(&self) -> Option<Instant> {
        self.succession.deadline().filter(|_| !self.client.is_paused())
    }

    pub(super) fn on_give_way(&mut self, now: Instant, reason: EndReason) {
        if self.client.is_dark() {
            self.begin_end(now, reason);
        }
    }

    pub(super) fn on_drain(&mut self, now: Instant) {
        if self.lifecycle.is_ending() {
            return;
        }
        if !self.client.is_dark() {
            self.effects.to_client(xml::stream_error(StreamCondition::SystemShutdown, None, None));
        } else if self.account.has_registration() {
            self.effects.push(Output::Wake(WakeReason::Restart));
        }
        self.begin_end(now, EndReason::Drained);
    }

    // The client leaves

    /// The client closed its stream. Its requests are answered before the footer, as far as the store answers in time.
    pub(super) fn on_client_closes(&mut self, now: Instant) {
        if self.account.has_open_requests() {
            return self.await_store(now, Leave::Closed);
        }
        self.on_client_closed(now);
    }

    /// Lets the client's end wait for the store's answers: a registration decides what becomes of the session.
    fn await_store(&mut self, now: Instant, how: Leave) {
        // What comes meanwhile is not certain to be read.
        self.client.track_silently();
        self.lifecycle.await_store(now, how);
    }

    /// The client's end goes on, once the store has answered or is late.
    pub(super) fn leave_if_due(&mut self, now: Instant) {
        // The account is known as it is once no change of it is open.
        let waits = self.account.awaits_store();
        let leave = if waits { self.lifecycle.take_late_leave(now) } else { self.lifecycle.take_leave() };
        match leave {
            Some(_) if self.lifecycle.is_ending() => {}
            Some(Leave::Closed) => self.on_client_closed(now),
            Some(Leave::Lost) => self.on_client_gone(now),
            None => {}
        }
    }

    /// The client closed its stream, and nothing more is to be answered.
    fn on_client_closed(&mut self, now: Instant) {
        let parting = self.presence.take_parting();
        if !self.client.is_dark() {
            self.effects.reply_to_client(Bytes::from_static(xml::STREAM_CLOSE));
        }
        if self.may_linger()
            && let Some(presence) = self.presence.lingering()
        {
            return self.linger(now, presence);
        }
        if let Some(parting) = parting {
            self.forward_stanza(now, parting);
        }
        self.begin_end(now, EndReason::ClientClosed);
    }

    /// Whether the session goes on for its pushes when the client closes its stream, as it does when an app is suspended.
    fn may_linger(&self) -> bool {
        self.settings.push.linger
            && !self.succession.has_successor()
            && self.account.has_registration()
            && self.presence.is_available()
    }

    /// The same, where a registration that is being stored counts.
    pub(super) fn may_come_to_linger(&self) -> bool {
        let awaited =
            self.settings.push.linger && !self.succession.has_successor() && self.account.awaits_registration();
        self.may_linger() || awaited && self.presence.is_available()
    }

    fn linger(&mut self, now: Instant, presence: Bytes) {
        self.server.inject(now, presence, &mut self.effects);
        self.retire_id();
        self.effects.event(Event::Lingering);
        self.effects.push(Output::CloseClient(Closing::Orderly));
        self.go_dark(now);
    }

    /// The id can be resumed no more; what the client sent is remembered for it.
    fn retire_id(&mut self) {
        if self.client.retire_id() {
            self.save_tombstone();
        }
    }

    /// What the server confirms later was the client's too: it is not to send that again.
    pub(super) fn save_tombstone(&mut self) {
        if !self.account.is_removed() {
            self.client.save_tombstone(self.server.handled(), &mut self.effects);
        }
    }

    // The server is lost

    pub(super) fn on_server_closes(&mut self, now: Instant) {
        let close = Bytes::from_static(xml::STREAM_CLOSE);
        if self.lifecycle.is_ending() {
            if self.lifecycle.last().is_some() {
                self.server.write(now, close, &mut self.effects);
            }
            return self.on_server_ended_in_order();
        }
        // RFC 6120 §4.4: it is answered.
        self.server.write(now, close.clone(), &mut self.effects);
        self.client.write(close, &mut self.effects);
        self.begin_end(now, EndReason::UpstreamClosed);
    }

    /// Without a footer the client comes back and logs in again.
    pub(super) fn on_server_lost(&mut self, now: Instant) {
        if !self.lifecycle.is_ending() {
            return self.begin_end(now, EndReason::UpstreamLost);
        }
        if self.server.has_said_why() {
            return self.on_server_ended_in_order();
        }
        if self.lifecycle.last().is_some_and(|last| self.keeps(last.reason)) {
            self.keep_what_may_come_again(now);
        }
        if self.delivery.take_given_back() {
            self.keep_what_may_come_again(now);
        }
        self.end();
    }

    /// The server has ended its stream in order: it sends elsewhere all that it was not acknowledged.
    fn on_server_ended_in_order(&mut self) {
        let keeps = self.lifecycle.last().is_some_and(|last| self.keeps(last.reason));
        if keeps && self.server.counts() {
            self.delivery.give_back(self.server.acked(), &mut self.effects);
        }
        self.end();
    }

    /// The server has not answered our `<enable/>` in time: the client is to come back.
    fn on_server_silent(&mut self, now: Instant) {
        self.effects.event(Event::ServerSilent);
        self.client.write(xml::stream_error(StreamCondition::RemoteConnectionFailed, None, None), &mut self.effects);
        self.begin_end(now, EndReason::UpstreamSilent);
    }

    fn keep_what_may_come_again(&mut self, now: Instant) {
        let (acked, account, effects) = (self.server.acked(), &self.account, &mut self.effects);
        self.delivery.keep_what_may_come_again(now, acked, account, effects);
    }

    // The end

    /// Whether what the client does not have is kept here. A server whose connection breaks without a word may be dead: it sends
    /// nothing elsewhere then.
    fn keeps(&self, reason: EndReason) -> bool {
        reason.keeps_all() || reason == EndReason::UpstreamLost && !self.server.has_said_why()
    }

    /// Whether stanzas that come now stay the server's.
    pub(super) fn gives_back(&self) -> bool {
        let keeps = self.lifecycle.last().is_some_and(|last| self.keeps(last.reason));
        self.lifecycle.is_ending() && self.server.counts() && !keeps
    }

    pub(super) fn begin_end(&mut self, now: Instant, reason: EndReason) {
        if self.lifecycle.is_ending() {
            return;
        }
        let abrupt = reason == EndReason::UpstreamLost;
        self.client.close(if abrupt { Closing::Abrupt } else { Closing::Orderly }, &mut self.effects);
        if !reason.has_upstream() && self.client.is_dark() && self.account.has_registration() {
            self.effects.push(Output::Wake(WakeReason::UpstreamLost));
        }
        if reason == EndReason::Expired && self.account.uses_archive() {
            self.delivery.forget_archived(&mut self.effects);
        }
        let server = Some(&mut self.server).filter(|_| reason.has_upstream());
        self.delivery.refuse_requests(now, server, &mut self.effects);
        self.retire_id();
        let theirs = !self.keeps(reason) && self.server.counts();
        if theirs && reason.has_upstream() {
            // Nothing more is acknowledged after it.
            self.settle(now);
        }
        if theirs {
            self.delivery.give_back(self.server.acked(), &mut self.effects);
        } else if reason == EndReason::UpstreamLost {
            self.keep_what_may_come_again(now);
        }
        self.lifecycle.begin_end(now, reason, self.delivery.newest());
        self.delivery.spool_all(&self.account, &mut self.effects);
        self.drive_end(now);
    }

    /// Goes on with the end as far as it can.
    pub(super) fn drive_end(&mut self, now: Instant) {
        match self.lifecycle.last() {
            Some(last) => self.finish_spooling(now, last),
            None if self.lifecycle.is_footer_late(now) => self.end(),
            None => {}
        }
    }

    /// Writes the footer once the disk has what came before the end, or will not have it.
    fn finish_spooling(&mut self, now: Instant, last: Last) {
        let reason = last.reason;
        if !reason.has_upstream() {
            return self.end();
        }
        // What has come since.
        self.delivery.spool_all(&self.account, &mut self.effects);
        let late = last.is_late(now) || last.is_asked;
        let accepts = self.delivery.spool_accepts();
        if accepts && !late && !self.delivery.is_committed_to(last.newest) {
            return;
        }
        if self.server.counts() && reason.keeps_all() {
            self.settle(now);
            self.delivery.give_back(self.server.acked(), &mut self.effects);
        }
        if late || !accepts {
            if accepts && !last.is_asked && !self.delivery.is_committed() {
                self.effects.event(Event::SpoolLate);
            }
            // Nobody else has it.
            let server = Some(&mut self.server).filter(|_| self.lifecycle.can_answer());
            self.delivery.shed_all(now, server, &mut self.effects);
            if self.awaits_last(now, last) {
                return;
            }
        }
        if reason != EndReason::ClientClosed && self.client.has_tombstone() && !self.server.has_all() {
            // Its answer comes before the server's footer.
            self.server.ask(now, &mut self.effects);
        }
        self.server.close(now, &mut self.effects);
        self.lifecycle.await_footer(now, reason);
    }

    /// Whether stanzas may be on their way that only this session can return to their senders, which it cannot behind its footer:
    /// the server is to send no more, and its answer to a ping is behind the last one (RFC 6120 §10.1).
    fn awaits_last(&mut self, now: Instant, last: Last) -> bool {
        if self.server.counts() {
            return false;
        }
        if last.is_asked {
            return self.server.is_asked() && !last.is_late(now);
        }
        let unavailable = Bytes::from_static(b"<presence type='unavailable'/>");
        self.server.inject(now, unavailable, &mut self.effects);
        self.server.ask(now, &mut self.effects);
        self.lifecycle.await_last_answer(now);
        true
    }

    /// What came last is kept, and the session is no more.
    fn end(&mut self) {
        let Some(reason) = self.lifecycle.end_reason() else { return };
        self.delivery.spool_at_last(&self.account, &mut self.effects);
        self.delivery.report_shed(&mut self.effects);
        self.lifecycle.end();
        self.server.end();
        self.effects.push(Output::End(reason));
    }
}
