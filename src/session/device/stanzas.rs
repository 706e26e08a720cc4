//! Stanzas on their way to and from the client, its loss and its return.

use std::time::Instant;

use super::DeviceSide;
use crate::session::backlog::FirstPresence;
use crate::session::client::PingAnswer;
use crate::session::csi::{Urgency, urgency};
use crate::session::delivery::{Incoming, Placed};
use crate::session::effects::Effects;
use crate::session::event::Event;
use crate::session::identity::Resumption;
use crate::session::notifier::{Fresh, Kept};
use crate::session::presence::{Linger, OwnPresence};
use crate::session::server::ServerStream;
use crate::xml::{Element, Frame, Kind};

impl DeviceSide {
    // From the client

    /// Takes presence of the client; returns it if it is to be forwarded now. Where the session may linger, an `unavailable`
    /// waits for what comes next.
    pub(in crate::session) fn on_presence(
        &mut self,
        presence: Element,
        linger: Linger,
        effects: &mut Effects,
    ) -> Option<Element> {
        if OwnPresence::is_parting(&presence) && linger == Linger::Possible {
            self.presence.part(presence);
            return None;
        }
        let waits = self.presence.sent(&presence) && self.waits_for_backlog(&presence, effects);
        (!waits).then_some(presence)
    }

    /// Whether the client's available presence waits until what the device missed before has been written.
    fn waits_for_backlog(&mut self, presence: &Element, effects: &mut Effects) -> bool {
        match self.backlog.on_presence(presence) {
            FirstPresence::Passes => false,
            FirstPresence::Waits => true,
            FirstPresence::ReadsBacklog => {
                // What comes meanwhile is not certain to be read, whatever the client enables behind its presence.
                self.track_if_needed();
                self.take_over_if_settled(effects);
                true
            }
        }
    }

    /// The `unavailable` that waited for a footer passes, because something else came.
    pub(in crate::session) fn send_parting(&mut self, now: Instant, server: &mut ServerStream, effects: &mut Effects) {
        if let Some(parting) = self.presence.take_parting() {
            self.presence.sent(&parting);
            self.forward(now, parting, server, effects);
        }
    }

    /// Forwards a stanza of the client, which counts it.
    pub(in crate::session) fn forward(
        &mut self,
        now: Instant,
        stanza: Element,
        server: &mut ServerStream,
        effects: &mut Effects,
    ) {
        if stanza.kind() == Kind::Presence {
            self.notifier.on_presence_sent(&stanza.node());
            if self.presence.is_available() && self.backlog.on_available() {
                self.await_orphans(now);
                self.ask_for_roster(now, server, effects);
            }
        }
        server.forward_stanza(now, stanza, effects);
    }

    /// Takes the client's answer to our own ping; whether it is one.
    pub(in crate::session) fn is_ping_answer(&mut self, now: Instant, iq: &Element, effects: &mut Effects) -> bool {
        match self.client.on_ping_answer(&iq.node()) {
            PingAnswer::Not => return false,
            PingAnswer::Late => {}
            PingAnswer::Acknowledges(count) => self.on_acknowledged(now, count, effects),
        }
        true
    }

    /// The client has acknowledged so many stanzas.
    pub(in crate::session) fn on_acknowledged(&mut self, now: Instant, count: usize, effects: &mut Effects) {
        self.take_acknowledged(now, count, effects);
        self.delivery.go_on_behind_suspect(now, &mut self.client, &self.account, effects);
    }

    fn take_acknowledged(&mut self, now: Instant, count: usize, effects: &mut Effects) {
        self.delivery.clear_of_suspicion(now, count, &mut self.account, effects);
        self.delivery.on_acknowledged(count, effects);
        self.client.on_acknowledged(now, effects);
        self.notifier.on_acknowledged(&self.delivery);
    }

    /// The next frame behind a presence that has been forwarded.
    pub(in crate::session) fn next_behind(&mut self) -> Option<Frame> {
        self.backlog.next_behind()
    }

    // To the client

    /// Learns from a stanza of the server before it is delivered.
    pub(in crate::session) fn learn(
        &mut self,
        now: Instant,
        stanza: &Element,
        server: &mut ServerStream,
        effects: &mut Effects,
    ) {
        if stanza.kind() == Kind::Presence {
            self.notifier.on_room_presence(stanza);
        }
        if stanza.kind() == Kind::Message && self.account.has_any_registration() {
            self.take_revocation(now, stanza, server, effects);
        }
        self.delivery.note_had(stanza, &self.account);
    }

    /// Learns from an iq of the server.
    pub(in crate::session) fn learn_from_iq(&mut self, iq: &Element) {
        self.notifier.on_iq(iq);
    }

    /// Holds a stanza that is not acknowledged to the server any more, which sends it elsewhere.
    pub(in crate::session) fn hold_given_back(&mut self, now: Instant, stanza: Incoming) {
        self.delivery.hold_given_back(now, stanza, self.notifier.rooms());
    }

