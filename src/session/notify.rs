//! When a [`Session`] pushes for its device, and what becomes of a publish.

use std::time::{Duration, Instant};

use super::answer::OpenPublish;
use super::queue::Queued;
use super::{Event, Output, Session};
use crate::push::absent::Notice;
use crate::push::account::{Account, Change};
use crate::push::affiliation::Affiliation;
use crate::push::classify::{self, Class, Classified as Reading, Context};
use crate::push::filter::{self, Blocked};
use crate::push::mucsub::Subscription;
use crate::push::notification::{Detail, Publish, Summary};
use crate::push::outcome::Outcome;
use crate::push::pusher::{Arrival, Push, Recipients, Verdict};
use crate::push::registration::{Extensions, Registration, Target};
use crate::push::waiting::{Audience, Facts};
use crate::xml::{Element, Node, ns};

/// How long a live client may leave a call unacknowledged before it is pushed.
const CALL_PATIENCE: Duration = Duration::from_secs(5);

/// Changes that the store has not answered, beyond which subscriptions to rooms are not noted.
const OPEN_CHANGES: u32 = 32;

impl Session {
    /// The registrations of this device.
    pub(super) fn owned(&self) -> impl Iterator<Item = &Registration> {
        self.owner.account.owned(self.owner.device)
    }

    /// Whether anything is to be notified to this device.
    pub(super) fn has_registration(&self) -> bool {
        self.owned().next().is_some()
    }

    /// `None`: a change was not stored.
    pub(super) fn account_changed(&mut self, now: Instant, account: Option<Box<Account>>) {
        if account.is_none() {
            self.owner.account.doubt_publishes();
        }
        let newest = [self.account_news.take(), account].into_iter().flatten().max_by_key(|account| account.revision);
        // Our own changes are ahead of what is answered before them.
        if self.open_changes > 0 {
            self.account_news = newest;
        } else if let Some(account) = newest.filter(|account| account.revision >= self.owner.account.revision) {
            let others = !account.owned(self.owner.device).map(wishes).eq(self.owned().map(wishes));
            self.owner.account = *account;
            self.rooms.subscribed(&self.owner.account.subscriptions);
            self.elsewhere = self.owner.account.absent(self.owner.device).next().is_some();
            if others {
                // Other registrations may be told of what waits.
                self.ask_for_roster(now);
                self.push_for_waiting(now);
            }
        }
        self.track_by_ping();
        if let Some(since) = self.liveness.unreachable_since().filter(|_| self.is_dark()) {
            self.liveness.hold_until(since + self.hold());
        }
    }

    /// The device was in contact, which the store keeps for the choice of whom to forget first.
    pub(super) fn seen(&mut self, now: Instant) {
        if self.has_registration() {
            self.change(None, Change::Seen { device: self.owner.device, at: self.epoch.unix(now) });
        }
    }

    // What a stanza means for the device

