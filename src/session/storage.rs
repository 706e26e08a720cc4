//! What a [`Session`] hears from the store, and what follows for its device.

use std::sync::Arc;
use std::time::Instant;

use super::Session;
use super::account::{Reply, Update};
use super::contract::PublishResult;
use super::effects::Effects;
use super::event::{Event, Stored, Token};
use super::notifier::{HoldEnd, Notifier, Situation};
use super::queue::{Inherited, Spooled};
use super::settings::Settings;
use super::shed::ASK_AGAIN;
use crate::push::account::{Account, Change};
use crate::push::outcome::Outcome;
use crate::xml::Element;

impl Session {
    /// Follows another configuration from now on. What is under way keeps its time: a wait that has begun, a hold that was granted.
    pub(super) fn on_settings(&mut self, settings: Arc<Settings>) {
        self.client.on_settings(&settings);
        self.delivery.on_settings(Arc::clone(&settings));
        self.notifier.on_settings(Arc::clone(&settings));
        self.settings = settings;
    }

    // The account

    /// Another session has changed the account.
    pub(super) fn on_account(&mut self, now: Instant, account: Box<Account>) {
        let update = self.account.on_account(Some(account));
        self.follow_account(now, update);
    }

    /// The store has answered a change; `None`: it failed.
    pub(super) fn on_changed(&mut self, now: Instant, account: Option<Box<Account>>) {
        let update = self.account.on_changed(account);
        self.follow_account(now, update);
        self.leave_if_due(now);
    }

    fn follow_account(&mut self, now: Instant, update: Update) {
        if update != Update::Ignored {
            self.notifier.on_account(&self.account);
        }
        if update == Update::OtherRegistrations {
            // Other registrations may be told of what waits.
            self.ask_for_roster(now);
            self.push_for_waiting(now);
        }
        self.track_if_needed();
        self.client.hold_for(self.hold());
    }

    /// The account was removed: nothing of it is kept.
    pub(super) fn on_account_removed(&mut self) {
        self.account.on_removed();
        self.delivery.on_account_removed();
    }

    /// The store has answered a request of the client.
    pub(super) fn on_stored(&mut self, now: Instant, token: Token, stored: Stored) {
        let Some(Reply { reply, event, is_known_device }) = self.account.on_stored(token, stored) else { return };
        if is_known_device {
            // What waits for the device goes to this session.
            self.on_inherit();
        }
        if let Some(event) = event {
            self.effects.event(event);
        }
        self.deliver_own(now, reply);
        self.leave_if_due(now);
    }

    /// A client with a registration that knows no stream management is asked by ping what it has read.
    pub(super) fn track_if_needed(&mut self) {
        let has_backlog = self.delivery.queue().has_tail() || self.backlog.holds_presence();
        if has_backlog || self.account.has_registration() {
            self.client.track_by_ping();
        }
    }

    /// Asks the server for the roster, once, if it matters.
    pub(super) fn ask_for_roster(&mut self, now: Instant) {
        if self.notifier.take_roster_request(&self.account) {
            self.server.ask_for_roster(now, &mut self.effects);
        }
    }

    // Pushes

