//! The answers of the store and of push services: the account, publishes, stanzas on disk.

use bytes::Bytes;

use super::DeviceSide;
use crate::clock::Instant;
use crate::push::account::{Account, Change};
use crate::push::fast::TokenChange;
use crate::push::outcome::Outcome;
use crate::seq::{Seq, ServerSeq};
use crate::session::account::{Reply, Update};
use crate::session::contract::{OtherSession, PublishResult};
use crate::session::effects::Effects;
use crate::session::event::{Event, Stored, Token};
use crate::session::notifier::{HoldEnd, Notifier, Situation};
use crate::session::queue::{Inherited, Spooled};
use crate::session::server::ServerStream;
use crate::session::spool_refusal::ASK_AGAIN;
use crate::xml::{Element, Node};

impl DeviceSide {
    // The account

    /// Takes an account that another session has changed.
    pub(in crate::session) fn on_account(
        &mut self,
        now: Instant,
        account: Box<Account>,
        server: &mut ServerStream,
        effects: &mut Effects,
    ) {
        let update = self.account.on_account(Some(account));
        self.follow_account(now, update, server, effects);
    }

    /// Takes the store's answer to a change. `None` means that the change failed.
    pub(in crate::session) fn on_changed(
        &mut self,
        now: Instant,
        account: Option<Box<Account>>,
        server: &mut ServerStream,
        effects: &mut Effects,
    ) {
        let update = self.account.on_changed(account);
        self.follow_account(now, update, server, effects);
    }

    fn follow_account(&mut self, now: Instant, update: Update, server: &mut ServerStream, effects: &mut Effects) {
        if update != Update::Ignored {
            self.notifier.on_account(&self.account);
        }
        if update == Update::OtherRegistrations {
            // Other registrations may have to be notified of waiting stanzas.
            self.ask_for_roster(now, server, effects);
            self.push_for_waiting(now, server, effects);
        }
        self.track_if_needed();
        self.client.hold_for(self.hold());
    }

    /// Forgets the account, because it was removed.
    pub(in crate::session) fn on_account_removed(&mut self) {
        self.account.on_removed();
        self.delivery.on_account_removed();
    }

    /// Removes the account from the store, because the server has removed it.
    pub(in crate::session) fn remove_account(&mut self, effects: &mut Effects) {
        self.on_account_removed();
        self.account.change(Change::Removed, effects);
    }

    /// Ends the tokens of all clients of the account (XEP-0484). Also where none is known: a login that has begun must not
    /// get one.
    pub(in crate::session) fn revoke_tokens(&mut self, effects: &mut Effects) {
        if !self.account.is_removed() {
            self.account.change(Change::Token(TokenChange::Revoked), effects);
        }
    }

    /// Takes the store's answer to a request of the client. Returns the reply.
    pub(in crate::session) fn on_stored(
        &mut self,
        token: Token,
        stored: Stored,
        effects: &mut Effects,
    ) -> Option<Bytes> {
        let Reply { reply, event, is_known_device } = self.account.on_stored(token, stored)?;
        if is_known_device {
            // Stanzas that wait for the device go to this session.
            self.on_inherit(effects);
        }
        if let Some(event) = event {
            effects.event(event);
        }
        Some(reply)
    }

    /// Notes the client's iq if it subscribes to a room.
    pub(in crate::session) fn on_subscription(&mut self, iq: &Node<'_>, effects: &mut Effects) {
        if self.account.on_subscription(iq, effects) {
            self.notifier.on_subscriptions(&self.account);
        }
    }

    /// Requests the roster from the server, once, if it is needed.
    pub(super) fn ask_for_roster(&mut self, now: Instant, server: &mut ServerStream, effects: &mut Effects) {
        if self.notifier.take_roster_request(&self.account) {
            server.ask_for_roster(now, effects);
        }
    }

    // Pushes

