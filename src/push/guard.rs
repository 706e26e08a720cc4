//! The poison guard ([`Guard`]): a stanza on which a device's client fails again and again is set aside (quarantined),
//! and the device does not receive it any more.
//!
//! ```text
//!   the client ends within 5 s after its first unacknowledged stanza was written   1st, 2nd end: it is suspect
//!   the next attachment gets the suspect alone, and ends in the same way           3rd end: it is set aside
//!   the attachment after that ends within 5 s, without the stanza                  all stanzas set aside go back
//! ```
//!
//! [`Mark`], a hash of the content, identifies a stanza. It stays the same in a resumed session, after a new login, and
//! when the server delivers the stanza again. The state is stored with the device and survives restarts. The module is
//! pure: the time is an argument.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::UnixMillis;

/// The longest time between the writing of a stanza, or the start of an attachment, and an end that counts against it.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// The number of ends after which a stanza is written alone.
const ENDS: u8 = 2;
/// The maximum number of stanzas of one device that are set aside at the same time.
const MAX_SET_ASIDE: usize = 100;
/// The time for which the guard is off for a device after it has set aside the wrong stanzas.
const PAUSE: Duration = Duration::from_secs(3600);

/// The hash that identifies a stanza.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mark(pub u64);

/// A stanza that may be the cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Suspect {
    mark: Mark,
    /// The number of attachments that ended soon after it was written, [`ENDS`] at most.
    ends: u8,
}

/// A stanza that the device does not get any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Aside {
    mark: Mark,
    /// The time at which it was set aside.
    since: UnixMillis,
}

/// The guard of one device. Empty unless its client has ended soon after a stanza.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Guard {
    #[serde(skip_serializing_if = "Option::is_none")]
    suspect: Option<Suspect>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    aside: Vec<Aside>,
    /// True if a stanza was just set aside. The next attachment shows whether it was the cause.
    #[serde(skip_serializing_if = "is_false")]
    trial: bool,
    /// The time until which the guard is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    paused_until: Option<UnixMillis>,
}

/// Serde leaves such fields out.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// An attachment that the client itself has ended: by a stream error, a stream footer, or a closed or reset connection.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// The time of the end.
    pub now: UnixMillis,
    /// The time since the bind or the resumption.
    pub lasted: Duration,
    /// The first stanza that the client had not acknowledged.
    pub first: Option<First>,
    /// The time for which stanzas are kept. A stanza stays set aside for the same time.
    pub ttl: Duration,
}

/// The first stanza that a client had not acknowledged when it ended.
#[derive(Clone, Copy, Debug)]
pub struct First {
    /// The stanza.
    pub mark: Mark,
    /// The time since it was written.
    pub written: Duration,
    /// True if nothing was written after it.
    pub alone: bool,
}

/// The consequence of an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The end says nothing about a stanza.
    Nothing,
    /// The first unacknowledged stanza is suspect.
    Suspected,
    /// The first unacknowledged stanza is set aside.
    SetAside,
    /// All stanzas that were set aside go back to their places. Holds their number.
    GivenBack(usize),
}

impl Guard {
    /// Returns whether the guard has no state.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Handles the end of an attachment. Call it only for ends that the client itself caused, not for timeouts.
    pub fn ended(&mut self, end: End) -> Finding {
        self.age(end.now, end.ttl);
        let trial = std::mem::take(&mut self.trial);
        if self.paused_until.is_some() {
            self.suspect = None;
            return Finding::Nothing;
        }
        if trial && end.lasted <= PATIENCE {
            let aside = std::mem::take(&mut self.aside);
            self.suspect = None;
            self.paused_until = Some(end.now.plus(PAUSE));
            return Finding::GivenBack(aside.len());
        }
        match end.first.filter(|first| first.written <= PATIENCE) {
            Some(first) => self.suspects(end.now, first),
            None => Finding::Nothing,
        }
    }

    fn suspects(&mut self, now: UnixMillis, first: First) -> Finding {
        let ends = self.suspect.filter(|suspect| suspect.mark == first.mark).map_or(0, |suspect| suspect.ends);
        if ends >= ENDS && first.alone && self.aside.len() < MAX_SET_ASIDE {
            self.suspect = None;
            self.aside.push(Aside { mark: first.mark, since: now });
            self.trial = true;
            return Finding::SetAside;
        }
        self.suspect = Some(Suspect { mark: first.mark, ends: ends.saturating_add(1).min(ENDS) });
        Finding::Suspected
    }

    /// Forgets stanzas that are older than `ttl`, and a pause that is over.
    pub fn age(&mut self, now: UnixMillis, ttl: Duration) {
        self.aside.retain(|aside| aside.since.plus(ttl) > now);
        self.paused_until = self.paused_until.filter(|until| *until > now);
    }

