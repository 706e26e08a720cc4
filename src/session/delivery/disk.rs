//! The part of a [`Delivery`] that moves stanzas to the spool and back, and handles a spool that refuses them.

use std::time::Duration;

use super::Delivery;
use crate::clock::Instant;
use crate::push::account::LoginId;
use crate::seq::{Seq, ServerSeq};
use crate::session::account::AccountView;
use crate::session::archive::{archive_copy, is_archived};
use crate::session::client::ClientStream;
use crate::session::contract::{Orphans, Output};
use crate::session::effects::Effects;
use crate::session::event::Event;
#[cfg(any(test, fuzzing))]
use crate::session::given_back::GivenBack;
use crate::session::kind::is_durable;
use crate::session::queue::{Inherited, NoStanza, Queued, Spooled, Unsaved};
use crate::session::refill::{Loading, ReadAgain};
use crate::session::server::{ServerStream, Settling, UNACKED};
use crate::session::spool_refusal::{ASK_AGAIN, ShedCounts, Spool, TRIAL, returned};
use crate::session::travel::{marks, may_travel};
use crate::xml::{Element, Kind};

impl Delivery {
    // To disk

    /// The time at which durable stanzas are to be spooled, because no other party is certain to keep them.
    pub(in crate::session) fn spool_due(&self, client: &ClientStream) -> Option<Instant> {
        let oldest = self.queue.oldest_unspooled().filter(|_| self.spool.accepts())?;
        let wait = match oldest.server_seq {
            _ if client.is_dark() => Duration::ZERO,
            Some(_) => self.settings.stream_management.spool_after_counted(),
            None => self.settings.stream_management.spool_after_uncounted(),
        };
        let received = oldest.received.minus(oldest.ahead.duration());
        let start = self.identity.clock();
        Some(start.now + received.since(start.wall) + wait)
    }

