//! Numbers that are passed between the code that counts and the code that displays: [`Measured`], [`SessionCounts`],
//! [`CounterValues`].

use std::collections::BTreeMap;

use crate::session::liveness::Reach;

/// Numbers that are measured on demand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// The sessions of each host that is served or still has sessions.
    pub sessions: BTreeMap<String, SessionCounts>,
    /// The numbers of the database; `None` if it does not answer.
    pub disk: Option<DiskUsage>,
}

/// The number of sessions, and of the stanzas that wait for them in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionCounts {
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
    /// The number of accounts that have a record.
    pub accounts: u64,
    /// The number of stanzas in the spool.
    pub spooled: u64,
    /// Their bytes, with the overhead.
    pub spool_bytes: u64,
    /// The size of the database file in bytes.
    pub store_bytes: u64,
    /// The number of devices that are to be woken.
    pub wakes_waiting: u64,
}

/// The counters since the start that the admin page shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CounterValues {
    /// Messages that came from clients.
    pub messages_in: u64,
    /// Messages that went to clients.
    pub messages_out: u64,
    /// Logins that became sessions, new or resumed.
    pub logins: u64,
    /// Logins that did not.
    pub failed_logins: u64,
    /// Notifications, by outcome.
    pub publishes: BTreeMap<&'static str, u64>,
    /// Decisions about stanzas, by verdict.
    pub verdicts: BTreeMap<&'static str, u64>,
}

impl SessionCounts {
    /// Returns the number of sessions.
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

    /// Returns the sum of both.
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
    /// Returns the sum of all hosts.
    pub fn total(&self) -> SessionCounts {
        self.sessions.values().copied().fold(SessionCounts::default(), SessionCounts::and)
    }
}
