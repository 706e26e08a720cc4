//! The resumption id of a session, and the tombstone of an id that cannot be resumed any more.

use crate::session::names::SmId;
use crate::session::sm::Handled;
use crate::session::sm::nonza::Enabled;

/// The resumption id of a session (XEP-0198 §5).
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(in crate::session) struct ResumptionId {
    id: Option<SmId>,
    /// `max` as the client requested it (XEP-0198 §5), in seconds.
    asked_max: Option<u64>,
    tombstone: Option<Box<RetiredId>>,
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct RetiredId {
    id: SmId,
    /// The count that was saved last.
    saved: Option<Handled>,
}

impl ResumptionId {
    /// Stores the parameters that were granted to the client. Returns its new id.
    pub(super) fn grant(&mut self, enabled: Enabled) -> Option<SmId> {
        let id = enabled.id?;
        self.asked_max = enabled.asked_max;
        self.id = Some(id.clone());
        Some(id)
    }

    /// The id, while the session can be resumed.
    pub(in crate::session) fn id(&self) -> Option<&SmId> {
        self.id.as_ref()
    }

    /// `max` as the client requested it (XEP-0198 §5), in seconds.
    pub(super) fn asked_max(&self) -> Option<u64> {
        self.asked_max
    }

    /// Retires the id; returns whether there was one.
    pub(super) fn retire(&mut self) -> bool {
        let retired = self.id.take().map(|id| Box::new(RetiredId { id, saved: None }));
        let is_retired = retired.is_some();
        self.tombstone = retired.or(self.tombstone.take());
        is_retired
    }

    /// Returns whether the id was retired.
    pub(in crate::session) fn is_retired(&self) -> bool {
        self.tombstone.is_some()
    }

    /// Returns the id whose tombstone is to be saved with this count, unless this count is saved already.
    pub(super) fn save(&mut self, h: Handled) -> Option<SmId> {
        let tombstone = self.tombstone.as_deref_mut().filter(|tombstone| tombstone.saved != Some(h))?;
        tombstone.saved = Some(h);
        Some(tombstone.id.clone())
    }
}
