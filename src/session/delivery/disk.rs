//! Stanzas go to the spool and come back, and what happens to them while the spool refuses them.

use std::time::{Duration, Instant};

use super::Delivery;
use crate::push::account::LoginId;
use crate::seq::{Seq, ServerSeq};
use crate::session::account::AccountView;
use crate::session::archive::{archive_copy, is_archived};
use crate::session::client::ClientStream;
use crate::session::contract::{Orphans, Output};
use crate::session::effects::Effects;
use crate::session::event::Event;
#[cfg(test)]
use crate::session::given_back::GivenBack;
use crate::session::kind::is_durable;
use crate::session::queue::{Inherited, NoStanza, Queued, Spooled, Unsaved};
use crate::session::refill::{Loading, ReadAgain};
use crate::session::server::{ServerStream, Settling, UNACKED};
use crate::session::shed::{ASK_AGAIN, Shed, Spool, TRIAL, returned};
use crate::session::travel::{marks, may_travel};
use crate::xml::{Element, Kind};

impl Delivery {
    // To disk

    /// When durable stanzas are to be handed to the spool that nobody else is certain to keep.
    pub(in crate::session) fn spool_due(&self, client: &ClientStream) -> Option<Instant> {
        let oldest = self.queue.oldest_unspooled().filter(|_| self.spool.accepts())?;
        let settings = &self.settings.stream_management;
        let wait = match oldest.server_seq {
            _ if client.is_dark() => Duration::ZERO,
            Some(_) => settings.spool_after_counted(),
            None => settings.spool_after_uncounted(),
        };
        let received = oldest.received.minus(oldest.ahead.duration());
        let start = self.identity.clock();
        Some(start.now + received.since(start.wall) + wait)
    }

    /// Hands stanzas to the spool if they have waited long enough, or the server keeps too many for us.
    pub(in crate::session) fn spool_if_due(
        &mut self,
        now: Instant,
        client: &ClientStream,
        server: &ServerStream,
        account: &AccountView,
        effects: &mut Effects,
    ) {
        let first = self.queue.first_unsettled();
        let crowded = server.counts() && server.unsettled(first) >= UNACKED;
        if self.spool_due(client).is_some_and(|at| at <= now) || crowded {
            self.spool_all(account, effects);
        }
    }

    /// Hands all durable stanzas that the spool does not have to it, unless it refuses them.
    pub(in crate::session) fn spool_all(&mut self, account: &AccountView, effects: &mut Effects) {
        if self.spool.accepts() {
            let items = self.queue.take_unspooled(usize::MAX);
            self.hand_over(&items, account, effects);
        }
    }

    /// The same, also for a spool that has refused: it is asked once more.
    pub(in crate::session) fn spool_at_last(&mut self, account: &AccountView, effects: &mut Effects) {
        self.spool = Spool::Accepts;
        self.spool_all(account, effects);
    }

    fn hand_over(&mut self, items: &[Queued], account: &AccountView, effects: &mut Effects) {
        let Some(last) = items.last().map(|item| item.seq) else { return };
        if account.is_removed() {
            // Nothing is kept of a removed account.
            return self.queue.on_committed(last);
        }
        effects.push(Output::Spool(items.iter().map(|item| self.spooled_form(item)).collect()));
    }

    fn spooled_form(&self, Queued { element, seq, received, company, .. }: &Queued) -> Spooled {
        Spooled {
            seq: *seq,
            received: *received,
            shared: may_travel(element, *company),
            archived: is_archived(element, self.identity.account()),
            bytes: element.on_stream(self.identity.bare_header()),
        }
    }

    /// Whether the spool takes what it is handed.
    pub(in crate::session) fn spool_accepts(&self) -> bool {
        self.spool.accepts()
    }

    /// What is neither the client's nor on disk while the spool refuses.
    pub(in crate::session) fn unsaved(&self) -> Unsaved {
        if self.spool.accepts() { Unsaved::default() } else { self.queue.unsaved() }
    }

    /// What was handed to the spool up to this number is on disk.
    pub(in crate::session) fn on_spooled(&mut self, seq: Seq, account: &AccountView, effects: &mut Effects) {
        self.queue.on_committed(seq);
        self.on_spool_accepts(account, effects);
        self.replies.on_spooled(seq);
    }

    fn on_spool_accepts(&mut self, account: &AccountView, effects: &mut Effects) {
        if !self.spool.accepts() {
            self.spool = Spool::Accepts;
            effects.event(Event::SpoolAccepts);
            self.spool_all(account, effects);
        }
    }

    /// Nothing of what the spool was handed is on disk. Returns whether adopted stanzas were among it.
    pub(in crate::session) fn on_spool_refused(&mut self, now: Instant, effects: &mut Effects) -> bool {
        let adopted = self.queue.on_refused();
        if self.spool.accepts() {
            effects.event(Event::SpoolRefuses);
        }
        self.spool = Spool::Refuses(now + ASK_AGAIN);
        adopted
    }

