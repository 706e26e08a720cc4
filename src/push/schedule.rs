//! The schedule of notifications for a device that cannot be reached: at the start of a burst, then at most once per
//! interval, and again while the device does not connect. [`Schedule`] holds the times of one device.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::registration::Target;
use super::retry::Backoff;
use super::settings::PushSettings;
use crate::clock::Instant;

/// The time for which a call counts towards [`CALLS`].
const CALL_WINDOW: Duration = Duration::from_secs(60);
/// The number of calls in that time that are notified at once. Further calls wait like messages.
const CALLS: usize = 5;

/// The push schedule of one device.
///
/// A stanza for a device that has been unreachable for `batch_delay` notifies at once. A stanza that came earlier, or
/// was unacknowledged when the device became unreachable, notifies at the end of that time. After that, at most one
/// push is sent per `min_interval`, and the last one of a burst is never lost. All these pushes wait until no other
/// client of the account was active for `grace`. Calls do not wait. A device that does not connect is notified again
/// after each of `repush`.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Schedule {
    #[serde(skip)]
    settings: Arc<PushSettings>,
    last_push: Option<Instant>,
    due: Option<Instant>,
    again: Option<Again>,
    retries: Vec<Retry>,
    /// The time at which another client of the account was last active.
    active: Option<Instant>,
    /// True if a call is due.
    call: bool,
    calls: VecDeque<Instant>,
}

/// The repeated pushes for a device that does not connect.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
struct Again {
    pushed: Instant,
    next: usize,
}

/// A publish that was refused temporarily.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct Retry {
    target: Target,
    backoff: Backoff,
    /// `None` while its publish is on the way.
    due: Option<Instant>,
}

/// A push that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// A call is due.
    Call,
    /// Something new waits.
    New,
    /// The device did not connect after the last push.
    Again,
    /// The retry of a publish that the service refused temporarily.
    Retry(Target),
}

impl Schedule {
    /// Starts for a device about which nothing was pushed yet.
    pub fn new(settings: Arc<PushSettings>) -> Self {
        Self {
            settings,
            last_push: None,
            due: None,
            again: None,
            retries: Vec::new(),
            active: None,
            call: false,
            calls: VecDeque::new(),
        }
    }

    /// Uses other settings from now on. A push that is due keeps its time.
    pub fn change(&mut self, settings: Arc<PushSettings>) {
        self.settings = settings;
    }

    /// Schedules a push about something new for a device that has been unreachable since `since`.
    pub fn waiting(&mut self, now: Instant, since: Instant) {
        if self.due.is_some() {
            return;
        }
        let settled = since + self.settings.batch_delay;
        let allowed = self.last_push.map_or(settled, |last| settled.max(last + self.settings.min_interval));
        self.due = Some(allowed.max(now));
    }

    /// Notes that the waiting stanzas were pushed before: the device connected, and left again without taking them.
    pub fn still_waiting(&mut self, now: Instant) {
        self.again.get_or_insert(Again { pushed: now, next: 0 });
    }

    /// Schedules the push of a call. Returns `false` if there were too many calls, so that this one waits like a
    /// message.
    pub fn call(&mut self, now: Instant) -> bool {
        while self.calls.front().is_some_and(|at| *at + CALL_WINDOW <= now) {
            self.calls.pop_front();
        }
        if self.calls.len() == CALLS {
            return false;
        }
        self.calls.push_back(now);
        self.call = true;
        true
    }

    /// Notes activity of another client of the account.
    pub fn active(&mut self, now: Instant) {
        if !self.settings.grace.is_zero() {
            self.active = Some(now);
        }
    }

    /// Handles the temporary refusal of a publish. The publish is retried for an hour, with growing pauses.
    pub fn refused_for_now(&mut self, now: Instant, target: &Target) {
        if !self.retries.iter().any(|retry| retry.target == *target) {
            self.retries.push(Retry { target: target.clone(), backoff: Backoff::new(now), due: None });
        }
        let Some(retry) = self.retries.iter_mut().find(|retry| retry.target == *target) else { return };
        retry.due = retry.backoff.next(now);
        if retry.due.is_none() {
            self.settled(target);
        }
    }

    /// Ends the retries for a target: a publish got another answer, or the target was removed.
    pub fn settled(&mut self, target: &Target) {
        self.retries.retain(|retry| retry.target != *target);
    }

    /// Returns the time at which [`Schedule::next`] has a push.
    pub fn deadline(&self) -> Option<Instant> {
        let retry = self.retries.iter().filter_map(|retry| retry.due).min();
        // The push of a call is due at once.
        let call = self.call.then(|| self.calls.back().copied()).flatten();
        [call, self.due.map(|due| self.graced(due)), self.again_at(), retry].into_iter().flatten().min()
    }

    fn graced(&self, due: Instant) -> Instant {
        self.active.map_or(due, |active| due.max(active + self.settings.grace))
    }

    fn again_at(&self) -> Option<Instant> {
        let again = self.again?;
        self.settings.repush.get(again.next).map(|after| self.graced(again.pushed + *after))
    }

