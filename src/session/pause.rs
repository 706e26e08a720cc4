//! Clocks for answers that a peer owes stand still while that peer is not read: its answer may have come. They do not start
//! before the question has left: a slow line is not a dead peer.

use std::time::{Duration, Instant};

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
