//! `[stream_management]`: how long things are waited for.

use std::time::Duration;

use super::section::Section;
use super::units::{DAY, HOUR, MINUTE, MOMENT, SECOND};

/// `[stream_management]`: how long things are waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamManagement {
    /// How long a session without a registration is held for its client: 10 min. XEP-0198 §5 `max`.
    pub resume_timeout: Duration,
    /// How late an `<a/>` for an important stanza may be before it is pushed: 30 s.
    pub max_ack_delay: Duration,
    /// How much later, after `max_ack_delay`, the connection is given up: 30 s.
    pub ack_timeout: Duration,
    /// How long a client may be silent before it is asked with `<r/>`: 5 min.
    pub idle_probe: Duration,
    /// How long a write to a client may stall: 30 s.
    pub write_timeout: Duration,
    /// How long the connection to the server may be silent before whitespace is sent on it: 5 min.
    pub upstream_keepalive: Duration,
    /// How long a stanza may be unacknowledged by a live client before it is spooled. Without it, 100 ms where the server has
    /// no stream management, and 1 s where it has.
    pub spool_after: Option<Duration>,
    /// How long after its first presence a device gets what another device of the account does not fetch: 5 s.
    pub orphan_grace: Duration,
    /// How long stanzas wait for their device on disk: 14 d.
    pub orphan_ttl: Duration,
    /// How long before the end of its hold a dark device is woken: 2 min.
    pub wake_before_expiry: Duration,
    /// How many wake pushes may be sent in a second: 50.
    pub wake_rate: u32,
}

impl Default for StreamManagement {
    fn default() -> Self {
        Self {
            resume_timeout: 10 * MINUTE,
            max_ack_delay: 30 * SECOND,
            ack_timeout: 30 * SECOND,
            idle_probe: 5 * MINUTE,
            write_timeout: 30 * SECOND,
            upstream_keepalive: 5 * MINUTE,
            spool_after: None,
            orphan_grace: 5 * SECOND,
            orphan_ttl: 14 * 24 * HOUR,
            wake_before_expiry: 2 * MINUTE,
            wake_rate: 50,
        }
    }
}

impl StreamManagement {
    /// How long a stanza may be unacknowledged by a live client before it is spooled; `counted`: the server's stream management
    /// counts it.
    pub fn spool_after(&self, counted: bool) -> Duration {
        let default = if counted { SECOND } else { Duration::from_millis(100) };
        self.spool_after.unwrap_or(default)
    }
}

pub(super) fn read(mut s: Section<'_>) -> StreamManagement {
    let d = StreamManagement::default();
    let read = StreamManagement {
        resume_timeout: s.duration("resume_timeout", d.resume_timeout, MOMENT..=30 * DAY),
        max_ack_delay: s.duration("max_ack_delay", d.max_ack_delay, MOMENT..=HOUR),
        ack_timeout: s.duration("ack_timeout", d.ack_timeout, MOMENT..=HOUR),
        idle_probe: s.duration("idle_probe", d.idle_probe, MOMENT..=DAY),
        write_timeout: s.duration("write_timeout", d.write_timeout, MOMENT..=HOUR),
        upstream_keepalive: s.duration("upstream_keepalive", d.upstream_keepalive, MOMENT..=HOUR),
        spool_after: s.has("spool_after").then(|| s.duration("spool_after", SECOND, Duration::ZERO..=MINUTE)),
        orphan_grace: s.duration("orphan_grace", d.orphan_grace, Duration::ZERO..=HOUR),
        orphan_ttl: s.duration("orphan_ttl", d.orphan_ttl, MOMENT..=366 * DAY),
        wake_before_expiry: s.duration("wake_before_expiry", d.wake_before_expiry, Duration::ZERO..=DAY),
        wake_rate: s.number("wake_rate", d.wake_rate, 1..=100_000),
    };
    s.finish();
    read
}