    /// Returns the push that is due now, if there is one.
    pub fn next(&mut self, now: Instant) -> Option<Due> {
        if std::mem::take(&mut self.call) {
            return Some(Due::Call);
        }
        if self.due.is_some_and(|due| self.graced(due) <= now) {
            self.due = None;
            self.last_push = Some(now);
            self.again = Some(Again { pushed: now, next: 0 });
            return Some(Due::New);
        }
        if self.again_at().is_some_and(|at| at <= now) {
            if let Some(again) = &mut self.again {
                again.next += 1;
            }
            self.last_push = Some(now);
            return Some(Due::Again);
        }
        let retry = self.retries.iter_mut().find(|retry| retry.due.is_some_and(|due| due <= now))?;
        retry.due = None;
        Some(Due::Retry(retry.target.clone()))
    }

    /// Cancels the next push, since nothing new waits.
    pub fn nothing_new(&mut self) {
        self.due = None;
    }

    /// Cancels all pushes, since nothing waits.
    pub fn nothing_waits(&mut self) {
        (self.due, self.again, self.call) = (None, None, false);
        self.retries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Rig {
        start: Instant,
        schedule: Schedule,
    }

    impl Rig {
        fn new(adjust: impl FnOnce(&mut PushSettings)) -> Self {
            let mut settings = PushSettings::default();
            adjust(&mut settings);
            Self { start: Instant::now(), schedule: Schedule::new(Arc::new(settings)) }
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        fn waiting(&mut self, ms: u64) {
            self.schedule.waiting(self.at(ms), self.start);
        }

        /// Returns all pushes that are due up to this moment, with their times in milliseconds.
        fn run(&mut self, until: u64) -> Vec<(u64, Due)> {
            let mut seen = Vec::new();
            while let Some(at) = self.schedule.deadline().filter(|at| *at <= self.at(until)) {
                let ms = u64::try_from((at - self.start).as_millis()).unwrap();
                seen.push((ms, self.schedule.next(at).unwrap()));
            }
            seen
        }
    }

    fn target() -> Target {
        Target { service: "push.example".parse().unwrap(), node: None }
    }

    #[test]
    fn the_first_stanza_for_a_device_long_dark_notifies_at_once() {
        let mut rig = Rig::new(|_| {});
        rig.waiting(5_000);
        assert_eq!(rig.run(5_000), [(5_000, Due::New)]);
    }

    #[test]
    fn a_burst_around_going_dark_is_one_push_when_the_batch_delay_is_over() {
        let mut rig = Rig::new(|_| {});
        rig.waiting(0);
        rig.waiting(300);
        assert_eq!(rig.run(20_000), [(1_000, Due::New)]);
    }

    #[test]
    fn what_comes_within_the_interval_is_pushed_at_its_end() {
        let mut rig = Rig::new(|_| {});
        rig.waiting(5_000);
        assert_eq!(rig.run(5_000), [(5_000, Due::New)]);
        rig.waiting(6_000);
        rig.waiting(7_000);
        assert_eq!(rig.run(30_000), [(25_000, Due::New)]);
    }

    #[test]
    fn a_device_that_does_not_connect_is_notified_again_a_limited_number_of_times() {
        let mut rig = Rig::new(|_| {});
        rig.waiting(5_000);
        let all = rig.run(10_000_000);
        assert_eq!(
            all,
            [(5_000, Due::New), (65_000, Due::Again), (305_000, Due::Again), (1_805_000, Due::Again)],
            "60 s, 5 min and 30 min after the push"
        );
        rig.waiting(11_000_000);
        assert_eq!(rig.run(11_000_000), [(11_000_000, Due::New)]);
        rig.schedule.nothing_waits();
        assert_eq!(rig.run(100_000_000), []);
    }

    #[test]
    fn a_call_waits_for_nothing_but_too_many_wait_like_messages() {
        let mut rig = Rig::new(|_| {});
        rig.waiting(5_000);
        rig.run(5_000);
        for n in 0..5 {
            assert!(rig.schedule.call(rig.at(6_000 + n)));
            assert_eq!(rig.run(6_000 + n), [(6_000 + n, Due::Call)]);
        }
        assert!(!rig.schedule.call(rig.at(7_000)));
        assert!(rig.schedule.call(rig.at(66_000)));
    }

    #[test]
    fn while_another_client_is_active_a_push_waits_for_its_grace() {
        let mut rig = Rig::new(|push| push.grace = Duration::from_secs(10));
        rig.schedule.active(rig.at(4_000));
        rig.waiting(5_000);
        assert_eq!(rig.run(13_000), []);
        rig.schedule.active(rig.at(13_000));
        assert_eq!(rig.run(23_000), [(23_000, Due::New)]);
        assert!(rig.schedule.call(rig.at(23_500)));
        assert_eq!(rig.run(23_500), [(23_500, Due::Call)], "calls are exempt");
    }

    #[test]
    fn a_temporary_refusal_is_retried_with_growing_pauses_for_an_hour() {
        let mut rig = Rig::new(|_| {});
        let mut times = Vec::new();
        rig.schedule.refused_for_now(rig.start, &target());
        while let Some(at) = rig.schedule.deadline() {
            assert_eq!(rig.schedule.next(at), Some(Due::Retry(target())));
            assert_eq!(rig.schedule.deadline(), None, "one at a time");
            times.push((at - rig.start).as_secs());
            rig.schedule.refused_for_now(at, &target());
        }
        assert_eq!(times, [10, 30, 70, 150, 310, 630, 1270, 2550, 3600]);
        rig.schedule.refused_for_now(rig.start, &target());
        rig.schedule.settled(&target());
        assert_eq!(rig.schedule.deadline(), None);
    }
}
