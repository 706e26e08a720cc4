//! The push decisions of a session: when it pushes for its device, notices to other devices, and outcomes of publishes.

mod calls;
mod disk_stanza;
mod learning;
mod situation;

use std::sync::Arc;
use std::time::Duration;

use super::account::AccountView;
use super::contract::{OtherSession, Output};
use super::delivery::Delivery;
use super::effects::Effects;
use super::event::Event;
use super::identity::Identity;
use super::marks::{has_set_aside, is_set_aside};
use super::queue::Queued;
use super::ringing::{Ringing, may_ring};
use super::settings::Settings;
use crate::clock::Instant;
use crate::push::absent::Notice;
use crate::push::classify::{self, Class, Classified, Context};
use crate::push::filter::{self, Blocked};
use crate::push::notification::{Detail, Publish, Summary};
use crate::push::outcome::Outcome;
use crate::push::pusher::{Arrival, Push, Pusher, Recipients};
use crate::push::registration::{Registration, Target};
use crate::push::rooms::Rooms;
use crate::push::roster::Roster;
use crate::push::waiting::{Audience, Facts};
use crate::seq::Seq;
use crate::xml::{Element, HeaderPool};
use disk_stanza::DiskStanza;
pub(super) use situation::{Fresh, Kept, Situation};

/// Decides about pushes for the device.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct Notifier {
    #[serde(skip)]
    identity: Arc<Identity>,
    #[serde(skip)]
    settings: Arc<Settings>,
    pusher: Pusher,
    rooms: Rooms,
    roster: Roster,
    /// True if contacts matter and the roster was requested.
    asked_for_roster: bool,
    /// The newest sequence number whose stanza was judged.
    judged: Seq,
    /// A call that the client has not acknowledged.
    ringing: Option<Ringing>,
    /// The newest important stanza, if it is not in memory.
    disk_stanza: Option<Box<DiskStanza>>,
    /// True if other devices of the account have registrations, but no session.
    has_absent_devices: bool,
    other_session: OtherSession,
}

/// A stanza that has just been read.
#[derive(Clone, Copy)]
struct JustRead<'a, 'b> {
    seq: Seq,
    reading: &'a Classified<'b>,
}

/// The time by which a dark device that was notified has to come back; `None` if the hold is not shortened.
pub(super) type HoldEnd = Option<Instant>;

impl Notifier {
    pub(super) fn new(identity: Arc<Identity>, settings: Arc<Settings>, account: &AccountView) -> Self {
        let mut rooms = Rooms::default();
        rooms.subscribed(&account.record().subscriptions);
        Self {
            pusher: Pusher::new(Arc::clone(&settings.push)),
            rooms,
            roster: Roster::new(identity.account(), settings.seed),
            asked_for_roster: false,
            judged: Seq::ZERO,
            ringing: None,
            disk_stanza: None,
            has_absent_devices: account.absent().next().is_some(),
            other_session: OtherSession::Away,
            identity,
            settings,
        }
    }

    pub(super) fn on_settings(&mut self, settings: Arc<Settings>) {
        self.pusher.change(Arc::clone(&settings.push));
        self.settings = settings;
    }

    /// Completes a notifier that was read from a record.
    pub(super) fn restore(&mut self, identity: &Arc<Identity>, headers: &mut HeaderPool<'_>) {
        self.identity = Arc::clone(identity);
        self.disk_stanza.iter_mut().for_each(|only| only.stanza.share_header(headers));
    }

    /// The bytes of memory in use.
    pub(super) fn memory(&self) -> usize {
        let disk_stanza = self.disk_stanza.as_deref().map_or(0, |only| only.stanza.bytes().len());
        self.rooms.memory() + self.roster.memory() + self.pusher.memory() + disk_stanza
    }

    // Classification of stanzas

