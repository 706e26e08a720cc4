//! Reasons why `pushward setup` has written nothing.

use std::io;
use std::path::PathBuf;

use crate::config::ConfigErrors;
use crate::exit;

/// The reason why nothing was written.
#[derive(Debug, thiserror::Error)]
pub(super) enum SetupError {
    #[error("{path} is there already, and is left alone; --force replaces it, --output FILE writes elsewhere", path = .0.display())]
    Exists(PathBuf),
    #[error("not a terminal to ask on, so these options are needed: {}", .0.join(", "))]
    Missing(Vec<&'static str>),
    #[error("nobody answers: {0}")]
    Unanswered(io::Error),
    #[error("there is no certificate for {0}; name it with --certificate FILE --key FILE")]
    NoCertificate(String),
    #[error("{0}")]
    Wrong(ConfigErrors),
    #[error("{path} cannot be written: {source}", path = .path.display())]
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
