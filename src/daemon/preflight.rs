//! The check that the installed program makes before it takes the place of a running one: it loads what a start would load, and
//! prints a [`PreflightReport`], which the running process judges (`refusal`).

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::StartError;
use crate::config::Config;
use crate::relay::handover::RELAY_RECORD_VERSION;
use crate::relay::snapshot::Snapshot;
use crate::secret::Secret;
use crate::service::handover::{PARCEL_VERSION, PreflightReport};
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
    let report = report(&config);
    if let Err(errors) = Snapshot::load(config, 0, Secret::new(0)) {
        eprintln!("{}", StartError::Load(errors));
        return ExitCode::from(exit::CONFIG);
    }
    let printed =
        serde_json::to_string(&report).map_err(Into::into).and_then(|line| stdout::print(format!("{line}\n")));
    if printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn report(config: &Config) -> PreflightReport {
    PreflightReport {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        records: [*RECORD_VERSIONS_READ.start(), *RECORD_VERSIONS_READ.end()],
        relay: [RELAY_RECORD_VERSION; 2],
        parcel: [PARCEL_VERSION; 2],
        state: absolute(&config.state),
        listen: config.listen.iter().map(|listen| listen.address).collect(),
        page: config.admin.listen,
    }
}

/// Returns the reason why a program that has answered so cannot take the place of a process with this configuration, although it
/// can start: it has other sessions, or cannot bind an address that this process does not hold.
pub(super) fn refusal(report: &PreflightReport, config: &Config) -> Option<String> {
    let state = absolute(&config.state);
    if report.state != state {
        let (new, old) = (report.state.display(), state.display());
        return Some(format!("`state` is {new}, and {old} in the running process: stop it, then start it again"));
    }
    let held = config.listen.iter().map(|listen| listen.address).chain(config.admin.listen);
    let held: Vec<_> = held.collect();
    let added = report.listen.iter().chain(&report.page).filter(|address| !held.contains(address));
    added.copied().find_map(|address| {
        let error = TcpListener::bind(address).err()?;
        Some(format!("cannot listen on {address}: {error}"))
    })
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
