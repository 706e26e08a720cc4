//! [`SessionRecord`]: everything that a session's task passes on to another process, except for the connection to the server.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::siblings::SiblingsRecord;
use super::watched::WatchedRecord;
use crate::net::frozen::ConnRecord;
use crate::publish::session::SessionPublishesRecord;
use crate::registry::HandleRecord;
use crate::relay::jobs::Renumbering;

/// A session and the state of its task.
#[derive(Serialize, Deserialize)]
pub(super) struct SessionRecord {
    pub(super) handle: HandleRecord,
    pub(super) siblings: SiblingsRecord,
    pub(super) watched: WatchedRecord,
    /// True if the client was connected. It counts as lost once the next process accepts connections.
    pub(super) has_client: bool,
    /// The session ([`Session::freeze`](crate::session::Session::freeze)).
    pub(super) session: Bytes,
    pub(super) upstream: ConnRecord,
    pub(super) publishes: SessionPublishesRecord,
    pub(super) renumbering: Renumbering,
}
