//! The stanzas that wait for a device that cannot be reached, as far as notifications need them.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use super::classify::{Class, Classified};
use crate::hash;
use crate::jid::BareJid;
use crate::seq::Seq;

/// The time for which a stanza that was pushed is not pushed again.
const MEMORY: Duration = Duration::from_secs(5 * 60);
/// The number of such stanzas that are remembered; with more, the oldest may be pushed again.
const REMEMBERED: usize = 256;
/// Important stanzas that are counted; of more the oldest are not.
const COUNTED: usize = 10_000;
/// A copy of a stanza is looked for among so many before it.
const COPIES: usize = 64;
/// Calls whose end may still be told.
const RUNG: usize = 16;

/// The hash of a name.
pub type Name = NonZeroU64;

/// A stanza as the rules need it. Names are hashes, keyed by a random seed: they cannot be made to collide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its class.
    pub class: Class,
    /// Equal for copies of the same stanza.
    pub key: u64,
    /// The conversation that it belongs to.
    pub chat: Option<Name>,
    /// The call that it belongs to.
    pub call: Option<Name>,
    /// Another client of the account did it.
    pub own: bool,
}

impl Facts {
    /// The call that it is about.
    pub fn rung(&self) -> Option<Rung> {
        self.call.map(|call| Rung { call, chat: self.chat })
    }

    /// The facts of a stanza.
    pub fn of(reading: &Classified<'_>, seed: u64) -> Self {
        Self {
            class: reading.class,
            key: reading.key(seed),
            chat: reading.chat.as_ref().map(|chat: &BareJid| hashed(seed, chat.as_str())),
            call: reading.call.as_ref().map(|call| hashed(seed, call)),
            own: reading.own,
        }
    }
}

fn hashed(seed: u64, name: &str) -> Name {
    let mut hasher = hash::keyed(seed);
    name.hash(&mut hasher);
    Name::new(hasher.finish()).unwrap_or(Name::MIN)
}

/// The registrations that may be told of a stanza, by their place among the device's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audience(u32);

impl Audience {
    /// Nobody.
    pub const NOBODY: Self = Self(0);
    /// Every registration.
    pub const ALL: Self = Self(u32::MAX);

    /// With the registration at this place.
    #[must_use]
    pub fn with(self, place: usize) -> Self {
        Self(self.0 | bit(place))
    }

    /// Returns whether the registration at this place is in it.
    pub fn has(self, place: usize) -> bool {
        self.0 & bit(place) != 0
    }
}

/// No device has as many registrations as there are bits; if one had, the last would share theirs.
fn bit(place: usize) -> u32 {
    1 << place.min(31)
}

/// An important stanza that the device does not have.
#[derive(Clone, Copy, Debug)]
struct WaitingStanza {
    seq: Seq,
    key: u64,
    chat: Option<Name>,
    call: Option<Name>,
    audience: Audience,
    class: Class,
    /// A push has said so.
    told: bool,
}

/// A call that was pushed. Its id is the caller's word: another caller with the same id is another call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rung {
    /// The session of the call.
    pub call: Name,
    /// With whom.
    pub chat: Option<Name>,
}

/// The number of stanzas that wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WaitingCounts {
    /// Important stanzas, subscription requests among them.
    pub important: usize,
    /// Subscription requests.
    pub subscriptions: usize,
}

/// The important stanzas that a device does not have, and what was pushed of late.
#[derive(Clone, Debug, Default)]
pub struct WaitingStanzas {
    entries: VecDeque<WaitingStanza>,
    recent: VecDeque<(Instant, u64)>,
    /// Calls that were pushed.
    rung: VecDeque<Rung>,
    /// Something unimportant is to be pushed, as the seed does.
    noise: bool,
}

/// The party that ended a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallEnder {
    /// The other party.
    Peer,
    /// Another client of the account, which need not say with whom the call was.
    Account,
}

impl WaitingStanzas {
    /// Bytes of memory that it has.
    pub fn memory(&self) -> usize {
        let recent = self.recent.capacity() * size_of::<(Instant, u64)>();
        self.entries.capacity() * size_of::<WaitingStanza>() + recent + self.rung.capacity() * size_of::<Rung>()
    }

    /// An important stanza waits; `false` if it, or a copy, waits already or was pushed within the last five minutes.
    pub fn add(&mut self, now: Instant, seq: Seq, facts: Facts, audience: Audience) -> bool {
        while self.recent.front().is_some_and(|(at, _)| *at + MEMORY <= now) {
            self.recent.pop_front();
        }
        let Facts { class, key, chat, call, .. } = facts;
        if self.entries.iter().rev().take(COPIES).any(|entry| entry.key == key) {
            return false;
        }
        if self.entries.len() == COUNTED {
            self.entries.pop_front();
        }
        let told = self.recent.iter().any(|(_, recent)| *recent == key);
        reserve(&mut self.entries);
        self.entries.push_back(WaitingStanza { seq, key, chat, call, audience, class, told });
        !told
    }

