//! The stanzas that wait for a device that cannot be reached, with the properties that notifications need. The pusher
//! holds them as [`WaitingStanzas`].

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::num::NonZeroU64;
use std::time::Duration;

use super::classify::{Class, Classified};
use crate::clock::Instant;
use crate::hash;
use crate::jid::BareJid;
use crate::seq::Seq;

/// The time for which a stanza that was pushed is not pushed again.
const MEMORY: Duration = Duration::from_secs(5 * 60);
/// The number of such stanzas that are remembered. With more, the oldest may be pushed again.
const REMEMBERED: usize = 256;
/// The maximum number of important stanzas that are counted. Beyond it, the oldest are not.
const COUNTED: usize = 10_000;
/// The number of stanzas before a new one among which a copy is searched.
const COPIES: usize = 64;
/// The number of pushed calls whose end can still be pushed.
const PUSHED_CALLS: usize = 16;

/// The hash of a name.
pub type Name = NonZeroU64;

/// The properties of a stanza that the push rules need. Names are hashes with a random key, so nobody can make them
/// collide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its class.
    pub class: Class,
    /// A hash that is equal for copies of the same stanza.
    pub key: u64,
    /// The conversation that it belongs to.
    pub chat: Option<Name>,
    /// The call that it belongs to.
    pub call: Option<Name>,
    /// True if another client of the account did it.
    pub own: bool,
}

impl Facts {
    /// Returns the call that it is about.
    pub fn call_id(&self) -> Option<CallId> {
        self.call.map(|call| CallId { call, chat: self.chat })
    }

    /// Returns the facts of a stanza.
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

/// The registrations that may be notified of a stanza, by their place among the device's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Audience(u32);

impl Audience {
    /// No registration.
    pub const NOBODY: Self = Self(0);
    /// Every registration.
    pub const ALL: Self = Self(u32::MAX);

    /// Adds the registration at this place.
    #[must_use]
    pub fn with(self, place: usize) -> Self {
        Self(self.0 | bit(place))
    }

    /// Returns whether the registration at this place is included.
    pub fn has(self, place: usize) -> bool {
        self.0 & bit(place) != 0
    }
}

/// Returns the bit of a place. A device has fewer registrations than there are bits; further ones would share the last
/// bit.
fn bit(place: usize) -> u32 {
    1 << place.min(31)
}

/// An important stanza that the device does not have.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
struct WaitingStanza {
    seq: Seq,
    key: u64,
    chat: Option<Name>,
    call: Option<Name>,
    audience: Audience,
    class: Class,
    /// True if a push was about it.
    pushed: bool,
}

/// A call that was pushed. The caller chooses its id, so another caller with the same id is another call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CallId {
    /// The session of the call.
    pub call: Name,
    /// The other party.
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

/// The important stanzas that a device does not have, and the recently pushed ones.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct WaitingStanzas {
    entries: VecDeque<WaitingStanza>,
    recent: VecDeque<(Instant, u64)>,
    /// Calls that were pushed.
    pushed_calls: VecDeque<CallId>,
    /// True if a push about something unimportant is due, as mod_cloud_notify sends it.
    noise: bool,
}

/// The party that ended a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallEnder {
    /// The other party.
    Peer,
    /// Another client of the account. It need not name the other party.
    Account,
}

impl WaitingStanzas {
    /// Returns the bytes of memory in use.
    pub fn memory(&self) -> usize {
        let recent = self.recent.capacity() * size_of::<(Instant, u64)>();
        self.entries.capacity() * size_of::<WaitingStanza>()
            + recent
            + self.pushed_calls.capacity() * size_of::<CallId>()
    }

