//! The state of the daemon, as `pushward status` shows it.

use serde::{Deserialize, Serialize};

/// The state of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonStatus {
    /// The version of the daemon.
    pub version: String,
    /// The time since its start, in seconds.
    pub uptime: u64,
    /// True if the daemon accepts no more connections and is about to end.
    pub draining: bool,
    /// Connected clients.
    pub connections: usize,
    /// Sessions with a connected client.
    pub live: usize,
    /// Sessions whose client is late with an acknowledgement.
    pub suspect: usize,
    /// Sessions that are held without a client.
    pub dark: usize,
    /// Stanzas in memory that await an acknowledgement.
    pub queued: usize,
    /// The size of those stanzas, in bytes.
    pub queue_bytes: usize,
    /// Accounts with stored data.
    pub accounts: u64,
    /// Stanzas in the spools on disk.
    pub spooled: u64,
    /// The size of those stanzas, in bytes.
    pub spool_bytes: u64,
    /// Devices with a waiting wake push.
    pub wakes_waiting: u64,
    /// The hosts for which SASL2 is not offered any more.
    #[serde(default)]
    pub sasl2_ended: Vec<String>,
}