    /// Spools stanzas if they have waited long enough, or if too many are unacknowledged on the server.
    pub(in crate::session) fn spool_if_due(
        &mut self,
        now: Instant,
        client: &ClientStream,
        server: &ServerStream,
        account: &AccountView,
        effects: &mut Effects,
    ) {
        let first = self.queue.first_unsettled();
        let too_many = server.counts() && server.unsettled(first) >= UNACKED;
        if self.spool_due(client).is_some_and(|at| at <= now) || too_many {
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

    /// The same as `spool_all`, but asks a spool that has refused once more.
    pub(in crate::session) fn spool_at_last(&mut self, account: &AccountView, effects: &mut Effects) {
        self.spool = Spool::Accepts;
        self.spool_all(account, effects);
    }

    fn hand_over(&mut self, items: &[Queued], account: &AccountView, effects: &mut Effects) {
        let Some(last) = items.last().map(|item| item.seq) else { return };
        if account.is_removed() {
            // The store keeps nothing of a removed account.
            return self.queue.on_committed(last);
        }
        effects.push(Output::Spool(items.iter().map(|item| self.spooled_form(item)).collect()));
    }

    fn spooled_form(&self, Queued { element, seq, received, online_clients, .. }: &Queued) -> Spooled {
        Spooled {
            seq: *seq,
            received: *received,
            shared: may_travel(element, *online_clients),
            archived: is_archived(element, self.identity.account()),
            bytes: element.on_stream(self.identity.bare_header()),
        }
    }

    /// Returns whether the spool accepts stanzas.
    pub(in crate::session) fn spool_accepts(&self) -> bool {
        self.spool.accepts()
    }

    /// The stanzas that neither the client nor the disk has while the spool refuses.
    pub(in crate::session) fn unsaved(&self) -> Unsaved {
        if self.spool.accepts() { Unsaved::default() } else { self.queue.unsaved() }
    }

    /// Notes that everything handed to the spool up to this number is on disk.
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

    /// Notes that none of the stanzas handed to the spool are on disk. Returns whether adopted stanzas were among them.
    pub(in crate::session) fn on_spool_refused(&mut self, now: Instant, effects: &mut Effects) -> bool {
        let adopted = self.queue.on_refused();
        if self.spool.accepts() {
            effects.event(Event::SpoolRefuses);
        }
        self.spool = Spool::Refuses(now + ASK_AGAIN);
        adopted
    }

    /// Offers stanzas again to a spool that has refused.
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

    /// Removes messages on disk for which `may_spill` returns `true` from memory, while no client can read them.
    pub(in crate::session) fn spill(&mut self, acked: ServerSeq, may_spill: impl Fn(Seq) -> bool) {
        if self.refill.is_loading() {
            return;
        }
        let (account, bare) = (self.identity.account(), self.identity.bare_header());
        self.queue.spill(acked, bare, |item| may_spill(item.seq).then(|| archive_copy(&item.element, account)));
    }

    // Back from disk

    /// Moves a batch that waits for the disk into memory; returns whether there was any.
    pub(in crate::session) fn promote(&mut self) -> bool {
        self.queue.promote()
    }

    /// Returns whether a read request is unanswered.
    pub(in crate::session) fn is_loading(&self) -> bool {
        self.refill.is_loading()
    }

    /// Returns whether stanzas that are not in memory come before those not written yet.
    pub(in crate::session) fn is_replaying(&self) -> bool {
        self.queue.has_spilled() || self.queue.has_gap()
    }

    /// Requests stanzas that only the spool has, if there is room; returns whether it did.
    pub(in crate::session) fn load(&mut self, effects: &mut Effects) -> bool {
        let may_load = self.refill.may_load();
        let Some(load) = may_load.then(|| self.queue.begin_load()).flatten() else { return false };
        self.refill.begin(Loading { spool: load.spool, committed: self.queue.last_committed() });
        effects.push(Output::Load(load));
        true
    }

    /// Takes the answer to a read request. An empty answer means that the spool has no more; for the own spool, no more of
    /// what was on disk at the time of the request.
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
        self.queue.end_load();
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
            // An adopted stanza was queued for another device. It may mean nothing to this session.
            let element = if self.queue.is_adopted(seq) {
                self.wanted(now, &item, effects).filter(|element| !self.has_received(element))
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

    /// Takes stanzas that were read from an earlier session's spool.
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
                    self.note_received(&element, account);
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

    /// Returns whether the device got this message before, as a copy or carbon.
    fn has_received(&self, element: &Element) -> bool {
        self.memory.has_received(marks(element, self.own()))
    }

    /// Parses a stanza of another session. `None` if it is too old, or concerns only that session.
    fn wanted(&self, now: Instant, item: &Spooled, effects: &mut Effects) -> Option<Element> {
        let element = self.fresh(now, item, effects)?;
        (element.kind() != Kind::Iq && is_durable(&element)).then_some(element)
    }

    /// Parses a stanza from the spool. `None` if it is too old, or not a stanza; both are reported.
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

    /// Schedules another attempt after the disk could not be read. The stanzas stay on disk.
    pub(in crate::session) fn on_load_failed(&mut self, now: Instant) {
        self.queue.end_load();
        self.refill.on_load_failed(now);
    }

    /// Schedules another attempt to take over the spools of earlier sessions.
    pub(in crate::session) fn on_take_over_failed(&mut self, now: Instant) {
        self.queue.on_not_taken_over();
        self.refill.on_take_over_failed(now);
    }

    /// Takes over the stanzas that ended sessions of the device have spooled. They come before those not written yet.
    pub(in crate::session) fn take_over(&mut self, effects: &mut Effects) {
        self.queue.open_gap();
        effects.push(Output::TakeOver);
    }

    /// Sets the spools that belong to the session now.
    pub(in crate::session) fn on_took_over(&mut self, spools: &[Inherited]) {
        self.queue.on_taken_over(spools);
    }

    /// Moves stanzas of other devices to this session's spool. They come after those that wait already.
    pub(in crate::session) fn adopt(&mut self, orphans: Orphans, account: &AccountView, effects: &mut Effects) {
        // Earlier stanzas have lower numbers, and the spool takes them in order.
        self.spool_all(account, effects);
        let places = self.queue.reserve();
        effects.push(Output::Adopt { orphans, places });
    }

    // A spool that refuses

    /// Returns whether memory is at its limit while the spool refuses: by unsaved stanzas, or by stanzas the server has to
    /// keep.
    pub(in crate::session) fn is_over_bounds(&self, server: &ServerStream) -> bool {
        !self.spool.accepts() && (self.queue.has_too_much_unsaved() || self.keeps_too_many(server, 0))
    }

    /// Returns whether the server keeps more stanzas for us than its limit plus `besides`.
    fn keeps_too_many(&self, server: &ServerStream, besides: u64) -> bool {
        server.counts() && server.unsettled(self.queue.find_unsettled()) >= UNACKED + besides
    }

    /// Sheds the oldest unsaved stanzas until memory is within its limits. Called while no client reads them.
    pub(in crate::session) fn keep_within_bounds(
        &mut self,
        now: Instant,
        server: &mut ServerStream,
        effects: &mut Effects,
    ) {
        if self.spool.accepts() {
            return;
        }
        while self.queue.has_too_much_unsaved() || self.keeps_too_many(server, 1) {
            let Some(item) = self.queue.take_oldest_unsaved() else { break };
            self.shed(now, &item, Some(server), effects);
        }
        let unsettled = self.queue.first_unsettled();
        server.settle(now, Settling::AtOnce, unsettled, effects);
    }

    /// Sheds all unsaved stanzas. They are returned to their senders if `server` is still connected.
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

    /// Drops a stanza, and returns it to its sender if that is allowed.
    fn shed(&mut self, now: Instant, item: &Queued, server: Option<&mut ServerStream>, effects: &mut Effects) {
        if item.is_spooled() {
            effects.push(Output::Unspool { spool: None, places: item.seq..=item.seq });
        }
        let error = returned(&item.element, self.identity.account(), item.online_clients);
        match error.zip(server) {
            Some((error, server)) => {
                server.inject(now, error, effects);
                self.shed.returned = self.shed.returned.saturating_add(1);
            }
            None if item.element.kind() == Kind::Presence && !item.durable => {}
            None => self.shed.lost = self.shed.lost.saturating_add(1),
        }
    }

    /// Reports the stanzas that were shed since the last report.
    pub(in crate::session) fn report_shed(&mut self, effects: &mut Effects) {
        if self.shed != ShedCounts::default() {
            effects.event(Event::Shed(std::mem::take(&mut self.shed)));
        }
    }

    // Time

    /// Offers stanzas again to a spool that has refused. Returns the failed disk reads that are to be repeated now.
    pub(in crate::session) fn on_timeout(
        &mut self,
        now: Instant,
        account: &AccountView,
        effects: &mut Effects,
    ) -> Option<ReadAgain> {
        self.ask_spool_again(now, account, effects);
        self.refill.on_timeout(now)
    }

    /// The time at which stanzas are to be spooled, or the disk is to be asked again.
    pub(in crate::session) fn deadline(&self, client: &ClientStream) -> Option<Instant> {
        [self.spool_due(client), self.spool.deadline(), self.refill.deadline()].into_iter().flatten().min()
    }

    #[cfg(any(test, fuzzing))]
    pub(in crate::session) fn given_back(&self) -> Option<&GivenBack> {
        self.given_back.as_deref()
    }

    #[cfg(any(test, fuzzing))]
    pub(in crate::session) fn unreported(&self) -> ShedCounts {
        self.shed
    }
}
