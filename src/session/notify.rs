//! When a [`Session`] pushes for its device, and what becomes of a publish.

use std::time::Instant;

use super::answer::OpenPublish;
use super::queue::Queued;
use super::{Event, Outcome, Output, Session};
use crate::push::account::{Account, Change};
use crate::push::classify::{self, Class, Context};
use crate::push::notification::{Publish, Summary};
use crate::push::registration::{Registration, Target};
use crate::xml::{Element, Node, ns};

impl Session {
    /// The registrations of this device.
    pub(super) fn owned(&self) -> impl Iterator<Item = &Registration> {
        self.owner.account.owned(self.owner.device)
    }

    pub(super) fn account_changed(&mut self, now: Instant, account: Option<Account>) {
        // Our own changes are ahead of what is answered before them.
        if let Some(account) = account.filter(|_| self.open_changes == 0) {
            self.owner.account = account;
        }
        self.track_by_ping();
        if let Some(since) = self.liveness.unreachable_since().filter(|_| self.is_dark()) {
            self.liveness.hold_until(since + self.hold());
        }
        self.push_for_waiting(now);
    }

    /// The device was in contact, which the store keeps for the choice of whom to forget first.
    pub(super) fn seen(&mut self, now: Instant) {
        if self.owned().next().is_some() {
            self.change(None, Change::Seen { device: self.owner.device, at: self.unix(now) });
        }
    }

    fn important(&self) -> impl DoubleEndedIterator<Item = &Queued> {
        let account = self.bound.jid.to_bare();
        self.queue.iter().filter(move |q| {
            let context = Context { account: &account, rooms: &self.rooms };
            classify::read(&q.element, context).class.is_important()
        })
    }

    /// A stanza came for a client that may not be there. `beyond`: memory does not have it.
    pub(super) fn consider_push(&mut self, now: Instant, element: &Element, seq: u64, beyond: bool) {
        let Some(since) = self.liveness.unreachable_since() else { return };
        let context = Context { account: &self.bound.jid.to_bare(), rooms: &self.rooms };
        match classify::read(element, context).class {
            Class::Call | Class::Message | Class::Invite | Class::Subscribe => {
                if beyond {
                    let count = self.beyond.as_ref().map_or(0, |(_, count)| *count);
                    self.beyond = Some((element.clone(), count + 1));
                }
                self.schedule.waiting(now, since, seq);
            }
            Class::CallEnd | Class::ReadSync => {}
            Class::Noise(noise) => self.event(Event::NotPushed(noise)),
        }
        self.push_due(now);
    }

    /// The client has become unreachable, or can be notified now: what waits already may be worth a push.
    pub(super) fn push_for_waiting(&mut self, now: Instant) {
        let Some(since) = self.liveness.unreachable_since() else { return };
        let newest = self.important().next_back().map(|q| q.seq);
        if let Some(newest) = newest {
            self.schedule.waiting(now, since, newest);
            self.push_due(now);
        }
    }

    pub(super) fn push_due(&mut self, now: Instant) {
        while let Some(target) = self.pending.take_late(now) {
            self.event(Event::PublishOutcome(target, Outcome::Unknown));
        }
        if self.owned().next().is_none() || self.schedule.due().is_none_or(|due| due > now) {
            return;
        }
        let Some(summary) = self.summary() else { return self.schedule.cancel() };
        self.schedule.fire(now, self.queue.last_seq());
        self.publish_all(&summary);
        if let Some(hold) = self.settings.push.hibernation_after_push.filter(|_| self.is_dark()) {
            // The seed's rule: a device that was notified has only so long to come back.
            self.liveness.hold_at_most(now + hold);
        }
    }

    /// What is to be said about what waits; `None` if nothing important does.
    fn summary(&self) -> Option<Summary> {
        let waiting = self.important().count();
        let newest = match &self.beyond {
            Some((element, _)) => element.clone(),
            None => self.important().next_back()?.element.clone(),
        };
        let count = waiting + self.beyond.as_ref().map_or(0, |(_, count)| *count);
        let context = Context { account: &self.bound.jid.to_bare(), rooms: &self.rooms };
        let reading = classify::read(&newest, context);
        Some(Summary::new(&self.settings.push, count, &reading.stanza))
    }

    /// Wakes the device, whether something important waits or not.
    pub(super) fn wake_push(&mut self, _now: Instant) {
        let summary = self.summary().unwrap_or_else(|| Summary::wake(&self.settings.push, false));
        self.publish_all(&summary);
    }

    fn publish_all(&mut self, summary: &Summary) {
        let publishes: Vec<_> = self.owned().map(|r| Publish::new(r, summary.clone())).collect();
        for publish in publishes {
            self.out(Output::Publish(publish));
        }
    }

    /// The `session` transport: the user's own stream; the server stamps the full JID.
    pub(super) fn publish_here(&mut self, now: Instant, publish: &Publish) {
        let id = self.pending.id((self.dice)());
        let iq = publish.iq(&id, None);
        let deadline = Some(now + self.settings.push.publish_timeout);
        self.pending.publish(OpenPublish { id, target: publish.target.clone(), deadline });
        self.inject(now, iq);
        self.event(Event::Published(publish.target.clone()));
    }

    pub(super) fn publish_answered(&mut self, open: OpenPublish, answer: &Node<'_>) {
        let outcome = outcome(answer);
        let target = open.target;
        match &outcome {
            Outcome::Accepted if self.errors_of(&target) > 0 => {
                self.change_at_once(Change::Succeeded { target: target.clone() });
            }
            Outcome::Refused(_) => {
                let max_errors = self.settings.push.max_errors;
                self.change_at_once(Change::Failed { target: target.clone(), max_errors });
            }
            Outcome::Accepted | Outcome::Wait(_) | Outcome::Unknown => {}
        }
        self.event(Event::PublishOutcome(target, outcome));
    }

    /// The next push is decided by it, whether it is on disk by then or not.
    fn change_at_once(&mut self, change: Change) {
        self.owner.account.apply(change.clone());
        self.change(None, change);
    }

    fn errors_of(&self, target: &Target) -> u32 {
        self.owner.account.registrations.iter().find(|r| r.target == *target).map_or(0, |r| r.errors)
    }
}

/// What the answer of a push service means.
fn outcome(answer: &Node<'_>) -> Outcome {
    if answer.attr("type").as_deref() == Some("result") {
        return Outcome::Accepted;
    }
    let error = answer.child("error", ns::CLIENT);
    let condition = error.and_then(|e| e.children().find(|c| c.ns() == ns::STANZA_ERRORS));
    let condition = condition.map_or("undefined-condition", |c| c.name()).to_owned();
    match error.and_then(|e| e.attr("type")).as_deref() {
        Some("wait") => Outcome::Wait(condition),
        _ => Outcome::Refused(condition),
    }
}
