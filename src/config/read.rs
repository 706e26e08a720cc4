//! The sections of the file.

use std::path::Path;
use std::time::Duration;

use toml::de::DeTable;

use super::problem::Report;
use super::section::Section;
use super::value::file_name;
use super::{
    Config, HOUR, Listen, SECOND, admin, host, limits, listen, log, push, store, stream_management, transport,
};

/// Reads the whole file. What it returns counts only if nothing was added to the report.
pub(super) fn config<'t>(report: &'t Report<'t>, text: &'t str, path: &Path) -> Config {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        report.add_syntax(error);
    }
    let directory = path.parent().unwrap_or(Path::new("")).to_owned();
    let mut root = Section::new(report, "", 1, table.into_inner());
    let state = root.parsed("state", file_name).map_or_else(|| "state".to_owned(), |at| at.value);
    let drain_timeout = root.duration("drain_timeout", 10 * SECOND, Duration::ZERO..=HOUR);
    let mut listen = listen::listeners(root.tables("listen", "[[listen]]"));
    if listen.is_empty() {
        listen.push(Listen::default());
    }
    let hosts = host::hosts(root.tables("host", "[[host]]"), &directory, &listen);
    if hosts.is_empty() && !report.is_broken() {
        root.problem(1, "[[host]]", "no host is served", "add [[host]] and domain = \"example.org\"");
    }
    let stream_management = stream_management::read(root.table("stream_management", "[stream_management]"));
    let push = push::read(root.table("push", "[push]"), &stream_management, &directory);
    let limits = limits::read(root.table("limits", "[limits]"));
    let store = store::read(root.table("store", "[store]"));
    let state = directory.join(state);
    let admin = admin::read(root.table("admin", "[admin]"), &directory, &state, &listen);
    let dns = transport::dns(root.table("dns", "[dns]"));
    let log = log::read(root.table("log", "[log]"));
    root.finish();
    Config {
        path: path.to_owned(),
        state,
        drain_timeout,
        listen,
        hosts,
        stream_management,
        push,
        limits,
        store,
        dns,
        admin,
        log,
    }
}

/// The line of a key of a host, or of its `[[host]]`.
pub(super) fn host_line(text: &str, index: usize, key: &str) -> usize {
    let report = Report::new(Path::new(""), text);
    let (table, _) = DeTable::parse_recoverable(text);
    let mut root = Section::new(&report, "", 1, table.into_inner());
    root.tables("host", "[[host]]").get(index).map_or(1, |host| host.line_of(key))
}
