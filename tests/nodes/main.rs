//! A campaign of failures in a cluster. Three nodes share a PostgreSQL primary with two synchronous standbys, in front of Prosody
//! with stream management. Phones connect to any node, lose their connections and come back, while nodes and database servers are
//! killed, paused, drained and started again. Every message must reach its phone or come back to its sender, and a session must
//! never get the messages of another account.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    dead_code,
    unused_imports,
    reason = "a run that fails should do so where it fails; the helpers are shared with other tests"
)]

mod faults;
mod ledger;
mod phone;
#[path = "../it/support/mod.rs"]
mod support;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};
use tokio::time::sleep;

use faults::Stage;
use ledger::Ledger;

/// The longest time that everything has to arrive after the last fault.
const SETTLE: Duration = Duration::from_secs(180);

/// The options of the run.
#[derive(Parser, Clone)]
#[command(about = "Kills, pauses and drains nodes and database servers, and checks that no message is lost.")]
struct Options {
    /// Number of rounds. Each has every fault once, in an order of its own.
    #[arg(long, default_value_t = 2)]
    rounds: u32,
    /// Number of phones, each with an account of its own.
    #[arg(long, default_value_t = 30)]
    phones: usize,
    /// Messages a second, to all phones together.
    #[arg(long, default_value_t = 50)]
    rate: u32,
    /// Only this fault, by its name.
    #[arg(long)]
    only: Option<String>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    // A phone whose connection breaks ends its attempt by a panic, and tries again.
    std::panic::set_hook(Box::new(|panic| {
        if std::thread::current().name() == Some("main") || std::env::var_os("CLUSTER_PANICS").is_some() {
            eprintln!("{panic}");
        }
    }));
    let accounts: Vec<String> = (0..options.phones).map(|number| format!("phone{number}")).collect();
    let mut stage = Stage::start(&accounts).await;
    let ledger = Arc::new(Ledger::default());
    let phones: Vec<_> = accounts
        .iter()
        .map(|account| tokio::spawn(phone::live(account.clone(), stage.doors(), Arc::clone(&ledger))))
        .collect();
    let sender = tokio::spawn(phone::send(stage.server(), accounts.clone(), options.rate, Arc::clone(&ledger)));
    let mut random = StdRng::seed_from_u64(options.seed);
    for round in 1..=options.rounds {
        let mut faults = faults::all();
        faults.retain(|fault| options.only.as_deref().is_none_or(|only| fault.name() == only));
        while !faults.is_empty() {
            let fault = faults.swap_remove(random.random_range(0..faults.len()));
            let began = Instant::now();
            stage.suffer(fault, &mut random).await;
            println!("round {round}: {}, {:?}: {}", fault.name(), began.elapsed(), ledger.line());
        }
    }
    if options.only.is_none() {
        let began = Instant::now();
        stage.fail_over().await;
        println!("at last: kill-node-and-primary, {:?}: {}", began.elapsed(), ledger.line());
    }
    ledger.stop_sending();
    sender.await.unwrap();
    let settled = ledger.settled(SETTLE).await;
    sleep(Duration::from_secs(5)).await;
    phones.iter().for_each(tokio::task::JoinHandle::abort);
    println!("{}", ledger.line());
    let problems = ledger.problems();
    problems.iter().take(20).for_each(|problem| println!("{problem}"));
    if !problems.is_empty() || !settled {
        stage.print_logs();
    }
    let fine = settled && problems.is_empty();
    println!("{}", if fine { "all checks passed" } else { "some checks failed" });
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
