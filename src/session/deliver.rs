//! How stanzas travel to the client: at once, from memory, or through the spool.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use super::csi::Urgency;
use super::ending::{is_request, refusal};
use super::presence::{Coalesced, is_durable};
use super::queue::{Budget, NoStanza, Place, Queued, Spooled};
use super::stamp::Stamp;
use super::travel::{is_from_room, may_travel};
use super::{Cause, EndReason, Event, Greeting, Output, Session, Tracking, rewrite, server};
use crate::jid::{BareJid, Jid};
use crate::push::account::LoginId;
use crate::xml::{Element, Header, Kind, Node, ns};

/// Stanzas that are being read back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loading {
    spool: Option<LoginId>,
    /// What was on disk of the own spool when they were asked for.
    committed: u64,
}

impl Session {
    /// Lets what waits for the client share memory with what waits for others. To be called before the first input.
    pub fn share_memory(&mut self, budget: Arc<Budget>) {
        self.share_aside(&budget);
        self.queue.share(budget);
    }

    /// Writes a stanza to the client, or lets it wait.
    pub(super) fn deliver(&mut self, now: Instant, element: Element, ordinal: Option<u64>) {
        self.deliver_for(now, element, ordinal, Cause::Relayed);
    }

    fn deliver_for(&mut self, now: Instant, element: Element, ordinal: Option<u64>, cause: Cause) {
        if self.gives_back() {
            // Not acknowledged any more, so the server sends it elsewhere.
            let (stamp, durable) = (self.stamps.next(self.epoch.unix_ms(now)), is_durable(&element));
            return self.hold_given_back(self.to_queue(element, 0, stamp).of_leg(ordinal, durable));
        }
        if self.is_ending() && is_request(&element) {
            return self.answer_upstream(now, refusal(&element));
        }
        if self.queue.is_exhausted() {
            self.begin_end(now, EndReason::Exhausted);
        }
        if matches!(self.tracking, Tracking::None) && !self.is_dark() && !self.is_ending() {
            if element.kind() == Kind::Presence {
                self.waiting_presence.written(&element);
            }
            let bytes = element.on_stream(&self.attached_header);
            return self.out(to_client(bytes, cause));
        }
        let urgency = if self.holds_back() { self.urgency(&element) } else { Urgency::Now };
        let waits = self.is_dark() || urgency != Urgency::Now;
        if waits && self.made_obsolete(&element) {
            return;
        }
        let (stamp, durable) = (self.stamps.next(self.epoch.unix_ms(now)), is_durable(&element));
        match self.queue.place(element.bytes().len()) {
            Place::Memory(seq) => {
                if waits && element.kind() == Kind::Presence {
                    self.waiting_presence.queued(&element, seq);
                }
                // What may wait long keeps no more alive than itself.
                let element = if self.is_dark() { element.compact() } else { element };
                let pushed = self.may_push(&element).then(|| element.clone());
                self.queue.hold(self.to_queue(element, seq, stamp).of_leg(ordinal, durable).because(cause));
                if !self.keep_back(urgency, seq) {
                    self.write_waiting(now);
                }
                if let Some(element) = pushed {
                    self.consider_push(now, &element, seq, false);
                }
            }
            Place::SpoolOnly(seq) => {
                if cause == Cause::Reply {
                    self.behind.reply_goes_to_spool(seq, element.bytes().len());
                }
                let item = self.to_queue(element.compact(), seq, stamp).of_leg(ordinal, durable);
                self.deliver_by_spool(now, item);
            }
        }
        self.keep_within_bounds(now);
    }

    fn to_queue(&self, element: Element, seq: u64, Stamp { received, ahead }: Stamp) -> Queued {
        let from_room = is_from_room(&element, &self.rooms);
        Queued::new(element, seq, received).ahead_by(ahead).in_company(self.has_company).of_room(from_room)
    }

    /// A stanza has no place in memory: the spool takes it, and before it what it must not pass.
    fn deliver_by_spool(&mut self, now: Instant, item: Queued) {
        if let Some(full) = self.queue.take_full() {
            self.event(Event::QueueFull(full));
        }
        let (element, seq) = (item.element.clone(), item.seq);
        if is_request(&element) {
            self.queue.noted().note_request(seq, refusal(&element));
        }
        if self.is_archived(&element) {
            self.queue.noted().note_archived(seq);
        }
        self.queue.hold_for_spool(item);
        self.spool_all();
        self.consider_push(now, &element, seq, true);
    }

    /// Lets presence replace what the same sender said before, and says whether the two cancel out.
    fn made_obsolete(&mut self, element: &Element) -> bool {
        if element.kind() != Kind::Presence {
            return false;
        }
        match self.waiting_presence.coalesce(element, &self.own_presence) {
            Coalesced::Keep => false,
            Coalesced::Replace(older) => {
                self.queue.remove_unwritten(older);
                false
            }
            Coalesced::Cancel(older) => self.queue.remove_unwritten(older),
        }
    }