    /// Something that is not important waits, and is to be pushed all the same.
    pub fn add_noise(&mut self) {
        self.noise = true;
    }

    /// Returns whether a push is due about something unimportant; only once.
    pub fn take_noise(&mut self) -> bool {
        std::mem::take(&mut self.noise)
    }

    /// Another client of the account has read this conversation: its messages notify no more.
    pub fn read(&mut self, chat: Name) {
        self.entries.retain(|entry| entry.chat != Some(chat) || entry.class == Class::Subscribe);
    }

    /// Another client of the account took or declined this call.
    pub fn answered(&mut self, call: Name) {
        self.entries.retain(|entry| entry.call != Some(call));
    }

    /// Returns whether this call was pushed.
    pub fn has_rung(&self, call: Rung) -> bool {
        self.rung.contains(&call)
    }

    /// A call is pushed.
    pub fn ring(&mut self, call: Rung) {
        if self.rung.len() == RUNG {
            self.rung.pop_front();
        }
        self.rung.push_back(call);
    }

    /// The call is over; whether it was pushed, so that its end is to be pushed too.
    pub fn over(&mut self, call: Rung, ender: CallEnder) -> bool {
        let of_account = |rung: &Rung| ender == CallEnder::Account && rung.call == call.call;
        let at = self.rung.iter().position(|rung| *rung == call || of_account(rung));
        at.is_some_and(|at| self.rung.remove(at).is_some())
    }

    /// The device has what is not `elsewhere`, or it is to be counted anew.
    pub fn keep(&mut self, elsewhere: impl Fn(Seq) -> bool) {
        self.entries.retain(|entry| elsewhere(entry.seq));
        if self.entries.is_empty() {
            self.entries = VecDeque::new();
        }
    }

    /// Returns whether this is the place of a message, and a newer one of its conversation waits too.
    pub fn is_followed(&self, seq: Seq) -> bool {
        let is_message = |entry: &&WaitingStanza| entry.class == Class::Message && entry.chat.is_some();
        let Some(at) = self.entries.iter().rposition(|entry| entry.seq == seq) else { return false };
        let Some(own) = self.entries.get(at).filter(is_message) else { return false };
        self.entries.range(at + 1..).any(|entry| entry.class == Class::Message && entry.chat == own.chat)
    }

    /// Notes that a push was about this stanza.
    pub fn tell(&mut self, now: Instant, seq: Seq) {
        let entries = self.entries.iter_mut().rev().filter(|entry| entry.seq == seq && !entry.told);
        tell(entries, now, &mut self.recent);
    }

    /// All that waits is being pushed.
    pub fn tell_all(&mut self, now: Instant) {
        tell(self.entries.iter_mut().filter(|entry| !entry.told), now, &mut self.recent);
    }

    /// Returns whether something waits that no push was about.
    pub fn has_news(&self) -> bool {
        self.noise || self.entries.iter().any(|entry| !entry.told)
    }

    /// Returns whether nothing important waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The number of stanzas that wait for the registration at this place.
    pub fn counts(&self, place: usize) -> WaitingCounts {
        let waiting = || self.entries.iter().filter(|entry| entry.audience.has(place));
        let subscriptions = waiting().filter(|entry| entry.class == Class::Subscribe).count();
        WaitingCounts { important: waiting().count(), subscriptions }
    }

    /// Returns whether the registration at this place may be told of the stanza at place `seq`.
    pub fn may_tell(&self, place: usize, seq: Seq) -> bool {
        self.entries.iter().rev().any(|entry| entry.seq == seq && entry.audience.has(place))
    }

    /// The place of the newest stanza for the registration at this place.
    pub fn newest(&self, place: usize) -> Option<Seq> {
        self.entries.iter().rev().find(|entry| entry.audience.has(place)).map(|entry| entry.seq)
    }
}

fn tell<'a>(entries: impl Iterator<Item = &'a mut WaitingStanza>, now: Instant, recent: &mut VecDeque<(Instant, u64)>) {
    for entry in entries {
        entry.told = true;
        if recent.len() == REMEMBERED {
            recent.pop_front();
        }
        reserve(recent);
        recent.push_back((now, entry.key));
    }
}

