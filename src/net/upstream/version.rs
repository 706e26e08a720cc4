//! The versions of TLS that a server does not support.
//!
//! XEP-0515: a server reports in SCRAM the version that it sees, and a client fails if its own differs. So only the
//! version of the client leg is offered to a server. If the server does not support it, the connection uses another
//! version: a login that may fail is better than one that cannot start.

use std::sync::Mutex;
use std::time::Duration;

use crate::clock::Instant;
use crate::sync::lock;
use rustls::ProtocolVersion;

/// The time for which a version that a server did not support is not offered alone.
const REMEMBERED: Duration = Duration::from_secs(600);

/// The version that a server does not support, and the time of that finding. It supports the other version.
#[derive(Debug, Default)]
pub(super) struct Lacking(Mutex<Option<(ProtocolVersion, Instant)>>);

impl Lacking {
    /// Returns whether the server recently failed to support this version.
    pub(super) fn has(&self, version: ProtocolVersion) -> bool {
        let lacking = *lock(&self.0);
        lacking.is_some_and(|(lacking, since)| lacking == version && since.elapsed() < REMEMBERED)
    }

    /// Records that the server does not support this version.
    pub(super) fn note(&self, version: ProtocolVersion) {
        *lock(&self.0) = Some((version, Instant::now()));
    }
}
