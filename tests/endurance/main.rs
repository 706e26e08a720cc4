//! An endurance run. Thousands of clients of a hundred accounts bind, enable stream management, drop their connections,
//! resume, close, flood and stop reading in random order, while the disk is slow and the proxy is restarted, replaced and killed.
//! In the end no session, connection or descriptor is left, and every message has been received or returned.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm,
    dead_code,
    reason = "a run that fails should do so where it fails; the helpers are shared with other tests"
)]

mod client;
mod ledger;
mod link;
mod proxy;
mod server;
#[path = "../it/support/tls.rs"]
mod tls;
#[path = "../it/support/xml.rs"]
mod xml;

use std::collections::HashSet;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Parser;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use client::{Phone, World};
use link::Entrance;
use proxy::{End, Proxy};
use server::{Server, is_managed};

/// The time before a kill in which a server without stream management may lose messages: `spool_after` plus the slowest
/// commit.
const WINDOW: Duration = Duration::from_secs(3);

/// The options of the run.
#[derive(Parser, Clone, Copy)]
struct Options {
    /// Number of seconds during which clients act.
    #[arg(long, default_value_t = 240)]
    seconds: u64,
    #[arg(long, default_value_t = 100)]
    accounts: usize,
    /// Number of clients per account.
    #[arg(long, default_value_t = 20)]
    clients: usize,
    /// Number of messages per second.
    #[arg(long, default_value_t = 60)]
    rate: u32,
    /// Number of seconds between two ends of the proxy. It is stopped in order, replaced by itself without ending its sessions,
    /// and killed, in turn.
    #[arg(long, default_value_t = 50)]
    restart: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    raise_descriptors();
    let (server, upstream) = Server::start(options.accounts).await;
    let mut proxy = Proxy::start(upstream).await;
    let idle = (proxy.descriptors(), proxy.memory());
    let tls = tls::Tls::trusting(&proxy.certificate()).config();
    let entrance = Entrance { address: proxy.address, tls };
    let world = Arc::new(World { server, entrance, over: AtomicBool::new(false), devices: Mutex::default() });
    let mut phones = JoinSet::new();
    for account in 0..options.accounts {
        for number in 0..options.clients {
            phones.spawn(Phone::new(Arc::clone(&world), (account, number), options.seed).live());
        }
    }
    let sending = tokio::spawn(send(Arc::clone(&world), options));
    act(&world, &mut proxy, options).await;
    world.over.store(true, Ordering::Relaxed);
    sending.await.unwrap();
    timeout(Duration::from_secs(90), async { while phones.join_next().await.is_some() {} }).await.expect("phones end");
    println!("clients have ended: {:?}", world.server.ledger.sum());
    let collected = collect(&world).await;
    let ended = ends(&proxy, idle.0).await;
    report(&world, &proxy, idle, (collected, ended)).await
}

fn raise_descriptors() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}

/// Sends messages to random accounts until the run is over.
async fn send(world: Arc<World>, options: Options) {
    let mut random = StdRng::seed_from_u64(options.seed);
    let pause = Duration::from_millis(10);
    let mut owed = 0.0;
    while !world.is_over() {
        owed += f64::from(options.rate) * pause.as_secs_f64();
        while owed >= 1.0 {
            owed -= 1.0;
            let account = random.random_range(0..options.accounts);
            let number = world.server.ledger.add(account);
            world.server.send(number, account);
        }
        sleep(pause).await;
    }
}

