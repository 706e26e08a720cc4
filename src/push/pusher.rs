//! The decisions to notify one device: the stanzas that wait for it, and its schedule.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::classify::{Class, Noise};
use super::filter::Blocked;
use super::outcome::Outcome;
use super::registration::Target;
use super::schedule::{Due, Schedule};
use super::settings::PushSettings;
use super::waiting::{Audience, CallEnder, Facts, Rung, WaitingCounts, WaitingStanzas};
use crate::seq::Seq;

/// A call that came longer ago rings no more.
const RINGS: Duration = Duration::from_secs(60);

/// The decision about one stanza for a device that cannot be reached. Its name is the log field and the metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It notifies, once the schedule lets it.
    Push,
    /// It rings at once.
    Ring,
    /// It does not notify.
    Skip(Skip),
}

/// The reasons why a stanza does not notify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// Nobody waits for such a stanza.
    Noise(Noise),
    /// The user does not want to hear of it on this device.
    Blocked(Blocked),
    /// It waits already, or was pushed within the last five minutes.
    Duplicate,
    /// It says that another client of the account has read a conversation.
    ReadElsewhere,
    /// It ends a call.
    CallEnd,
}

impl Verdict {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Ring => "ring",
            Self::Skip(Skip::Noise(noise)) => noise.name(),
            Self::Skip(Skip::Blocked(blocked)) => blocked.name(),
            Self::Skip(Skip::Duplicate) => "duplicate",
            Self::Skip(Skip::ReadElsewhere) => "read_elsewhere",
            Self::Skip(Skip::CallEnd) => "call_end",
        }
    }
}

/// A stanza for a device that cannot be reached.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Since when the device cannot be reached.
    pub since: Instant,
    /// The age of the stanza.
    pub age: Duration,
    /// Its place among all that waits for the device.
    pub seq: Seq,
    /// Its class.
    pub facts: Facts,
    /// The device's registrations that may be notified.
    pub audience: Result<Audience, Blocked>,
}

/// A push that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Push {
    /// To these registrations, about what waits.
    News(Recipients),
    /// Nothing important waits, but the operator wants a push about everything.
    Noise,
    /// Somebody calls: to those that may be told of the stanza at this place.
    Call(Seq),
}

impl Push {
    /// Returns whether this target is to be notified.
    pub fn is_for(&self, target: &Target) -> bool {
        match self {
            Self::News(Recipients::One(one)) => one == target,
            Self::News(Recipients::All) | Self::Noise | Self::Call(_) => true,
        }
    }
}

/// The recipients of a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipients {
    /// Every registration of the device.
    All,
    /// This one.
    One(Target),
}

/// The push rules of one device.
#[derive(Clone, Debug)]
pub struct Pusher {
    settings: Arc<PushSettings>,
    schedule: Schedule,
    waiting: WaitingStanzas,
    /// Calls to be pushed.
    calls: Vec<Seq>,
}

impl Pusher {
    /// A device about which nothing was pushed yet.
    pub fn new(settings: Arc<PushSettings>) -> Self {
        let schedule = Schedule::new(Arc::clone(&settings));
        Self { settings, schedule, waiting: WaitingStanzas::default(), calls: Vec::new() }
    }

    /// Bytes of memory that it has beside a few.
    pub fn memory(&self) -> usize {
        self.waiting.memory()
    }

    /// Goes by other rules from now on; a push that is due stays due when it was.
    pub fn change(&mut self, settings: Arc<PushSettings>) {
        self.schedule.change(Arc::clone(&settings));
        self.settings = settings;
    }

    /// A stanza came for the device.
    pub fn arrived(&mut self, now: Instant, arrival: Arrival) -> Verdict {
        let Arrival { since, age, seq, facts, audience } = arrival;
        if facts.own {
            self.schedule.active(now);
        }
        if let Some(skip) = self.unimportant(facts) {
            if !self.settings.unimportant {
                return Verdict::Skip(skip);
            }
            self.waiting.add_noise();
            self.schedule.waiting(now, since);
            return Verdict::Push;
        }
        let audience = match audience {
            Ok(audience) => audience,
            Err(blocked) => return Verdict::Skip(Skip::Blocked(blocked)),
        };
        if !self.waiting.add(now, seq, facts, audience) {
            self.schedule.still_waiting(now);
            return Verdict::Skip(Skip::Duplicate);
        }
        if facts.class == Class::Call && age < RINGS && self.ring(now, facts.rung()) {
            self.calls.push(seq);
            return Verdict::Ring;
        }
        self.schedule.waiting(now, since);
        Verdict::Push
    }