    /// Clears stanzas that the client has acknowledged, by an `<a/>` or by the `h` of its resumption. `lasted` is the
    /// age of the attachment. Does not read `stanzas` unless a stanza is suspect or set aside.
    pub fn acknowledged(&mut self, lasted: Duration, stanzas: impl Iterator<Item = Mark>) {
        self.trial &= lasted <= PATIENCE;
        if self.suspect.is_none() && self.aside.is_empty() {
            return;
        }
        for mark in stanzas {
            self.suspect = self.suspect.filter(|suspect| suspect.mark != mark);
            if let Some(at) = self.aside.iter().position(|aside| aside.mark == mark) {
                self.aside.remove(at);
                self.trial = false;
            }
        }
    }

    /// Returns all stanzas that were set aside to their places. Returns their number.
    pub fn release(&mut self) -> usize {
        self.trial = false;
        std::mem::take(&mut self.aside).len()
    }

    /// Returns whether each stanza has to be checked before it is written.
    pub fn is_watchful(&self) -> bool {
        !self.aside.is_empty() || self.suspect.is_some_and(|suspect| suspect.ends >= ENDS)
    }

    /// Returns whether a stanza has to be written alone, with nothing after it until it is acknowledged.
    pub fn wants_alone(&self, mark: Mark, now: UnixMillis) -> bool {
        let paused = self.paused_until.is_some_and(|until| until > now);
        !paused && self.suspect.is_some_and(|suspect| suspect.mark == mark && suspect.ends >= ENDS)
    }

    /// Returns whether a stanza is set aside.
    pub fn has_aside(&self, mark: Mark) -> bool {
        self.aside.iter().any(|aside| aside.mark == mark)
    }

