//! The schedule of notifications for a device that cannot be reached: at the start of a burst, then at most once per interval,
//! and again while it does not come.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::registration::Target;
use super::settings::PushSettings;

/// Calls of so long ago count for the bound on calls.
const CALL_WINDOW: Duration = Duration::from_secs(60);
/// Calls that are notified at once in that time; more wait like messages.
const CALLS: usize = 5;

/// The push clock of one device.
///
/// A stanza for a device that has been unreachable for `batch_delay` notifies at once; one that came earlier, or was unacked
/// when the device became unreachable, when that time is over. Then at most one push leaves per `min_interval`, and the
/// trailing one is never lost. All of it waits until no other client of the account was active for `grace`. Calls wait for
/// nothing. A device that does not come is notified again after each of `repush`.
#[derive(Clone, Debug)]
pub struct Schedule {
    settings: Arc<PushSettings>,
    last_push: Option<Instant>,
    due: Option<Instant>,
    again: Option<Again>,
    retries: Vec<Retry>,
    /// The time at which another client of the account was last active.
    active: Option<Instant>,
    /// A call is to be notified.
    call: bool,
    calls: VecDeque<Instant>,
}

/// The pushes to come for a device that stays away.
#[derive(Clone, Copy, Debug)]
struct Again {
    pushed: Instant,
    next: usize,
}

/// A publish that was refused for now.
#[derive(Clone, Debug)]
struct Retry {
    target: Target,
    backoff: Backoff,
    /// `None` while its publish is on the way.
    due: Option<Instant>,
}

/// A push that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// Somebody calls.
    Call,
    /// Something new waits.
    News,
    /// The device did not come for what waits.
    Again,
    /// The service refused it for now, some time ago.
    Retry(Target),
}

impl Schedule {
    /// A device about which nothing was pushed yet.
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

    /// Goes by other times from now on; what is due stays due.
    pub fn change(&mut self, settings: Arc<PushSettings>) {
        self.settings = settings;
    }

    /// Something new waits for a device that has been unreachable since `since`.
    pub fn waiting(&mut self, now: Instant, since: Instant) {
        if self.due.is_some() {
            return;
        }
        let settled = since + self.settings.batch_delay;
        let allowed = self.last_push.map_or(settled, |last| settled.max(last + self.settings.min_interval));
        self.due = Some(allowed.max(now));
    }

    /// Notes that the waiting stanzas were pushed before: the device came, and left again without taking them.
    pub fn still_waiting(&mut self, now: Instant) {
        self.again.get_or_insert(Again { pushed: now, next: 0 });
    }

    /// Somebody calls; `false` if there were so many calls that this one waits like a message.
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

    /// Another client of the account was active.
    pub fn active(&mut self, now: Instant) {
        if !self.settings.grace.is_zero() {
            self.active = Some(now);
        }
    }

    /// A publish was refused for now: it is repeated, later each time, for an hour.
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

    /// A publish was answered otherwise, or its target is no more.
    pub fn settled(&mut self, target: &Target) {
        self.retries.retain(|retry| retry.target != *target);
    }

    /// The time at which [`Schedule::next`] has something.
    pub fn deadline(&self) -> Option<Instant> {
        let retry = self.retries.iter().filter_map(|retry| retry.due).min();
        // A call is taken at once.
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

    /// The push that is due now, if one is.
    pub fn next(&mut self, now: Instant) -> Option<Due> {
        if std::mem::take(&mut self.call) {
            return Some(Due::Call);
        }
        if self.due.is_some_and(|due| self.graced(due) <= now) {
            self.due = None;
            self.last_push = Some(now);
            self.again = Some(Again { pushed: now, next: 0 });
            return Some(Due::News);
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

    /// Nothing new waits any more.
    pub fn no_news(&mut self) {
        self.due = None;
    }

    /// Nothing waits any more.
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

        /// All that is due up to this moment, with its time in milliseconds.
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
        assert_eq!(rig.run(5_000), [(5_000, Due::News)]);
    }

    #[test]
    fn a_burst_around_going_dark_is_one_push_when_the_batch_delay_is_over() {
        let mut rig = Rig::new(|_| {});
        rig.waiting(0);
        rig.waiting(300);
        assert_eq!(rig.run(20_000), [(1_000, Due::News)]);
    }

    #[test]
    fn what_comes_within_the_interval_is_pushed_at_its_end() {
        let mut rig = Rig::new(|_| {});
        rig.waiting(5_000);
        assert_eq!(rig.run(5_000), [(5_000, Due::News)]);
        rig.waiting(6_000);
        rig.waiting(7_000);
        assert_eq!(rig.run(30_000), [(25_000, Due::News)]);
    }

    #[test]
    fn a_device_that_does_not_come_is_notified_again_and_again_and_then_no_more() {
        let mut rig = Rig::new(|_| {});
        rig.waiting(5_000);
        let all = rig.run(10_000_000);
        assert_eq!(
            all,
            [(5_000, Due::News), (65_000, Due::Again), (305_000, Due::Again), (1_805_000, Due::Again)],
            "60 s, 5 min and 30 min after the push"
        );
        rig.waiting(11_000_000);
        assert_eq!(rig.run(11_000_000), [(11_000_000, Due::News)]);
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
        assert_eq!(rig.run(23_000), [(23_000, Due::News)]);
        assert!(rig.schedule.call(rig.at(23_500)));
        assert_eq!(rig.run(23_500), [(23_500, Due::Call)], "calls are exempt");
    }

    #[test]
    fn what_was_refused_for_now_is_repeated_ever_later_for_an_hour() {
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
