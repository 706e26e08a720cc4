//! Orphans: stanzas of other devices of the account that nobody fetches. A device that is there gets them after a while
//! (XEP-0160 in spirit).

use std::time::{Duration, Instant};

use super::contract::Orphans;

/// When a session looks for orphans, and for which.
#[derive(Debug, Default)]
pub(super) struct OrphanSearch(Option<DueSearch>);

#[derive(Clone, Copy, Debug)]
struct DueSearch {
    at: Instant,
    orphans: Orphans,
}

impl OrphanSearch {
    /// Looks for the orphans of devices without a registration after this time.
    pub(super) fn begin(&mut self, at: Instant) {
        self.0 = Some(DueSearch { at, orphans: Orphans::OfUnregistered });
    }

    /// The same, unless a search is due anyway.
    pub(super) fn begin_again(&mut self, at: Instant) {
        self.0.get_or_insert(DueSearch { at, orphans: Orphans::OfUnregistered });
    }

    /// The orphans to be taken now.
    pub(super) fn on_timeout(&mut self, now: Instant) -> Option<Orphans> {
        self.0.take_if(|search| search.at <= now).map(|search| search.orphans)
    }

    /// They cannot be taken now: looks again later.
    pub(super) fn postpone(&mut self, at: Instant, orphans: Orphans) {
        self.0 = Some(DueSearch { at, orphans });
    }

    /// They were taken. The owner of a registration is being woken, and has so much longer to come for what is its own.
    pub(super) fn on_adopted(&mut self, now: Instant, orphans: Orphans, longer: Duration) {
        self.0 = match orphans {
            Orphans::OfUnregistered => Some(DueSearch { at: now + longer, orphans: Orphans::OfRegistered }),
            Orphans::OfRegistered => None,
        };
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.map(|search| search.at)
    }
}
