//! Clocks for answers that a peer owes stand still while that peer is not read: its answer may have come. They do not start
//! before the question has left: a slow line is not a dead peer.

use std::time::{Duration, Instant};

use super::{Peer, Session};

/// Since when a peer is not read, while it is not.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pause(Option<Instant>);

impl Pause {
    /// The peer is not read from now on.
    pub(super) fn begin(&mut self, now: Instant) {
        self.0.get_or_insert(now);
    }

    /// The peer is read again. Returns how much later whatever it was asked for at `since` is due.
    pub(super) fn end(&mut self, now: Instant) -> impl Fn(Instant) -> Duration + use<> {
        let begun = self.0.take();
        move |since| begun.map_or(Duration::ZERO, |begun| now.saturating_duration_since(begun.max(since)))
    }

    /// Whether the peer is not read.
    pub(super) fn is_on(self) -> bool {
        self.0.is_some()
    }
}

impl Session {
    pub(super) fn paused(&mut self, now: Instant, peer: Peer) {
        match peer {
            Peer::Client => self.liveness.stop_clock(now),
            Peer::Server => self.confirm.pause_server(now),
        }
    }

    pub(super) fn unpaused(&mut self, now: Instant, peer: Peer) {
        match peer {
            Peer::Client => {
                self.liveness.go_on(now);
                self.ring_later(now);
                self.succession_goes_on(now);
            }
            Peer::Server => {
                let later = self.confirm.unpause_server(now);
                if let Some(since) = self.server.asked() {
                    *since += later(*since);
                }
            }
        }
    }

    /// The question that a peer has to answer waits to be written: no clock runs for the answer.
    pub(super) fn question_waits(&mut self, peer: Peer) {
        match peer {
            Peer::Client => self.liveness.question_waits(),
            Peer::Server => self.confirm.question_waits(),
        }
    }

    /// The peer has been sent the question: from now on it may be late with its answer.
    pub(super) fn question_left(&mut self, now: Instant, peer: Peer) {
        match peer {
            Peer::Client => self.liveness.question_left(now),
            Peer::Server => self.confirm.question_left(now),
        }
    }

    /// Replies that wait for the client came over half their mark, or have all left since.
    pub(super) fn replies_wait(&mut self, now: Instant, many: bool) {
        self.confirm.answer_together(now, many, self.behind.stanzas());
        self.answer_client(now);
    }
}