    /// Applies a stanza that does not notify to those that wait. Returns the reason why it does not notify.
    fn unimportant(&mut self, facts: Facts) -> Option<Skip> {
        match facts.class {
            Class::ReadSync => {
                if let Some(chat) = facts.chat {
                    self.waiting.read(chat);
                    self.settle();
                }
                Some(Skip::ReadElsewhere)
            }
            Class::CallEnd => {
                if let Some(call) = facts.call.filter(|_| facts.own) {
                    self.waiting.answered(call);
                    self.settle();
                }
                Some(Skip::CallEnd)
            }
            Class::Noise(noise) => Some(Skip::Noise(noise)),
            Class::Call | Class::Message | Class::Invite | Class::Subscribe => None,
        }
    }

    fn ring(&mut self, now: Instant, call: Option<Rung>) -> bool {
        let rings = !call.is_some_and(|call| self.waiting.has_rung(call)) && self.schedule.call(now);
        if let Some(call) = call.filter(|_| rings) {
            self.waiting.ring(call);
        }
        rings
    }

    /// Somebody calls a device that is there, and wants calls by push all the same; `false` if it was told.
    pub fn rings(&mut self, now: Instant, facts: Facts) -> bool {
        self.ring(now, facts.rung()) && self.schedule.next(now).is_some()
    }

    /// A call is over; whether a push said that it had begun.
    pub fn call_over(&mut self, facts: Facts) -> bool {
        let ender = if facts.own { CallEnder::Account } else { CallEnder::Peer };
        facts.rung().is_some_and(|call| self.waiting.over(call, ender))
    }

    fn settle(&mut self) {
        if !self.waiting.has_news() {
            self.schedule.no_news();
        }
        if self.waiting.is_empty() {
            self.schedule.nothing_waits();
        }
    }

    /// A push service has answered.
    pub fn answered(&mut self, now: Instant, target: &Target, outcome: &Outcome) {
        if outcome.may_be_repeated() && !self.waiting.is_empty() {
            self.schedule.refused_for_now(now, target);
        } else {
            self.schedule.settled(target);
        }
    }

    /// The device was in contact: what is not `elsewhere` is its own, or is counted anew when it leaves.
    pub fn contact(&mut self, elsewhere: impl Fn(Seq) -> bool) {
        self.waiting.keep(elsewhere);
        self.calls.clear();
        self.schedule.nothing_waits();
    }

    /// Forgets the waiting stanzas that are not `elsewhere`; they are judged again.
    pub fn recount(&mut self, elsewhere: impl Fn(Seq) -> bool) {
        self.waiting.keep(elsewhere);
    }

    /// Returns whether this place is that of a message that waits with a newer one of its conversation behind it: no push is about
    /// it while the newer one waits.
    pub fn is_followed(&self, seq: Seq) -> bool {
        self.waiting.is_followed(seq)
    }

    /// The time at which [`Pusher::next`] has something.
    pub fn deadline(&self) -> Option<Instant> {
        self.schedule.deadline()
    }

    /// The push that is due now, if one is.
    pub fn next(&mut self, now: Instant) -> Option<Push> {
        if let Some(seq) = self.calls.pop() {
            if self.calls.is_empty() {
                self.schedule.next(now);
            }
            self.waiting.tell(now, seq);
            return Some(Push::Call(seq));
        }
        loop {
            let recipients = match self.schedule.next(now)? {
                // Its stanza was taken back meanwhile.
                Due::Call => continue,
                Due::News if !self.waiting.has_news() => continue,
                Due::News | Due::Again => Recipients::All,
                Due::Retry(target) => Recipients::One(target),
            };
            let noise = self.waiting.take_noise();
            self.waiting.tell_all(now);
            if !self.waiting.is_empty() {
                return Some(Push::News(recipients));
            }
            self.schedule.nothing_waits();
            if noise {
                return Some(Push::Noise);
            }
        }
    }

    /// Returns whether nothing important waits.
    pub fn is_quiet(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The number of stanzas that wait for the registration at this place among the device's.
    pub fn counts(&self, place: usize) -> WaitingCounts {
        self.waiting.counts(place)
    }

    /// The place of the newest stanza that the registration at this place may be told of.
    pub fn newest(&self, place: usize) -> Option<Seq> {
        self.waiting.newest(place)
    }

    /// Returns whether the registration at this place may be told of the stanza at place `seq`.
    pub fn may_tell(&self, place: usize, seq: Seq) -> bool {
        self.waiting.may_tell(place, seq)
    }
}
