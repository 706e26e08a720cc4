//! Orphans: stanzas of other devices of the account that their devices do not fetch. After some time, a connected device
//! gets them (in the spirit of XEP-0160).

use std::time::Duration;

use super::contract::Orphans;
use crate::clock::Instant;

/// The time of the next search for orphans, and their kind.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct OrphanSearch(Option<DueSearch>);

#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
struct DueSearch {
    at: Instant,
    orphans: Orphans,
}

impl OrphanSearch {
    /// Schedules a search for the orphans of devices without a registration.
    pub(super) fn begin(&mut self, at: Instant) {
        self.0 = Some(DueSearch { at, orphans: Orphans::OfUnregistered });
    }

    /// The same as `begin`, unless a search is scheduled already.
    pub(super) fn begin_again(&mut self, at: Instant) {
        self.0.get_or_insert(DueSearch { at, orphans: Orphans::OfUnregistered });
    }

    /// The kind of orphans to adopt now.
    pub(super) fn on_timeout(&mut self, now: Instant) -> Option<Orphans> {
        self.0.take_if(|search| search.at <= now).map(|search| search.orphans)
    }

    /// Schedules the search again, because the orphans cannot be adopted now.
    pub(super) fn postpone(&mut self, at: Instant, orphans: Orphans) {
        self.0 = Some(DueSearch { at, orphans });
    }

    /// Schedules the next search after an adoption. A device with a registration is being woken, and has this much longer
    /// to fetch its stanzas.
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