    /// Adds an important stanza. Returns `false` if it, or a copy, waits already or was pushed within the last five
    /// minutes.
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
        let pushed = self.recent.iter().any(|(_, recent)| *recent == key);
        reserve(&mut self.entries);
        self.entries.push_back(WaitingStanza { seq, key, chat, call, audience, class, pushed });
        !pushed
    }

    /// Notes that an unimportant stanza waits and has to be pushed.
    pub fn add_noise(&mut self) {
        self.noise = true;
    }

    /// Returns whether a push about something unimportant is due. Returns true only once.
    pub fn take_noise(&mut self) -> bool {
        std::mem::take(&mut self.noise)
    }

    /// Removes the messages of a conversation that another client of the account has read.
    pub fn read(&mut self, chat: Name) {
        self.entries.retain(|entry| entry.chat != Some(chat) || entry.class == Class::Subscribe);
    }

    /// Removes a call that another client of the account has taken or declined.
    pub fn answered(&mut self, call: Name) {
        self.entries.retain(|entry| entry.call != Some(call));
    }

    /// Returns whether this call was pushed.
    pub fn has_pushed(&self, call: CallId) -> bool {
        self.pushed_calls.contains(&call)
    }

    /// Notes that a call is pushed.
    pub fn ring(&mut self, call: CallId) {
        if self.pushed_calls.len() == PUSHED_CALLS {
            self.pushed_calls.pop_front();
        }
        self.pushed_calls.push_back(call);
    }

    /// Handles the end of a call. Returns whether the call was pushed, in which case its end has to be pushed too.
    pub fn over(&mut self, call: CallId, ender: CallEnder) -> bool {
        let of_account = |pushed: &CallId| ender == CallEnder::Account && pushed.call == call.call;
        let at = self.pushed_calls.iter().position(|pushed| *pushed == call || of_account(pushed));
        at.is_some_and(|at| self.pushed_calls.remove(at).is_some())
    }

    /// Removes the stanzas that are not `elsewhere`: the device has them, or they are counted again.
    pub fn keep(&mut self, elsewhere: impl Fn(Seq) -> bool) {
        self.entries.retain(|entry| elsewhere(entry.seq));
        if self.entries.is_empty() {
            self.entries = VecDeque::new();
        }
    }

    /// Returns whether the stanza at this place is a message and a newer message of its conversation waits too.
    pub fn is_followed(&self, seq: Seq) -> bool {
        let is_message = |entry: &&WaitingStanza| entry.class == Class::Message && entry.chat.is_some();
        let Some(at) = self.entries.iter().rposition(|entry| entry.seq == seq) else { return false };
        let Some(own) = self.entries.get(at).filter(is_message) else { return false };
        self.entries.range(at + 1..).any(|entry| entry.class == Class::Message && entry.chat == own.chat)
    }

    /// Notes that a push was about this stanza.
    pub fn mark_pushed(&mut self, now: Instant, seq: Seq) {
        let entries = self.entries.iter_mut().rev().filter(|entry| entry.seq == seq && !entry.pushed);
        mark_pushed(entries, now, &mut self.recent);
    }

    /// Notes that all waiting stanzas are pushed.
    pub fn mark_all_pushed(&mut self, now: Instant) {
        mark_pushed(self.entries.iter_mut().filter(|entry| !entry.pushed), now, &mut self.recent);
    }

    /// Returns whether a stanza waits that was in no push.
    pub fn has_new(&self) -> bool {
        self.noise || self.entries.iter().any(|entry| !entry.pushed)
    }

    /// Returns whether nothing important waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the number of stanzas that wait for the registration at this place.
    pub fn counts(&self, place: usize) -> WaitingCounts {
        let waiting = || self.entries.iter().filter(|entry| entry.audience.has(place));
        let subscriptions = waiting().filter(|entry| entry.class == Class::Subscribe).count();
        WaitingCounts { important: waiting().count(), subscriptions }
    }

    /// Returns whether the registration at this place may be notified of the stanza at place `seq`.
    pub fn may_notify_of(&self, place: usize, seq: Seq) -> bool {
        self.entries.iter().rev().any(|entry| entry.seq == seq && entry.audience.has(place))
    }

    /// Returns the place of the newest stanza for the registration at this place.
    pub fn newest(&self, place: usize) -> Option<Seq> {
        self.entries.iter().rev().find(|entry| entry.audience.has(place)).map(|entry| entry.seq)
    }
}

fn mark_pushed<'a>(
    entries: impl Iterator<Item = &'a mut WaitingStanza>,
    now: Instant,
    recent: &mut VecDeque<(Instant, u64)>,
) {
    for entry in entries {
        entry.pushed = true;
        if recent.len() == REMEMBERED {
            recent.pop_front();
        }
        reserve(recent);
        recent.push_back((now, entry.key));
    }
}

/// Makes room for one more entry and for up to a quarter more. Most devices have few waiting stanzas, for a long time.
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
    fn a_copy_of_a_waiting_or_recently_pushed_stanza_is_not_new() {
        let (mut waiting, now) = (WaitingStanzas::default(), Instant::now());
        assert!(waiting.add(now, Seq::new(1), message(1), Audience::ALL));
        assert!(!waiting.add(now, Seq::new(2), message(1), Audience::ALL), "it waits");
        waiting.mark_all_pushed(now);
        assert!(!waiting.has_new());
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
        assert!(waiting.may_notify_of(1, Seq::new(3)) && !waiting.may_notify_of(0, Seq::new(3)));
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
        let call = CallId { call: Name::new(5).unwrap(), chat: Name::new(7) };
        assert!(!waiting.over(call, CallEnder::Peer));
        waiting.ring(call);
        assert!(waiting.has_pushed(call));
        assert!(waiting.over(call, CallEnder::Peer));
        assert!(!waiting.over(call, CallEnder::Peer));
    }

    #[test]
    fn a_call_is_known_by_its_id_and_the_caller() {
        let mut waiting = WaitingStanzas::default();
        let call = CallId { call: Name::new(5).unwrap(), chat: Name::new(7) };
        let stranger = CallId { chat: Name::new(8), ..call };
        waiting.ring(call);
        assert!(!waiting.has_pushed(stranger) && !waiting.over(stranger, CallEnder::Peer));
        // A client of the account informs the other clients by a message to the account.
        assert!(waiting.over(stranger, CallEnder::Account));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut waiting, now) = (WaitingStanzas::default(), Instant::now());
        for n in 0..20_000 {
            waiting.add(now, Seq::new(n), message(n), Audience::ALL);
            if n % 1000 == 999 {
                waiting.mark_all_pushed(now);
            }
        }
        for n in 1..100 {
            waiting.ring(CallId { call: Name::new(n).unwrap(), chat: None });
        }
        assert_eq!(
            (waiting.entries.len(), waiting.recent.len(), waiting.pushed_calls.len()),
            (COUNTED, REMEMBERED, PUSHED_CALLS)
        );
    }
}
