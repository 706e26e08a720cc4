//! The data of the page as JSON: counts per host, without account names.

use std::collections::BTreeMap;

use serde::Serialize;

use super::history::{EVERY, History, Sample};
use crate::clock::UnixSecs;
use crate::metrics::{CounterValues, DiskUsage, Measured, SessionCounts};

/// The document `/status.json`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct PageData {
    #[serde(flatten)]
    about: DaemonData,
    hosts: Vec<HostRow>,
    queued: usize,
    queue_bytes: usize,
    disk: Option<DiskRow>,
    messages_in: u64,
    messages_out: u64,
    logins: u64,
    failed_logins: u64,
    publishes: BTreeMap<&'static str, u64>,
    verdicts: BTreeMap<&'static str, u64>,
    /// The interval between two samples, in seconds.
    every: u64,
    history: Vec<Sample>,
}

/// The state of the daemon.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct DaemonData {
    pub(super) version: &'static str,
    /// The current time.
    pub(super) now: UnixSecs,
    /// The time since the start, in seconds.
    pub(super) uptime: u64,
    pub(super) draining: bool,
    pub(super) connections: usize,
}

#[derive(Clone, Debug, Serialize)]
struct HostRow {
    host: String,
    live: usize,
    suspect: usize,
    dark: usize,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct DiskRow {
    accounts: u64,
    spooled: u64,
    spool_bytes: u64,
    store_bytes: u64,
    wakes_waiting: u64,
}

impl PageData {
    pub(super) fn new(about: DaemonData, measured: &Measured, counted: CounterValues, history: &History) -> Self {
        let total = measured.total();
        let host = |(host, counts): (&String, &SessionCounts)| {
            let SessionCounts { live, suspect, dark, .. } = *counts;
            HostRow { host: host.clone(), live, suspect, dark }
        };
        let now = Sample::new(about.now, about.connections, measured, &counted);
        Self {
            about,
            hosts: measured.sessions.iter().map(host).collect(),
            queued: total.queued,
            queue_bytes: total.queue_bytes,
            disk: measured.disk.map(|DiskUsage { accounts, spooled, spool_bytes, store_bytes, wakes_waiting }| {
                DiskRow { accounts, spooled, spool_bytes, store_bytes, wakes_waiting }
            }),
            messages_in: counted.messages_in,
            messages_out: counted.messages_out,
            logins: counted.logins,
            failed_logins: counted.failed_logins,
            publishes: counted.publishes,
            verdicts: counted.verdicts.into_iter().filter(|(_, count)| *count > 0).collect(),
            every: EVERY.as_secs(),
            history: history.samples().into_iter().chain([now]).collect(),
        }
    }
}
