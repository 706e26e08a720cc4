//! The ids of logins, given out by [`Logins`].

use std::sync::atomic::{AtomicU64, Ordering};

use crate::push::account::LoginId;

/// Gives out the ids of logins, in rising order.
#[derive(Debug)]
pub(super) struct Logins(AtomicU64);

impl Logins {
    /// Starts after the highest id that was used.
    pub(super) fn behind(highest: LoginId) -> Self {
        Self(AtomicU64::new(highest.0))
    }

    pub(super) fn next(&self) -> LoginId {
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| last.checked_add(1));
        // Only a damaged database leads to this bound.
        LoginId(before.unwrap_or(u64::MAX).saturating_add(1))
    }

    /// Notes that an id is in use.
    pub(super) fn note_used(&self, login: LoginId) {
        self.0.fetch_max(login.0, Ordering::Relaxed);
    }

    /// Returns the highest id that was given out.
    pub(super) fn highest(&self) -> LoginId {
        LoginId(self.0.load(Ordering::Relaxed))
    }
}
