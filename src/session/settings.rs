//! What an operator set, and may set anew while a session runs.

use std::sync::Arc;
use std::time::Duration;

use super::rewrite::offers::Offers;
use crate::push::settings::PushSettings;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// The settings of sessions, as far as the operator chooses them.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `[stream_management]`
    pub stream_management: StreamManagement,
    /// `[push]`: content and times of notifications.
    pub push: Arc<PushSettings>,
    /// `[push]`: the hold of sessions with a registration.
    pub hibernation: Hibernation,
    /// `[push] publish_timeout`: how long a push service may take to answer.
    pub publish_timeout: Duration,
    /// `[limits] server_timeout`: how long the server may take to answer.
    pub server_timeout: Duration,
    /// `[limits] session_queue`, bytes.
    pub session_queue: usize,
    /// `[limits] unauthenticated_stanza`, bytes.
    pub unauthenticated_stanza: usize,
    /// `[limits] stanza`, bytes.
    pub stanza: usize,
    /// Keys the hashes by which stanzas are known to be the same: random, one for the process.
    pub seed: u64,
    /// What servers offer under these settings.
    pub offers: Arc<Offers>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            stream_management: StreamManagement::default(),
            push: Arc::default(),
            hibernation: Hibernation::default(),
            publish_timeout: MINUTE,
            server_timeout: 25 * SECOND,
            session_queue: 0,
            unauthenticated_stanza: 0,
            stanza: 0,
            seed: 0,
            offers: Arc::default(),
        }
    }
}

/// The hold of sessions whose device has a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hibernation {
    /// `max_hibernation_timeout`: how long a session is held for its client, from the last contact: 72 h.
    pub max_timeout: Duration,
    /// `hibernation_after_push`: how long a dark session is held at most once an important push went out; without it as long as
    /// before.
    pub after_push: Option<Duration>,
    /// `linger`: the session goes on when its client closes its stream.
    pub linger: bool,
}

impl Default for Hibernation {
    fn default() -> Self {
        Self { max_timeout: 72 * 60 * MINUTE, after_push: None, linger: true }
    }
}

/// The times of stream management and liveness.
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
            orphan_ttl: 14 * 24 * 60 * MINUTE,
            wake_before_expiry: 2 * MINUTE,
            wake_rate: 50,
        }
    }
}

impl StreamManagement {
    /// How long a stanza that the server's stream management counts may be unacknowledged by a live client before it is spooled.
    pub fn spool_after_counted(&self) -> Duration {
        self.spool_after.unwrap_or(SECOND)
    }

    /// The same for a stanza that the server does not count.
    pub fn spool_after_uncounted(&self) -> Duration {
        self.spool_after.unwrap_or(Duration::from_millis(100))
    }
}
