//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use super::proxy::Proxy;

/// Compares Pushward with other proxies in front of the same server, in one run.
#[derive(Clone, Debug, Parser)]
#[command(name = "compare")]
pub(crate) struct Options {
    /// Number of rounds of all measurements
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) repeats: u64,
    /// Shorter measurements with fewer sessions: whether it works, not how well
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only these measurements
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) only: Vec<Part>,
    /// Only these proxies
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) proxies: Vec<Proxy>,
    /// Also Prosody, with stream management and notifications of its own
    #[arg(long)]
    pub(crate) with_prosody: bool,
    /// Worker threads of each proxy; two at most by default, as many as there are processors
    #[arg(long, default_value_t = super::machine::cores().min(2))]
    pub(crate) threads: usize,
    /// The server behind has stream management, which Pushward then uses
    #[arg(long)]
    pub(crate) managed: bool,
    /// Messages a second where the rate is fixed
    #[arg(long, default_value_t = 4000)]
    pub(crate) rate: u64,
    /// Messages a second to dark sessions
    #[arg(long, default_value_t = 1000)]
    pub(crate) push_rate: u64,
    /// Instead: what a session and a message cost with 1,000 sessions, 5,000, and as many as there are descriptors for
    #[arg(long)]
    pub(crate) scale: bool,
    /// Instead: commits of the spool, and the size of its file, with messages for many dark sessions
    #[arg(long)]
    pub(crate) spool: bool,
    /// Number of these messages
    #[arg(long, default_value_t = 100_000)]
    pub(crate) spool_messages: usize,
    /// Write the result to this file, in Markdown
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,
    /// Draw the ratios to HAProxy into this file
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Measure this build of Pushward instead of the one just made
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_pushward"))]
    pub(crate) pushward: PathBuf,
    /// Have `perf` record Pushward into this directory, and show where its processor time goes; that costs it some
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) perf: Option<PathBuf>,
    /// Passed on by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// The parts that can be measured separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Messages of 200 B, one a record
    Single,
    /// Messages of 200 B, 32 a record
    Batched,
    /// Messages of 4 KiB of text
    Text,
    /// Messages of 4 KiB of small tags
    Tags,
    /// Messages at a fixed rate
    Paced,
    /// Log-ins
    Logins,
    /// TLS handshakes
    Handshakes,
    /// Memory of idle sessions
    Idle,
    /// Memory of dark sessions, and coming back
    Dark,
    /// Notifications
    Push,
    /// The return of a client in several ways
    Return,
}

/// The amount of measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// Duration of a measurement of speed.
    pub(crate) time: Duration,
    /// Number of idle sessions.
    pub(crate) idle: usize,
    /// Number of dark sessions.
    pub(crate) dark: usize,
    /// Number of dark sessions of Prosody.
    pub(crate) prosody: usize,
    /// Number of messages that wait for each of them.
    pub(crate) waiting: usize,
    /// Number of sessions that return.
    pub(crate) returning: usize,
    /// Number of sessions that return in each of several ways.
    pub(crate) returns: usize,
}

impl Options {
    /// Returns true if this part is to be measured.
    pub(crate) fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    /// Returns the amount of measurement.
    pub(crate) fn size(&self) -> Size {
        if self.quick {
            let time = Duration::from_millis(600);
            Size { time, idle: 300, dark: 200, prosody: 50, waiting: 10, returning: 20, returns: 20 }
        } else {
            let time = Duration::from_secs(4);
            Size { time, idle: 5000, dark: 2000, prosody: 300, waiting: 20, returning: 100, returns: 200 }
        }
    }
}
