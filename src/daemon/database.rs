//! Opening of the database that the configuration names.

use tokio::task::spawn_blocking;

use crate::cluster::fingerprint::Fingerprint;
use crate::config::{ClusterSettings, Config, DatabaseUrl, StoreEngine};
use crate::net::roots::RootsError;
use crate::net::{roots, trust};
use crate::store::{NodeEntry, PostgresSettings, Store, StoreError};

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

/// Opens the database. `certificate`: that of this node, in a cluster. `goes_on`: whether this process has the sessions of a previous one.
///
/// # Errors
/// [`DatabaseError`].
pub(crate) async fn open(
    config: &Config,
    certificate: Option<Fingerprint>,
    goes_on: bool,
) -> Result<Store, DatabaseError> {
    let limits = (&config.limits.spools).into();
    let opening = match (config.store.engine, &config.store.url) {
        (StoreEngine::Postgres, Some(url)) => {
            let settings = PostgresSettings { goes_on, ..postgres(config, url, certificate)? };
            let state = config.state.clone();
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

/// Returns the settings of a database on PostgreSQL. `certificate`: that of this node, in a cluster.
///
/// # Errors
/// The authorities for its certificate cannot be loaded.
pub(crate) fn postgres(
    config: &Config,
    url: &DatabaseUrl,
    certificate: Option<Fingerprint>,
) -> Result<PostgresSettings, DatabaseTlsError> {
    let tls = match url.is_encrypted() {
        true => Some(trust::of_authorities(roots::system()?)?),
        false => None,
    };
    Ok(PostgresSettings {
        config: url.config().clone(),
        tls,
        may_be_single: config.store.single,
        node: node(config.cluster.as_ref(), certificate),
        lease: config.cluster.as_ref().map_or(ClusterSettings::LEASE, |cluster| cluster.lease),
        goes_on: false,
    })
}

/// Returns the entry of this node. Without a cluster it has the number 0.
fn node(cluster: Option<&ClusterSettings>, certificate: Option<Fingerprint>) -> NodeEntry {
    match cluster {
        None => NodeEntry { id: 0, address: String::new(), certificate: Vec::new() },
        Some(cluster) => NodeEntry {
            id: cluster.node.get(),
            address: cluster.advertise.to_string(),
            certificate: certificate.map(|certificate| certificate.as_bytes().to_vec()).unwrap_or_default(),
        },
    }
}
