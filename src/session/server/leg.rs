//! The server's leg of stream management: what came, and how much of it we have acknowledged.

use std::time::{Duration, Instant};

use crate::seq::ServerSeq;
use crate::session::sm::Handled;

/// Stanzas that may be unacknowledged while the client is live before the spool takes over: servers give up at 500.
pub(in crate::session) const UNACKED: u64 = 250;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LegState {
    /// The server has none, or refused it.
    Off,
    /// `<enable/>` was sent at this moment: what is sent counts, what comes does not yet.
    Asked(Instant),
    On,
}

/// When stanzas are acknowledged to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::session) enum Settling {
    /// Once the server waits for it.
    WhenOwed,
    /// Now, as many as may be.
    AtOnce,
}

/// The stanzas that the server counts.
#[derive(Debug)]
pub(super) struct ServerLeg {
    state: LegState,
    received: ServerSeq,
    acked: ServerSeq,
    /// The server was told less than it had sent: more follows as soon as it may.
    owed: bool,
    /// It has said why it ends the stream.
    says_why: bool,
}

impl ServerLeg {
    /// For a server that offers stream management: it is enabled now.
    pub(super) fn asking(now: Instant) -> Self {
        Self { state: LegState::Asked(now), ..Self::off() }
    }

    /// For a server without stream management.
    pub(super) fn off() -> Self {
        Self { state: LegState::Off, received: ServerSeq::ZERO, acked: ServerSeq::ZERO, owed: false, says_why: false }
    }

    pub(super) fn enabled(&mut self) {
        self.state = LegState::On;
    }

    pub(super) fn refused(&mut self) {
        self.state = LegState::Off;
    }

    /// Since when the server owes the answer to `<enable/>`.
    pub(super) fn asked(&mut self) -> Option<&mut Instant> {
        match &mut self.state {
            LegState::Asked(since) => Some(since),
            LegState::Off | LegState::On => None,
        }
    }

    /// When that answer is late, if it may take so long.
    pub(super) fn deadline(&self, patience: Duration) -> Option<Instant> {
        match self.state {
            LegState::Asked(since) => Some(since + patience),
            LegState::Off | LegState::On => None,
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.state == LegState::On
    }

    /// Whether the server confirms what it gets by `<a/>`.
    pub(super) fn confirms(&self) -> bool {
        self.state != LegState::Off
    }

    /// A stanza came; its number, if the server counts it.
    pub(super) fn on_received(&mut self) -> Option<ServerSeq> {
        self.is_on().then(|| {
            self.received = self.received.next();
            self.received
        })
    }

    /// A stream error came: the server ends the stream in order, and sends elsewhere what it was not acknowledged.
    pub(super) fn says_why(&mut self) {
        self.says_why = true;
    }

    /// Whether a stream error came.
    pub(super) fn has_said_why(&self) -> bool {
        self.says_why
    }

    /// How many stanzas we have acknowledged.
    pub(super) fn acked(&self) -> ServerSeq {
        self.acked
    }

    /// How many stanzas before the first unsettled one are not acknowledged; or of all, if all are settled.
    fn settled(&self, first_unsettled: Option<ServerSeq>) -> ServerSeq {
        first_unsettled.map_or(self.received, ServerSeq::previous).max(self.acked)
    }

    /// How many stanzas the server keeps for us.
    pub(super) fn unsettled(&self, first_unsettled: Option<ServerSeq>) -> u64 {
        self.received.since(self.settled(first_unsettled))
    }

    /// The server's `<r/>`: the `h` to answer at once.
    pub(super) fn answer(&mut self, first_unsettled: Option<ServerSeq>) -> Handled {
        self.acked = self.settled(first_unsettled);
        self.owed = self.acked < self.received;
        Handled::wrapping(self.acked.get())
    }

    /// The `h` of an `<a/>` that nobody asked for, if there is one to send.
    pub(super) fn settle(&mut self, settling: Settling, first_unsettled: Option<ServerSeq>) -> Option<Handled> {
        let settled = self.settled(first_unsettled);
        let due = settling == Settling::AtOnce || self.owed || settled.since(self.acked) >= UNACKED / 2;
        if !self.is_on() || settled == self.acked || !due {
            return None;
        }
        Some(self.answer(first_unsettled))
    }
}
