//! `[log]`: the level and format of the log.

use tracing::level_filters::LevelFilter;
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

const LEVELS: &str =
    "write \"error\", \"warn\", \"info\", \"debug\" or \"trace\", or directives such as \"pushward=debug\"";

fn level(text: &str) -> Result<String, Wrong> {
    let directives: Vec<_> = text.split(',').map(str::trim).filter(|directive| !directive.is_empty()).collect();
    if directives.is_empty() {
        return Err(Wrong::new("no log level", LEVELS));
    }
    directives.iter().try_for_each(|directive| check(directive))?;
    Ok(text.to_owned())
}

/// Checks one directive. `EnvFilter` would take a single unknown word for the name of a module, log everything of that module
/// and nothing else.
fn check(directive: &str) -> Result<(), Wrong> {
    let is_word = !directive.contains(['=', '[']);
    if is_word && directive.parse::<LevelFilter>().is_err() {
        return Err(Wrong::new(format!("unknown log level \"{directive}\""), LEVELS));
    }
    let valid = EnvFilter::try_new(directive);
    valid.map(drop).map_err(|error| Wrong::new(format!("\"{directive}\" is not a valid log filter: {error}"), LEVELS))
}
