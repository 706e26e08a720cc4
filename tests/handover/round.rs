//! A round: traffic in all directions, with or without a handover, until all notifications have arrived.
//!
//! Each dark session gets the same number of messages that notify in each round, at times that make the number of its
//! notifications independent of delays: either one message, or one before the traffic, whose notification is awaited, and
//! more within `min_interval` after it. Where a slow machine does not do that in time, there may be one more notification. Such
//! cases are counted, and fail the run if they are frequent.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::sleep;

use crate::content::Kind;
use crate::phone::World;

/// The shortest time of the traffic, in which messages that notify are spread.
const TRAFFIC: Duration = Duration::from_secs(1);
/// The pause between two steps of the traffic.
const STEP: Duration = Duration::from_millis(5);
/// The number of sessions for each of which there is one more stanza in a step.
const SHARE: usize = 250;
/// The maximum time until a round has the notifications that it must have.
const PUBLISHES: Duration = Duration::from_secs(20);
/// The time after the last notification in which no other one may come.
const QUIET: Duration = Duration::from_secs(1);
/// The time that Pushward may take to read what was sent before.
const MARGIN: Duration = Duration::from_secs(1);
/// The pause between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(20);

/// `batch_delay` and `min_interval`.
pub(crate) const BATCH_DELAY: Duration = Duration::from_secs(3);
pub(crate) const MIN_INTERVAL: Duration = Duration::from_secs(6);

/// The sessions of a run, and its random numbers.
pub(crate) struct Traffic {
    /// Accounts 0 to `dark` − 1 have dark sessions, the next `live` ones have live sessions.
    pub(crate) dark: usize,
    pub(crate) live: usize,
    pub(crate) random: StdRng,
}

impl Traffic {
    pub(crate) fn new((dark, live): (usize, usize), seed: u64) -> Self {
        Self { dark, live, random: StdRng::seed_from_u64(seed) }
    }

    /// Returns whether a dark account gets several messages that notify in each round. Half of them do, with and without
    /// stream management.
    fn is_busy(account: usize) -> bool {
        account % 4 < 2
    }

    /// The number of notifications of a round for an account.
    fn notifications(&self, account: usize) -> usize {
        if account >= self.dark { 0 } else { 1 + usize::from(Self::is_busy(account)) }
    }

    /// Starts a round: busy accounts get a message, and their notifications arrive.
    pub(crate) async fn open(&self, world: &World) {
        world.server.round.fetch_add(1, Ordering::Relaxed);
        world.late.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let busy = || (0..self.dark).filter(|account| Self::is_busy(*account));
        for account in busy() {
            world.server.account(account).message(Kind::Chat);
        }
        let has_all = || busy().all(|account| published(world, account) >= 1);
        if !eventually(PUBLISHES, has_all).await {
            world.findings.add("the first message of a round notifies", round(world));
        }
    }

    /// Sends without pause until `is_over`, and until all messages of the round are sent.
    pub(crate) async fn flow(&mut self, world: &World, is_over: impl Fn() -> bool) {
        let mut due = Vec::new();
        for account in 0..self.dark {
            for number in 0..if Self::is_busy(account) { 3 } else { 1 } {
                let kind = if (account + number) % 3 == 0 { Kind::Room } else { Kind::Chat };
                due.push((self.random.random_range(Duration::ZERO..TRAFFIC), account, kind));
            }
        }
        due.sort_by_key(|(at, ..)| std::cmp::Reverse(*at));
        let began = Instant::now();
        while !is_over() || !due.is_empty() || began.elapsed() < TRAFFIC {
            while let Some((_, account, kind)) = due.pop_if(|(at, ..)| *at <= began.elapsed()) {
                world.server.account(account).message(kind);
            }
            self.step(world);
            sleep(STEP).await;
        }
    }

    /// One step of the traffic that causes no notifications: more with more sessions, so that each has some in a second.
    fn step(&mut self, world: &World) {
        for _ in 0..=self.dark / SHARE {
            let mut dark = || self.random.random_range(0..self.dark);
            world.server.account(dark()).message(Kind::Receipt);
            world.server.account(dark()).ping();
            // Not all accounts have stream management.
            world.server.account(dark()).request();
            world.server.account(dark()).request();
        }
        let live = self.live.checked_sub(1).map_or(0, |last| 1 + last / SHARE);
        for kind in [Kind::Chat, Kind::Room].into_iter().cycle().take(2 * live) {
            let account = self.dark + self.random.random_range(0..self.live);
            world.server.account(account).message(kind);
            world.server.account(account).request();
        }
    }

    /// Waits until all notifications of the round have arrived, and checks them.
    pub(crate) async fn settle(&self, world: &World) {
        let sent = Instant::now();
        let accounts = self.dark + self.live;
        let has_all = || (0..accounts).all(|account| published(world, account) >= self.notifications(account));
        eventually(PUBLISHES, has_all).await;
        // Further ones would come by now.
        let last = world.server.each(|account| account.publishes.last().map(|publish| publish.at));
        let last = last.into_iter().flatten().max().unwrap_or(sent);
        let until = (last + QUIET).max(sent + BATCH_DELAY + QUIET);
        sleep(until.saturating_duration_since(Instant::now())).await;
        let late = world.late.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for account in (0..accounts).filter(|account| !late.contains(account)) {
            self.check(world, account, sent);
        }
    }

    /// Checks the notifications of an account. `sent`: the time at which all messages had been sent and the handover was over.
    fn check(&self, world: &World, number: usize, sent: Instant) {
        let round = round(world);
        let (expected, account) = (self.notifications(number), world.server.account(number));
        let of_round = account.publishes.iter().filter(|publish| publish.round == world.round());
        let publishes: Vec<_> = of_round.copied().collect();
        let counts: Vec<_> = publishes.iter().map(|publish| publish.count).collect();
        world.compared.fetch_add(1, Ordering::Relaxed);
        let first = publishes.first().filter(|_| expected > 1).map(|publish| publish.at);
        if first.is_some_and(|first| sent + MARGIN > first + MIN_INTERVAL) && counts.len() >= expected {
            world.slow.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if counts.len() != expected {
            let detail = format!("{round}, account {number}: message-counts {counts:?}, {expected} expected");
            world.findings.add("each round has the same notifications", detail);
        }
        let last = counts.last().copied().unwrap_or(account.notifying);
        if number < self.dark && last != account.notifying {
            let detail = format!("{round}, account {number}: {last}, expected {}", account.notifying);
            world.findings.add("the message-count is that of the messages that wait", detail);
        }
    }
}

/// Returns the number of notifications of this round for an account.
fn published(world: &World, account: usize) -> usize {
    let account = world.server.account(account);
    account.publishes.iter().rev().take_while(|publish| publish.round == world.round()).count()
}

fn round(world: &World) -> String {
    format!("round {}", world.round())
}

/// Waits until a condition holds. Returns whether it does.
pub(crate) async fn eventually(patience: Duration, holds: impl Fn() -> bool) -> bool {
    let until = Instant::now() + patience;
    while !holds() {
        if Instant::now() > until {
            return false;
        }
        sleep(PAUSE).await;
    }
    true
}