    /// A stanza of our own making counts and waits like any other.
    pub(super) fn deliver_own(&mut self, now: Instant, bytes: Bytes) {
        if let Ok(element) = Element::parse(bytes, &self.attached_header) {
            self.deliver_for(now, element, None, Cause::Reply);
        }
    }

    /// Writes what has not been written to the current attachment.
    pub(super) fn write_waiting(&mut self, now: Instant) {
        if !self.is_written_to() {
            return;
        }
        self.release();
        let count = self.count_of(now);
        while self.may_write_next(now)
            && let Some(item) = self.queue.write_next()
        {
            let bytes = for_client(item, self.bound.jid.domain(), &self.attached_header);
            if item.element.kind() == Kind::Presence {
                self.waiting_presence.written(&item.element);
            }
            self.outputs.push_back(to_client(bytes, item.cause));
            self.queue.note_written(count);
            if let Tracking::Sm(leg) | Tracking::Ping(leg, _) = &mut self.tracking {
                leg.on_sent();
            }
            self.unasked += 1;
            if self.unasked >= REPLAY_BURST {
                self.ask_client(now);
            }
        }
        self.ask_about_suspect(now);
    }

    /// Whether the client is there, and has heard that it is back.
    fn is_written_to(&self) -> bool {
        !self.is_dark() && !self.is_ending() && self.resuming.is_none()
    }

    // The spool

    /// When durable stanzas are to be handed to the spool that nobody else is certain to keep.
    pub(super) fn spool_due(&self) -> Option<Instant> {
        let oldest = self.queue.oldest_unspooled().filter(|_| self.spool.accepts())?;
        let spool_after = self.settings.stream_management.spool_after(oldest.ordinal.is_some());
        let wait = if self.is_dark() { Duration::ZERO } else { spool_after };
        let received = oldest.received.saturating_sub(oldest.ahead.milliseconds());
        let since_start = received.saturating_sub(self.epoch.unix_ms(self.epoch.now));
        Some(self.epoch.now + Duration::from_millis(since_start) + wait)
    }

    pub(super) fn spool_if_due(&mut self, now: Instant) {
        let first = self.queue.first_unsettled();
        let crowded = self.server.is_on() && self.server.unsettled(first) >= server::leg::UNACKED;
        if self.spool_due().is_some_and(|at| at <= now) || crowded {
            self.spool_all();
        }
    }

    /// Hands all durable stanzas that the spool does not have to it, unless it refuses them.
    pub(super) fn spool_all(&mut self) {
        if self.spool.accepts() {
            let items = self.queue.take_unspooled(usize::MAX);
            self.spool(items);
        }
    }

    pub(super) fn spool(&mut self, items: Vec<Queued>) {
        let Some(last) = items.last().map(|item| item.seq) else { return };
        if self.removed {
            // Nothing is kept of a removed account.
            return self.queue.committed(last);
        }
        let items = items.iter().map(|item| self.spooled_form(item)).collect();
        self.out(Output::Spool(items));
    }

    fn spooled_form(&self, Queued { element, seq, received, company, .. }: &Queued) -> Spooled {
        Spooled {
            seq: *seq,
            received: *received,
            shared: may_travel(element, *company),
            archived: self.is_archived(element),
            bytes: element.on_stream(&self.bare_header),
        }
    }

    /// Whether the own archive has it.
    pub(super) fn is_archived(&self, element: &Element) -> bool {
        is_archived(element, &self.account)
    }

    /// A message that is on disk need not be in memory while nobody can read it, unless a push may have to tell of it: that is
    /// always the newest of its conversation.
    fn rest(&mut self) {
        // With more registrations it may have to be judged anew for one of them.
        if !self.is_dark() || self.is_ending() || self.loading.is_some() || self.owned().count() != 1 {
            return;
        }
        let (pusher, account) = (&self.pusher, &self.account);
        self.queue.rest(self.server.acked(), &self.bare_header, |item| {
            pusher.is_followed(item.seq).then(|| is_archived(&item.element, account))
        });
    }

    pub(super) fn spooled(&mut self, now: Instant, seq: u64) {
        self.queue.committed(seq);
        self.spool_accepted();
        self.behind.committed(seq);
        // A server that dies forgets what it was not told of, or sends it a second time.
        self.settle_with_server(now, true);
        self.rest();
        if self.is_ending() {
            self.drive_end(now);
        }
    }

