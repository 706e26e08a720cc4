//! The state changes of a session: loss of its client, resumption, replacement by a newer session, and the end.

use bytes::Bytes;

use super::Session;
use super::cause::Cause;
use super::contract::Output;
use super::delivery::Incoming;
use super::device::Silence;
use super::event::{Closing, EndReason, Event, Stored, Token, WakeReason};
use super::identity::Resumption;
use super::lifecycle::{Last, Leave, RESUME_PATIENCE};
use super::server::Settling;
use super::succession::Successor;
use crate::clock::Instant;
use crate::seq::Seq;
use crate::xml::{self, Element, StreamCondition};

impl Session {
    // Loss of the client and resumption

    pub(super) fn on_client_lost(&mut self, now: Instant) {
        let Self { device, server, effects, .. } = self;
        if !device.client().is_open() {
            return;
        }
        if self.lifecycle.is_leaving() {
            // It closed its stream before, so it will not resume.
            device.retire_id(server, effects);
            return device.detach(now);
        }
        device.release_backlog(now, server, effects);
        device.send_parting(now, server, effects);
        if device.has_successor() {
            return self.begin_end(now, EndReason::Superseded);
        }
        if !device.is_to_be_held() && device.account().awaits_registration() {
            self.await_store(now, Leave::Lost);
            return self.device.detach(now);
        }
        self.on_client_gone(now);
    }

    /// Handles the loss of a client whose session does not wait for a registration to be stored.
    fn on_client_gone(&mut self, now: Instant) {
        if !self.device.is_to_be_held() {
            return self.begin_end(now, EndReason::ClientLost);
        }
        self.go_dark(now);
    }

    fn go_dark(&mut self, now: Instant) {
        self.lifecycle.take_leave();
        self.device.go_dark(now, &mut self.server, &mut self.effects);
    }

    pub(super) fn on_attach(&mut self, now: Instant, resumption: Resumption) {
        let Self { device, server, effects, .. } = self;
        if !device.on_attach(now, resumption, server, effects) {
            return;
        }
        self.lifecycle.take_leave();
        if server.has_all() {
            return device.send_resumed(now, server, effects);
        }
        // The client's last stanzas may be on their way to the server. With a lower count, the client would send them
        // twice.
        device.client_mut().await_confirmation(now + RESUME_PATIENCE);
        server.ask_if_needed(now, effects);
    }

    // Time

    /// Ends a wake-up.
    pub(super) fn on_quiet(&mut self, now: Instant) {
        self.go_on(now);
        self.device.delivery_mut().on_quiet(&mut self.effects);
        self.aside.set(self.memory_aside());
    }

    fn go_on(&mut self, now: Instant) {
        if self.lifecycle.is_ending() {
            self.device.spool_all(&mut self.effects);
            return self.drive_end(now);
        }
        self.ask_server_if_due(now);
        self.device.spool_if_due(now, &self.server, &mut self.effects);
        if self.device.client().is_dark() {
            return self.settle(now);
        }
        let unsettled = self.device.delivery_mut().first_unsettled();
        self.server.settle(now, Settling::WhenAwaited, unsettled, &mut self.effects);
        self.device.write_more(now, &mut self.server, &mut self.effects);
        // Frames that waited for the backlog have been forwarded.
        self.go_on_behind_presence(now);
        self.ask_server_if_due(now);
        self.device.answer(now, &mut self.server, &mut self.effects);
        self.device.ask_if_due(now, &mut self.effects);
    }

    fn ask_server_if_due(&mut self, now: Instant) {
        if self.device.client().counts() {
            self.server.ask_if_due(now, &mut self.effects);
        }
    }

    /// Acknowledges as many stanzas to the server as possible.
    pub(super) fn settle(&mut self, now: Instant) {
        if !self.gives_back() {
            let unsettled = self.device.delivery_mut().first_unsettled();
            self.server.settle(now, Settling::AtOnce, unsettled, &mut self.effects);
        }
    }

    pub(super) fn on_timeout(&mut self, now: Instant) {
        if self.lifecycle.is_ending() {
            return self.drive_end(now);
        }
        if self.device.is_superseded(now) {
            return self.be_superseded(now);
        }
        match self.device.on_alarm(now, &mut self.server, &mut self.effects) {
            Silence::Tolerated => {}
            Silence::Lost => {
                self.effects.push(Output::CloseClient(Closing::Abrupt));
                self.on_client_lost(now);
            }
            Silence::Expired => return self.begin_end(now, EndReason::Expired),
        }
        if self.server.is_lost(now) {
            return self.on_server_lost(now);
        }
        if self.server.is_silent(now, self.settings.server_timeout) {
            return self.on_server_silent(now);
        }
        if self.device.client().is_resumption_due(now) {
            self.device.send_resumed(now, &mut self.server, &mut self.effects);
        }
        self.leave_if_due(now);
        if self.lifecycle.is_ending() {
            return;
        }
        self.device.on_timeout(now, &mut self.server, &mut self.effects);
        self.server.keep_alive(now, self.settings.stream_management.upstream_keepalive, &mut self.effects);
    }