    pub(super) fn situation(&self) -> Situation<'_> {
        let unreachable_since = self.client.unreachable_since();
        Situation { account: &self.account, delivery: &self.delivery, unreachable_since }
    }

    /// Lets the notifier decide about pushes.
    pub(super) fn notify(&mut self, decide: impl FnOnce(&mut Notifier, Situation<'_>, &mut Effects) -> HoldEnd) {
        let unreachable_since = self.client.unreachable_since();
        let situation = Situation { account: &self.account, delivery: &self.delivery, unreachable_since };
        if let Some(end) = decide(&mut self.notifier, situation, &mut self.effects) {
            self.client.hold_at_most(end);
        }
    }

    /// The client has become unreachable, or can be notified now: what waits already may be worth a push.
    pub(super) fn push_for_waiting(&mut self, now: Instant) {
        self.give_up_late_publishes(now);
        self.notify(|notifier, situation, effects| notifier.push_for_waiting(now, situation, effects));
    }

    pub(super) fn push_due(&mut self, now: Instant) {
        self.give_up_late_publishes(now);
        self.notify(|notifier, situation, effects| notifier.push_due(now, situation, effects));
    }

    /// What became of a publish of this device.
    pub(super) fn on_published(&mut self, now: Instant, published: PublishResult) {
        let PublishResult { target, outcome } = published;
        self.notifier.on_published(now, &target, &outcome);
        let (at, account) = (self.identity.unix(now), self.account.record());
        // What the account says already need not be written again.
        let known = match &outcome {
            Outcome::Accepted => account.knows_success(&target, at),
            Outcome::Wait(_) | Outcome::NotSent => account.knows_undelivered(&target),
            Outcome::Refused(_) | Outcome::Unknown => false,
        };
        if let Some(change) = outcome.change(&target, self.settings.push.max_errors, at).filter(|_| !known) {
            self.change_at_once(now, change);
        }
        self.effects.event(Event::PublishOutcome(target, outcome));
    }

    /// The next push is decided by it, whether it is on disk by then or not.
    fn change_at_once(&mut self, now: Instant, change: Change) {
        let before = self.account.owned().count();
        self.account.change_at_once(change, &mut self.effects);
        if self.account.owned().count() != before {
            self.push_for_waiting(now);
        }
    }

    /// A push service may take a registration back.
    pub(super) fn take_revocation(&mut self, now: Instant, message: &Element) {
        if let Some(target) = self.account.revoked_by(message) {
            self.change_at_once(now, Change::Disable { service: target.service.clone(), node: target.node.clone() });
            self.effects.event(Event::PushRevoked(target));
        }
    }

    // The spool

    pub(super) fn on_spooled(&mut self, now: Instant, up_to: u64) {
        self.delivery.on_spooled(up_to, &self.account, &mut self.effects);
        // A server that dies forgets what it was not told of, or sends it a second time.
        self.settle(now);
        let is_ending = self.lifecycle.is_ending();
        // With more registrations a stanza may have to be judged again for one of them.
        if self.client.is_dark() && !is_ending && self.account.owned().count() == 1 {
            let (acked, notifier) = (self.server.acked(), &self.notifier);
            self.delivery.spill(acked, |seq| notifier.is_followed(seq));
        }
        if is_ending {
            self.drive_end(now);
        }
    }

    pub(super) fn on_spool_refused(&mut self, now: Instant) {
        if self.delivery.on_spool_refused(now, &mut self.effects) {
            self.orphans.begin_again(now + ASK_AGAIN);
        }
        if self.lifecycle.is_ending() {
            return self.drive_end(now);
        }
        self.keep_within_bounds(now);
    }

    /// Gives up stanzas beyond the bounds of a spool that refuses, while nobody is there to read them.
    pub(super) fn keep_within_bounds(&mut self, now: Instant) {
        if self.client.is_dark() && !self.lifecycle.is_ending() {
            self.delivery.keep_within_bounds(now, &mut self.server, &mut self.effects);
        }
    }

    /// Acknowledges to the server all that may be.
    pub(super) fn settle(&mut self, now: Instant) {
        if !self.gives_back() {
            let unsettled = self.delivery.first_unsettled();
            self.server.settle(now, unsettled, &mut self.effects);
        }
    }

    // Stanzas come back from disk

    /// Reads back what only the spool has, as far as there is room.
    pub(super) fn refill(&mut self, now: Instant) {
        if self.delivery.promote() {
            self.write_waiting(now);
        }
        if self.delivery.is_loading() || self.client.is_resuming() {
            return;
        }
        if !self.delivery.load(&mut self.effects) {
            self.release_presence(now);
        }
    }

    pub(super) fn refill_if_there(&mut self, now: Instant) {
        if self.client.is_open() {
            self.refill(now);
        }
    }

    pub(super) fn on_loaded(&mut self, now: Instant, items: Vec<Spooled>) {
        if !self.delivery.is_loading() {
            return;
        }
        let replayed = self.delivery.is_replaying();
        self.delivery.on_loaded(now, items, &self.account, &mut self.effects);
        self.notifier.forget_read_back(&self.delivery);
        self.write_waiting(now);
        if replayed && !self.delivery.is_replaying() && self.client.is_written_to() {
            self.client.ask(now, &mut self.effects);
        }
        self.release_presence(now);
    }

    /// The presence that waited goes on its way, once no more of the backlog can be written before it.
    fn release_presence(&mut self, now: Instant) {
        if !self.backlog.is_sending() || self.delivery.is_loading() || self.backlog.awaits_older() {
            return;
        }
        let queue = self.delivery.queue();
        if queue.awaits_spools() || queue.has_tail() && !queue.is_full() {
            return;
        }
        if let Some(presence) = self.backlog.on_written() {
            self.forward_stanza(now, presence);
        }
    }

    // Earlier and older sessions

    /// Becomes the owner of what ended sessions of the device have spooled.
    pub(super) fn take_over(&mut self) {
        self.delivery.take_over(&mut self.effects);
        self.track_if_needed();
    }

    /// The same, unless older sessions of the device have not ended or answered.
    pub(super) fn take_over_if_settled(&mut self) {
        if !self.backlog.awaits_older() {
            self.take_over();
        }
    }

    /// The spools that belong to the session now.
    pub(super) fn on_took_over(&mut self, now: Instant, spools: &[Inherited]) {
        self.delivery.on_took_over(spools);
        self.refill_if_there(now);
        self.write_waiting(now);
    }

    /// The older sessions have ended, or stay: what they left can be taken over.
    pub(super) fn on_older_settled(&mut self, now: Instant) {
        if !self.backlog.on_older_settled() {
            return;
        }
        if self.backlog.is_asked_for() {
            self.take_over();
        }
        self.refill_if_there(now);
    }

    /// A session of the device has ended and left stanzas.
    pub(super) fn on_inherit(&mut self) {
        if self.backlog.on_inherit() {
            self.take_over_if_settled();
        }
    }

    /// What no other device will fetch comes to this one, a while after its first presence.
    pub(super) fn await_orphans(&mut self, now: Instant) {
        if self.account.has_other_devices() {
            self.orphans.begin(now + self.settings.stream_management.orphan_grace);
        }
    }
}