    /// Writes a stanza to the client, or lets it wait.
    pub(in crate::session) fn deliver(
        &mut self,
        now: Instant,
        stanza: Incoming,
        server: &mut ServerStream,
        effects: &mut Effects,
    ) {
        if !self.client.is_tracked() && self.client.is_open() {
            return self.delivery.write_untracked(&stanza, &self.client, effects);
        }
        let urgency = self.urgency(&stanza.element);
        let waits = self.client.is_dark() || urgency != Urgency::Now;
        if waits && self.delivery.cancels_out(&stanza.element, &self.presence) {
            return;
        }
        let may_push = self.notifier.may_push(&stanza.element, self.situation());
        let fresh = may_push.then(|| stanza.element.clone());
        let rooms = self.notifier.rooms();
        let (seq, kept) = match self.delivery.accept(now, stanza, urgency, &self.client, rooms, effects) {
            Placed::Memory(seq) => {
                self.write_waiting(now, effects);
                (seq, Kept::InMemory)
            }
            Placed::HeldBack(seq) => (seq, Kept::InMemory),
            Placed::Spool(seq) => {
                self.delivery.spool_all(&self.account, effects);
                (seq, Kept::OnDiskOnly)
            }
        };
        if let Some(stanza) = &fresh {
            server.give_up_late_publishes(now, effects);
            self.notify(effects, |notifier, situation, effects| {
                notifier.on_stanza(now, Fresh { stanza, seq, kept }, situation, effects)
            });
        }
        self.keep_within_bounds(now, server, effects);
    }

    /// How urgent a stanza is for the client. Where the server has no client state indication, Pushward keeps from a client in
    /// the background what it need not be woken for.
    fn urgency(&self, element: &Element) -> Urgency {
        let holds_back = self.client.is_in_background() && !self.identity.server_has_csi();
        if holds_back { urgency(element.kind(), &self.notifier.read(element)) } else { Urgency::Now }
    }

    /// Writes what has not been written to the current attachment.
    pub(super) fn write_waiting(&mut self, now: Instant, effects: &mut Effects) {
        self.delivery.write_waiting(now, &mut self.client, &self.account, effects);
    }

    /// The client is busy anyway: what was held goes to it, before anything that it says takes effect (XEP-0352 §5.1).
    pub(in crate::session) fn write_held_back(&mut self, now: Instant, effects: &mut Effects) {
        if self.delivery.has_held_back() {
            self.write_waiting(now, effects);
        }
    }

    /// Gives up stanzas beyond the bounds of a spool that refuses, while nobody is there to read them.
    pub(super) fn keep_within_bounds(&mut self, now: Instant, server: &mut ServerStream, effects: &mut Effects) {
        if self.client.is_held() {
            self.delivery.keep_within_bounds(now, server, effects);
        }
    }

    // The client goes, and comes back

    /// What waits behind the presence of a client that does not count goes to the server.
    pub(in crate::session) fn release_backlog(
        &mut self,
        now: Instant,
        server: &mut ServerStream,
        effects: &mut Effects,
    ) {
        if self.client.counts() {
            return self.backlog.forget_behind();
        }
        for stanza in self.backlog.release() {
            self.forward(now, stanza, server, effects);
        }
    }

    /// The connection is gone, and what becomes of the session is decided later.
    pub(in crate::session) fn detach(&mut self, now: Instant) {
        self.delivery.on_client_lost();
        self.client.on_lost(now, self.hold());
    }

    /// The session is held without its client.
    pub(in crate::session) fn go_dark(&mut self, now: Instant, server: &mut ServerStream, effects: &mut Effects) {
        self.detach(now);
        let (queued, registrations) = (self.delivery.queue().len(), self.account.owned().count());
        effects.event(Event::Dark { queued, registrations });
        // A client that has just gone will not answer what it may have read: its pings are answered all the same.
        for item in self.delivery.queue().iter().filter(|item| item.element.kind() == Kind::Iq) {
            server.answer_ping(now, &item.element, effects);
        }
        self.push_for_waiting(now, server, effects);
        self.keep_within_bounds(now, server, effects);
    }

    /// A new connection takes the session over; whether it can.
    pub(in crate::session) fn on_attach(
        &mut self,
        now: Instant,
        resumption: Resumption,
        server: &mut ServerStream,
        effects: &mut Effects,
    ) -> bool {
        // Refused beforehand by `check_resume`.
        let Some(acked) = self.client.rewind(resumption.h) else { return false };
        self.delivery.on_attached(now, &mut self.account, effects);
        self.take_acknowledged(now, acked, effects);
        self.delivery.rewind(&self.account);
        if self.delivery.queue().has_spilled() {
            // First, so that it need not wait for what else the store is told.
            self.delivery.load(effects);
        }
        self.client.attach(now, resumption);
        self.account.note_contact(now, effects);
        self.send_parting(now, server, effects);
        self.backlog.on_resumed();
        true
    }

    /// Tells the client that it is back, then all that it missed, then asks for its acknowledgement; if stanzas are only on disk,
    /// once they are read back.
    pub(in crate::session) fn send_resumed(&mut self, now: Instant, server: &mut ServerStream, effects: &mut Effects) {
        if !self.client.begin_resumed() {
            return;
        }
        let h = server.on_client_resumed();
        self.client.send_resumed(h, effects);
        effects.event(Event::Resumed { replayed: self.delivery.queue().len() });
        self.write_waiting(now, effects);
        if !self.delivery.queue().has_spilled() && !self.delivery.is_alone() {
            self.client.ask(now, effects);
        }
        // XEP-0352 §5.2: a resumed stream begins active, whatever the server last heard.
        if self.client.become_active() && self.identity.server_has_csi() {
            server.send_active(now, effects);
        }
    }
}
