//! Compares Pushward with other proxies, and for held sessions and notifications with a server that does both itself:
//! the same clients and the same upstream server, one after the other, in one run.
//!
//! ```text
//!  clients ──TLS── Pushward | HAProxy | nginx | xmpp-proxy ──plain── stub          messages, logins, idle sessions
//!  phones  ──TLS── Pushward ──plain── stub,  or  Prosody with its own modules      dark sessions, notifications
//! ```
//!
//! | file | contents |
//! |---|---|
//! | `proxy.rs`, `prosody.rs` | the compared programs and their configuration |
//! | `link.rs`, `tls.rs`, `shape.rs` | a client of low cost; the messages that it sends, and the check of those that arrive |
//! | `stub.rs`, `published.rs` | the server, and its push service |
//! | `flow.rs`, `logins.rs`, `memory.rs`, `dark.rs` | the measurements |
//! | `returns.rs`, `ways.rs`, `scram.rs`, `relay.rs` | the return of a client in several ways, also with added latency |
//! | `scale.rs`, `spool.rs` | growth with the number of sessions; commits and size of the spool |
//! | `quantity.rs`, `report.rs`, `chart.rs` | the criteria for Pushward; the table and the plot |
//! | `profile.rs` | Pushward's processor time by parts of the program |
//!
//! A message goes from one client through the proxy to the stub, and through the proxy again to another client. The
//! stub forwards it unchanged. Clients of Pushward enable stream management and answer ack requests, as they always do.
//! Clients of the other proxies have only the stub, which does not offer it. So only Pushward bears its cost. With
//! `--managed` the stub has stream management too, and Pushward uses it. Each message is checked on its arrival: once,
//! in order, byte for byte.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a measurement that goes wrong should end where it does, and its numbers are small"
)]

use std::sync::Arc;

use clap::{Parser, ValueEnum};
use tempfile::TempDir;

mod chart;
mod dark;
mod flow;
mod link;
mod logins;
mod machine;
mod memory;
mod options;
mod process;
mod profile;
mod prosody;
mod proxy;
mod published;
mod quantity;
mod relay;
mod report;
mod returns;
mod scale;
mod scram;
mod shape;
mod spool;
mod stats;
mod stub;
mod tls;
mod ways;

use dark::{Home, Writer};
use flow::Pace;
use link::Target;
use logins::Step;
use options::{Options, Part};
use profile::Profiles;
use prosody::Prosody;
use proxy::{Common, Proxy, Running};
use published::Published;
use report::Report;
use returns::Returns;
use shape::Shape;
use stub::Stub;

/// No delays, so that each message is notified at once, through the user's own stream.
const PROMPT: &str = "[push]\nbatch_delay = '0s'\nmin_interval = '0s'\nrepush = []\ntransports = ['session']";
/// The defaults, except for the transport of notifications.
const ORDINARY: &str = "[push]\ntransports = ['session']";

/// Number of client pairs that share the fixed rate.
const PACED_PAIRS: usize = 16;

/// The objects that all measurements need.
pub(crate) struct Bench {
    options: Options,
    common: Common,
    stub: Stub,
    published: Arc<Published>,
    report: Report,
    returns: Returns,
    profiles: Profiles,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let options = Options::parse();
    let descriptors = proxy::descriptors();
    let published = Arc::new(Published::default());
    let stub = Stub::start(Arc::clone(&published), options.managed);
    let directory = TempDir::new().unwrap();
    let files = tls::Files::create(directory.path());
    let common = Common {
        upstream: stub.address,
        pushward: options.pushward.clone(),
        threads: options.threads,
        files,
        client: tls::client(),
        directory,
    };
    let (report, returns, profiles) = (Report::default(), Returns::default(), Profiles::default());
    let mut bench = Bench { options, common, stub, published, report, returns, profiles };
    let proxies = bench.proxies();
    let result = if bench.options.scale {
        scale::measure(&bench, &proxies, descriptors).await
    } else if bench.options.spool {
        spool::measure(&bench).await
    } else {
        bench.compare(&proxies).await;
        bench.tables()
    };
    let text = format!("{result}\n{}", machine::describe(&bench.options, &proxies));
    println!("\n{text}");
    if let Some(file) = &bench.options.markdown {
        std::fs::write(file, &text).unwrap();
    }
    if let Some(file) = &bench.options.svg {
        std::fs::write(file, chart::svg(&bench.report)).unwrap();
    }
}

