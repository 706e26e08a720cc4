//! The checks at the end of a run, and what it prints.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::account::{ANSWER, Account};
use crate::findings::Findings;
use crate::live::idle;
use crate::phone::{LOGIN, Phone, World};
use crate::proxy::Proxy;
use crate::replace::Handover;
use crate::round::BATCH_DELAY;
use crate::run::Clients;
use crate::server::Census;

/// The maximum time until Pushward has acknowledged everything to the server.
const ACKED: Duration = Duration::from_secs(30);
/// The pause between two `<r/>` to a session that has not acknowledged everything.
const PAUSE: Duration = Duration::from_millis(250);
/// The number of dark clients that resume at the same time.
const TOGETHER: usize = 50;
/// One in this many comparisons of notifications may be too slow.
const SLOW: usize = 4;
/// The most by which the memory may grow between the second and the last handover.
const GROWTH: f64 = 1.3;

/// The events of the rounds.
pub(crate) struct Outcome {
    /// The sessions at the beginning.
    before: Census,
    handovers: Vec<Handover>,
    /// The resident memory after each handover, in KiB.
    memory: Vec<u64>,
}

impl Outcome {
    pub(crate) fn new(before: Census) -> Self {
        Self { before, handovers: Vec::new(), memory: Vec::new() }
    }

    /// Adds a handover, and the memory after its round.
    pub(crate) fn handover(&mut self, number: u32, handover: Handover, memory: u64, findings: &Findings) {
        let wrong = if findings.is_empty() { "" } else { ", findings" };
        println!(
            "handover {number:2}: {:?} reported, {:?} until the new process answered, {} MiB{wrong}",
            handover.reported,
            handover.answered,
            memory / 1024
        );
        self.handovers.push(handover);
        self.memory.push(memory);
    }

    fn check_memory(&self, findings: &Findings) {
        // After handovers with an even number, the program is the same also where two programs take turns.
        let even: Vec<_> = self.memory.iter().skip(1).step_by(2).map(|memory| *memory as f64).collect();
        let (second, last) = (even.first().copied().unwrap_or_default(), even.last().copied().unwrap_or_default());
        if last > GROWTH * second {
            findings.add(
                "the memory stays within its bound",
                format!("{last} KiB, {second} KiB after the second handover"),
            );
        }
        println!(
            "memory: {:.0} MiB after the second handover, {:.0} MiB after the last",
            second / 1024.0,
            last / 1024.0
        );
    }

    fn print_times(&self) {
        spread("handover, reported", self.handovers.iter().map(|handover| handover.reported).collect());
        spread("handover, until an answer", self.handovers.iter().map(|handover| handover.answered).collect());
    }
}

fn spread(what: &str, mut times: Vec<Duration>) {
    times.sort();
    if let (Some(min), Some(max)) = (times.first(), times.last()) {
        println!("{what}: min {min:.2?}, median {:.2?}, max {max:.2?}, {} times", times[times.len() / 2], times.len());
    }
}

/// Lets the dark clients resume, checks everything, and prints the totals.
pub(crate) async fn finish(world: &Arc<World>, proxy: &Proxy, clients: Clients, outcome: &Outcome) {
    let findings = &world.findings;
    all_acked(world, "before the dark clients resume").await;
    check_census(world, outcome);
    outcome.check_memory(findings);
    let files = ["admin.sock", "pushward.redb"].map(str::to_owned).to_vec();
    findings.equal("no file is left in the state directory", (proxy.state(), files), "files");
    let (live_sent, Clients { dark, live }) = (sent(&clients), clients);
    // The live clients stay connected.
    let mut idles = JoinSet::new();
    let until = tokio::time::Instant::now() + Duration::from_secs(3600);
    for (_, mut link) in live {
        idles.spawn(async move { idle(&mut link, until).await });
    }
    let dark_sent = wake(world, dark, &mut idles).await;
    all_acked(world, "at the end").await;
    check_census(world, outcome);
    check_failed(findings, proxy).await;
    check_slow(world);
    check_accounts(world, &live_sent.into_iter().chain(dark_sent).collect::<Vec<_>>());
    outcome.print_times();
    totals(world);
    for (complaint, count) in proxy.complaints() {
        println!("log: {count:6} × {complaint}");
    }
}

/// Checks that no session of the current process has failed.
pub(crate) async fn check_failed(findings: &Findings, proxy: &Proxy) {
    let failed = proxy.metric("pushward_sessions_failed_total").await;
    findings.equal("no session fails", (failed, Some(0)), "pushward_sessions_failed_total");
}

/// Checks that the server has the sessions of the beginning, and that all logins and presences were those of clients.
fn check_census(world: &World, outcome: &Outcome) {
    let rule = "the sessions at the server stay those of the beginning";
    world.findings.equal(rule, (world.server.census(), outcome.before), "census");
    let clients = world.logins.load(Ordering::Relaxed);
    for (what, count) in [("connections", &world.server.accepted), ("logins", &world.server.logins)] {
        let count = count.load(Ordering::Relaxed);
        if count > clients {
            world.findings.add("only clients log in", format!("{count} {what}, {clients} logins of clients"));
        }
    }
}