    /// Reads back what only the spool has, as far as there is room.
    pub(super) fn refill(&mut self, now: Instant) {
        if self.queue.promote() {
            self.write_waiting(now);
        }
        if self.loading.is_some() || self.resuming.is_some() {
            return;
        }
        if !self.load() && matches!(self.greeting, Greeting::Sending(_)) {
            self.greeted(now);
        }
    }

    /// Asks for what only the spool has and there is room for; whether there is any.
    pub(super) fn load(&mut self) -> bool {
        let may_load = self.loading.is_none() && self.read_again.is_none();
        let Some(load) = self.queue.wants_load().filter(|_| may_load) else { return false };
        self.loading = Some(Loading { spool: load.spool, committed: self.queue.last_committed() });
        self.out(Output::Load(load));
        true
    }

    /// None means that there is no more, of the own spool up to what was on disk when it was asked for.
    pub(super) fn loaded(&mut self, now: Instant, items: Vec<Spooled>) {
        let Some(Loading { spool, committed }) = self.loading.take() else { return };
        let replayed = self.queue.rests() || self.queue.has_gap();
        match spool {
            Some(spool) => self.loaded_earlier(now, spool, items),
            None => self.loaded_own(now, committed, items),
        }
        self.queue.loaded_some();
        self.beyond = self.beyond.take().filter(|_| self.queue.has_tail());
        self.write_waiting(now);
        let goes_on = self.queue.rests() || self.queue.has_gap();
        if replayed && !goes_on && self.is_written_to() {
            self.ask_client(now);
        }
        if matches!(self.greeting, Greeting::Sending(_)) {
            self.greeted(now);
        }
    }

    fn loaded_own(&mut self, now: Instant, committed: u64, items: Vec<Spooled>) {
        if items.is_empty() {
            self.queue.loaded_all(committed);
        }
        for item in items {
            let seq = item.seq;
            let item = match self.queue.read_back(item) {
                Ok(Some(item)) => item,
                Ok(None) => continue,
                Err(NoStanza) => {
                    self.event(Event::Unreadable);
                    self.out(Output::Unspool { spool: None, places: seq..=seq });
                    continue;
                }
            };
            // An adopted stanza joined another queue for its place in it; to this session it may say nothing.
            let adopted = self.queue.is_adopted(item.seq);
            let element = if adopted {
                self.wanted(now, &item).filter(|element| !self.has_had(element))
            } else {
                self.fresh(now, &item)
            };
            match element {
                Some(element) => self.queue.push_loaded(item.seq, element, item.received),
                None => {
                    self.queue.skip_loaded(item.seq);
                    self.out(Output::Unspool { spool: None, places: item.seq..=item.seq });
                }
            }
        }
    }

    /// Moves stanzas of other devices to this session's spool: they join behind what waits already.
    pub(super) fn adopt(&mut self, registered: bool) {
        // What came before has lower numbers, and the spool takes them in their order.
        self.spool_all();
        let places = self.queue.reserve();
        self.track_by_ping();
        self.out(Output::Adopt { registered, places });
    }
}

/// After so many stanzas of a replay the client is asked for an ack.
const REPLAY_BURST: usize = 100;

fn to_client(bytes: Bytes, cause: Cause) -> Output {
    match cause {
        Cause::Relayed => Output::ToClient(bytes),
        Cause::Reply => Output::ReplyToClient(bytes),
    }
}

/// A stanza as it is written on the stream that `header` opened; if it waited, with its delay, stamped by `domain`.
fn for_client(item: &Queued, domain: &str, header: &Arc<Header>) -> Bytes {
    let delayed = || {
        let stamp = SystemTime::UNIX_EPOCH + Duration::from_millis(item.received);
        let bytes = rewrite::delayed(&item.element, domain, stamp)?;
        Element::parse(bytes, item.element.header()).ok()
    };
    let delayed = if item.waited { delayed() } else { None };
    delayed.as_ref().unwrap_or(&item.element).on_stream(header)
}

/// XEP-0359: only the own bare JID says that the own archive has it.
pub(super) fn is_archived(element: &Element, account: &BareJid) -> bool {
    stanza_id(element, account).is_some()
}

/// The id that the own archive has given a stanza.
pub(super) fn own_stanza_id(element: &Element, account: &BareJid) -> Option<String> {
    stanza_id(element, account)?.attr("id").map(|id| id.into_owned())
}

fn stanza_id<'a>(element: &'a Element, account: &BareJid) -> Option<Node<'a>> {
    let by_own = |id: &Node<'_>| id.attr("by").is_some_and(|by| Jid::new(&by) == *account);
    let is_own = |child: &Node<'_>| child.is("stanza-id", ns::STANZA_ID) && by_own(child);
    if element.mentions(ns::STANZA_ID) { element.node().children().find(is_own) } else { None }
}