    pub(super) fn situation(&self) -> Situation<'_> {
        let unreachable_since = self.client.unreachable_since();
        Situation { account: &self.account, delivery: &self.delivery, unreachable_since }
    }

    /// Calls the notifier to decide about pushes.
    pub(super) fn notify(
        &mut self,
        effects: &mut Effects,
        decide: impl FnOnce(&mut Notifier, Situation<'_>, &mut Effects) -> HoldEnd,
    ) {
        let unreachable_since = self.client.unreachable_since();
        let situation = Situation { account: &self.account, delivery: &self.delivery, unreachable_since };
        if let Some(end) = decide(&mut self.notifier, situation, effects) {
            self.client.hold_at_most(end);
        }
    }

    /// Decides about pushes for waiting stanzas, because the client became unreachable, or can be notified now.
    pub(super) fn push_for_waiting(&mut self, now: Instant, server: &mut ServerStream, effects: &mut Effects) {
        server.give_up_late_publishes(now, effects);
        self.notify(effects, |notifier, situation, effects| notifier.push_for_waiting(now, situation, effects));
    }

    pub(super) fn push_due(&mut self, now: Instant, server: &mut ServerStream, effects: &mut Effects) {
        server.give_up_late_publishes(now, effects);
        self.notify(effects, |notifier, situation, effects| notifier.push_due(now, situation, effects));
    }

    /// Notes that another session of the device got its client, or lost it.
    pub(in crate::session) fn on_other_session(
        &mut self,
        now: Instant,
        other: OtherSession,
        server: &mut ServerStream,
        effects: &mut Effects,
    ) {
        if self.notifier.on_other_session(other) {
            self.push_due(now, server, effects);
        }
    }

    /// Takes the outcome of a publish of this device.
    pub(in crate::session) fn on_published(
        &mut self,
        now: Instant,
        result: PublishResult,
        server: &mut ServerStream,
        effects: &mut Effects,
    ) {
        let PublishResult { id, target, outcome } = result;
        self.notifier.on_published(now, &target, &outcome);
        let (at, account) = (self.identity.calendar(now).to_secs(), self.account.record());
        // A change that the account contains already need not be written again.
        let known = match &outcome {
            Outcome::Accepted => account.knows_success(&target, at),
            Outcome::Wait(_) | Outcome::NotSent => account.knows_undelivered(&target),
            Outcome::Refused(_) | Outcome::Unknown => false,
        };
        if let Some(change) = outcome.change(&target, self.settings.push.max_errors, at).filter(|_| !known) {
            self.change_at_once(now, change, server, effects);
        }
        effects.event(Event::PublishOutcome(id, target, outcome));
    }

    /// Applies a change to the account before it is on disk, because it decides about the next push.
    fn change_at_once(&mut self, now: Instant, change: Change, server: &mut ServerStream, effects: &mut Effects) {
        let before = self.account.owned().count();
        self.account.change_at_once(change, effects);
        if self.account.owned().count() != before {
            self.push_for_waiting(now, server, effects);
        }
    }

    /// Takes a message by which a push service revokes a registration.
    pub(super) fn take_revocation(
        &mut self,
        now: Instant,
        message: &Element,
        server: &mut ServerStream,
        effects: &mut Effects,
    ) {
        if let Some(target) = self.account.revoked_by(message) {
            let change = Change::Disable { service: target.service.clone(), node: target.node.clone() };
            self.change_at_once(now, change, server, effects);
            effects.event(Event::PushRevoked(target));
        }
    }

    // To disk and back

    /// Spools stanzas that have waited long enough.
    pub(in crate::session) fn spool_if_due(&mut self, now: Instant, server: &ServerStream, effects: &mut Effects) {
        self.delivery.spool_if_due(now, &self.client, server, &self.account, effects);
    }

    /// Spools all stanzas that must not be lost.
    pub(in crate::session) fn spool_all(&mut self, effects: &mut Effects) {
        self.delivery.spool_all(&self.account, effects);
    }

    /// Spools them even if the spool has refused before, and reports the stanzas that were shed. Called at the end of the
    /// session.
    pub(in crate::session) fn spool_at_last(&mut self, effects: &mut Effects) {
        self.delivery.spool_at_last(&self.account, effects);
        self.delivery.report_shed(effects);
    }

    /// Keeps the stanzas that were not acknowledged to the server, because its connection broke and the server may be gone.
    pub(in crate::session) fn keep_what_may_come_again(
        &mut self,
        now: Instant,
        acked: ServerSeq,
        effects: &mut Effects,
    ) {
        self.delivery.keep_what_may_come_again(now, acked, &self.account, effects);
    }

    /// Notes that the stanzas handed to the spool are on disk.
    pub(in crate::session) fn on_spooled(&mut self, up_to: Seq, effects: &mut Effects) {
        self.delivery.on_spooled(up_to, &self.account, effects);
    }

    /// Removes messages on disk from memory while no client reads them. A device with several registrations is excluded: a
    /// message may have to be judged again for one of them.
    pub(in crate::session) fn spill(&mut self, acked: ServerSeq) {
        if self.client.is_held() && self.account.owned().count() == 1 {
            let notifier = &self.notifier;
            self.delivery.spill(acked, |seq| notifier.is_followed(seq));
        }
    }

    /// Notes that the spool refused the stanzas.
    pub(in crate::session) fn on_spool_refused(
        &mut self,
        now: Instant,
        server: &mut ServerStream,
        effects: &mut Effects,
    ) {
        if self.delivery.on_spool_refused(now, effects) {
            self.orphans.begin_again(now + ASK_AGAIN);
        }
        self.keep_within_bounds(now, server, effects);
    }

    /// Writes stanzas that the guard has released, and reads back stanzas from the spool if there is room.
    pub(in crate::session) fn write_more(&mut self, now: Instant, server: &mut ServerStream, effects: &mut Effects) {
        self.delivery.write_released(now, &mut self.client, &self.account, effects);
        self.refill(now, server, effects);
    }

    fn refill(&mut self, now: Instant, server: &mut ServerStream, effects: &mut Effects) {
        if self.delivery.promote() {
            self.write_waiting(now, effects);
        }
        if self.delivery.is_loading() || self.client.is_resuming() {
            return;
        }
        if !self.delivery.load(effects) {
            self.release_presence(now, server, effects);
        }
    }

    pub(super) fn refill_if_there(&mut self, now: Instant, server: &mut ServerStream, effects: &mut Effects) {
        if self.client.is_open() {
            self.refill(now, server, effects);
        }
    }

    /// Takes the stanzas that were read.
    pub(in crate::session) fn on_loaded(
        &mut self,
        now: Instant,
        items: Vec<Spooled>,
        server: &mut ServerStream,
        effects: &mut Effects,
    ) {
        if !self.delivery.is_loading() {
            return;
        }
        let replayed = self.delivery.is_replaying();
        self.delivery.on_loaded(now, items, &self.account, effects);
        self.notifier.forget_read_back(&self.delivery);
        self.write_waiting(now, effects);
        if replayed && !self.delivery.is_replaying() && self.client.is_written_to() {
            self.client.ask(now, effects);
        }
        self.release_presence(now, server, effects);
    }

    /// Forwards the waiting presence, once nothing more of the backlog can be written before it.
    fn release_presence(&mut self, now: Instant, server: &mut ServerStream, effects: &mut Effects) {
        if !self.backlog.is_sending() || self.delivery.is_loading() || self.backlog.awaits_older() {
            return;
        }
        let queue = self.delivery.queue();
        if queue.awaits_spools() || queue.has_tail() && !queue.is_full() {
            return;
        }
        if let Some(presence) = self.backlog.on_written() {
            self.forward(now, presence, server, effects);
        }
    }

    // Earlier and older sessions

    /// Takes over the stanzas that ended sessions of the device have spooled.
    pub(in crate::session) fn take_over(&mut self, effects: &mut Effects) {
        self.delivery.take_over(effects);
        self.track_if_needed();
    }

    /// The same as `take_over`, unless older sessions of the device have not ended or answered.
    pub(super) fn take_over_if_settled(&mut self, effects: &mut Effects) {
        if !self.backlog.awaits_older() {
            self.take_over(effects);
        }
    }

    /// Sets the spools that belong to the session now.
    pub(in crate::session) fn on_took_over(
        &mut self,
        now: Instant,
        spools: &[Inherited],
        server: &mut ServerStream,
        effects: &mut Effects,
    ) {
        self.delivery.on_took_over(spools);
        self.refill_if_there(now, server, effects);
        self.write_waiting(now, effects);
    }

    /// Notes that the older sessions have ended, or stay. Their stanzas can be taken over.
    pub(in crate::session) fn on_older_settled(
        &mut self,
        now: Instant,
        server: &mut ServerStream,
        effects: &mut Effects,
    ) {
        if !self.backlog.on_older_settled() {
            return;
        }
        if self.backlog.is_asked_for() {
            self.take_over(effects);
        }
        self.refill_if_there(now, server, effects);
    }

    /// Takes over the stanzas of a session of the device that has ended.
    pub(in crate::session) fn on_inherit(&mut self, effects: &mut Effects) {
        if self.backlog.on_inherit() {
            self.take_over_if_settled(effects);
        }
    }
}
