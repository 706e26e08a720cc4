//! `[store]`: settings of the database.

use std::time::Duration;

use super::database_url::{DatabaseUrl, database_url};
use super::section::Section;
use super::units::{HOUR, MINUTE, SECOND};

/// `[store]`: settings of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// `engine`: the database that is used. Default: embedded.
    pub engine: StoreEngine,
    /// `url`: the PostgreSQL database. It may be set while another engine is used, for `pushward store copy`.
    pub url: Option<DatabaseUrl>,
    /// `patience`: the longest time that a session waits for a database that does not answer, with its stanzas in memory; then
    /// they count as refused. Default: 60 s.
    pub patience: Duration,
    /// `single`: whether a PostgreSQL server without synchronous standbys is accepted. Default: false.
    pub single: bool,
}

/// The database that is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreEngine {
    /// A file in the state directory, for one node.
    #[default]
    Embedded,
    /// PostgreSQL, for one node or several.
    Postgres,
}

impl StoreEngine {
    /// Returns its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Postgres => "postgres",
        }
    }
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self { engine: StoreEngine::default(), url: None, patience: MINUTE, single: false }
    }
}

pub(super) fn read(mut s: Section<'_>) -> StoreSettings {
    let d = StoreSettings::default();
    let engines = [StoreEngine::Embedded, StoreEngine::Postgres].map(|engine| (engine.name(), engine));
    let line = s.line_of("engine");
    let engine = s.choice("engine", d.engine, &engines);
    let has_url = s.has("url");
    let url = s.parsed("url", database_url).map(|at| at.value);
    if engine == StoreEngine::Postgres && !has_url {
        let remedy = "add url = \"postgresql://pushward@db.internal/pushward\"";
        s.problem(line, "url", "missing, and engine = \"postgres\" needs it", remedy);
    }
    let read = StoreSettings {
        engine,
        url,
        patience: s.duration("patience", d.patience, SECOND..=HOUR),
        single: s.boolean("single", d.single),
    };
    s.finish();
    read
}
