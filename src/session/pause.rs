//! Pauses of clocks. A clock for a peer's answer stops while that peer is not read, because its answer may have come
//! unread. It does not start before the question has been written: a slow connection does not mean that the peer is gone.

use std::time::Duration;

use crate::clock::Instant;

/// The time since which a peer is not read, while it is not.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Pause(Option<Instant>);

impl Pause {
    /// Begins the pause: the peer is not read from now on.
    pub(super) fn begin(&mut self, now: Instant) {
        self.0.get_or_insert(now);
    }

    /// Ends the pause. Returns a function that gives the delay to add for a question asked at `since`.
    pub(super) fn end(&mut self, now: Instant) -> impl Fn(Instant) -> Duration + use<> {
        let begun = self.0.take();
        move |since| begun.map_or(Duration::ZERO, |begun| now.duration_since(begun.max(since)))
    }

    /// Returns whether the peer is not read.
    pub(super) fn is_on(self) -> bool {
        self.0.is_some()
    }
}