    /// Classifies a stanza by its meaning to the user.
    pub(super) fn read<'a>(&self, element: &'a Element) -> Classified<'a> {
        classify::read(element, Context { account: self.identity.account(), rooms: &self.rooms })
    }

    fn facts(&self, reading: &Classified<'_>) -> Facts {
        Facts::of(reading, self.settings.seed)
    }

    /// Returns whether a stanza may need a push.
    pub(super) fn may_push(&self, element: &Element, situation: Situation<'_>) -> bool {
        let account = situation.account;
        let concerns = situation.since().is_some() || self.has_absent_devices || may_ring(element, account);
        concerns && !is_set_aside(account.guard(), element)
    }

    /// The device's registrations that may be notified of a stanza.
    fn audience(&self, reading: &Classified<'_>, account: &AccountView) -> Result<Audience, Blocked> {
        let mut audience = Audience::NOBODY;
        let mut blocked = None;
        for (place, registration) in account.owned().enumerate() {
            match filter::verdict(reading, &registration.extensions, &self.roster, &self.rooms) {
                Ok(()) => audience = audience.with(place),
                Err(why) => blocked = Some(why),
            }
        }
        blocked.filter(|_| audience == Audience::NOBODY).map_or(Ok(audience), Err)
    }

    // Arrival and acknowledgement of stanzas

    /// Handles a stanza that came.
    pub(super) fn on_stanza(
        &mut self,
        now: Instant,
        fresh: Fresh<'_>,
        situation: Situation<'_>,
        effects: &mut Effects,
    ) -> HoldEnd {
        let Fresh { stanza, seq, kept } = fresh;
        if !self.may_push(stanza, situation) {
            return None;
        }
        let reading = self.read(stanza);
        let facts = self.facts(&reading);
        if self.has_absent_devices {
            self.notify_absent_devices(&reading, facts, situation.account, effects);
        }
        let Some(since) = situation.since() else {
            if reading.class == Class::Call {
                self.ring(now, seq, &reading, situation.account, effects);
            } else {
                self.end_call(&reading, facts, situation.account, effects);
            }
            return None;
        };
        let audience = self.audience(&reading, situation.account);
        let arrival = Arrival { since, age: Duration::ZERO, seq, facts, audience };
        if kept == Kept::OnDiskOnly && reading.class.is_important() && arrival.audience.is_ok() {
            self.disk_stanza = Some(Box::new(DiskStanza { seq, stanza: stanza.compact() }));
        }
        self.judge(now, arrival, &reading, situation.account, effects);
        self.push_all_due(now, Some(JustRead { seq, reading: &reading }), situation, effects)
    }

    /// Decides about pushes for waiting stanzas, because the client became unreachable, or can be notified now.
    pub(super) fn push_for_waiting(
        &mut self,
        now: Instant,
        situation: Situation<'_>,
        effects: &mut Effects,
    ) -> HoldEnd {
        let since = situation.since()?;
        let Situation { account, delivery, .. } = situation;
        let queue = delivery.queue();
        self.pusher.recount(|seq| queue.is_on_disk_only(seq));
        let waiting = queue.iter().filter(|item| !has_set_aside(account.guard(), item));
        for Queued { element, seq, received, .. } in waiting.chain(delivery.released(account)) {
            let reading = self.read(element);
            let age = self.identity.calendar(now).since(*received);
            let (facts, audience) = (self.facts(&reading), self.audience(&reading, account));
            self.judge(now, Arrival { since, age, seq: *seq, facts, audience }, &reading, account, effects);
        }
        self.push_due(now, situation, effects)
    }

    fn judge(
        &mut self,
        now: Instant,
        arrival: Arrival,
        reading: &Classified<'_>,
        account: &AccountView,
        effects: &mut Effects,
    ) {
        let Arrival { seq, facts, .. } = arrival;
        let verdict = self.pusher.arrived(now, arrival);
        self.end_call(reading, facts, account, effects);
        // A stanza that is judged again was reported before.
        if seq > self.judged {
            self.judged = seq;
            effects.event(Event::Judged(verdict));
        }
    }

    /// Forgets the stanzas that the client has acknowledged: they need no push any more.
    pub(super) fn on_acknowledged(&mut self, delivery: &Delivery) {
        let queue = delivery.queue();
        self.pusher.contact(|seq| queue.is_on_disk_only(seq));
        let unread = queue.iter().next().map_or(Seq::MAX, |item| item.seq);
        self.ringing = self.ringing.filter(|ringing| ringing.seq() >= unread);
        self.forget_read_back(delivery);
    }

    /// Forgets the stanza beyond memory if it was read back from disk.
    pub(super) fn forget_read_back(&mut self, delivery: &Delivery) {
        self.disk_stanza = self.disk_stanza.take().filter(|_| delivery.queue().has_tail());
    }

    /// Returns whether a push is about a later stanza of the same conversation than this one.
    pub(super) fn is_followed(&self, seq: Seq) -> bool {
        self.pusher.is_followed(seq)
    }

    // Pushes

    /// Sends the pushes that are due.
    pub(super) fn push_due(&mut self, now: Instant, situation: Situation<'_>, effects: &mut Effects) -> HoldEnd {
        self.push_all_due(now, None, situation, effects)
    }

    fn push_all_due(
        &mut self,
        now: Instant,
        fresh: Option<JustRead<'_, '_>>,
        situation: Situation<'_>,
        effects: &mut Effects,
    ) -> HoldEnd {
        let mut is_important = false;
        while self.may_push_now(situation.account)
            && let Some(push) = self.pusher.next(now)
        {
            self.push(&push, fresh, situation, effects);
            is_important |= push != Push::Noise;
        }
        // A device that was notified has a limited time to come back, as with mod_cloud_notify.
        self.settings.hibernation.after_push.filter(|_| is_important).map(|hold| now + hold)
    }

    fn may_push_now(&self, account: &AccountView) -> bool {
        account.has_registration() && self.other_session == OtherSession::Away
    }

    fn push(&mut self, push: &Push, fresh: Option<JustRead<'_, '_>>, situation: Situation<'_>, effects: &mut Effects) {
        for place in 0..situation.account.owned().count() {
            let newest = match push {
                Push::Call(seq) => self.pusher.may_notify_of(place, *seq).then_some(*seq),
                Push::Waiting(_) => self.pusher.newest(place),
                Push::Noise => None,
            };
            if newest.is_none() && *push != Push::Noise {
                continue;
            }
            let detail = newest.and_then(|seq| self.detail(place, seq, fresh, situation));
            let summary = Summary::new(&self.settings.push, self.pusher.counts(place), detail);
            let wanted = |at: usize, r: &Registration| at == place && push.is_for(&r.target);
            self.publish_where(&summary, wanted, situation.account, effects);
        }
    }

    /// The details about a waiting stanza for the registration at this place, if the stanza is in memory.
    fn detail(
        &self,
        place: usize,
        seq: Seq,
        fresh: Option<JustRead<'_, '_>>,
        situation: Situation<'_>,
    ) -> Option<Detail> {
        let settings = &self.settings.push;
        let detailed = situation.account.owned().nth(place).is_some_and(|r| r.extensions.shows_details(settings));
        let detail = |reading: &Classified<'_>| if detailed { Detail::of(reading) } else { Detail::brief(reading) };
        if let Some(JustRead { reading, .. }) = fresh.filter(|fresh| fresh.seq == seq) {
            return Some(detail(reading));
        }
        let disk_stanza = self.disk_stanza.as_deref().filter(|only| only.seq == seq).map(|only| &only.stanza);
        let stanza = disk_stanza.or_else(|| situation.delivery.queue().find(seq).map(|item| &item.element))?;
        Some(detail(&self.read(stanza)))
    }

    /// Wakes the device, even if nothing important waits.
    pub(super) fn wake(&mut self, situation: Situation<'_>, effects: &mut Effects) {
        if self.pusher.is_quiet() {
            let summary = Summary::wake(&self.settings.push);
            self.publish_where(&summary, |_, _| true, situation.account, effects);
        } else {
            self.push(&Push::Waiting(Recipients::All), None, situation, effects);
        }
    }

    fn publish_where(
        &self,
        summary: &Summary,
        wanted: impl Fn(usize, &Registration) -> bool,
        account: &AccountView,
        effects: &mut Effects,
    ) {
        let recipients = account.owned().enumerate().filter(|(place, r)| wanted(*place, r)).map(|(_, r)| r);
        for registration in recipients {
            let publish = Publish::new(registration, summary.clone(), self.identity.random());
            effects.event(Event::Published(publish.id, publish.target.clone()));
            effects.push(Output::Publish(Box::new(publish)));
        }
    }

    /// Takes the outcome of a publish of this device.
    pub(super) fn on_published(&mut self, now: Instant, target: &Target, outcome: &Outcome) {
        self.pusher.answered(now, target, outcome);
    }

    /// Notes that another session of the device got its client, or lost it. Returns whether pushes may be due now.
    pub(super) fn on_other_session(&mut self, other: OtherSession) -> bool {
        let before = std::mem::replace(&mut self.other_session, other);
        before == OtherSession::Live && other == OtherSession::Away
    }

    /// Notifies devices without a session of events that they cannot see themselves.
    fn notify_absent_devices(
        &self,
        reading: &Classified<'_>,
        facts: Facts,
        account: &AccountView,
        effects: &mut Effects,
    ) {
        if !reading.class.is_important() && !facts.own && facts.class != Class::CallEnd {
            return;
        }
        let may_notify = |r: &&Registration| filter::verdict(reading, &r.extensions, &self.roster, &self.rooms).is_ok();
        let registrations: Vec<_> = account.absent().filter(may_notify).cloned().collect();
        if !registrations.is_empty() {
            let notice = Notice { facts, detail: Detail::of(reading), registrations };
            effects.push(Output::NotifyAbsent(Box::new(notice)));
        }
    }

    /// The time at which a push is due.
    pub(super) fn deadline(&self, account: &AccountView) -> Option<Instant> {
        self.pusher.deadline().filter(|_| self.may_push_now(account))
    }

    /// The time at which a call counts as unacknowledged.
    pub(super) fn call_deadline(&self) -> Option<Instant> {
        self.ringing.map(Ringing::until)
    }
}