    /// What a stanza means to the person behind the account.
    pub(super) fn read<'a>(&self, element: &'a Element) -> Reading<'a> {
        classify::read(element, Context { account: &self.account, rooms: &self.rooms })
    }

    /// Whether a stanza may have to be pushed for.
    pub(super) fn may_push(&self, element: &Element) -> bool {
        let unreachable = self.liveness.unreachable_since().is_some() && self.has_registration();
        (unreachable || self.elsewhere || self.may_ring(element)) && !self.is_set_aside(element)
    }

    /// A stanza came. `beyond`: memory does not have it.
    pub(super) fn consider_push(&mut self, now: Instant, element: &Element, seq: u64, beyond: bool) {
        if !self.may_push(element) {
            return;
        }
        let unreachable = self.liveness.unreachable_since().filter(|_| self.has_registration());
        let reading = self.read(element);
        let facts = Facts::of(&reading, self.settings.seed);
        if self.elsewhere {
            self.tell_elsewhere(&reading, facts);
        }
        match unreachable {
            Some(since) => {
                let arrival = Arrival { since, age: Duration::ZERO, seq, facts, audience: self.audience(&reading) };
                if beyond && reading.class.is_important() && arrival.audience.is_ok() {
                    self.beyond = Some(Box::new((seq, element.compact())));
                }
                self.judge(now, arrival, &reading);
                self.push_all_due(now, Some((seq, &reading)));
            }
            None if reading.class == Class::Call => self.ring_live(now, seq, &reading, facts),
            None => self.end_call(&reading, facts),
        }
    }

    /// Whether a stanza may be about a call, for a device that is there and has a registration.
    fn may_ring(&self, element: &Element) -> bool {
        // What the namespaces of Jingle and of XEP-0353 begin with.
        const CALLS: [&str; 2] = ["urn:xmpp:jingle", ns::CALL_INVITES];
        self.has_registration() && CALLS.iter().any(|ns| element.mentions(ns))
    }

    /// The client has become unreachable, or can be notified now: what waits already may be worth a push.
    pub(super) fn push_for_waiting(&mut self, now: Instant) {
        let Some(since) = self.liveness.unreachable_since().filter(|_| self.has_registration()) else { return };
        self.pusher.recount(|seq| self.queue.is_on_disk_only(seq));
        let waiting = self.queue.iter().filter(|item| !self.has_set_aside(item)).chain(self.released());
        let waiting: Vec<Queued> = waiting.cloned().collect();
        for Queued { element, seq, received, .. } in waiting {
            let reading = self.read(&element);
            let age = Duration::from_millis(self.epoch.unix_ms(now).saturating_sub(received));
            let facts = Facts::of(&reading, self.settings.seed);
            self.judge(now, Arrival { since, age, seq, facts, audience: self.audience(&reading) }, &reading);
        }
        self.push_due(now);
    }

    fn judge(&mut self, now: Instant, arrival: Arrival, reading: &Reading<'_>) {
        let Arrival { seq, facts, .. } = arrival;
        let verdict = self.pusher.arrived(now, arrival);
        self.end_call(reading, facts);
        // What is looked at anew was reported before.
        if seq > self.judged {
            self.judged = seq;
            self.event(Event::Judged(verdict));
        }
    }

    /// Which of the device's registrations may be told of a stanza.
    fn audience(&self, reading: &Reading<'_>) -> Result<Audience, Blocked> {
        let mut audience = Audience::NOBODY;
        let mut blocked = None;
        for (place, registration) in self.owned().enumerate() {
            match filter::verdict(reading, &registration.extensions, &self.roster, &self.rooms) {
                Ok(()) => audience = audience.with(place),
                Err(why) => blocked = Some(why),
            }
        }
        blocked.filter(|_| audience == Audience::NOBODY).map_or(Ok(audience), Err)
    }

    // Calls of a device that is there

    /// A call for a live client: it has five seconds to acknowledge it, unless it wants calls by push alone.
    fn ring_live(&mut self, now: Instant, seq: u64, reading: &Reading<'_>, facts: Facts) {
        let Ok(audience) = self.audience(reading) else { return };
        self.ringing.get_or_insert((seq, now + CALL_PATIENCE));
        let by_push = self.settings.push.jingle;
        let wanted = by_push && self.owned().enumerate().any(|(place, r)| r.extensions.jingle && audience.has(place));
        if wanted && self.pusher.rings(now, facts) {
            self.event(Event::Judged(Verdict::Ring));
            let summary = Summary::new(&self.settings.push, self.pusher.counts(0), Some(Detail::of(reading)));
            self.publish_where(&summary, |place, r| r.extensions.jingle && audience.has(place));
        }
    }

    /// A live client has left a call unacknowledged for too long.
    pub(super) fn call_overdue(&mut self, now: Instant) {
        if self.liveness.is_paused() {
            return;
        }
        let Some((seq, _)) = self.ringing.take_if(|(_, at)| *at <= now) else { return };
        let Some(Queued { element, .. }) = self.queue.find(seq).cloned() else { return };
        let reading = self.read(&element);
        let (facts, audience) = (Facts::of(&reading, self.settings.seed), self.audience(&reading));
        let arrival = Arrival { since: now, age: CALL_PATIENCE, seq, facts, audience };
        if self.liveness.unreachable_since().is_none() {
            self.judge(now, arrival, &reading);
            self.push_due(now);
        }
    }

    /// The client was not read for a while, so its acknowledgement of a call may have come.
    pub(super) fn ring_later(&mut self, now: Instant) {
        self.ringing = self.ringing.map(|(seq, at)| (seq, if at <= now { now + CALL_PATIENCE } else { at }));
    }

    /// Whoever was told by push that it rings, and takes calls by push alone, is told that it rings no more.
    fn end_call(&mut self, reading: &Reading<'_>, facts: Facts) {
        if reading.class != Class::CallEnd || !self.pusher.call_over(facts) {
            return;
        }
        self.ringing = None;
        let by_push = self.settings.push.jingle;
        let summary = Summary::new(&self.settings.push, self.pusher.counts(0), Some(Detail::of(reading)));
        self.publish_where(&summary, |_, r| by_push && r.extensions.jingle);
    }

    // Pushes

    pub(super) fn push_due(&mut self, now: Instant) {
        self.push_all_due(now, None);
    }

    /// `fresh`: a stanza that was just read, and its place.
    fn push_all_due(&mut self, now: Instant, fresh: Option<(u64, &Reading<'_>)>) {
        while let Some(number) = self.pending.take_late(now) {
            self.out(Output::Carried(number, Box::new(Outcome::Unknown)));
        }
        while self.has_registration()
            && !self.live_elsewhere
            && let Some(push) = self.pusher.next(now)
        {
            self.push(&push, fresh);
            let important = push != Push::Noise;
            if let Some(hold) = self.settings.hibernation.after_push.filter(|_| important && self.is_dark()) {
                // The seed's rule: a device that was notified has only so long to come back.
                self.liveness.hold_at_most(now + hold);
            }
        }
    }

    fn push(&mut self, push: &Push, fresh: Option<(u64, &Reading<'_>)>) {
        for place in 0..self.owned().count() {
            let newest = match push {
                Push::Call(seq) => self.pusher.may_tell(place, *seq).then_some(*seq),
                Push::News(_) => self.pusher.newest(place),
                Push::Noise => None,
            };
            if newest.is_none() && *push != Push::Noise {
                continue;
            }
            let detail = newest.and_then(|seq| self.detail(place, seq, fresh));
            let summary = Summary::new(&self.settings.push, self.pusher.counts(place), detail);
            self.publish_where(&summary, |at, r| at == place && push.is_for(&r.target));
        }
    }

    /// What the registration at this place is told of a stanza that waits, if memory has it.
    fn detail(&self, place: usize, seq: u64, fresh: Option<(u64, &Reading<'_>)>) -> Option<Detail> {
        let settings = &self.settings.push;
        let says_more = self.owned().nth(place).is_some_and(|r| r.extensions.says_more(settings));
        let detail = |reading: &Reading<'_>| if says_more { Detail::of(reading) } else { Detail::brief(reading) };
        match fresh.filter(|(at, _)| *at == seq) {
            Some((_, reading)) => Some(detail(reading)),
            None => self.stanza(seq).map(|stanza| detail(&self.read(&stanza))),
        }
    }

    /// A stanza that waits, if memory has it.
    fn stanza(&self, seq: u64) -> Option<Element> {
        let beyond = self.beyond.as_deref().filter(|(place, _)| *place == seq).map(|(_, element)| element);
        beyond.or_else(|| self.queue.find(seq).map(|item| &item.element)).cloned()
    }

    /// Wakes the device, whether something important waits or not.
    pub(super) fn wake_push(&mut self) {
        if self.pusher.is_quiet() {
            let summary = Summary::wake(&self.settings.push, false);
            self.publish_where(&summary, |_, _| true);
        } else {
            self.push(&Push::News(Recipients::All), None);
        }
    }

    fn publish_where(&mut self, summary: &Summary, wanted: impl Fn(usize, &Registration) -> bool) {
        let owned = self.owner.account.owned(self.owner.device).enumerate();
        let recipients = owned.filter(|(place, r)| wanted(*place, r)).map(|(_, r)| r);
        let publishes: Vec<_> = recipients.map(|r| Publish::new(r, summary.clone(), (self.dice)())).collect();
        for publish in publishes {
            self.event(Event::Published(publish.target.clone()));
            self.out(Output::Publish(Box::new(publish)));
        }
    }

    /// What became of a publish of this device.
    pub(super) fn published(&mut self, now: Instant, target: Target, outcome: Outcome) {
        self.pusher.answered(now, &target, outcome.may_be_repeated());
        let at = self.epoch.unix(now);
        // What the account says already need not be written again.
        let known = match &outcome {
            Outcome::Accepted => self.owner.account.knows_success(&target, at),
            Outcome::Wait(_) | Outcome::NotSent => self.owner.account.knows_undelivered(&target),
            Outcome::Refused(_) | Outcome::Unknown => false,
        };
        if let Some(change) = outcome.change(&target, self.settings.push.max_errors, at).filter(|_| !known) {
            self.change_at_once(now, change);
        }
        self.event(Event::PublishOutcome(target, outcome));
    }

    /// The next push is decided by it, whether it is on disk by then or not.
    fn change_at_once(&mut self, now: Instant, change: Change) {
        let before = self.owned().count();
        self.owner.account.apply(change.clone());
        self.change(None, change);
        if self.owned().count() != before {
            self.push_for_waiting(now);
        }
    }

    /// The client subscribes to a room: what the account writes there is known as its own from then on, by each of its sessions.
    pub(super) fn subscribes(&mut self, now: Instant, iq: &Element) {
        let subscription = Subscription::read(&iq.node());
        let news = subscription.filter(|news| self.owner.account.subscriptions.differs(news));
        if let Some(news) = news.filter(|_| self.open_changes < OPEN_CHANGES) {
            self.change_at_once(now, Change::Subscribes(news));
            self.rooms.subscribed(&self.owner.account.subscriptions);
        }
    }

    /// XEP-0357 §8: a push service takes a registration back. Nobody else can.
    pub(super) fn heed_service(&mut self, now: Instant, message: &Element) {
        if !message.mentions("affiliation") {
            return;
        }
        let Some(told) = Affiliation::read(&message.node(), &self.account).filter(|told| told.is_none) else { return };
        let revoked = |target: &&Target| told.is_about(target);
        let mut targets = self.owner.account.registrations.iter().map(|r| &r.target);
        if let Some(target) = targets.find(revoked).cloned() {
            self.change_at_once(now, Change::Disable { service: target.service.clone(), node: target.node.clone() });
            self.event(Event::PushRevoked(target));
        }
    }

    // Devices that have no session

    /// The account's other devices hear of what they cannot see themselves.
    fn tell_elsewhere(&mut self, reading: &Reading<'_>, facts: Facts) {
        if !reading.class.is_important() && !facts.own && facts.class != Class::CallEnd {
            return;
        }
        let device = self.owner.device;
        let may_tell = |r: &&Registration| filter::verdict(reading, &r.extensions, &self.roster, &self.rooms).is_ok();
        let registrations: Vec<_> = self.owner.account.absent(device).filter(may_tell).cloned().collect();
        if !registrations.is_empty() {
            let notice = Notice { facts, detail: Detail::of(reading), registrations };
            self.out(Output::Elsewhere(Box::new(notice)));
        }
    }

    // The `session` transport

    /// Through the user's own stream, where the server stamps the full JID.
    pub(super) fn carry(&mut self, now: Instant, number: u64, publish: &Publish) {
        let id = self.pending.id((self.dice)());
        let iq = publish.iq(&id, None);
        let deadline = Some(now + self.settings.publish_timeout);
        self.pending.publish(OpenPublish { id, number, service: publish.target.service.clone(), deadline });
        self.inject(now, iq);
    }

    pub(super) fn carried(&mut self, open: &OpenPublish, answer: &Node<'_>) {
        if open.deadline.is_some() {
            self.out(Output::Carried(open.number, Box::new(Outcome::of(answer))));
        }
    }
}

/// Where a registration is told, and what it asked for.
fn wishes(registration: &Registration) -> (&Target, &Extensions) {
    (&registration.target, &registration.extensions)
}
