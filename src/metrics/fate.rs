//! The fates of stanzas that app servers send on the domain's streams.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

/// The fate of a stanza that does not answer a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// An answer that was passed to its session.
    Delivered,
    /// An answer that its session did not take because its client accepts no more, or for which the store was too slow.
    Dropped,
    /// An answer that no session waits for.
    Ignored,
    /// A stanza that an app server may not send: the stream is closed.
    Refused,
    /// A stanza that came after Pushward's closing tag.
    Late,
}

impl Fate {
    /// All fates.
    pub const ALL: [Self; 5] = [Self::Delivered, Self::Dropped, Self::Ignored, Self::Refused, Self::Late];

    /// Returns its name, which is the label of the metric.
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

/// The counters of stanzas of app servers, by fate.
#[derive(Clone, Debug)]
pub struct Fates(Family<[(&'static str, &'static str); 1], Counter>);

impl Default for Fates {
    /// Creates the counters, all at zero.
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

    /// Counts several stanzas.
    pub fn count_many(&self, fate: Fate, stanzas: u64) {
        self.0.get_or_create(&[("fate", fate.name())]).inc_by(stanzas);
    }

    pub(super) fn shared(&self) -> Family<[(&'static str, &'static str); 1], Counter> {
        self.0.clone()
    }
}
