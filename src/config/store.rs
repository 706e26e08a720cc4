//! `[store]`: how the database is used.

use std::time::Duration;

use super::section::Section;
use super::{HOUR, MINUTE, SECOND};

/// `[store]`: how the database is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// How long a session waits for a database that does not answer, with its stanzas in memory: 60 s. Then they count as
    /// refused.
    pub patience: Duration,
}

impl Default for Store {
    fn default() -> Self {
        Self { patience: MINUTE }
    }
}

pub(super) fn read(mut s: Section<'_>) -> Store {
    let d = Store::default();
    let read = Store { patience: s.duration("patience", d.patience, SECOND..=HOUR) };
    s.finish();
    read
}
