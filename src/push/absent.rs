//! Notifications for the devices of an account that have no session, about stanzas that its other sessions received.
//! [`Absent`] holds one [`Pusher`] per device; `relay` owns it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::account::DeviceId;
use super::notification::{Detail, Publish, Summary};
use super::outcome::Outcome;
use super::pusher::{Arrival, Push, Pusher, Verdict};
use super::registration::{Registration, Target};
use super::settings::PushSettings;
use super::waiting::{Audience, Facts};
use crate::clock::Instant;
use crate::seq::Seq;

/// A stanza that a session saw and that concerns other devices.
#[derive(Clone, Debug)]
pub struct Notice {
    /// Its class.
    pub facts: Facts,
    /// The details that may be shown.
    pub detail: Detail,
    /// The registrations that may be notified. All belong to devices without a session.
    pub registrations: Vec<Registration>,
}

/// The devices of one account that have no session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Absent {
    #[serde(skip)]
    settings: Arc<PushSettings>,
    away: BTreeMap<DeviceId, Away>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Away {
    pusher: Pusher,
    registrations: Vec<Registration>,
    newest: Option<Detail>,
    seen: Seq,
}

impl Absent {
    /// Starts without any device.
    pub fn new(settings: Arc<PushSettings>) -> Self {
        Self { settings, away: BTreeMap::new() }
    }

    /// Returns whether nothing is known about any device.
    pub fn is_empty(&self) -> bool {
        self.away.is_empty()
    }

    /// Adds the devices of another process. They use the settings of this one.
    pub fn add(&mut self, other: Self) {
        let added = other.away.into_iter().map(|(device, mut away)| {
            away.pusher.change(Arc::clone(&self.settings));
            (device, away)
        });
        self.away.extend(added);
    }

    /// Uses other settings from now on.
    pub fn change(&mut self, settings: &Arc<PushSettings>) {
        if !Arc::ptr_eq(settings, &self.settings) {
            self.away.values_mut().for_each(|away| away.pusher.change(Arc::clone(settings)));
            self.settings = Arc::clone(settings);
        }
    }

    /// Handles a stanza that a session of the account received. Returns the verdict for each device that it concerns.
    pub fn saw(&mut self, now: Instant, notice: &Notice) -> Vec<Verdict> {
        let mut devices: Vec<_> = notice.registrations.iter().map(|r| r.device).collect();
        devices.sort_unstable();
        devices.dedup();
        let judged = devices.into_iter().map(|device| {
            let away = self.away.entry(device).or_insert_with(|| Away::new(Arc::clone(&self.settings)));
            away.saw(now, device, notice)
        });
        judged.collect()
    }

    /// Forgets a device that is back. It receives by itself what waits for it.
    pub fn back(&mut self, device: DeviceId) {
        self.away.remove(&device);
    }

    /// Returns the time at which [`Absent::next`] has a publish.
    pub fn deadline(&self) -> Option<Instant> {
        self.away.values().filter_map(|away| away.pusher.deadline()).min()
    }

    /// Returns the publishes that are due.
    pub fn next(&mut self, now: Instant, random: fn() -> u128) -> Vec<Publish> {
        let settings = &self.settings;
        self.away.values_mut().flat_map(|away| away.next(now, settings, random)).collect()
    }

    /// Handles the answer of a push service.
    pub fn answered(&mut self, now: Instant, target: &Target, outcome: &Outcome) {
        for away in self.away.values_mut() {
            away.pusher.answered(now, target, outcome);
        }
    }
}

/// The time for which a device without a session is taken to have been away.
const LONG: Duration = Duration::from_secs(3600);

impl Away {
    fn new(settings: Arc<PushSettings>) -> Self {
        Self { pusher: Pusher::new(settings), registrations: Vec::new(), newest: None, seen: Seq::ZERO }
    }

    fn saw(&mut self, now: Instant, device: DeviceId, notice: &Notice) -> Verdict {
        let mut audience = Audience::NOBODY;
        for registration in notice.registrations.iter().filter(|r| r.device == device) {
            let place = self.registrations.iter().position(|r| r.target == registration.target).unwrap_or_else(|| {
                self.registrations.push(registration.clone());
                self.registrations.len() - 1
            });
            if let Some(known) = self.registrations.get_mut(place) {
                known.clone_from(registration);
            }
            audience = audience.with(place);
        }
        self.seen = self.seen.next();
        let since = now - LONG;
        let (seq, facts) = (self.seen, notice.facts);
        if facts.class.is_important() {
            self.newest = Some(notice.detail.clone());
        }
        self.pusher.arrived(now, Arrival { since, age: Duration::ZERO, seq, facts, audience: Ok(audience) })
    }

