//! The check that the installed program makes before it takes the place of a running one: it loads what a start would load, and
//! prints which records of sessions it reads.

use std::path::Path;
use std::process::ExitCode;

use super::StartError;
use crate::config::Config;
use crate::relay::snapshot::Snapshot;
use crate::secret::Secret;
use crate::service::handover::PreflightReport;
use crate::session::RECORD_VERSIONS_READ;
use crate::{exit, stdout};

/// Loads the configuration, certificates and keys, and prints a [`PreflightReport`]. Opens no database, binds no address and
/// contacts nobody. Returns the exit code: [`exit::CONFIG`] if a start would fail.
pub fn preflight(path: &Path) -> ExitCode {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            return ExitCode::from(exit::CONFIG);
        }
    };
    if let Err(errors) = Snapshot::load(config, 0, Secret::new(0)) {
        eprintln!("{}", StartError::Load(errors));
        return ExitCode::from(exit::CONFIG);
    }
    let records = [*RECORD_VERSIONS_READ.start(), *RECORD_VERSIONS_READ.end()];
    let report = PreflightReport { version: env!("CARGO_PKG_VERSION").to_owned(), records };
    let printed =
        serde_json::to_string(&report).map_err(Into::into).and_then(|line| stdout::print(format!("{line}\n")));
    if printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
