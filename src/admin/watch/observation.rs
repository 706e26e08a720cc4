//! [`Observation`]: the answers of the daemon at one time.

use serde::Serialize;

use crate::admin::protocol::{DaemonStatus, SessionEntry};
use crate::clock::UnixSecs;

/// The answers of the daemon at one time.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Observation {
    /// The time of the answers.
    pub(super) at: UnixSecs,
    pub(super) status: DaemonStatus,
    /// Present if sessions were requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sessions: Option<Vec<SessionEntry>>,
}
