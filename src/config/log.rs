//! `[log]`: what is logged.

use tracing_subscriber::EnvFilter;

use super::section::Section;
use super::value::Wrong;

/// `[log]`: what is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// A level, or directives of tracing's `EnvFilter`: `info`.
    pub level: String,
    /// The form of a line.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

pub(super) fn read(mut s: Section<'_>) -> Log {
    let d = Log::default();
    let read = Log {
        level: s.parsed("level", level).map_or(d.level, |at| at.value),
        format: s.choice("format", d.format, &[("text", LogFormat::Text), ("json", LogFormat::Json)]),
    };
    s.finish();
    read
}

fn level(text: &str) -> Result<String, Wrong> {
    let remedy =
        "write \"error\", \"warn\", \"info\", \"debug\" or \"trace\", or directives such as \"pushward=debug\"";
    // `EnvFilter` takes a lone word that is no level for the name of a module, and then logs everything of it.
    let is_word = !text.contains(['=', ',', '[']);
    if text.is_empty() || is_word && text.parse::<tracing::level_filters::LevelFilter>().is_err() {
        return Err(Wrong::new(format!("unknown log level \"{text}\""), remedy));
    }
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(Wrong::new(format!("\"{text}\" is not a valid log filter: {error}"), remedy)),
    }
}
