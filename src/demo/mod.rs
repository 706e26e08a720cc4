//! The main job in one process: an embedded server, a push service and two clients.

use std::process::ExitCode;

/// Not here yet.
pub async fn run(_options: crate::cli::Demo) -> ExitCode {
    ExitCode::FAILURE
}
