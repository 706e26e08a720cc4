//! Notifications for an account's devices that have no session, about what its other sessions saw.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::account::DeviceId;
use super::notification::{Detail, Publish, Summary};
use super::outcome::Outcome;
use super::pusher::{Arrival, Push, Pusher};
use super::registration::{Registration, Target};
use super::waiting::{Audience, Facts};
use crate::config;

/// What a session saw, and whom it concerns beside its own device.
#[derive(Clone, Debug)]
pub struct Notice {
    /// What it is.
    pub facts: Facts,
    /// What may be said about it.
    pub detail: Detail,
    /// The registrations that may be told, all of devices without a session.
    pub registrations: Vec<Registration>,
}

/// The devices of one account that have no session.
#[derive(Debug)]
pub struct Absent {
    settings: Arc<config::Push>,
    away: HashMap<DeviceId, Away>,
}

#[derive(Debug)]
struct Away {
    pusher: Pusher,
    registrations: Vec<Registration>,
    newest: Option<Detail>,
    seen: u64,
}

impl Absent {
    /// None is known to be away.
    pub fn new(settings: Arc<config::Push>) -> Self {
        Self { settings, away: HashMap::new() }
    }

    /// A session of the account saw something.
    pub fn saw(&mut self, now: Instant, notice: &Notice) {
        let mut devices: Vec<_> = notice.registrations.iter().map(|r| r.device).collect();
        devices.sort_unstable();
        devices.dedup();
        for device in devices {
            let settings = || Pusher::new(Arc::clone(&self.settings));
            let away = self.away.entry(device).or_insert_with(|| Away {
                pusher: settings(),
                registrations: Vec::new(),
                newest: None,
                seen: 0,
            });
            away.saw(now, device, notice);
        }
    }

    /// A device is back: whatever waits for it, it learns of by itself.
    pub fn back(&mut self, device: DeviceId) {
        self.away.remove(&device);
    }

    /// When [`Absent::next`] has something.
    pub fn deadline(&self) -> Option<Instant> {
        self.away.values().filter_map(|away| away.pusher.deadline()).min()
    }

    /// What is to be published now.
    pub fn next(&mut self, now: Instant, dice: fn() -> u128) -> Vec<Publish> {
        let settings = &self.settings;
        self.away.values_mut().flat_map(|away| away.next(now, settings, dice)).collect()
    }

    /// A push service has answered.
    pub fn answered(&mut self, now: Instant, target: &Target, outcome: &Outcome) {
        for away in self.away.values_mut() {
            away.pusher.answered(now, target, outcome.may_be_repeated());
        }
    }
}

/// A device without a session has been away for long.
const LONG: Duration = Duration::from_secs(3600);

impl Away {
    fn saw(&mut self, now: Instant, device: DeviceId, notice: &Notice) {
        let mut audience = Audience::NOBODY;
        for told in notice.registrations.iter().filter(|r| r.device == device) {
            let place = self.registrations.iter().position(|r| r.target == told.target).unwrap_or_else(|| {
                self.registrations.push(told.clone());
                self.registrations.len() - 1
            });
            if let Some(known) = self.registrations.get_mut(place) {
                known.clone_from(told);
            }
            audience = audience.with(place);
        }
        self.seen += 1;
        let since = now.checked_sub(LONG).unwrap_or(now);
        let (seq, facts) = (self.seen, notice.facts);
        self.pusher.arrived(now, Arrival { since, age: Duration::ZERO, seq, facts, audience: Ok(audience) });
        if facts.class.is_important() {
            self.newest = Some(notice.detail.clone());
        }
    }

    fn next(&mut self, now: Instant, settings: &config::Push, dice: fn() -> u128) -> Vec<Publish> {
        let mut publishes = Vec::new();
        while let Some(push) = self.pusher.next(now) {
            for (place, registration) in self.registrations.iter().enumerate() {
                let tells = match &push {
                    Push::Call(seq) => self.pusher.may_tell(place, *seq),
                    Push::News(_) => self.pusher.newest(place).is_some() && push.is_for(&registration.target),
                    Push::Noise => true,
                };
                if tells {
                    let newest = self.newest.clone().filter(|_| push != Push::Noise);
                    let summary = Summary::new(settings, self.pusher.counts(place), newest);
                    publishes.push(Publish::new(registration, summary, dice()));
                }
            }
        }
        publishes
    }
}
