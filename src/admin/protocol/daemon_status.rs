//! The state of the daemon, as `pushward status` shows it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clock::{Instant, UnixSecs};
use crate::relay::HandoverReport;

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
    /// The last handover to this process, or the last one that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handover: Option<Box<HandoverStatus>>,
}

/// A handover from the previous process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandoverStatus {
    /// The time at which it was begun, on the clock of the machine.
    pub began: Instant,
    /// Sessions that went on.
    pub kept: usize,
    /// Sessions that ended, by reason.
    pub ended: BTreeMap<String, usize>,
    /// The time from the signal until the sessions went on, in milliseconds.
    pub millis: u64,
    /// The time at which they went on.
    pub at: UnixSecs,
    /// The reason why they went on in the process that had them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

impl From<HandoverReport> for HandoverStatus {
    fn from(report: HandoverReport) -> Self {
        let HandoverReport { began, kept, ended, took, at, failed } = report;
        Self { began, kept, ended, millis: u64::try_from(took.as_millis()).unwrap_or(u64::MAX), at, failed }
    }
}
