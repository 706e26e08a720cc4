//! Stanzas from and to the client, and the loss and resumption of its connection.

use super::DeviceSide;
use crate::clock::Instant;
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

    /// Takes presence of the client, and returns it if it is to be forwarded now. If the session may stay without its client,
    /// an `unavailable` waits for the next frame.
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

    /// Returns whether the client's available presence waits until the backlog has been written.
    fn waits_for_backlog(&mut self, presence: &Element, effects: &mut Effects) -> bool {
        match self.backlog.on_presence(presence) {
            FirstPresence::Passes => false,
            FirstPresence::Waits => true,
            FirstPresence::ReadsBacklog => {
                // Stanzas that come meanwhile may be lost unread, even if the client enables stream management after its
                // presence.
                self.track_if_needed();
                self.take_over_if_settled(effects);
                true
            }
        }
    }

    /// Forwards the `unavailable` that waited for a footer, because something else came.
    pub(in crate::session) fn send_parting(&mut self, now: Instant, server: &mut ServerStream, effects: &mut Effects) {
        if let Some(parting) = self.presence.take_parting() {
            self.presence.sent(&parting);
            self.forward(now, parting, server, effects);
        }
    }

    /// Forwards a stanza that the client counts.
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

    /// Takes the client's answer to our ping; returns whether the iq is one.
    pub(in crate::session) fn is_ping_answer(&mut self, now: Instant, iq: &Element, effects: &mut Effects) -> bool {
        match self.client.on_ping_answer(&iq.node()) {
            PingAnswer::Not => return false,
            PingAnswer::Late => {}
            PingAnswer::Acknowledges(count) => self.on_acknowledged(now, count, effects),
        }
        true
    }

    /// Notes that the client has acknowledged `count` more stanzas.
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

    /// The next frame that waited for a presence, after the presence has been forwarded.
    pub(in crate::session) fn next_behind(&mut self) -> Option<Frame> {
        self.backlog.next_behind()
    }

    // To the client

    /// Reads information from a stanza of the server before it is delivered.
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
        self.delivery.note_received(stanza, &self.account);
    }

    /// Reads information from an iq of the server.
    pub(in crate::session) fn learn_from_iq(&mut self, iq: &Element) {
        self.notifier.on_iq(iq);
    }

    /// Holds a stanza that is not acknowledged to the server any more. The server delivers it elsewhere.
    pub(in crate::session) fn hold_given_back(&mut self, now: Instant, stanza: Incoming) {
        self.delivery.hold_given_back(now, stanza, self.notifier.rooms());
    }

    /// Writes a stanza to the client, or makes it wait.
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

    /// The urgency of a stanza for the client. If the server has no client state indication, Pushward holds back stanzas that
    /// need not wake a client in the background.
    fn urgency(&self, element: &Element) -> Urgency {
        let holds_back = self.client.is_in_background() && !self.identity.server_has_csi();
        if holds_back { urgency(element.kind(), &self.notifier.read(element)) } else { Urgency::Now }
    }

    /// Writes the stanzas that have not been written to the current attachment.
    pub(super) fn write_waiting(&mut self, now: Instant, effects: &mut Effects) {
        self.delivery.write_waiting(now, &mut self.client, &self.account, effects);
    }

    /// Writes the stanzas that were held back, because the client is active. This happens before its frame takes effect
    /// (XEP-0352 §5.1).
    pub(in crate::session) fn write_held_back(&mut self, now: Instant, effects: &mut Effects) {
        if self.delivery.has_held_back() {
            self.write_waiting(now, effects);
        }
    }

    /// Sheds stanzas beyond the limits while the spool refuses and no client reads them.
    pub(super) fn keep_within_bounds(&mut self, now: Instant, server: &mut ServerStream, effects: &mut Effects) {
        if self.client.is_held() {
            self.delivery.keep_within_bounds(now, server, effects);
        }
    }

    // Loss and resumption

    /// Forwards the frames that waited for a presence, if the client does not count stanzas.
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

    /// Notes that the connection was lost. The end of the session, or its hold, is decided later.
    pub(in crate::session) fn detach(&mut self, now: Instant) {
        self.delivery.on_client_lost();
        self.client.on_lost(now, self.hold());
    }

    /// Holds the session without its client.
    pub(in crate::session) fn go_dark(&mut self, now: Instant, server: &mut ServerStream, effects: &mut Effects) {
        self.detach(now);
        let (queued, registrations) = (self.delivery.queue().len(), self.account.owned().count());
        effects.event(Event::Dark { queued, registrations });
        // A client that was just lost will not answer pings that it may have read. They are answered here.
        for item in self.delivery.queue().iter().filter(|item| item.element.kind() == Kind::Iq) {
            server.answer_ping(now, &item.element, effects);
        }
        self.push_for_waiting(now, server, effects);
        self.keep_within_bounds(now, server, effects);
    }

    /// Attaches a new connection to the session; returns whether that is possible.
    pub(in crate::session) fn on_attach(
        &mut self,
        now: Instant,
        resumption: Resumption,
        server: &mut ServerStream,
        effects: &mut Effects,
    ) -> bool {
        // A too high `h` was refused before by `check_resume`.
        let Some(acked) = self.client.rewind(resumption.h) else { return false };
        self.delivery.on_attached(now, &mut self.account, effects);
        self.take_acknowledged(now, acked, effects);
        self.delivery.rewind(&self.account);
        if self.delivery.queue().has_spilled() {
            // The load comes first, so that it need not wait for other requests to the store.
            self.delivery.load(effects);
        }
        self.client.attach(now, resumption);
        self.account.note_contact(now, effects);
        self.send_parting(now, server, effects);
        self.backlog.on_resumed();
        true
    }

    /// Sends `<resumed/>`, then everything that the client missed, then asks for an acknowledgement. If stanzas are only on
    /// disk, the question waits until they are read back.
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
        // XEP-0352 §5.2: a resumed stream begins active, whatever state the server was last sent.
        if self.client.become_active() && self.identity.server_has_csi() {
            server.send_active(now, effects);
        }
    }
}