    /// Asks a spool that has refused again.
    fn ask_spool_again(&mut self, now: Instant, account: &AccountView, effects: &mut Effects) {
        if self.spool.deadline().is_none_or(|at| at > now) {
            return;
        }
        let items = self.queue.take_unspooled(TRIAL);
        if items.is_empty() {
            return self.on_spool_accepts(account, effects);
        }
        self.spool = Spool::Asked;
        self.hand_over(&items, account, effects);
    }

    /// Leaves messages to the spool alone while nobody can read them, if they are on disk and `may_spill`.
    pub(in crate::session) fn spill(&mut self, acked: ServerSeq, may_spill: impl Fn(Seq) -> bool) {
        if self.refill.is_loading() {
            return;
        }
        let (account, bare) = (self.identity.account(), self.identity.bare_header());
        self.queue.spill(acked, bare, |item| may_spill(item.seq).then(|| archive_copy(&item.element, account)));
    }

    // Back from disk

    /// Writes a batch to memory that joins from the spool's queue; whether there was any.
    pub(in crate::session) fn promote(&mut self) -> bool {
        self.queue.promote()
    }

    /// Whether stanzas were asked for that have not come.
    pub(in crate::session) fn is_loading(&self) -> bool {
        self.refill.is_loading()
    }

    /// Whether stanzas that memory does not have come before those that were not written.
    pub(in crate::session) fn is_replaying(&self) -> bool {
        self.queue.has_spilled() || self.queue.has_gap()
    }

    /// Asks for what only the spool has and there is room for; whether there is any.
    pub(in crate::session) fn load(&mut self, effects: &mut Effects) -> bool {
        let may_load = self.refill.may_load();
        let Some(load) = self.queue.due_load().filter(|_| may_load) else { return false };
        self.refill.begin(Loading { spool: load.spool, committed: self.queue.last_committed() });
        effects.push(Output::Load(load));
        true
    }

    /// Takes the stanzas that were asked for. None means that there is no more, of the own spool up to what was on disk when it
    /// was asked for.
    pub(in crate::session) fn on_loaded(
        &mut self,
        now: Instant,
        items: Vec<Spooled>,
        account: &AccountView,
        effects: &mut Effects,
    ) {
        let Some(Loading { spool, committed }) = self.refill.take() else { return };
        match spool {
            Some(spool) => self.on_inherited(now, spool, items, account, effects),
            None => self.on_own(now, committed, items, effects),
        }
        self.queue.loaded_some();
    }

    fn on_own(&mut self, now: Instant, committed: Seq, items: Vec<Spooled>, effects: &mut Effects) {
        if items.is_empty() {
            self.queue.loaded_all(committed);
        }
        for item in items {
            let seq = item.seq;
            let item = match self.queue.read_back(item) {
                Ok(Some(item)) => item,
                Ok(None) => continue,
                Err(NoStanza) => {
                    effects.event(Event::Unreadable);
                    effects.push(Output::Unspool { spool: None, places: seq..=seq });
                    continue;
                }
            };
            // An adopted stanza joined another queue for its place in it; to this session it may say nothing.
            let element = if self.queue.is_adopted(seq) {
                self.wanted(now, &item, effects).filter(|element| !self.has_had(element))
            } else {
                self.fresh(now, &item, effects)
            };
            match element {
                Some(element) => self.queue.push_loaded(seq, element, item.received),
                None => {
                    self.queue.skip_loaded(seq);
                    effects.push(Output::Unspool { spool: None, places: seq..=seq });
                }
            }
        }
    }

    /// Stanzas of an earlier session were read.
    fn on_inherited(
        &mut self,
        now: Instant,
        spool: LoginId,
        items: Vec<Spooled>,
        account: &AccountView,
        effects: &mut Effects,
    ) {
        if items.is_empty() {
            self.queue.read_all_of(spool);
        }
        for item in items {
            match self.wanted(now, &item, effects) {
                Some(element) => {
                    self.note_had(&element, account);
                    self.queue.push_inherited(spool, item.seq, element, item.received);
                }
                None => {
                    self.queue.skip_inherited(spool, item.seq);
                    effects.push(Output::Unspool { spool: Some(spool), places: item.seq..=item.seq });
                }
            }
        }
        self.queue.close_gap();
    }

    /// Whether the device got this message before, as a copy or carbon.
    fn has_had(&self, element: &Element) -> bool {
        self.memory.has_had(marks(element, self.own()))
    }

    /// A stanza of another session, if it is not too old, and concerns more than that session.
    fn wanted(&self, now: Instant, item: &Spooled, effects: &mut Effects) -> Option<Element> {
        let element = self.fresh(now, item, effects)?;
        (element.kind() != Kind::Iq && is_durable(&element)).then_some(element)
    }

    /// A stanza from the spool, if it is not too old. One that is no stanza is reported.
    fn fresh(&self, now: Instant, item: &Spooled, effects: &mut Effects) -> Option<Element> {
        let age = self.identity.calendar(now).since(item.received);
        let in_time = age <= self.settings.stream_management.orphan_ttl;
        match Element::parse(item.bytes.clone(), self.identity.bare_header()) {
            Ok(element) if in_time => Some(element),
            Ok(_) => {
                effects.event(Event::TooOld);
                None
            }
            Err(_) => {
                effects.event(Event::Unreadable);
                None
            }
        }
    }