/// Returns how many stanzas each live client sent, by account.
fn sent(clients: &Clients) -> Vec<(usize, u64)> {
    clients.live.iter().map(|(phone, _)| (phone.account, phone.numbered)).collect()
}

/// Resumes all dark sessions. Returns how many stanzas each client sent, by account.
async fn wake(world: &World, dark: Vec<Phone>, idles: &mut JoinSet<()>) -> Vec<(usize, u64)> {
    let (mut sent, mut dark) = (Vec::new(), dark.into_iter().peekable());
    while dark.peek().is_some() {
        let mut waking = JoinSet::new();
        for mut phone in dark.by_ref().take(TOGETHER) {
            waking.spawn(async move {
                let link = timeout(LOGIN, phone.wake()).await;
                (phone, link)
            });
        }
        for (phone, link) in waking.join_all().await {
            match link {
                Ok(Ok(mut link)) => {
                    let until = tokio::time::Instant::now() + Duration::from_secs(3600);
                    idles.spawn(async move { idle(&mut link, until).await });
                }
                Ok(Err(error)) => world.findings.add("dark clients read all", format!("{error}: {}", phone.state())),
                Err(_) => world.findings.add("dark clients read all", format!("late: {}", phone.state())),
            }
            sent.push((phone.account, phone.numbered));
        }
    }
    sent
}

/// Requests acknowledgements until they count all stanzas that were written.
async fn all_acked(world: &World, when: &str) {
    let until = Instant::now() + ACKED;
    loop {
        let behind: Vec<_> = world.server.each(|account| account.acked != account.written || account.unanswered() > 0);
        if !behind.contains(&true) {
            return;
        }
        if Instant::now() > until {
            break;
        }
        for (number, _) in behind.iter().enumerate().filter(|(_, behind)| **behind) {
            world.server.account(number).request();
        }
        sleep(PAUSE).await;
    }
    for account in
        world.server.each(|account| (account.acked, account.written, account.unanswered())).iter().enumerate()
    {
        let (number, (acked, written, unanswered)) = account;
        if acked != written {
            world.findings.add(
                "everything is acknowledged to the server",
                format!("{when}, account {number}: {acked} of {written}"),
            );
        }
        if *unanswered > 0 {
            world
                .findings
                .add("each ping and <r/> is answered", format!("{when}, account {number}: {unanswered} are open"));
        }
    }
}

/// Checks that the machine was fast enough to compare notifications.
fn check_slow(world: &World) {
    let (compared, slow) = (world.compared.load(Ordering::Relaxed), world.slow.load(Ordering::Relaxed));
    println!("notifications compared: {compared} times, {slow} of them too slow to be sure");
    if slow > compared / SLOW {
        world
            .findings
            .add("the machine is fast enough to compare notifications", format!("{slow} of {compared} are too slow"));
    }
}

/// Checks the numbers of each account.
fn check_accounts(world: &World, sent: &[(usize, u64)]) {
    for (number, sent) in sent {
        let account = world.server.account(*number);
        let of = format!("account {number}");
        world.findings.equal("all stanzas of clients arrive", (account.received, *sent), &of);
        for (what, slowest) in [("ping", account.slowest_ping), ("<r/>", account.slowest_ack)] {
            if slowest > ANSWER {
                world.findings.add("pings and <r/> are answered in time", format!("{of}: {what} after {slowest:?}"));
            }
        }
    }
}

fn totals(world: &World) {
    let returns = world.returns.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let late = returns.iter().filter(|time| **time > BATCH_DELAY).count();
    let (logins, binds) = (world.server.logins.load(Ordering::Relaxed), world.server.census().bound);
    println!(
        "at the server: {binds} binds, {logins} logins, for {} logins of clients",
        world.logins.load(Ordering::Relaxed)
    );
    println!("live clients that took longer than batch_delay to resume: {late}");
    spread("return of a live client", returns);
    let sum = |value: fn(&Account) -> u64| world.server.each(value).iter().sum::<u64>();
    let max = |value: fn(&Account) -> Duration| world.server.each(value).into_iter().max().unwrap_or_default();
    println!(
        "slowest answer: {:.2?} to a ping, {:.2?} to an <r/>",
        max(|account| account.slowest_ping),
        max(|account| account.slowest_ack)
    );
    println!(
        "totals: {} messages to clients, {} stanzas from clients, {} pings, {} <r/>, {} notifications",
        sum(|account| account.messages),
        sum(|account| account.received),
        sum(|account| account.pings_sent),
        sum(|account| account.requests_sent),
        sum(|account| account.publishes.len() as u64)
    );
}