    /// Notes that the stanzas handed to the spool are on disk.
    pub(super) fn on_spooled(&mut self, now: Instant, up_to: Seq) {
        self.device.on_spooled(up_to, &mut self.effects);
        // A server that ends forgets unacknowledged stanzas, or sends them a second time.
        self.settle(now);
        self.device.spill(self.server.acked());
        if self.lifecycle.is_ending() {
            self.drive_end(now);
        }
    }

    pub(super) fn on_spool_refused(&mut self, now: Instant) {
        self.device.on_spool_refused(now, &mut self.server, &mut self.effects);
        if self.lifecycle.is_ending() {
            self.drive_end(now);
        }
    }

    /// Takes the store's answer to a request of the client.
    pub(super) fn on_stored(&mut self, now: Instant, token: Token, stored: Stored) {
        if let Some(reply) = self.device.on_stored(token, stored, &mut self.effects) {
            self.deliver_reply(now, reply);
            self.leave_if_due(now);
        }
    }

    // A newer session, and requests of the daemon

    pub(super) fn on_successor(&mut self, now: Instant, successor: Option<Successor>) {
        let ignored = successor.is_some() && self.lifecycle.is_ending();
        if !ignored && self.device.on_successor(now, successor, &mut self.effects) {
            self.be_superseded(now);
        }
    }

    /// Ends in favour of the newer session. A client that is still connected gets the reason (RFC 6120 §4.9.3.3).
    fn be_superseded(&mut self, now: Instant) {
        self.send_stream_error(StreamCondition::Conflict);
        self.begin_end(now, EndReason::Superseded);
    }

    pub(super) fn on_end_if_held(&mut self, now: Instant, reason: EndReason) {
        if self.device.client().is_dark() {
            self.begin_end(now, reason);
        }
    }

    pub(super) fn on_drain(&mut self, now: Instant) {
        if self.lifecycle.is_ending() {
            return;
        }
        if self.device.client().is_dark() && self.device.account().has_registration() {
            self.effects.push(Output::Wake(WakeReason::Restart));
        }
        self.send_stream_error(StreamCondition::SystemShutdown);
        self.begin_end(now, EndReason::Drained);
    }

    /// Sends a stream error to the client, if it is connected.
    pub(super) fn send_stream_error(&mut self, condition: StreamCondition) {
        self.device.client().write(xml::stream_error(condition, None, None), &mut self.effects);
    }

    // Leaving of the client

    /// Handles a client that closed its stream. Its requests are answered before the footer, if the store answers in time.
    pub(super) fn on_client_closes(&mut self, now: Instant) {
        if self.device.account().has_open_requests() {
            return self.await_store(now, Leave::Closed);
        }
        self.on_client_closed(now);
    }

    /// Delays the client's end until the store has answered: a registration decides whether the session is held.
    fn await_store(&mut self, now: Instant, how: Leave) {
        // Stanzas that come meanwhile may be lost unread.
        self.device.client_mut().track_silently();
        self.lifecycle.await_store(now, how);
    }

    /// Completes the client's end, once the store has answered or is late.
    pub(super) fn leave_if_due(&mut self, now: Instant) {
        // The state of the account is certain once no change of it is open.
        let waits = self.device.account().awaits_store();
        let leave = if waits { self.lifecycle.take_late_leave(now) } else { self.lifecycle.take_leave() };
        match leave {
            Some(_) if self.lifecycle.is_ending() => {}
            Some(Leave::Closed) => self.on_client_closed(now),
            Some(Leave::Lost) => self.on_client_gone(now),
            None => {}
        }
    }

    /// Handles a client that closed its stream and gets no more answers.
    fn on_client_closed(&mut self, now: Instant) {
        let parting = self.device.take_parting();
        if !self.device.client().is_dark() {
            self.effects.reply_to_client(Bytes::from_static(xml::STREAM_CLOSE));
        }
        if let Some(presence) = self.device.lingering_presence() {
            return self.linger(now, presence);
        }
        if let Some(parting) = parting {
            self.device.forward(now, parting, &mut self.server, &mut self.effects);
        }
        self.begin_end(now, EndReason::ClientClosed);
    }

    /// Holds the session for its pushes after the client closed its stream.
    fn linger(&mut self, now: Instant, presence: Bytes) {
        self.server.inject(now, presence, &mut self.effects);
        self.device.retire_id(&self.server, &mut self.effects);
        self.effects.event(Event::Lingering);
        self.effects.push(Output::CloseClient(Closing::Orderly));
        self.go_dark(now);
    }

