//! The answers of the daemon at one moment.

use serde::Serialize;

use crate::admin::protocol::{DaemonStatus, SessionEntry};
use crate::clock::UnixSecs;

/// The answers of one moment.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Observation {
    /// The moment.
    pub(super) at: UnixSecs,
    pub(super) status: DaemonStatus,
    /// Present if sessions were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sessions: Option<Vec<SessionEntry>>,
}
