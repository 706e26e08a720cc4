//! The check of the database on PostgreSQL.

use std::path::Path;

use super::report::Report;
use crate::clock;
use crate::config::{Config, DatabaseUrl, Problem, StoreEngine};
use crate::daemon::database::postgres;
use crate::exit;
use crate::store::{DatabaseFailure, DatabaseState, NodeRecord, StoreError, probe_postgres};

/// The difference of clocks that is reported, in seconds.
const SKEW: f64 = 5.0;

/// Connects to the database, if it is on a server, and looks at what it needs.
///
/// Returns the nodes that are running.
pub(super) async fn database(report: &mut Report, path: &Path, config: &Config) -> Vec<NodeRecord> {
    let (StoreEngine::Postgres, Some(url)) = (config.store.engine, &config.store.url) else { return Vec::new() };
    let problem = |what: String, remedy: &str| Problem {
        file: path.to_owned(),
        line: 0,
        key: "[store] url".to_owned(),
        what,
        remedy: remedy.to_owned(),
    };
    let settings = match postgres(config, url, None) {
        Ok(settings) => settings,
        Err(error) => {
            let remedy = "install ca-certificates, or set SSL_CERT_FILE";
            report.problem(&problem(error.to_string(), remedy), exit::CONFIG);
            return Vec::new();
        }
    };
    match probe_postgres(settings).await {
        Ok(state) => {
            state_of(report, config, url, &state, problem);
            state.nodes
        }
        Err(error) => {
            report.problem(&problem(format!("{url}: {error}"), remedy(&error)), exit::UNAVAILABLE);
            Vec::new()
        }
    }
}

fn remedy(error: &StoreError) -> &'static str {
    if let StoreError::Unavailable(DatabaseFailure::Server { .. }) = error {
        "correct the user, the password or the name of the database, here or on the server"
    } else if let StoreError::Unavailable(DatabaseFailure::ReadOnly) = error {
        "name all servers in url, separated by commas"
    } else {
        "start the server, or correct url; its certificate must be trusted here and name the host in url"
    }
}

fn state_of(
    report: &mut Report,
    config: &Config,
    url: &DatabaseUrl,
    state: &DatabaseState,
    problem: impl Fn(String, &str) -> Problem,
) {
    let durable = match state.standbys.as_str() {
        "" => "no synchronous standby".to_owned(),
        names => format!("synchronous_standby_names = '{names}'"),
    };
    report.fine(format_args!("database: PostgreSQL {} at {url} answers; {durable}", state.server));
    if state.standbys.is_empty() && !config.store.single {
        let remedy =
            "set synchronous_standby_names on the server, or single = true to accept that its loss loses messages";
        report.problem(&problem(format!("{url}: no synchronous standby"), remedy), exit::CONFIG);
    }
    if !state.syncs {
        let remedy = "set fsync = on on the server";
        report.problem(
            &problem(format!("{url}: fsync is off: a crash of the server loses messages"), remedy),
            exit::CONFIG,
        );
    }
    if !state.has_rights {
        let remedy = "make the user the owner of the database: ALTER DATABASE … OWNER TO …";
        report.problem(&problem(format!("{url}: the user may not create or use the tables"), remedy), exit::CONFIG);
    }
    if let Some(version) = state.schema.filter(|version| *version > DatabaseState::SCHEMA) {
        let what = format!("{url}: the tables have version {version}, which this program cannot use");
        report.problem(&problem(what, "run a newer version of pushward"), exit::CONFIG);
    }
    let skew = state.clock - clock::unix_millis().get() as f64 / 1000.0;
    if skew.abs() > SKEW {
        let what = format!("{url}: the clock of the server differs by {skew:.0} s");
        report.warning(&problem(what, "synchronize both clocks, for example with chrony"));
    }
    for NodeRecord { id, address, is_draining, .. } in &state.nodes {
        let (address, drains) =
            (if address.is_empty() { "no cluster" } else { address }, if *is_draining { ", draining" } else { "" });
        report.fine(format_args!("database: node {id} ({address}) is running{drains}"));
    }
}
