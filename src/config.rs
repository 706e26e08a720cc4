//! The configuration: reads a file into a [`Config`], which is checked and always valid. The daemon and the commands use it;
//! [`ConfigErrors`] lists what is wrong with a file.
//!
//! Paths in the file are relative to the directory of the file. Durations are written `"30s"`, sizes `"16 KiB"`. Every
//! key but `[[host]]` has a default; unknown keys are errors.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeTable;

mod access;
mod addresses;
mod admin;
mod cluster;
mod database_url;
mod domain;
mod endpoint;
mod fast;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod host;
mod limits;
mod listen;
mod log;
mod overlap;
mod problem;
mod push;
mod section;
mod store;
mod stream_management;
#[cfg(test)]
mod tests;
mod transport;
mod units;
mod unknown;
mod upstream;
mod value;

pub use access::DaemonAccess;
pub use admin::Admin;
pub use cluster::ClusterSettings;
pub use database_url::DatabaseUrl;
pub use endpoint::Endpoint;
pub use fast::FastSettings;
pub use host::{ChannelBinding, Host, UpstreamTls};
pub use limits::{ConnectionLimits, Limits, PeerTimeouts, QueueLimits, RateLimits, SpoolSizes, StanzaLimits};
pub use listen::{Listen, ListenTls, TrustedProxies};
pub use log::{Log, LogFormat};
pub(crate) use overlap::{may_clash, share_ipv4};
pub use problem::{ConfigErrors, Problem};
pub use push::PushConfig;
pub use store::{StoreEngine, StoreSettings};
pub use stream_management::StreamManagement;
pub use transport::{Component, ComponentSender, Route, Transport};
pub use upstream::{ProxyProtocol, Upstream};

use problem::ProblemReport;
use section::Section;
use units::{HOUR, SECOND};
use value::file_name;

/// The whole configuration, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The file that it was read from, as given by the user.
    pub path: PathBuf,
    /// The directory of the database: `state`.
    pub state: PathBuf,
    /// `drain_timeout`: the longest time for a drain before sessions are cut off. Default: 10 s.
    pub drain_timeout: Duration,
    /// `[[listen]]`: the addresses that clients connect to. Default: `[::]:5222` with STARTTLS. Never empty.
    pub listen: Vec<Listen>,
    /// `[[host]]`: the domains that are served. Never empty, no domain twice.
    pub hosts: Vec<Host>,
    /// Stream management and liveness (XEP-0198).
    pub stream_management: StreamManagement,
    /// Push notifications (XEP-0357).
    pub push: PushConfig,
    /// `[fast]`: tokens of clients (XEP-0484).
    pub fast: FastSettings,
    /// Bounds on what a peer may use.
    pub limits: Limits,
    /// Settings of the database.
    pub store: StoreSettings,
    /// `[cluster]`: this node among others; `None` without the section.
    pub cluster: Option<ClusterSettings>,
    /// `[dns] servers`: the name servers for app servers. Empty: those of the system.
    pub dns: Vec<SocketAddr>,
    /// The operator's access to the daemon.
    pub admin: Admin,
    /// The level and format of the log.
    pub log: Log,
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Everything that is wrong with the file, or the reason why it cannot be read.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        Self::parse(&text_of(path)?, path)
    }

    /// Reads from a file how to reach its daemon, even if the file has problems. The problems are returned too. A key that cannot
    /// be read has its default.
    ///
    /// # Errors
    /// The reason why the file cannot be read at all.
    pub fn load_access(path: &Path) -> Result<(DaemonAccess, Option<ConfigErrors>), ConfigErrors> {
        let text = text_of(path)?;
        let report = ProblemReport::new(path, &text);
        let access = read(&report, &text, path).access();
        Ok((access, report.finish().err()))
    }

    /// Returns how a command reaches the daemon of this configuration.
    pub fn access(&self) -> DaemonAccess {
        DaemonAccess {
            socket: self.admin.socket.clone(),
            publish_timeout: self.push.publish_timeout,
            in_cluster: self.cluster.is_some(),
        }
    }

    /// Checks the text of a file. `path` names the file in errors, and relative paths start at its directory.
    ///
    /// # Errors
    /// Everything that is wrong with the text.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigErrors> {
        let report = ProblemReport::new(path, text);
        let config = read(&report, text, path);
        report.finish()?;
        Ok(config)
    }
}

fn text_of(path: &Path) -> Result<String, ConfigErrors> {
    std::fs::read_to_string(path).map_err(|error| ConfigErrors::unreadable(path, &error))
}

/// Reads the whole file. The result is valid only if no problem was reported.
fn read<'t>(report: &'t ProblemReport<'t>, text: &'t str, path: &Path) -> Config {
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
        root.problem(1, "[[host]]", "no [[host]] section", "add [[host]] and domain = \"example.org\"");
    }
    let stream_management = stream_management::read(root.table("stream_management", "[stream_management]"));
    let push = push::read(root.table("push", "[push]"), &stream_management, &directory);
    let fast = fast::read(root.table("fast", "[fast]"));
    let limits = limits::read(root.table("limits", "[limits]"));
    let state = directory.join(state);
    let admin = admin::read(root.table("admin", "[admin]"), &directory, &state, &listen);
    let dns = transport::dns(root.table("dns", "[dns]"));
    let store = store::read(root.table("store", "[store]"));
    let has_cluster = root.has("cluster");
    let cluster = root.table("cluster", "[cluster]");
    let cluster = cluster::read(cluster, has_cluster, &directory, &store, &listen, admin.listen);
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
        fast,
        limits,
        dns,
        admin,
        log,
        store,
        cluster,
    }
}

/// Returns the line, from 1, of the address of a listener in a text that [`Config::parse`] accepted. `index` is the position
/// in [`Config::listen`].
pub(crate) fn listen_line(text: &str, index: usize) -> usize {
    let report = ProblemReport::new(Path::new(""), text);
    let (table, _) = DeTable::parse_recoverable(text);
    let mut root = Section::new(&report, "", 1, table.into_inner());
    root.tables("listen", "[[listen]]").get(index).map_or(1, |listen| listen.line_of("address"))
}

/// Returns the line, from 1, of a key of a host, or of its `[[host]]`, in a text that [`Config::parse`] accepted. `index` is
/// the position in [`Config::hosts`].
pub(crate) fn host_line(text: &str, index: usize, key: &str) -> usize {
    let report = ProblemReport::new(Path::new(""), text);
    let (table, _) = DeTable::parse_recoverable(text);
    let mut root = Section::new(&report, "", 1, table.into_inner());
    root.tables("host", "[[host]]").get(index).map_or(1, |host| host.line_of(key))
}