impl Bench {
    /// Returns the proxies that take part, and prints those that do not.
    fn proxies(&self) -> Vec<Proxy> {
        let mut wanted = self.options.proxies.clone();
        if wanted.is_empty() {
            wanted = vec![Proxy::Pushward, Proxy::Haproxy, Proxy::Nginx, Proxy::Xmpp];
        }
        if self.options.with_prosody && !wanted.contains(&Proxy::Prosody) {
            wanted.push(Proxy::Prosody);
        }
        wanted.retain(|proxy| {
            let installed = proxy.version().is_some();
            if !installed {
                eprintln!("{} is left out: it is not installed; {}", proxy.name(), proxy.install());
            }
            installed
        });
        wanted
    }

    /// Measures the proxies in turn, so that a disturbance of the machine affects all of them.
    async fn compare(&mut self, proxies: &[Proxy]) {
        for round in 0..self.options.repeats as usize {
            for &part in Part::value_variants() {
                if !self.options.wants(part) {
                    continue;
                }
                for &proxy in proxies {
                    eprintln!("round {} of {}: {part:?}, {}", round + 1, self.options.repeats, proxy.name());
                    self.part(part, proxy, round).await;
                }
            }
        }
    }

    /// Returns the tables of what was measured.
    fn tables(&self) -> String {
        let tables = [self.report.table(), self.returns.table(), self.profiles.table()];
        tables.into_iter().filter(|table| !table.is_empty()).collect::<Vec<_>>().join("\n")
    }

    async fn part(&mut self, part: Part, proxy: Proxy, round: usize) {
        match (part, proxy) {
            (Part::Dark | Part::Push, Proxy::Pushward) => self.dark(part, round).await,
            (Part::Dark | Part::Push, Proxy::Prosody) => self.prosody(part, round).await,
            (Part::Return, Proxy::Pushward) => self.returns().await,
            (Part::Dark | Part::Push | Part::Return, _) | (_, Proxy::Prosody) => {}
            (Part::Idle, _) => self.idle(proxy, round).await,
            (Part::Paced, _) => self.paced(proxy, round).await,
            (Part::Logins, _) => self.logins(proxy, round, Step::LogIn, ["logins.rate", "logins.cpu"]).await,
            (Part::Handshakes, _) => {
                self.logins(proxy, round, Step::Handshake, ["handshakes.rate", "handshakes.cpu"]).await;
            }
            (Part::Single, _) => self.messages(proxy, round, Shape::Single, ["single.cpu", "single.rate"]).await,
            (Part::Batched, _) => self.messages(proxy, round, Shape::Batched, ["batched.cpu", "batched.rate"]).await,
            (Part::Text, _) => self.messages(proxy, round, Shape::Text, ["text.cpu", "text.rate"]).await,
            (Part::Tags, _) => self.messages(proxy, round, Shape::Tags, ["tags.cpu", "tags.rate"]).await,
        }
    }

    /// Starts a proxy. If it is Pushward and profiles are wanted, the measurement with this name is recorded.
    async fn start(&self, proxy: Proxy, settings: &str, name: &str) -> Running {
        let mut running = self.common.start(proxy, settings).await;
        if let Some(directory) = self.options.perf.as_deref().filter(|_| proxy == Proxy::Pushward) {
            running.process.record(directory.join(format!("{name}.data")));
        }
        running
    }

    fn profile(&mut self, running: &Running, name: &str) {
        if let Some(recording) = running.process.recording() {
            self.profiles.add(name.to_owned(), recording);
        }
    }

    async fn idle(&mut self, proxy: Proxy, round: usize) {
        let running = self.common.start(proxy, ORDINARY).await;
        let idle = memory::measure(&running, &self.stub, self.options.size().idle).await;
        self.report.add("idle.memory", proxy, round, idle.first);
        self.report.add("idle.left", proxy, round, idle.left);
        self.report.add("idle.again", proxy, round, idle.again);
        self.report.add("idle.growth", proxy, round, idle.again / idle.first);
    }

