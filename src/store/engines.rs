//! The choice of an engine: [`Engines`] dispatches the calls of [`Engine`].

use std::sync::Arc;

use tokio::time::Instant;

use super::embedded::Embedded;
use super::engine::{Committed, Engine, Failure, OpGroup, OpeningState};
use super::error::StoreError;
use super::lease::Lease;
use super::postgres::Postgres;
use super::query::{Query, QueryAnswer};
use super::schema::Count;
#[cfg(test)]
use super::tests::engine::Faulty;
use super::values::SpoolId;

/// The engine of a store.
#[derive(Debug)]
pub(super) enum Engines {
    /// redb, in the state directory.
    Embedded(Embedded),
    /// PostgreSQL.
    Postgres(Box<Postgres>),
    /// An engine for tests that stalls and loses answers.
    #[cfg(test)]
    Faulty(Faulty),
}

impl Engine for Engines {
    fn opening(&self) -> Result<OpeningState, StoreError> {
        match self {
            Self::Embedded(engine) => engine.opening(),
            Self::Postgres(engine) => engine.opening(),
            #[cfg(test)]
            Self::Faulty(engine) => engine.opening(),
        }
    }

    fn commit(&self, group: &OpGroup<'_>) -> Result<Committed, Failure> {
        match self {
            Self::Embedded(engine) => engine.commit(group),
            Self::Postgres(engine) => engine.commit(group),
            #[cfg(test)]
            Self::Faulty(engine) => engine.commit(group),
        }
    }

    async fn read(&self, query: Query) -> Result<QueryAnswer, StoreError> {
        match self {
            Self::Embedded(engine) => engine.read(query).await,
            Self::Postgres(engine) => engine.read(query).await,
            #[cfg(test)]
            Self::Faulty(engine) => engine.read(query).await,
        }
    }

    async fn health(&self) -> Result<(), StoreError> {
        match self {
            Self::Embedded(engine) => engine.health().await,
            Self::Postgres(engine) => engine.health().await,
            #[cfg(test)]
            Self::Faulty(engine) => engine.health().await,
        }
    }

    fn lease(&self) -> Option<&Arc<Lease>> {
        match self {
            Self::Embedded(engine) => engine.lease(),
            Self::Postgres(engine) => engine.lease(),
            #[cfg(test)]
            Self::Faulty(engine) => engine.lease(),
        }
    }

    fn maintenance(&self) -> Option<Instant> {
        match self {
            Self::Embedded(engine) => engine.maintenance(),
            Self::Postgres(engine) => engine.maintenance(),
            #[cfg(test)]
            Self::Faulty(engine) => engine.maintenance(),
        }
    }

    fn maintain(&self, is_wanted: &dyn Fn() -> bool) {
        match self {
            Self::Embedded(engine) => engine.maintain(is_wanted),
            Self::Postgres(engine) => engine.maintain(is_wanted),
            #[cfg(test)]
            Self::Faulty(engine) => engine.maintain(is_wanted),
        }
    }

    fn close(&self, counts: &[(SpoolId, Count)]) {
        match self {
            Self::Embedded(engine) => engine.close(counts),
            Self::Postgres(engine) => engine.close(counts),
            #[cfg(test)]
            Self::Faulty(engine) => engine.close(counts),
        }
    }
}