    /// The disk cannot be read: what it has stays there, and is asked for again.
    pub(in crate::session) fn on_load_failed(&mut self, now: Instant) {
        self.refill.on_load_failed(now);
    }

    /// The same for the spools of earlier sessions.
    pub(in crate::session) fn on_take_over_failed(&mut self, now: Instant) {
        self.queue.on_not_taken_over();
        self.refill.on_take_over_failed(now);
    }

    /// Becomes the owner of what ended sessions of the device have spooled. It comes before what has not been written yet.
    pub(in crate::session) fn take_over(&mut self, effects: &mut Effects) {
        self.queue.open_gap();
        effects.push(Output::TakeOver);
    }

    /// The spools that belong to the session now.
    pub(in crate::session) fn on_took_over(&mut self, spools: &[Inherited]) {
        self.queue.on_taken_over(spools);
    }

    /// Moves stanzas of other devices to this session's spool: they join behind what waits already.
    pub(in crate::session) fn adopt(&mut self, orphans: Orphans, account: &AccountView, effects: &mut Effects) {
        // What came before has lower numbers, and the spool takes them in their order.
        self.spool_all(account, effects);
        let places = self.queue.reserve();
        effects.push(Output::Adopt { orphans, places });
    }

    // A spool that refuses

    /// Whether memory has as much as it may while the spool refuses: of what no disk has, or of what the server keeps for us.
    pub(in crate::session) fn is_over_bounds(&self, server: &ServerStream) -> bool {
        !self.spool.accepts() && (self.queue.has_too_much_unsaved() || self.owes(server, 0))
    }

    /// Whether the server keeps more for us than it may, and so many stanzas besides.
    fn owes(&self, server: &ServerStream, besides: u64) -> bool {
        server.counts() && server.unsettled(self.queue.find_unsettled()) >= UNACKED + besides
    }

    /// Gives up the oldest stanzas that no disk has, as many as are too many while nobody is there to read them.
    pub(in crate::session) fn keep_within_bounds(
        &mut self,
        now: Instant,
        server: &mut ServerStream,
        effects: &mut Effects,
    ) {
        if self.spool.accepts() {
            return;
        }
        while self.queue.has_too_much_unsaved() || self.owes(server, 1) {
            let Some(item) = self.queue.take_oldest_unsaved() else { break };
            self.shed(now, &item, Some(server), effects);
        }
        let unsettled = self.queue.first_unsettled();
        server.settle(now, Settling::AtOnce, unsettled, effects);
    }

    /// Gives up all that no disk has. Stanzas are returned to their senders if `server` can still be told.
    pub(in crate::session) fn shed_all(
        &mut self,
        now: Instant,
        mut server: Option<&mut ServerStream>,
        effects: &mut Effects,
    ) {
        while let Some(item) = self.queue.take_oldest_unsaved() {
            self.shed(now, &item, server.as_deref_mut(), effects);
        }
    }

    /// A stanza goes back to its sender if it may, and is not kept.
    fn shed(&mut self, now: Instant, item: &Queued, server: Option<&mut ServerStream>, effects: &mut Effects) {
        if item.is_spooled() {
            effects.push(Output::Unspool { spool: None, places: item.seq..=item.seq });
        }
        let error = returned(&item.element, self.identity.account(), item.company);
        match error.zip(server) {
            Some((error, server)) => {
                server.inject(now, error, effects);
                self.shed.returned = self.shed.returned.saturating_add(1);
            }
            None if item.element.kind() == Kind::Presence && !item.durable => {}
            None => self.shed.lost = self.shed.lost.saturating_add(1),
        }
    }

    /// Reports what was given up since the last report.
    pub(in crate::session) fn report_shed(&mut self, effects: &mut Effects) {
        if self.shed != Shed::default() {
            effects.event(Event::Shed(std::mem::take(&mut self.shed)));
        }
    }

    // Time

    /// Asks a spool again that has refused. Returns what is to be read again from a disk that could not be read.
    pub(in crate::session) fn on_timeout(
        &mut self,
        now: Instant,
        account: &AccountView,
        effects: &mut Effects,
    ) -> Option<ReadAgain> {
        self.ask_spool_again(now, account, effects);
        self.refill.on_timeout(now)
    }

    /// When stanzas are to go to the spool, or the disk is to be asked again.
    pub(in crate::session) fn deadline(&self, client: &ClientStream) -> Option<Instant> {
        [self.spool_due(client), self.spool.deadline(), self.refill.deadline()].into_iter().flatten().min()
    }

    #[cfg(test)]
    pub(in crate::session) fn given_back(&self) -> Option<&GivenBack> {
        self.given_back.as_deref()
    }

    #[cfg(test)]
    pub(in crate::session) fn unreported(&self) -> Shed {
        self.shed
    }
}
