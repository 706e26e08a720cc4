//! Stanzas are read back from the disk: what was asked for, and when a disk that could not be read is asked again.

use std::time::{Duration, Instant};

use crate::push::account::LoginId;
use crate::seq::Seq;

/// How long after a failure the disk is read again.
const READ_AGAIN: Duration = Duration::from_secs(5);

/// Stanzas that are being read back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loading {
    /// The session that wrote the spool; `None` for the own one.
    pub(super) spool: Option<LoginId>,
    /// What was on disk of the own spool when they were asked for.
    pub(super) committed: Seq,
}

/// What to ask the disk for again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadAgain {
    /// Stanzas.
    Stanzas,
    /// The spools of earlier sessions, too.
    Spools,
}

/// What the disk was asked for.
#[derive(Debug, Default)]
pub(super) struct Refill {
    loading: Option<Loading>,
    /// When to read again from a disk that could not be read.
    again_at: Option<Instant>,
    /// Then the spools of earlier sessions are asked for again, too.
    retakes: bool,
}

impl Refill {
    /// Whether stanzas were asked for that have not come.
    pub(super) fn is_loading(&self) -> bool {
        self.loading.is_some()
    }

    /// Whether stanzas may be asked for.
    pub(super) fn may_load(&self) -> bool {
        self.loading.is_none() && self.again_at.is_none()
    }

    pub(super) fn begin(&mut self, loading: Loading) {
        self.loading = Some(loading);
    }

    /// The stanzas that were asked for have come.
    pub(super) fn take(&mut self) -> Option<Loading> {
        self.loading.take()
    }

    /// The stanzas that were asked for cannot be read now.
    pub(super) fn on_load_failed(&mut self, now: Instant) {
        self.loading = None;
        self.again_at = Some(now + READ_AGAIN);
    }

    /// The spools of earlier sessions cannot be taken over now.
    pub(super) fn on_take_over_failed(&mut self, now: Instant) {
        self.retakes = true;
        self.again_at = Some(now + READ_AGAIN);
    }

    /// What is to be asked for again now.
    pub(super) fn on_timeout(&mut self, now: Instant) -> Option<ReadAgain> {
        self.again_at.take_if(|at| *at <= now)?;
        Some(if std::mem::take(&mut self.retakes) { ReadAgain::Spools } else { ReadAgain::Stanzas })
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.again_at
    }
}
