//! The reading of stanzas from disk: the open request, and the retry after a failure.

use std::time::Duration;

use crate::clock::Instant;
use crate::push::account::LoginId;
use crate::seq::Seq;

/// The time after a failed read until the next attempt.
const READ_AGAIN: Duration = Duration::from_secs(5);

/// An open read request.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Loading {
    /// The session that wrote the spool; `None` for the own session.
    pub(super) spool: Option<LoginId>,
    /// The number up to which the own spool was on disk at the time of the request.
    pub(super) committed: Seq,
}

/// The reads to repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadAgain {
    /// Stanzas.
    Stanzas,
    /// Stanzas, and the list of spools of earlier sessions.
    Spools,
}

/// The state of reading from disk.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Refill {
    loading: Option<Loading>,
    /// The time of the next attempt after a failed read.
    again_at: Option<Instant>,
    /// True if the list of spools of earlier sessions is to be requested again as well.
    retakes: bool,
}

impl Refill {
    /// Returns whether a read request is open.
    pub(super) fn is_loading(&self) -> bool {
        self.loading.is_some()
    }

    /// Returns whether stanzas may be requested.
    pub(super) fn may_load(&self) -> bool {
        self.loading.is_none() && self.again_at.is_none()
    }

    pub(super) fn begin(&mut self, loading: Loading) {
        self.loading = Some(loading);
    }

    /// Ends the open request, whose stanzas have come.
    pub(super) fn take(&mut self) -> Option<Loading> {
        self.loading.take()
    }

    /// Schedules another attempt, because the stanzas cannot be read now.
    pub(super) fn on_load_failed(&mut self, now: Instant) {
        self.loading = None;
        self.again_at = Some(now + READ_AGAIN);
    }

    /// Schedules another attempt, because the spools of earlier sessions cannot be taken over now.
    pub(super) fn on_take_over_failed(&mut self, now: Instant) {
        self.retakes = true;
        self.again_at = Some(now + READ_AGAIN);
    }

    /// The reads to repeat now.
    pub(super) fn on_timeout(&mut self, now: Instant) -> Option<ReadAgain> {
        self.again_at.take_if(|at| *at <= now)?;
        Some(if std::mem::take(&mut self.retakes) { ReadAgain::Spools } else { ReadAgain::Stanzas })
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.again_at
    }
}
