//! The configuration: from a file as written to a [`Config`] that cannot be wrong.
//!
//! Paths in the file are relative to the directory of the file. Durations are written `"30s"`, sizes `"16 KiB"`. Every
//! key but `[[host]]` has a default; unknown keys are errors.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod admin;
mod host;
mod limits;
mod listen;
mod log;
mod place;
mod problem;
mod push;
mod read;
mod section;
mod store;
mod stream_management;
#[cfg(test)]
mod tests;
mod transport;
mod unknown;
mod upstream;
mod value;

pub use admin::Admin;
pub use host::{ChannelBinding, Host, UpstreamTls};
pub use limits::Limits;
pub use listen::{Listen, ListenTls, TrustedProxies};
pub use log::{Log, LogFormat};
pub use problem::{ConfigErrors, Problem};
pub use push::Push;
pub use store::Store;
pub use stream_management::StreamManagement;
pub use transport::{Component, Route, Speaker, Transport};
pub use upstream::{Endpoint, ProxyProtocol, Upstream};

const MOMENT: Duration = Duration::from_millis(50);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The whole configuration, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The file that it was read from, as it was named.
    pub path: PathBuf,
    /// The directory of the database: `state`.
    pub state: PathBuf,
    /// How long a drain may take before sessions are cut off: 10 s.
    pub drain_timeout: Duration,
    /// Where clients connect: `[::]:5222` with STARTTLS if the file names none. Never empty.
    pub listen: Vec<Listen>,
    /// The domains served. Never empty, no domain twice.
    pub hosts: Vec<Host>,
    /// Stream management and liveness (XEP-0198).
    pub stream_management: StreamManagement,
    /// Notifications (XEP-0357).
    pub push: Push,
    /// Bounds on what a peer may ask of this process.
    pub limits: Limits,
    /// How the database is used.
    pub store: Store,
    /// The name servers that are asked for push services: the system's if there are none.
    pub dns: Vec<SocketAddr>,
    /// How the operator asks the daemon.
    pub admin: Admin,
    /// What is logged, and how.
    pub log: Log,
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Everything that is wrong with the file, or that it cannot be read.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigErrors::unreadable(path, &error))?;
        Self::parse(&text, path)
    }

    /// Checks the text of a file; `path` names it in errors, and its directory is where relative paths start.
    ///
    /// # Errors
    /// Everything that is wrong with the text.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigErrors> {
        let report = problem::Report::new(path, text);
        let config = read::config(&report, text, path);
        report.finish()?;
        Ok(config)
    }
}

/// The line, from 1, of a key of a host, or of its `[[host]]`, in a text that [`Config::parse`] took; `index` is the
/// host's in [`Config::hosts`].
pub(crate) fn host_line(text: &str, index: usize, key: &str) -> usize {
    read::host_line(text, index, key)
}
