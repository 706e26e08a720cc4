//! Where log lines go: to stderr, one event a line.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::{Log, LogFormat};

/// Starts logging to stderr, once for the process. `RUST_LOG` overrides the configured level; what of it is not
/// understood is said on stderr and skipped.
///
/// # Errors
/// If something else in the process logs already.
pub fn init(log: &Log) -> Result<(), TryInitError> {
    let directives = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|value| !value.is_empty());
    let filter = EnvFilter::builder().parse_lossy(directives.as_deref().unwrap_or(&log.level));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match log.format {
        LogFormat::Text => builder.finish().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
    }
}