/// Makes room for one more, and for less than as many again: for most devices little waits, and for long.
fn reserve<T>(list: &mut VecDeque<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact(1 + list.len() / 4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(class: Class, key: u64) -> Facts {
        Facts { class, key, chat: Name::new(7), call: Name::new(key), own: false }
    }

    fn message(key: u64) -> Facts {
        facts(Class::Message, key)
    }

    #[test]
    fn a_copy_of_what_waits_or_was_pushed_of_late_is_no_news() {
        let (mut waiting, now) = (WaitingStanzas::default(), Instant::now());
        assert!(waiting.add(now, Seq::new(1), message(1), Audience::ALL));
        assert!(!waiting.add(now, Seq::new(2), message(1), Audience::ALL), "it waits");
        waiting.tell_all(now);
        assert!(!waiting.has_news());
        waiting.keep(|_| false);
        assert!(!waiting.add(now, Seq::new(1), message(1), Audience::ALL), "it was pushed");
        assert_eq!(waiting.counts(0).important, 1, "but counts");
        waiting.keep(|_| false);
        assert!(waiting.add(now + MEMORY, Seq::new(1), message(1), Audience::ALL));
    }

    #[test]
    fn each_registration_has_its_own_count_and_newest() {
        let (mut waiting, now) = (WaitingStanzas::default(), Instant::now());
        let (first, second) = (Audience::NOBODY.with(0), Audience::NOBODY.with(1));
        waiting.add(now, Seq::new(1), message(1), first.with(1));
        waiting.add(now, Seq::new(2), facts(Class::Subscribe, 2), first);
        waiting.add(now, Seq::new(3), message(3), second);
        assert_eq!(waiting.counts(0), WaitingCounts { important: 2, subscriptions: 1 });
        assert_eq!(waiting.counts(1), WaitingCounts { important: 2, subscriptions: 0 });
        assert_eq!((waiting.newest(0), waiting.newest(1)), (Some(Seq::new(2)), Some(Seq::new(3))));
        assert!(waiting.may_tell(1, Seq::new(3)) && !waiting.may_tell(0, Seq::new(3)));
    }

    #[test]
    fn a_read_conversation_waits_no_more_but_a_request_stays() {
        let (mut waiting, now) = (WaitingStanzas::default(), Instant::now());
        waiting.add(now, Seq::new(1), message(1), Audience::ALL);
        waiting.add(now, Seq::new(2), facts(Class::Subscribe, 2), Audience::ALL);
        waiting.read(Name::new(8).unwrap());
        assert_eq!(waiting.counts(0).important, 2, "another conversation");
        waiting.read(Name::new(7).unwrap());
        assert_eq!(waiting.newest(0), Some(Seq::new(2)));
    }

    #[test]
    fn a_message_is_followed_by_a_newer_one_of_its_conversation_alone() {
        let (mut waiting, now) = (WaitingStanzas::default(), Instant::now());
        let other = |key| Facts { chat: Name::new(8), ..message(key) };
        waiting.add(now, Seq::new(1), message(1), Audience::ALL);
        waiting.add(now, Seq::new(2), facts(Class::Call, 2), Audience::ALL);
        waiting.add(now, Seq::new(3), other(3), Audience::ALL);
        assert!((1..=4).all(|seq| !waiting.is_followed(Seq::new(seq))), "a call may be over soon");
        waiting.add(now, Seq::new(4), message(4), Audience::ALL);
        assert_eq!([1, 2, 3, 4].map(|seq| waiting.is_followed(Seq::new(seq))), [true, false, false, false]);
        waiting.keep(|seq| seq == Seq::new(1));
        assert!(!waiting.is_followed(Seq::new(1)));
    }

    #[test]
    fn a_call_rings_once_and_ends_once() {
        let mut waiting = WaitingStanzas::default();
        let call = Rung { call: Name::new(5).unwrap(), chat: Name::new(7) };
        assert!(!waiting.over(call, CallEnder::Peer));
        waiting.ring(call);
        assert!(waiting.has_rung(call));
        assert!(waiting.over(call, CallEnder::Peer));
        assert!(!waiting.over(call, CallEnder::Peer));
    }

    #[test]
    fn a_call_is_known_by_its_id_and_the_caller() {
        let mut waiting = WaitingStanzas::default();
        let call = Rung { call: Name::new(5).unwrap(), chat: Name::new(7) };
        let stranger = Rung { chat: Name::new(8), ..call };
        waiting.ring(call);
        assert!(!waiting.has_rung(stranger) && !waiting.over(stranger, CallEnder::Peer));
        // A client of the account tells the others, by a message to the account.
        assert!(waiting.over(stranger, CallEnder::Account));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut waiting, now) = (WaitingStanzas::default(), Instant::now());
        for n in 0..20_000 {
            waiting.add(now, Seq::new(n), message(n), Audience::ALL);
            if n % 1000 == 999 {
                waiting.tell_all(now);
            }
        }
        for n in 1..100 {
            waiting.ring(Rung { call: Name::new(n).unwrap(), chat: None });
        }
        assert_eq!((waiting.entries.len(), waiting.recent.len(), waiting.rung.len()), (COUNTED, REMEMBERED, RUNG));
    }
}
