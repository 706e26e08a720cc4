//! [`DaemonAccess`]: the part of a configuration that a command needs to reach its daemon.

use std::path::PathBuf;
use std::time::Duration;

/// The way to the daemon that runs with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonAccess {
    /// `[admin] socket`, or `admin.sock` in `state`.
    pub socket: PathBuf,
    /// `[push] publish_timeout`: the time that an answer may take because of a push service.
    pub publish_timeout: Duration,
    /// True if the daemon is a node of a cluster.
    pub in_cluster: bool,
}
