//! The fates of stanzas that push services send on the domain's streams.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

/// The fate of a stanza that answers no notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// An answer that was given to the session it is for.
    Delivered,
    /// One that the session did not take, because its client takes no more; or the store was too slow for it.
    Dropped,
    /// An answer that nobody waits for.
    Ignored,
    /// A push service may not send it: the stream ends.
    Refused,
    /// It came behind our footer.
    Late,
}

impl Fate {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Delivered, Self::Dropped, Self::Ignored, Self::Refused, Self::Late];

    /// Its name: the metric's label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Dropped => "dropped",
            Self::Ignored => "ignored",
            Self::Refused => "refused",
            Self::Late => "late",
        }
    }
}

/// Stanzas of push services, by fate.
#[derive(Clone, Debug)]
pub struct Fates(Family<[(&'static str, &'static str); 1], Counter>);

impl Default for Fates {
    /// All at zero.
    fn default() -> Self {
        let fates = Self(Family::default());
        Fate::ALL.into_iter().for_each(|fate| fates.count_many(fate, 0));
        fates
    }
}

impl Fates {
    /// Counts a stanza.
    pub fn count(&self, fate: Fate) {
        self.count_many(fate, 1);
    }

    /// Counts several.
    pub fn count_many(&self, fate: Fate, stanzas: u64) {
        self.0.get_or_create(&[("fate", fate.name())]).inc_by(stanzas);
    }

    pub(super) fn shared(&self) -> Family<[(&'static str, &'static str); 1], Counter> {
        self.0.clone()
    }
}
