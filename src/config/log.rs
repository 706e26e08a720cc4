//! `[log]`: the level and format of the log.

use tracing_subscriber::EnvFilter;

use super::section::Section;
use super::value::Wrong;

/// `[log]`: the level and format of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// `level`: a level, or directives of tracing's `EnvFilter`. Default: `info`.
    pub level: String,
    /// `format`: the format of a line. Default: text.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

/// The format of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Readable text.
    Text,
    /// One JSON object per line.
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
    // `EnvFilter` would take a single unknown word for the name of a module, and then log everything of that module.
    let is_word = !text.contains(['=', ',', '[']);
    if text.is_empty() || is_word && text.parse::<tracing::level_filters::LevelFilter>().is_err() {
        return Err(Wrong::new(format!("unknown log level \"{text}\""), remedy));
    }
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(Wrong::new(format!("\"{text}\" is not a valid log filter: {error}"), remedy)),
    }
}
