//! The writing end of the stream to the server. It writes nothing after the footer, and whitespace as a keepalive.

use std::time::Duration;

use bytes::Bytes;

use crate::clock::Instant;
use crate::session::contract::Output;
use crate::session::effects::Effects;

/// The writing end of the stream to the server.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct ServerWriter {
    /// The time of the last write.
    written: Instant,
    is_closed: bool,
}

impl ServerWriter {
    pub(super) fn new(now: Instant) -> Self {
        Self { written: now, is_closed: false }
    }

    pub(super) fn write(&mut self, now: Instant, output: Output, effects: &mut Effects) {
        if !self.is_closed {
            self.written = now;
            effects.push(output);
        }
    }

    /// Writes whitespace if nothing was written for this long.
    pub(super) fn keep_alive(&mut self, now: Instant, every: Duration, effects: &mut Effects) {
        if self.deadline(every) <= now {
            self.write(now, Output::ToUpstream(Bytes::from_static(b" ")), effects);
        }
    }

    /// Stops writing.
    pub(super) fn end(&mut self) {
        self.is_closed = true;
    }

    /// The time at which whitespace is to be written, if nothing else is.
    pub(super) fn deadline(&self, every: Duration) -> Instant {
        self.written + every
    }
}