/// Restarts, kills and replaces the proxy and stalls the disk, until the time is over.
async fn act(world: &World, proxy: &mut Proxy, options: Options) {
    let until = Instant::now() + Duration::from_secs(options.seconds);
    let mut ends = [End::InOrder, End::HandedOver, End::Killed, End::HandedOver].into_iter().cycle();
    while Instant::now() < until {
        let Some(end) = ends.next() else { return };
        sleep(Duration::from_secs(options.restart / 2)).await;
        proxy.stall(Duration::from_secs(4)).await;
        sleep(Duration::from_secs(options.restart / 2)).await;
        let (live, memory) = (proxy.metric("pushward_sessions").await, proxy.memory() / 1024);
        println!("{live:?} sessions, {memory} MiB, {:?}", world.server.ledger.sum());
        if end == End::Killed {
            world.server.ledger.killed(WINDOW, &world.server.unread(), |account| !is_managed(account));
        }
        world.server.ledger.ends(end.name());
        let ended = Instant::now();
        proxy.restart(end).await;
        if end == End::Killed {
            // The server goes on writing to the dead connections until it sees that they are gone.
            world.server.ledger.killed(ended.elapsed(), &HashSet::new(), |account| !is_managed(account));
        }
        println!("restarted, {}, in {:?}", end.name(), ended.elapsed());
    }
}

/// Logs in every device of an account once more, reads all that waits and closes in order. Repeats this until nothing
/// waits, or until no more arrives.
async fn collect(world: &Arc<World>) -> bool {
    let mut before = usize::MAX;
    loop {
        let waiting = world.server.ledger.waiting();
        let count: usize = waiting.values().map(Vec::len).sum();
        println!("{count} messages wait");
        if count == 0 || count == before {
            return count == 0;
        }
        before = count;
        let mut collecting = JoinSet::new();
        for account in waiting.into_keys() {
            let world = Arc::clone(world);
            collecting.spawn(async move {
                for (number, resource) in world.devices_of(account).into_iter().enumerate() {
                    // Longer than `orphan_grace`, and once more than the longer wait of devices with a registration.
                    let quiet = if number == 0 { Duration::from_secs(20) } else { Duration::from_secs(2) };
                    let phone = client::collect(Arc::clone(&world), account, resource.clone(), quiet);
                    let collected = timeout(Duration::from_secs(120), phone).await;
                    if let Err(error) = collected.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())) {
                        println!("account {account}, {resource}: {error}");
                    }
                }
            });
        }
        collecting.join_all().await;
    }
}

/// Waits until all sessions, connections and descriptors are gone that were opened during the run.
async fn ends(proxy: &Proxy, descriptors: usize) -> bool {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let sessions = proxy.metric("pushward_sessions").await.unwrap_or(u64::MAX);
        let connections = proxy.metric("pushward_connections").await.unwrap_or(u64::MAX);
        // The request itself uses one connection.
        let left = proxy.descriptors().saturating_sub(descriptors + 2);
        if (sessions, connections, left) == (0, 0, 0) {
            return true;
        }
        if Instant::now() > until {
            println!("left: {sessions} sessions, {connections} connections, {left} descriptors");
            return false;
        }
        sleep(Duration::from_millis(200)).await;
    }
}

async fn report(
    world: &World,
    proxy: &Proxy,
    (descriptors, memory): (usize, u64),
    (collected, ended): (bool, bool),
) -> ExitCode {
    for (complaint, count) in proxy.complaints() {
        println!("{count:6} × {complaint}");
    }
    for name in ["pushward_deadlines_passed_total", "pushward_sessions_failed_total", "pushward_spool_stanzas"] {
        println!("{name}: {:?}", proxy.metric(name).await);
    }
    let failed = proxy.metric("pushward_sessions_failed_total").await != Some(0);
    println!("descriptors: {descriptors} at first, {} now", proxy.descriptors());
    println!("memory: {} MiB at first, {} MiB now", memory / 1024, proxy.memory() / 1024);
    println!("{:?}, offline at the server: {}", world.server.ledger.sum(), world.server.offline());
    if !collected {
        let waiting: Vec<_> = world.server.ledger.waiting().into_iter().collect();
        println!("never seen again, by account: {:?}", &waiting[..waiting.len().min(5)]);
        for (how, seconds) in world.server.ledger.waiting_since() {
            println!("handed to the proxy before it was ended, {how}: {seconds:?}");
        }
    }
    if collected && ended && !failed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
