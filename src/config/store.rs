//! `[store]`: how the database is used.

use std::time::Duration;

use super::section::Section;
use super::units::{HOUR, MINUTE, SECOND};

/// `[store]`: how the database is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// How long a session waits for a database that does not answer, with its stanzas in memory: 60 s. Then they count as
    /// refused.
    pub patience: Duration,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self { patience: MINUTE }
    }
}

pub(super) fn read(mut s: Section<'_>) -> StoreSettings {
    let d = StoreSettings::default();
    let read = StoreSettings { patience: s.duration("patience", d.patience, SECOND..=HOUR) };
    s.finish();
    read
}
