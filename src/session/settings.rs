//! Settings of sessions that an operator may change while sessions run. `config` fills them.

use std::sync::Arc;
use std::time::Duration;

use super::fronting::Fronting;
use super::names::SmIdSource;
use super::rewrite::offers::Offers;
use crate::push::fast::FastSettings;
use crate::push::settings::PushSettings;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// The settings of sessions that the operator chooses.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `[stream_management]`
    pub stream_management: StreamManagement,
    /// `[push]`: content and times of notifications.
    pub push: Arc<PushSettings>,
    /// `[push]`: the hold of sessions with a registration.
    pub hibernation: Hibernation,
    /// `[fast]`: tokens of clients.
    pub fast: FastSettings,
    /// `[push] publish_timeout`: the time that a push service has to answer.
    pub publish_timeout: Duration,
    /// `[limits] server_timeout`: the time that the server has to answer.
    pub server_timeout: Duration,
    /// `[limits] session_queue`, bytes.
    pub session_queue: usize,
    /// `[limits] unauthenticated_stanza`, bytes.
    pub unauthenticated_stanza: usize,
    /// `[limits] stanza`, bytes.
    pub stanza: usize,
    /// The key of the hashes that recognize repeated stanzas: random, one for the process.
    pub seed: u64,
    /// The features that servers offer, rewritten under these settings.
    pub offers: Arc<Offers>,
    /// `[host] modern_login`: the hosts for which SASL2 is offered if their server lacks it.
    pub fronting: Arc<Fronting>,
    /// Creates resumption ids. Stays the same while the process runs.
    pub sm_ids: Arc<SmIdSource>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            stream_management: StreamManagement::default(),
            push: Arc::default(),
            hibernation: Hibernation::default(),
            fast: FastSettings::default(),
            publish_timeout: MINUTE,
            server_timeout: 25 * SECOND,
            session_queue: 0,
            unauthenticated_stanza: 0,
            stanza: 0,
            seed: 0,
            offers: Arc::default(),
            fronting: Arc::default(),
            sm_ids: Arc::default(),
        }
    }
}

/// The hold of sessions whose device has a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hibernation {
    /// `max_hibernation_timeout`: the time for which a session is held for its client, from the last contact: 72 h.
    pub max_timeout: Duration,
    /// `hibernation_after_push`: the maximum hold of a dark session after an important push was sent. `None` does not
    /// shorten it.
    pub after_push: Option<Duration>,
    /// `linger`: the session stays when its client closes its stream.
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
    /// The time for which a session without a registration is held for its client: 10 min. XEP-0198 §5 `max`.
    pub resume_timeout: Duration,
    /// The delay of an `<a/>` for an important stanza after which it is pushed: 30 s.
    pub max_ack_delay: Duration,
    /// The time after `max_ack_delay` until the connection is given up: 30 s.
    pub ack_timeout: Duration,
    /// The time of a client's silence after which it is asked with `<r/>`: 5 min.
    pub idle_probe: Duration,
    /// The time for which a write to a client may stall: 30 s.
    pub write_timeout: Duration,
    /// The time of silence on the connection to the server after which whitespace is sent: 5 min.
    pub upstream_keepalive: Duration,
    /// The time for which a live client may leave a stanza unacknowledged before it is spooled. `None` means 100 ms if the
    /// server has no stream management, and 1 s if it has.
    pub spool_after: Option<Duration>,
    /// The time after its first presence until a device gets stanzas that another device of the account does not fetch: 5
    /// s.
    pub orphan_grace: Duration,
    /// The time for which stanzas wait for their device on disk: 14 d.
    pub orphan_ttl: Duration,
    /// The time before the end of its hold at which a dark device is woken: 2 min.
    pub wake_before_expiry: Duration,
    /// The maximum number of wake pushes per second: 50.
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
    /// The time for which a live client may leave a stanza unacknowledged before it is spooled, if the server's stream
    /// management counts the stanza.
    pub fn spool_after_counted(&self) -> Duration {
        self.spool_after.unwrap_or(SECOND)
    }

    /// The same for a stanza that the server does not count.
    pub fn spool_after_uncounted(&self) -> Duration {
        self.spool_after.unwrap_or(Duration::from_millis(100))
    }
}
