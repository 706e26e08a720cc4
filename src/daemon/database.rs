//! Opening of the database that the configuration names.

use std::time::Duration;

use tokio::task::spawn_blocking;

use super::requests::ProcessHandle;
use crate::config::{Config, DatabaseUrl, StoreEngine};
use crate::net::roots::RootsError;
use crate::net::{roots, trust};
use crate::store::{NodeEntry, PostgresSettings, Store, StoreError};

/// The time for which a renewal of the lease holds.
const LEASE: Duration = Duration::from_secs(10);

/// The reason why the database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The database refuses, or does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The certificate of the server cannot be verified.
    #[error("[store] url: {0}")]
    Tls(#[from] DatabaseTlsError),
}

/// The reason why connections to the database cannot be encrypted.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseTlsError {
    /// The authorities cannot be loaded.
    #[error(transparent)]
    Roots(#[from] RootsError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// Opens the database. `goes_on`: whether this process has the sessions of a previous one.
///
/// # Errors
/// [`DatabaseError`].
pub(crate) async fn open(config: &Config, goes_on: bool) -> Result<Store, DatabaseError> {
    let limits = (&config.limits.spools).into();
    let opening = match (config.store.engine, &config.store.url) {
        (StoreEngine::Postgres, Some(url)) => {
            let (settings, state) = (postgres(config, url, goes_on)?, config.state.clone());
            spawn_blocking(move || {
                Store::create_directory(&state)?;
                Store::open_postgres(settings, limits)
            })
        }
        (StoreEngine::Postgres | StoreEngine::Embedded, _) => {
            let state = config.state.clone();
            spawn_blocking(move || Store::open_with(&state, limits))
        }
    };
    Ok(opening.await.unwrap_or(Err(StoreError::Closed))?)
}

/// Returns the settings of a database on PostgreSQL.
///
/// # Errors
/// The authorities for its certificate cannot be loaded.
pub(crate) fn postgres(
    config: &Config,
    url: &DatabaseUrl,
    goes_on: bool,
) -> Result<PostgresSettings, DatabaseTlsError> {
    let tls = match url.is_encrypted() {
        true => Some(trust::of_authorities(roots::system()?)?),
        false => None,
    };
    Ok(PostgresSettings {
        config: url.config().clone(),
        tls,
        may_be_single: config.store.single,
        // A node without a cluster.
        node: NodeEntry { id: 0, address: String::new(), certificate: Vec::new() },
        lease: LEASE,
        goes_on,
    })
}

/// Requests that the process drains once another one has taken its place: nothing can be stored any more.
pub(super) async fn stop_if_replaced(store: &Store, process: &ProcessHandle) {
    let Some(lease) = store.lease() else { return };
    // The lease lives as long as the store.
    if lease.passed().wait_for(|passed| *passed).await.is_ok() {
        tracing::error!("another process has taken the place of this one in the database: ending all sessions");
        if let Err(error) = process.stop().await {
            tracing::debug!(error, "the process ends already");
        }
    }
}
