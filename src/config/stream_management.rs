//! `[stream_management]`: timeouts of sessions and stream management.

use std::time::Duration;

use super::section::Section;
use super::units::{DAY, HOUR, MINUTE, MOMENT, SECOND};
pub use crate::session::settings::StreamManagement;

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
