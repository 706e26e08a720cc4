//! The check that the installed program makes before it takes the place of a running one: it loads what a start would load, and
//! prints a [`PreflightReport`], which the running process judges.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::StartError;
use super::file_id::FileId;
use crate::config::{Config, may_clash};
use crate::relay::handover::RELAY_RECORD_VERSION;
use crate::relay::snapshot::Snapshot;
use crate::secret::Secret;
use crate::service::handover::{PARCEL_VERSION, PreflightReport};
use crate::session::RECORD_VERSIONS_READ;
use crate::store::DATABASE_VERSIONS_READ;
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
    let directory = config.admin.socket.parent().filter(|directory| !directory.as_os_str().is_empty());
    if let Some(directory) = directory.filter(|directory| **directory != *config.state && !directory.is_dir()) {
        eprintln!("[admin] socket: there is no directory {}", directory.display());
        return ExitCode::from(exit::CONFIG);
    }
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
        database: [*DATABASE_VERSIONS_READ.start(), *DATABASE_VERSIONS_READ.end()],
        state: absolute(&config.state),
        listen: listening(config).collect(),
        page: config.admin.listen,
    }
}

/// Returns the addresses for clients and for other nodes.
fn listening(config: &Config) -> impl Iterator<Item = SocketAddr> {
    let for_nodes = config.cluster.as_ref().map(|cluster| cluster.listen);
    config.listen.iter().map(|listen| listen.address).chain(for_nodes)
}

/// Returns the reason why a program with another state directory cannot continue with the sessions of this process.
pub(super) fn other_state(report: &PreflightReport, state: Option<FileId>) -> Option<String> {
    let is_same = state.is_some() && FileId::of(&report.state) == state;
    let text =
        || format!("`state` leads to another directory now: {}; stop Pushward, then start it", report.state.display());
    (!is_same).then(text)
}

/// Returns the reason why a program that has answered so could not open its addresses.
pub(super) fn taken_address(report: &PreflightReport, config: &Config) -> Option<String> {
    let held = listening(config).chain(config.admin.listen);
    let held: Vec<_> = held.collect();
    let wanted: Vec<_> = report.listen.iter().chain(&report.page).copied().collect();
    // This process closes them before the program starts.
    let closed: Vec<_> = held.iter().filter(|address| !wanted.contains(address)).collect();
    let is_free =
        |address: &SocketAddr| held.contains(address) || closed.iter().any(|open| may_clash(**open, *address));
    let mut bound = Vec::new();
    for address in wanted.iter().filter(|address| !is_free(address)) {
        match TcpListener::bind(address) {
            // Two new addresses may exclude each other.
            Ok(listener) => bound.push(listener),
            Err(error) => return Some(format!("cannot listen on {address}: {error}")),
        }
    }
    None
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
