//! Numbers on their way between those who count and those who show.

use std::collections::BTreeMap;

use crate::session::liveness::Reach;

/// Numbers that are measured on demand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// The sessions of each host that is served, or that has some still.
    pub sessions: BTreeMap<String, Tally>,
    /// The numbers of the database; `None` if it does not answer now.
    pub disk: Option<DiskUsage>,
}

/// Sessions and what waits for them in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Sessions with their client.
    pub live: usize,
    /// Sessions whose client is late with an acknowledgement.
    pub suspect: usize,
    /// Sessions that are held without their client.
    pub dark: usize,
    /// Stanzas in memory that no client has acknowledged.
    pub queued: usize,
    /// Their bytes, with the overhead.
    pub queue_bytes: usize,
}

/// The numbers of the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Accounts about which something is kept.
    pub accounts: u64,
    /// Stanzas in the spool.
    pub spooled: u64,
    /// Their bytes, with the overhead.
    pub spool_bytes: u64,
    /// Bytes of the database's file.
    pub store_bytes: u64,
    /// Devices that are to be woken.
    pub wakes_waiting: u64,
}

/// The counters since the start that the page shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CounterValues {
    /// Messages that came from clients.
    pub messages_in: u64,
    /// Messages that went to clients.
    pub messages_out: u64,
    /// Log-ins that became sessions, new or resumed.
    pub logins: u64,
    /// Log-ins that did not.
    pub failed_logins: u64,
    /// Notifications, by what became of them.
    pub publishes: BTreeMap<&'static str, u64>,
    /// Decisions, by what was decided.
    pub verdicts: BTreeMap<&'static str, u64>,
}

impl Tally {
    /// The number of sessions.
    pub fn sessions(&self) -> usize {
        self.live + self.suspect + self.dark
    }

    /// Adds a session.
    pub fn add(&mut self, reach: Reach, queued: usize, queue_bytes: usize) {
        let state = match reach {
            Reach::Live => &mut self.live,
            Reach::Suspect => &mut self.suspect,
            Reach::Dark => &mut self.dark,
        };
        *state += 1;
        self.queued = self.queued.saturating_add(queued);
        self.queue_bytes = self.queue_bytes.saturating_add(queue_bytes);
    }

    /// Both together.
    pub fn and(self, other: Self) -> Self {
        Self {
            live: self.live + other.live,
            suspect: self.suspect + other.suspect,
            dark: self.dark + other.dark,
            queued: self.queued.saturating_add(other.queued),
            queue_bytes: self.queue_bytes.saturating_add(other.queue_bytes),
        }
    }
}

impl Measured {
    /// All hosts together.
    pub fn total(&self) -> Tally {
        self.sessions.values().copied().fold(Tally::default(), Tally::and)
    }
}
