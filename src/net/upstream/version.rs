//! The versions of TLS that a server does not speak.
//!
//! XEP-0515: a server says in SCRAM which version it sees, and a client fails if its own differs. So a server is offered the
//! version of the client's leg alone. One that does not speak it is connected to with what it speaks: a login that may fail is
//! better than one that cannot start.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::sync::lock;
use rustls::ProtocolVersion;

/// The time for which a version that a server did not speak is not offered alone.
const REMEMBERED: Duration = Duration::from_secs(600);

/// The version that a server does not speak, and since when that is known. It speaks the other one.
#[derive(Debug, Default)]
pub(super) struct Lacking(Mutex<Option<(ProtocolVersion, Instant)>>);

impl Lacking {
    /// Returns whether the server was seen not to speak this version of late.
    pub(super) fn has(&self, version: ProtocolVersion) -> bool {
        let lacking = *lock(&self.0);
        lacking.is_some_and(|(lacking, since)| lacking == version && since.elapsed() < REMEMBERED)
    }

    /// The server does not speak this version.
    pub(super) fn note(&self, version: ProtocolVersion) {
        *lock(&self.0) = Some((version, Instant::now()));
    }
}
