//! A campaign of handovers. The Pushward process is replaced again and again, in place and by a service manager, in front of
//! dark and live sessions with traffic in all directions. No session may end, no stanza may be lost, repeated or changed, no
//! answer may be late, and no notification may come that would not have come without a handover.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::wildcard_enum_match_arm,
    dead_code,
    reason = "a run that fails should do so where it fails; the helpers are shared with other tests"
)]

mod account;
mod content;
mod findings;
#[path = "../endurance/link.rs"]
mod link;
mod live;
mod outcome;
mod phone;
#[path = "../endurance/proxy.rs"]
mod proxy;
mod replace;
mod round;
mod run;
mod server;
#[path = "../it/support/tls.rs"]
mod tls;
#[path = "../it/support/xml.rs"]
mod xml;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::builder::TypedValueParser as _;

use replace::{Mode, Programs};

/// The options of the run.
#[derive(Parser, Clone)]
#[command(about = "Replaces the Pushward process again and again, and checks that no session notices.")]
struct Options {
    /// Number of handovers of each mode. A round without a handover precedes each of them.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    handovers: u32,
    /// Number of dark sessions.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..).map(|number| number as usize))]
    dark: usize,
    /// Number of live sessions.
    #[arg(long, default_value_t = 200)]
    live: usize,
    /// The way in which the process is replaced: may be repeated. Default: in-place and manager.
    #[arg(long, value_enum)]
    mode: Vec<Mode>,
    /// The program at the start. The handovers go from it to the program of this build, and back, in turn.
    #[arg(long, value_name = "BINARY")]
    from: Option<PathBuf>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut options = Options::parse();
    raise_descriptors();
    if options.mode.is_empty() {
        options.mode = vec![Mode::InPlace, Mode::Manager];
    }
    let current = PathBuf::from(env!("CARGO_BIN_EXE_pushward"));
    let programs = Programs { first: options.from.clone().unwrap_or_else(|| current.clone()), current };
    let mut fine = true;
    for mode in options.mode.clone() {
        println!("== {mode:?}: {} dark and {} live sessions, seed {}", options.dark, options.live, options.seed);
        fine &= run::run(&options, mode, &programs).await;
    }
    println!("{}", if fine { "all checks passed" } else { "some checks failed" });
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn raise_descriptors() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}