    pub(super) fn keep_what_may_come_again(&mut self, now: Instant) {
        self.device.keep_what_may_come_again(now, self.server.acked(), &mut self.effects);
    }

    /// Leaves all stanzas to the server that were not acknowledged to it.
    pub(super) fn give_back(&mut self) {
        self.device.delivery_mut().give_back(self.server.acked(), &mut self.effects);
    }

    // The end

    /// Returns whether the stanzas that the client does not have are kept here. A server whose connection breaks without a
    /// stream error may be gone, and would then not deliver them elsewhere.
    pub(super) fn keeps(&self, reason: EndReason) -> bool {
        reason.keeps_all() || reason == EndReason::UpstreamLost && !self.server.has_stream_error()
    }

    /// Returns whether stanzas that come now are left to the server.
    pub(super) fn gives_back(&self) -> bool {
        let keeps = self.lifecycle.last().is_some_and(|last| self.keeps(last.reason));
        self.lifecycle.is_ending() && self.server.counts() && !keeps
    }

    pub(super) fn begin_end(&mut self, now: Instant, reason: EndReason) {
        if self.lifecycle.is_ending() {
            return;
        }
        let Self { device, server, effects, .. } = self;
        device.client_mut().close(reason.closing(), effects);
        let account = device.account();
        if !reason.has_upstream() && device.client().is_dark() && account.has_registration() {
            effects.push(Output::Wake(WakeReason::UpstreamLost));
        }
        if reason == EndReason::Expired && account.uses_archive() {
            device.delivery_mut().forget_archived(effects);
        }
        if reason.refuses_requests() {
            let reachable = Some(&mut *server).filter(|_| reason.has_upstream());
            device.delivery_mut().refuse_requests(now, reachable, effects);
        }
        device.retire_id(server, effects);
        let theirs = !self.keeps(reason) && self.server.counts();
        if theirs && reason.has_upstream() {
            // Nothing is acknowledged afterwards.
            self.settle(now);
        }
        if theirs {
            self.give_back();
        } else if reason == EndReason::UpstreamLost {
            self.keep_what_may_come_again(now);
        }
        self.lifecycle.begin_end(now, reason, self.device.delivery().queue().newest());
        self.device.spool_all(&mut self.effects);
        self.drive_end(now);
    }

    /// Continues the end as far as possible.
    pub(super) fn drive_end(&mut self, now: Instant) {
        match self.lifecycle.last() {
            Some(last) => self.finish_spooling(now, last),
            None if self.lifecycle.is_footer_late(now) => self.end(),
            None => {}
        }
    }

    /// Writes the footer once the stanzas from before the end are on disk, or cannot be stored.
    fn finish_spooling(&mut self, now: Instant, last: Last) {
        let reason = last.reason;
        if !reason.has_upstream() {
            return self.end();
        }
        // Stanzas that came since the end began.
        self.device.spool_all(&mut self.effects);
        let late = last.is_late(now) || last.is_asked;
        let accepts = self.device.delivery().spool_accepts();
        if accepts && !late && !self.device.delivery().queue().is_committed_to(last.newest) {
            return;
        }
        if self.server.counts() && reason.keeps_all() {
            self.settle(now);
            self.give_back();
        }
        if late || !accepts || reason == EndReason::Fenced {
            if accepts && !last.is_asked && !self.device.delivery().queue().is_committed() {
                self.effects.event(Event::SpoolLate);
            }
            // No other party has these stanzas.
            let server = Some(&mut self.server).filter(|_| self.lifecycle.can_answer());
            self.device.delivery_mut().shed_all(now, server, &mut self.effects);
            if self.awaits_last(now, last) {
                return;
            }
        }
        if reason != EndReason::ClientClosed
            && self.device.client().resumption_id().is_retired()
            && !self.server.has_all()
        {
            // The server's answer comes before its footer.
            self.server.ask(now, &mut self.effects);
        }
        self.server.close(now, &mut self.effects);
        self.lifecycle.await_footer(now, reason);
    }

    /// Returns whether to wait for stanzas on their way. Only this session can return them to their senders, which is
    /// impossible after its footer. The server gets `unavailable` presence, and its answer to a ping follows its
    /// last stanza (RFC 6120 §10.1).
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

    /// Spools the last stanzas, and ends the session.
    pub(super) fn end(&mut self) {
        let Some(reason) = self.lifecycle.end_reason() else { return };
        self.device.spool_at_last(&mut self.effects);
        self.lifecycle.end();
        self.server.end();
        self.effects.push(Output::End(reason));
    }

    /// Delivers a reply of our own, which counts and waits like any other stanza.
    pub(super) fn deliver_reply(&mut self, now: Instant, reply: Bytes) {
        if let Ok(element) = Element::parse(reply, self.device.client().header()) {
            self.deliver(now, Incoming { element, server_seq: None, cause: Cause::Reply });
        }
    }
}