    /// Returns the number of stanzas that are set aside.
    pub fn count(&self) -> usize {
        self.aside.len()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Returns the guard of a device for which this stanza was set aside.
    pub(crate) fn with_aside(mark: Mark) -> Guard {
        let mut rig = Rig::default();
        rig.set_aside(mark);
        rig.guard
    }

    const POISON: Mark = Mark(1);
    const GOOD: Mark = Mark(2);
    const SECOND: u64 = 1000;
    const TTL: Duration = Duration::from_secs(14 * 24 * 3600);

    /// A device whose attachments last one second each, unless a test sets another time.
    #[derive(Default)]
    struct Rig {
        guard: Guard,
        now: UnixMillis,
    }

    impl Rig {
        fn end(&mut self, first: Option<Mark>, written: u64, lasted: u64) -> Finding {
            self.now = self.now.plus(Duration::from_millis(lasted));
            let alone = |mark| self.guard.wants_alone(mark, self.now);
            let first = first.map(|mark| First { mark, written: Duration::from_millis(written), alone: alone(mark) });
            let finding =
                self.guard.ended(End { now: self.now, lasted: Duration::from_millis(lasted), first, ttl: TTL });
            // The state is the same after a restart.
            let stored = serde_json::to_string(&self.guard).unwrap();
            assert_eq!(serde_json::from_str::<Guard>(&stored).unwrap(), self.guard);
            finding
        }

        fn breaks_on(&mut self, mark: Mark) -> Finding {
            self.end(Some(mark), SECOND, SECOND)
        }

        fn set_aside(&mut self, mark: Mark) {
            assert_eq!(
                [mark; 3].map(|mark| self.breaks_on(mark)),
                [Finding::Suspected, Finding::Suspected, Finding::SetAside]
            );
        }

        fn acknowledges(&mut self, lasted: u64, marks: &[Mark]) {
            self.now = self.now.plus(Duration::from_millis(lasted));
            self.guard.acknowledged(Duration::from_millis(lasted), marks.iter().copied());
        }
    }

    #[test]
    fn after_two_ends_a_stanza_is_written_alone_and_after_the_third_it_is_set_aside() {
        let mut rig = Rig::default();
        for (finding, alone, aside) in
            [(Finding::Suspected, false, false), (Finding::Suspected, true, false), (Finding::SetAside, false, true)]
        {
            assert_eq!(rig.breaks_on(POISON), finding);
            assert_eq!((rig.guard.wants_alone(POISON, rig.now), rig.guard.has_aside(POISON)), (alone, aside));
            assert!(!rig.guard.wants_alone(GOOD, rig.now) && !rig.guard.has_aside(GOOD));
        }
        assert_eq!(rig.guard.count(), 1);
    }

    #[test]
    fn only_an_end_within_five_seconds_after_the_writing_counts() {
        let mut rig = Rig::default();
        for written in [5001, 3_600_000, 5001] {
            assert_eq!(rig.end(Some(POISON), written, 3_600_000), Finding::Nothing);
            assert!(rig.guard.is_empty());
        }
        rig.end(Some(POISON), 5000, 3_600_000);
        rig.end(Some(POISON), 5000, 3_600_000);
        assert!(rig.guard.wants_alone(POISON, rig.now));
        assert_eq!(rig.end(Some(POISON), 5001, 3_600_000), Finding::Nothing, "it had its time");
        assert_eq!(rig.end(Some(POISON), 5000, 3_600_000), Finding::SetAside);
    }

    #[test]
    fn a_stanza_that_was_not_alone_is_not_set_aside() {
        let mut rig = Rig::default();
        for _ in 0..5 {
            let first = Some(First { mark: POISON, written: Duration::ZERO, alone: false });
            let end = End { now: UnixMillis::default(), lasted: Duration::from_secs(60), first, ttl: TTL };
            assert_eq!(rig.guard.ended(end), Finding::Suspected);
        }
        assert!(rig.guard.wants_alone(POISON, UnixMillis::default()));
    }

    #[test]
    fn an_acknowledgement_clears_a_stanza_of_suspicion() {
        let mut rig = Rig::default();
        for _ in 0..10 {
            rig.breaks_on(GOOD);
            rig.breaks_on(GOOD);
            assert!(rig.guard.wants_alone(GOOD, rig.now));
            rig.acknowledges(100, &[POISON]);
            assert!(rig.guard.wants_alone(GOOD, rig.now), "not by that of another stanza");
            rig.acknowledges(100, &[GOOD]);
            assert!(rig.guard.is_empty());
        }
    }

    #[test]
    fn the_suspect_is_always_the_first_one() {
        let mut rig = Rig::default();
        for _ in 0..10 {
            assert_eq!([rig.breaks_on(POISON), rig.breaks_on(GOOD)], [Finding::Suspected; 2]);
        }
        assert!(!rig.guard.wants_alone(GOOD, rig.now) && !rig.guard.wants_alone(POISON, rig.now));
        // An end with nothing unacknowledged says nothing about a stanza.
        rig.breaks_on(GOOD);
        rig.end(None, 0, SECOND);
        assert!(rig.guard.wants_alone(GOOD, rig.now));
    }

    #[test]
    fn if_the_client_ends_anyway_all_stanzas_go_back_and_the_guard_pauses_for_an_hour() {
        for (first, lasted) in [(None, 0), (None, 5000), (Some(GOOD), 1000)] {
            let mut rig = Rig::default();
            rig.set_aside(POISON);
            assert_eq!(rig.end(first, 0, lasted), Finding::GivenBack(1));
            assert_eq!(rig.guard.count(), 0);
            let until = rig.now.plus(PAUSE);
            while rig.now.plus(Duration::from_millis(SECOND)) < until {
                assert_eq!(rig.breaks_on(POISON), Finding::Nothing);
                assert!(!rig.guard.wants_alone(POISON, rig.now));
            }
            rig.set_aside(POISON);
        }
    }

    #[test]
    fn what_was_set_aside_before_goes_back_too() {
        let mut rig = Rig::default();
        rig.set_aside(POISON);
        assert_eq!(rig.end(Some(GOOD), 1000, 6000), Finding::Suspected, "it was the cause");
        rig.breaks_on(GOOD);
        assert_eq!(rig.breaks_on(GOOD), Finding::SetAside);
        assert_eq!(rig.end(None, 0, SECOND), Finding::GivenBack(2));
    }

    #[test]
    fn an_attachment_that_lasts_shows_that_the_stanza_was_the_cause() {
        let mut rig = Rig::default();
        rig.set_aside(POISON);
        rig.end(None, 0, 5001);
        assert_eq!(rig.end(None, 0, SECOND), Finding::Nothing);
        assert!(rig.guard.has_aside(POISON));
        let mut rig = Rig::default();
        rig.set_aside(POISON);
        rig.acknowledges(4000, &[GOOD]);
        assert!(rig.guard.trial);
        rig.acknowledges(5001, &[GOOD]);
        assert_eq!(rig.end(None, 0, SECOND), Finding::Nothing);
        assert!(rig.guard.has_aside(POISON));
    }

    #[test]
    fn an_acknowledged_stanza_is_not_set_aside_any_more() {
        let mut rig = Rig::default();
        rig.set_aside(POISON);
        rig.acknowledges(0, &[POISON]);
        assert!(rig.guard.is_empty());
    }

    #[test]
    fn the_operator_releases_what_is_set_aside_and_the_guard_goes_on() {
        let mut rig = Rig::default();
        rig.set_aside(POISON);
        assert_eq!((rig.guard.release(), rig.guard.release()), (1, 0));
        assert!(rig.guard.is_empty());
        rig.set_aside(POISON);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_ends_with_the_stanza() {
        let mut rig = Rig::default();
        for n in 10..10 + MAX_SET_ASIDE as u64 {
            rig.set_aside(Mark(n));
            rig.acknowledges(6000, &[]);
        }
        assert_eq!([POISON; 4].map(|mark| rig.breaks_on(mark)), [Finding::Suspected; 4], "there is no room");
        rig.now = rig.now.plus(TTL);
        assert_eq!((rig.breaks_on(POISON), rig.guard.count()), (Finding::SetAside, 1));
    }
}
