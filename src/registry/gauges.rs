//! The numbers that a session publishes about itself, as part of its [`Handle`](super::handle::Handle).

use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use crate::clock::{self, UnixSecs};
use crate::session::liveness::Reach;

/// The newest numbers of one session.
#[derive(Debug)]
pub(super) struct Gauges {
    /// The [`Reach`] of the client, as a number.
    reach: AtomicU8,
    /// The time of the last change of `reach`, in unix seconds.
    since: AtomicU64,
    queued_stanzas: AtomicUsize,
    queued_bytes: AtomicUsize,
    set_aside: AtomicUsize,
}

impl Gauges {
    pub(super) fn new() -> Self {
        Self {
            reach: AtomicU8::default(),
            since: AtomicU64::new(clock::unix_secs().get()),
            queued_stanzas: AtomicUsize::default(),
            queued_bytes: AtomicUsize::default(),
            set_aside: AtomicUsize::default(),
        }
    }

    pub(super) fn reach(&self) -> Reach {
        let number = self.reach.load(Ordering::Relaxed);
        Reach::ALL.into_iter().find(|reach| *reach as u8 == number).unwrap_or_default()
    }

    /// Returns whether the value has changed.
    pub(super) fn set_reach(&self, reach: Reach) -> bool {
        let changed = self.reach() != reach;
        if changed {
            self.since.store(clock::unix_secs().get(), Ordering::Relaxed);
            self.reach.store(reach as u8, Ordering::Relaxed);
        }
        changed
    }

    pub(super) fn since(&self) -> UnixSecs {
        UnixSecs::new(self.since.load(Ordering::Relaxed))
    }

    /// Sets the time of the last change of the reach.
    pub(super) fn set_since(&self, since: UnixSecs) {
        self.since.store(since.get(), Ordering::Relaxed);
    }

    pub(super) fn set_queued(&self, stanzas: usize, bytes: usize) {
        self.queued_stanzas.store(stanzas, Ordering::Relaxed);
        self.queued_bytes.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn queued(&self) -> (usize, usize) {
        (self.queued_stanzas.load(Ordering::Relaxed), self.queued_bytes.load(Ordering::Relaxed))
    }

    pub(super) fn set_set_aside(&self, stanzas: usize) {
        self.set_aside.store(stanzas, Ordering::Relaxed);
    }

    pub(super) fn set_aside(&self) -> usize {
        self.set_aside.load(Ordering::Relaxed)
    }
}
