//! The run of one mode, from the logins to the end.

use std::io;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::Options;
use crate::content::Kind;
use crate::findings::Findings;
use crate::link::{Entrance, Link};
use crate::live::live;
use crate::outcome::{self, Outcome};
use crate::phone::{LOGIN, Phone, World};
use crate::proxy::{Launch, Proxy};
use crate::replace::{Mode, Programs, replace};
use crate::round::{BATCH_DELAY, MIN_INTERVAL, Traffic};
use crate::server::Server;
use crate::tls::Tls;

/// The number of clients that log in at the same time.
const TOGETHER: usize = 50;
/// The number of messages that wait for each dark session from the beginning: more than `session_queue`, so that the memory
/// in use does not grow with the number of rounds.
const BACKLOG: usize = 48;
/// The number of descriptors that the service manager stores beside those of sessions.
const OTHERS: usize = 16;
/// The maximum time until all live clients have settled.
const SETTLE: Duration = Duration::from_secs(120);
/// The rule that all clients log in at the beginning.
const LOG_IN: &str = "all clients log in at the beginning";

/// Clients, by what became of them.
pub(crate) struct Clients {
    pub(crate) dark: Vec<Phone>,
    pub(crate) live: Vec<(Phone, Link)>,
}

/// Runs one mode. Returns whether all checks passed.
pub(crate) async fn run(options: &Options, mode: Mode, programs: &Programs) -> bool {
    let findings = Arc::new(Findings::default());
    let sessions = options.dark + options.live;
    let (server, upstream) = Server::start(sessions, options.seed, Arc::clone(&findings)).await;
    let first = programs.first.clone();
    let launch = if mode == Mode::Manager { Launch::Managed(first, sessions + OTHERS) } else { Launch::Copied(first) };
    let mut proxy = Proxy::launch(launch, upstream, &settings()).await;
    let entrance = Entrance { address: proxy.address, tls: Tls::trusting(&proxy.certificate()).config() };
    let world = Arc::new(World {
        server,
        entrance,
        seed: options.seed,
        findings: Arc::clone(&findings),
        finishing: watch::Sender::new(false),
        logins: AtomicUsize::new(0),
        returns: Mutex::default(),
        late: Mutex::default(),
        compared: AtomicUsize::new(0),
        slow: AtomicUsize::new(0),
    });
    let clients = log_in(&world, &proxy, options).await;
    for _ in 0..BACKLOG {
        for account in 0..clients.dark.len() {
            world.server.account(account).message(Kind::Receipt);
        }
    }
    let mut outcome = Outcome::new(world.server.census());
    let Clients { dark, live: connected } = clients;
    let mut lives = JoinSet::new();
    for (phone, link) in connected {
        lives.spawn(live(phone, link));
    }
    rounds(&world, &mut proxy, (options, mode, programs), &mut outcome).await;
    world.finishing.send_replace(true);
    let connected = timeout(SETTLE, lives.join_all()).await.unwrap_or_else(|_| {
        findings.add("live clients get everything", "not all in time");
        Vec::new()
    });
    let clients = Clients { dark, live: connected.into_iter().flatten().collect() };
    outcome::finish(&world, &proxy, clients, &outcome).await;
    let is_fine = findings.print();
    if !is_fine {
        println!("the directory of the run, with its logs: {}", proxy.keep().display());
    }
    is_fine
}

/// The sections of the configuration.
fn settings() -> String {
    format!(
        "[push]\ntransports = ['session']\nrepush = []\nbatch_delay = '{}s'\nmin_interval = '{}s'\n\
         [limits]\nstanza = '16 KiB'\nsession_queue = '16 KiB'\nconnections_per_address = 20000\n",
        BATCH_DELAY.as_secs(),
        MIN_INTERVAL.as_secs()
    )
}

/// Logs in all clients. Those of the first accounts lose their connections.
async fn log_in(world: &Arc<World>, proxy: &Proxy, options: &Options) -> Clients {
    let mut clients = Clients { dark: Vec::new(), live: Vec::new() };
    let accounts: Vec<_> = (0..options.dark + options.live).collect();
    for together in accounts.chunks(TOGETHER) {
        let mut logins = JoinSet::new();
        for &account in together {
            let (world, is_dark) = (Arc::clone(world), account < options.dark);
            logins.spawn(async move {
                let login = async {
                    if is_dark {
                        return Ok((Phone::go_dark(world, account).await?, None));
                    }
                    Phone::log_in(world, account).await.map(|(phone, link)| (phone, Some(link)))
                };
                timeout(LOGIN, login).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            });
        }
        for login in logins.join_all().await {
            match login {
                Ok((phone, Some(link))) => clients.live.push((phone, link)),
                Ok((phone, None)) => clients.dark.push(phone),
                Err(error) => world.findings.add(LOG_IN, error.to_string()),
            }
        }
    }
    clients.dark.sort_by_key(|phone| phone.account);
    let dark = || async { proxy.metric("pushward_sessions{host=\"localhost\",state=\"dark\"}").await };
    let until = std::time::Instant::now() + LOGIN;
    while dark().await != Some(options.dark as u64) {
        if std::time::Instant::now() > until {
            world.findings.add(LOG_IN, format!("{:?} dark sessions", dark().await));
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    clients
}

/// Alternates rounds with and without a handover.
async fn rounds(
    world: &World,
    proxy: &mut Proxy,
    (options, mode, programs): (&Options, Mode, &Programs),
    outcome: &mut Outcome,
) {
    let sessions = (options.dark + options.live) as u64;
    let mut traffic = Traffic::new((options.dark, options.live), options.seed);
    for number in 1..=options.handovers {
        traffic.open(world).await;
        traffic.flow(world, || true).await;
        traffic.settle(world).await;
        // Each process counts from 0.
        outcome::check_failed(&world.findings, proxy).await;
        traffic.open(world).await;
        let is_over = std::cell::Cell::new(false);
        let replaced = async {
            let handover = replace(proxy, (mode, programs), (number, sessions), &world.findings).await;
            is_over.set(true);
            handover
        };
        let (handover, ()) = tokio::join!(replaced, traffic.flow(world, || is_over.get()));
        traffic.settle(world).await;
        let Some(handover) = handover else { return };
        outcome.handover(number, handover, proxy.memory(), &world.findings);
    }
}
