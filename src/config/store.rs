//! `[store]`: settings of the database.

use std::time::Duration;

use super::section::Section;
use super::units::{HOUR, MINUTE, SECOND};

/// `[store]`: settings of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// `patience`: the longest time that a session waits for a database that does not answer, with its stanzas in memory; then
    /// they count as refused. Default: 60 s.
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
