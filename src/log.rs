//! Where log lines go: to stderr, one event a line.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::{Log, LogFormat};

/// Replaces what is logged; a process logs once.
static CHANGE: OnceLock<Box<dyn Fn(EnvFilter) + Send + Sync>> = OnceLock::new();

/// Starts logging to stderr, once for the process. `RUST_LOG` overrides the configured level; what of it is not
/// understood is said on stderr and skipped.
///
/// # Errors
/// If something else in the process logs already.
pub fn init(log: &Log) -> Result<(), TryInitError> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(log))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // Each format is a type of its own.
    match log.format {
        LogFormat::Text => {
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            builder.finish().try_init()?;
            CHANGE.get_or_init(|| Box::new(move |filter| say(handle.reload(filter))));
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.finish().try_init()?;
            CHANGE.get_or_init(|| Box::new(move |filter| say(handle.reload(filter))));
        }
    }
    Ok(())
}

/// Logs by another level from now on, if [`init`] was called; `RUST_LOG` overrides that too.
pub fn change(log: &Log) {
    if let Some(change) = CHANGE.get() {
        change(filter(log));
    }
}

fn filter(log: &Log) -> EnvFilter {
    let directives = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|value| !value.is_empty());
    EnvFilter::builder().parse_lossy(directives.as_deref().unwrap_or(&log.level))
}

fn say(changed: Result<(), tracing_subscriber::reload::Error>) {
    if let Err(error) = changed {
        tracing::error!(%error, "cannot change log level");
    }
}