    fn next(&mut self, now: Instant, settings: &PushSettings, random: fn() -> u128) -> Vec<Publish> {
        let mut publishes = Vec::new();
        while let Some(push) = self.pusher.next(now) {
            for (place, registration) in self.registrations.iter().enumerate() {
                let concerned = match &push {
                    Push::Call(seq) => self.pusher.may_notify_of(place, *seq),
                    Push::Waiting(_) => self.pusher.newest(place).is_some() && push.is_for(&registration.target),
                    Push::Noise => true,
                };
                if concerned {
                    let newest = self.newest.clone().filter(|_| push != Push::Noise);
                    let summary = Summary::new(settings, self.pusher.counts(place), newest);
                    publishes.push(Publish::new(registration, summary, random()));
                }
            }
        }
        publishes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixSecs;
    use crate::jid::BareJid;
    use crate::push::classify::{self, Context};
    use crate::push::rooms::Rooms;
    use crate::session::tests::{element, random};

    fn registration(device: u64, node: &str) -> Registration {
        Registration {
            target: Target { service: "push.example".parse().unwrap(), node: Some(node.to_owned()) },
            options: None,
            device: DeviceId(device),
            last_seen: UnixSecs::new(0),
            errors: 0,
            last_success: None,
            undelivered_since: None,
            extensions: Default::default(),
        }
    }

    fn notice(stanza: &str, registrations: &[Registration]) -> Notice {
        let (account, element) = (BareJid::new("juliet@example.org").unwrap(), element(stanza));
        let reading = classify::read(&element, Context { account: &account, rooms: &Rooms::default() });
        Notice { facts: Facts::of(&reading, 1), detail: Detail::of(&reading), registrations: registrations.to_vec() }
    }

    fn message(id: u64) -> String {
        format!("<message from='romeo@example.net/x' type='chat' id='{id}'><body>{id}</body></message>")
    }

    fn absent() -> Absent {
        Absent::new(Arc::new(PushSettings::default()))
    }

    fn nodes(publishes: Vec<Publish>) -> Vec<(String, usize)> {
        let mut all: Vec<_> = publishes.into_iter().map(|p| (p.target.node.unwrap(), p.summary.count)).collect();
        all.sort();
        all
    }

    #[test]
    fn each_device_without_a_session_is_notified_once_however_many_sessions_saw_it() {
        let (mut absent, now) = (absent(), Instant::now());
        let both = [registration(1, "a"), registration(2, "b")];
        absent.saw(now, &notice(&message(1), &both));
        absent.saw(now, &notice(&message(1), &both));
        assert_eq!(nodes(absent.next(now, random)), [("a".into(), 1), ("b".into(), 1)]);
        absent.saw(now, &notice(&message(1), &both));
        let later = now + Duration::from_secs(30);
        assert_eq!(nodes(absent.next(later, random)), []);
    }

    #[test]
    fn what_comes_soon_after_is_counted_and_pushed_at_the_end_of_the_interval() {
        let (mut absent, now) = (absent(), Instant::now());
        absent.saw(now, &notice(&message(1), &[registration(1, "a")]));
        absent.next(now, random);
        absent.saw(now, &notice(&message(2), &[registration(1, "a")]));
        assert_eq!(absent.deadline(), Some(now + Duration::from_secs(20)));
        assert_eq!(nodes(absent.next(now + Duration::from_secs(20), random)), [("a".into(), 2)]);
    }

    #[test]
    fn a_device_that_is_back_is_not_notified() {
        let (mut absent, now) = (absent(), Instant::now());
        absent.saw(now, &notice(&message(1), &[registration(1, "a")]));
        absent.back(DeviceId(1));
        assert_eq!((absent.deadline(), nodes(absent.next(now, random))), (None, Vec::new()));
    }

    #[test]
    fn a_publish_that_a_service_refuses_temporarily_is_retried() {
        let (mut absent, now) = (absent(), Instant::now());
        absent.saw(now, &notice(&message(1), &[registration(1, "a")]));
        absent.next(now, random);
        absent.answered(now, &registration(1, "a").target, &Outcome::NotSent);
        assert_eq!(nodes(absent.next(now + Duration::from_secs(10), random)), [("a".into(), 1)]);
    }
}
