//! Reasons why `pushward setup` has written nothing.

use std::io;
use std::path::PathBuf;

use crate::config::ConfigErrors;
use crate::exit;

/// The reason why nothing was written.
#[derive(Debug, thiserror::Error)]
pub(super) enum SetupError {
    #[error("{path} already exists; use --force to replace it, or --output FILE to write another file", path = .0.display())]
    Exists(PathBuf),
    #[error("standard input is not a terminal, so these options are required: {}", .0.join(", "))]
    Missing(Vec<&'static str>),
    #[error("cannot read an answer: {0}")]
    Unanswered(io::Error),
    #[error("no certificate found for {0}; name it with --certificate FILE --key FILE")]
    NoCertificate(String),
    #[error("{0}")]
    Wrong(ConfigErrors),
    #[error("cannot write {path}: {source}", path = .path.display())]
    Unwritable { path: PathBuf, source: io::Error },
}

impl SetupError {
    /// Returns the exit code of the command.
    pub(super) fn exit(&self) -> u8 {
        match self {
            Self::Missing(_) | Self::NoCertificate(_) => exit::USAGE,
            Self::Wrong(_) => exit::CONFIG,
            Self::Exists(_) | Self::Unanswered(_) | Self::Unwritable { .. } => 1,
        }
    }
}
