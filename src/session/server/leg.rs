//! The server's leg of stream management: the stanzas that came, and how many of them were acknowledged.

use std::time::Duration;

use crate::clock::Instant;
use crate::seq::ServerSeq;
use crate::session::sm::Handled;

/// The number of stanzas that may be unacknowledged to the server while the client is live. Beyond it the spool takes over.
/// Servers give up at 500.
pub(in crate::session) const UNACKED: u64 = 250;

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
enum LegState {
    /// The server has no stream management, or refused it.
    Off,
    /// `<enable/>` was sent at this time. Stanzas to the server count from here; stanzas from it do not count yet.
    Asked(Instant),
    On,
}

/// The time at which stanzas are acknowledged to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::session) enum Settling {
    /// Once the server waits for it.
    WhenAwaited,
    /// At once, as many as possible.
    AtOnce,
}

/// The stanzas that the server counts.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct ServerLeg {
    state: LegState,
    received: ServerSeq,
    acked: ServerSeq,
    /// True if the last acknowledgement covered fewer stanzas than were received: another one follows when possible.
    follow_up: bool,
    /// True if the server sent a stream error.
    stream_error: bool,
}

impl ServerLeg {
    /// Creates the leg for a server that offers stream management. The caller enables it now.
    pub(super) fn asking(now: Instant) -> Self {
        Self { state: LegState::Asked(now), ..Self::off() }
    }

    /// Creates the leg for a server without stream management.
    pub(super) fn off() -> Self {
        Self {
            state: LegState::Off,
            received: ServerSeq::ZERO,
            acked: ServerSeq::ZERO,
            follow_up: false,
            stream_error: false,
        }
    }

    pub(super) fn enabled(&mut self) {
        self.state = LegState::On;
    }

    pub(super) fn refused(&mut self) {
        self.state = LegState::Off;
    }

    /// The time since which the answer to `<enable/>` is outstanding.
    pub(super) fn asked(&mut self) -> Option<&mut Instant> {
        match &mut self.state {
            LegState::Asked(since) => Some(since),
            LegState::Off | LegState::On => None,
        }
    }

    /// The time at which the answer to `<enable/>` is late, if it may take this long.
    pub(super) fn deadline(&self, patience: Duration) -> Option<Instant> {
        match self.state {
            LegState::Asked(since) => Some(since + patience),
            LegState::Off | LegState::On => None,
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.state == LegState::On
    }

    /// Returns whether the server confirms stanzas by `<a/>`.
    pub(super) fn confirms(&self) -> bool {
        self.state != LegState::Off
    }

    /// Counts a stanza that came. Returns its number, if the server counts it.
    pub(super) fn on_received(&mut self) -> Option<ServerSeq> {
        self.is_on().then(|| {
            self.received = self.received.next();
            self.received
        })
    }

    /// Notes a stream error: the server ends the stream in order, and delivers unacknowledged stanzas elsewhere.
    pub(super) fn on_stream_error(&mut self) {
        self.stream_error = true;
    }

    /// Returns whether a stream error came.
    pub(super) fn has_stream_error(&self) -> bool {
        self.stream_error
    }

    /// The number of acknowledged stanzas.
    pub(super) fn acked(&self) -> ServerSeq {
        self.acked
    }

    /// The number of stanzas that may be acknowledged: those before the first unsettled one, or all if all are settled.
    fn settled(&self, first_unsettled: Option<ServerSeq>) -> ServerSeq {
        first_unsettled.map_or(self.received, ServerSeq::previous).max(self.acked)
    }

    /// The number of stanzas that the server keeps for us.
    pub(super) fn unsettled(&self, first_unsettled: Option<ServerSeq>) -> u64 {
        self.received.since(self.settled(first_unsettled))
    }

    /// Answers the server's `<r/>`: returns the `h` to send at once.
    pub(super) fn answer(&mut self, first_unsettled: Option<ServerSeq>) -> Handled {
        self.acked = self.settled(first_unsettled);
        self.follow_up = self.acked < self.received;
        Handled::wrapping(self.acked.get())
    }

    /// The `h` of an unrequested `<a/>`, if one is to be sent.
    pub(super) fn settle(&mut self, settling: Settling, first_unsettled: Option<ServerSeq>) -> Option<Handled> {
        let settled = self.settled(first_unsettled);
        let due = settling == Settling::AtOnce || self.follow_up || settled.since(self.acked) >= UNACKED / 2;
        if !self.is_on() || settled == self.acked || !due {
            return None;
        }
        Some(self.answer(first_unsettled))
    }
}