    async fn messages(&mut self, proxy: Proxy, round: usize, shape: Shape, [cpu, rate]: [&'static str; 2]) {
        let running = self.start(proxy, ORDINARY, &format!("{shape:?}")).await;
        let throughput = flow::saturate(&running, &self.stub, shape, self.options.size().time).await;
        self.profile(&running, &format!("{shape:?}"));
        eprintln!("  {:.2} s of the load's own CPU per million", throughput.own);
        self.report.add(cpu, proxy, round, throughput.cpu);
        self.report.add(rate, proxy, round, throughput.rate);
    }

    async fn paced(&mut self, proxy: Proxy, round: usize) {
        let running = self.start(proxy, ORDINARY, "Paced").await;
        let straight = Target { address: self.stub.address, tls: None, managed: false };
        let pace = Pace { rate: self.options.rate, pairs: PACED_PAIRS, time: self.options.size().time };
        let without = flow::paced(&straight, None, &self.stub, pace).await;
        let with = flow::paced(running.target(), Some(&running), &self.stub, pace).await;
        self.profile(&running, "Paced");
        self.report.add("paced.cpu", proxy, round, with.cpu);
        self.report.add("paced.p50", proxy, round, with.p50 - without.p50);
        self.report.add("paced.p99", proxy, round, with.p99 - without.p99);
    }

    async fn logins(&mut self, proxy: Proxy, round: usize, step: Step, [rate, cpu]: [&'static str; 2]) {
        let running = self.start(proxy, ORDINARY, &format!("{step:?}")).await;
        let logins = logins::measure(&running, step, self.options.size().time).await;
        self.profile(&running, &format!("{step:?}"));
        self.report.add(rate, proxy, round, logins.rate);
        self.report.add(cpu, proxy, round, logins.cpu);
    }

    async fn dark(&mut self, part: Part, round: usize) {
        let size = self.options.size();
        if part == Part::Dark {
            let running = self.common.start(Proxy::Pushward, ORDINARY).await;
            let home = self.home(&running);
            let away = home.away(size.dark, size.waiting, size.returning).await;
            self.add_away(Proxy::Pushward, round, &away);
        } else {
            let running = self.start(Proxy::Pushward, PROMPT, "Push").await;
            let messages = (self.options.push_rate as f64 * size.time.as_secs_f64()) as usize;
            let pushes = self.home(&running).pushes(size.dark, self.options.push_rate, messages).await;
            self.profile(&running, "Push");
            self.add_pushes(Proxy::Pushward, round, &pushes);
        }
    }

    async fn returns(&mut self) {
        let running = self.common.start(Proxy::Pushward, ORDINARY).await;
        self.returns.measure(&running, &self.stub, self.options.size().returns).await;
    }

    async fn prosody(&mut self, part: Part, round: usize) {
        let (size, published) = (self.options.size(), Arc::clone(&self.published));
        // The accounts that log in to warm up follow the others, and are at most as many.
        let accounts = size.prosody * 2;
        let Prosody { running, component } = Prosody::start(&self.common, accounts, &published).await;
        let home = Home { writer: Writer::Component(&component), ..self.home(&running) };
        if part == Part::Dark {
            let away = home.away(size.prosody, size.waiting, size.returning).await;
            self.add_away(Proxy::Prosody, round, &away);
        } else {
            // Prosody gathers the messages for a device within a second, so each device gets one message, at a rate
            // that Prosody can sustain.
            let pushes = home.pushes(size.prosody, 100, size.prosody).await;
            self.add_pushes(Proxy::Prosody, round, &pushes);
        }
    }

    fn home<'a>(&'a self, running: &'a Running) -> Home<'a> {
        let Running { process, target, .. } = running;
        Home { target, process, writer: Writer::Stub(&self.stub), published: &self.published }
    }

    fn add_away(&mut self, proxy: Proxy, round: usize, away: &dark::Away) {
        self.report.add("dark.memory", proxy, round, away.empty);
        self.report.add("dark.queued", proxy, round, away.queued);
        self.report.add("dark.excess", proxy, round, (away.queued - 4000.0).max(0.0) / away.bytes);
        self.report.add("dark.resume", proxy, round, away.resume);
    }

    fn add_pushes(&mut self, proxy: Proxy, round: usize, pushes: &dark::Pushes) {
        self.report.add("push.p50", proxy, round, pushes.p50);
        self.report.add("push.p99", proxy, round, pushes.p99);
        self.report.add("push.cpu", proxy, round, pushes.cpu);
        self.report.add("push.share", proxy, round, pushes.share);
    }
}
