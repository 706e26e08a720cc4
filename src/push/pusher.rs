//! The decisions to notify one device. [`Pusher`] holds the stanzas that wait for it and its schedule; each session and
//! [`Absent`](super::absent::Absent) use it.

use std::sync::Arc;
use std::time::Duration;

use super::classify::{Class, Noise};
use super::filter::Blocked;
use super::outcome::Outcome;
use super::registration::Target;
use super::schedule::{Due, Schedule};
use super::settings::PushSettings;
use super::waiting::{Audience, CallEnder, CallId, Facts, WaitingCounts, WaitingStanzas};
use crate::clock::Instant;
use crate::seq::Seq;

/// The age from which a call does not ring any more.
const RINGS: Duration = Duration::from_secs(60);

/// The decision about one stanza for a device that cannot be reached. Its name is the log field and the metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It notifies at the next time of the schedule.
    Push,
    /// It rings at once.
    Ring,
    /// It does not notify.
    Skip(Skip),
}

/// The reasons why a stanza does not notify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// No person waits for such a stanza.
    Noise(Noise),
    /// The filters of the registrations block it.
    Blocked(Blocked),
    /// It waits already, or was pushed within the last five minutes.
    Duplicate,
    /// It reports that another client of the account has read a conversation.
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
    /// The time since which the device cannot be reached.
    pub since: Instant,
    /// The age of the stanza.
    pub age: Duration,
    /// Its place among all stanzas that wait for the device.
    pub seq: Seq,
    /// Its class.
    pub facts: Facts,
    /// The device's registrations that may be notified.
    pub audience: Result<Audience, Blocked>,
}

/// A push that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Push {
    /// A push to these registrations, about the stanzas that wait.
    Waiting(Recipients),
    /// A push although nothing important waits, because the operator wants a push about every stanza.
    Noise,
    /// A push about a call, to the registrations that may be notified of the stanza at this place.
    Call(Seq),
}

impl Push {
    /// Returns whether this target is notified.
    pub fn is_for(&self, target: &Target) -> bool {
        match self {
            Self::Waiting(Recipients::One(one)) => one == target,
            Self::Waiting(Recipients::All) | Self::Noise | Self::Call(_) => true,
        }
    }
}

/// The recipients of a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipients {
    /// Every registration of the device.
    All,
    /// The registration with this target.
    One(Target),
}

/// The push rules of one device.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Pusher {
    #[serde(skip)]
    settings: Arc<PushSettings>,
    schedule: Schedule,
    waiting: WaitingStanzas,
    /// The calls to push.
    calls: Vec<Seq>,
}

impl Pusher {
    /// Starts for a device about which nothing was pushed yet.
    pub fn new(settings: Arc<PushSettings>) -> Self {
        let schedule = Schedule::new(Arc::clone(&settings));
        Self { settings, schedule, waiting: WaitingStanzas::default(), calls: Vec::new() }
    }

    /// Returns the bytes of memory in use, apart from a few.
    pub fn memory(&self) -> usize {
        self.waiting.memory()
    }

    /// Uses other settings from now on. A push that is due keeps its time.
    pub fn change(&mut self, settings: Arc<PushSettings>) {
        self.schedule.change(Arc::clone(&settings));
        self.settings = settings;
    }

    /// Handles a stanza for the device. Returns the decision about it.
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
        if facts.class == Class::Call && age < RINGS && self.ring(now, facts.call_id()) {
            self.calls.push(seq);
            return Verdict::Ring;
        }
        self.schedule.waiting(now, since);
        Verdict::Push
    }

    /// Applies a stanza that does not notify to the stanzas that wait. Returns the reason why it does not notify.
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

    fn ring(&mut self, now: Instant, call: Option<CallId>) -> bool {
        let rings = !call.is_some_and(|call| self.waiting.has_pushed(call)) && self.schedule.call(now);
        if let Some(call) = call.filter(|_| rings) {
            self.waiting.ring(call);
        }
        rings
    }

    /// Decides about a call to a device that is connected but wants calls by push. Returns `false` if the call was
    /// pushed already, or if there were too many calls.
    pub fn rings(&mut self, now: Instant, facts: Facts) -> bool {
        self.ring(now, facts.call_id()) && self.schedule.next(now).is_some()
    }

    /// Handles the end of a call. Returns whether the beginning of the call was pushed.
    pub fn call_over(&mut self, facts: Facts) -> bool {
        let ender = if facts.own { CallEnder::Account } else { CallEnder::Peer };
        facts.call_id().is_some_and(|call| self.waiting.over(call, ender))
    }

    fn settle(&mut self) {
        if !self.waiting.has_new() {
            self.schedule.nothing_new();
        }
        if self.waiting.is_empty() {
            self.schedule.nothing_waits();
        }
    }

    /// Handles the answer of a push service.
    pub fn answered(&mut self, now: Instant, target: &Target, outcome: &Outcome) {
        if outcome.may_be_repeated() && !self.waiting.is_empty() {
            self.schedule.refused_for_now(now, target);
        } else {
            self.schedule.settled(target);
        }
    }

    /// Handles a contact of the device. Stanzas that are not `elsewhere` belong to the session now, or are counted
    /// again when the device goes away.
    pub fn contact(&mut self, elsewhere: impl Fn(Seq) -> bool) {
        self.waiting.keep(elsewhere);
        self.calls.clear();
        self.schedule.nothing_waits();
    }

    /// Forgets the waiting stanzas that are not `elsewhere`. They are judged again later.
    pub fn recount(&mut self, elsewhere: impl Fn(Seq) -> bool) {
        self.waiting.keep(elsewhere);
    }

    /// Returns whether the stanza at this place is a message with a newer message of the same conversation waiting
    /// behind it. No push is about it while the newer one waits.
    pub fn is_followed(&self, seq: Seq) -> bool {
        self.waiting.is_followed(seq)
    }

    /// Returns the time at which [`Pusher::next`] has a push.
    pub fn deadline(&self) -> Option<Instant> {
        self.schedule.deadline()
    }

    /// Returns the push that is due now, if there is one.
    pub fn next(&mut self, now: Instant) -> Option<Push> {
        if let Some(seq) = self.calls.pop() {
            if self.calls.is_empty() {
                self.schedule.next(now);
            }
            self.waiting.mark_pushed(now, seq);
            return Some(Push::Call(seq));
        }
        loop {
            let recipients = match self.schedule.next(now)? {
                // The stanza of the call was removed meanwhile.
                Due::Call => continue,
                Due::New if !self.waiting.has_new() => continue,
                Due::New | Due::Again => Recipients::All,
                Due::Retry(target) => Recipients::One(target),
            };
            let noise = self.waiting.take_noise();
            self.waiting.mark_all_pushed(now);
            if !self.waiting.is_empty() {
                return Some(Push::Waiting(recipients));
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

    /// Returns the number of stanzas that wait for the registration at this place among the device's.
    pub fn counts(&self, place: usize) -> WaitingCounts {
        self.waiting.counts(place)
    }

    /// Returns the place of the newest stanza of which the registration at this place may be notified.
    pub fn newest(&self, place: usize) -> Option<Seq> {
        self.waiting.newest(place)
    }

    /// Returns whether the registration at this place may be notified of the stanza at place `seq`.
    pub fn may_notify_of(&self, place: usize, seq: Seq) -> bool {
        self.waiting.may_notify_of(place, seq)
    }
}
