//! Log output: to stderr, one event per line.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::{Log, LogFormat};

/// The environment variable that overrides `[log] level`.
pub const OVERRIDE: &str = EnvFilter::DEFAULT_ENV;

/// The crate whose lines are never logged.
const SILENT: &str = "tokio_postgres=off";

/// Changes the filter of the log; set once, by [`init`].
static CHANGE: OnceLock<Box<dyn Fn(EnvFilter) + Send + Sync>> = OnceLock::new();

/// Starts logging to stderr, once for the process. `RUST_LOG` overrides the configured level; the parts of it that are not
/// understood are reported on stderr and skipped.
///
/// # Errors
/// Fails if another logger is set in this process.
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
            CHANGE.get_or_init(|| Box::new(move |filter| report(handle.reload(filter))));
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.finish().try_init()?;
            CHANGE.get_or_init(|| Box::new(move |filter| report(handle.reload(filter))));
        }
    }
    Ok(())
}

/// Changes the log level, if [`init`] was called; `RUST_LOG` overrides this level too.
pub fn change(log: &Log) {
    if let Some(change) = CHANGE.get() {
        change(filter(log));
    }
}

fn filter(log: &Log) -> EnvFilter {
    let directives = std::env::var(OVERRIDE).ok().filter(|value| !value.is_empty());
    let filter = EnvFilter::builder().parse_lossy(directives.as_deref().unwrap_or(&log.level));
    // It logs the parameters of statements, which are records of users.
    SILENT.parse().into_iter().fold(filter, EnvFilter::add_directive)
}

fn report(changed: Result<(), tracing_subscriber::reload::Error>) {
    if let Err(error) = changed {
        tracing::error!(%error, "cannot change log level");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_level_logs_the_parameters_of_statements() {
        for level in ["trace", "debug", "info"] {
            let log = Log { level: level.to_owned(), ..Log::default() };
            assert!(filter(&log).to_string().contains(SILENT), "{}", filter(&log));
        }
    }
}
