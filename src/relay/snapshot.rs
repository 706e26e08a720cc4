//! [`Snapshot`]: a configuration and everything that it names. A reload replaces it as a whole. A task takes the current
//! snapshot when it begins, and keeps it.

use std::collections::HashSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::sign::CertifiedKey;
use thiserror::Error;

use super::client::Client;
use crate::clock::Instant;
use crate::cluster::node_tls::{NodeTls, NodeTlsError};
use crate::config::Config;
use crate::net::certificate::{self, CertificateError};
use crate::net::roots::RootsError;
use crate::net::tls::Certificates;
use crate::net::trust::TrustError;
use crate::net::upstream::Ways;
use crate::publish::TransportSettings;
use crate::secret::Secret;
use crate::session::fronting::Fronting;
use crate::session::{Settings, negotiate};
use crate::xml::FrameLimits;

/// The snapshot in force.
pub type Current = ArcSwap<Snapshot>;

/// The login state of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Authentication {
    /// The client has not logged in. Its limits are lower.
    Pending,
    /// The client has logged in.
    Done,
}

/// The reason why a valid configuration cannot be used.
#[derive(Debug, Error)]
pub enum LoadError {
    /// A certificate cannot be used or created.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The authorities of a `[[push.route]]` cannot be used.
    #[error("[[push.route]] ca: {0}")]
    Roots(#[from] RootsError),
    /// The files of `[cluster]` cannot be used.
    #[error(transparent)]
    Node(#[from] NodeTlsError),
    /// The server of a host cannot be trusted.
    #[error("upstream_ca: {0}")]
    Trust(#[from] TrustError),
}

impl LoadError {
    /// Returns whether the configuration, or a file that it names, has to be corrected. If so, another start with the same
    /// files fails in the same way.
    pub fn is_of_configuration(&self) -> bool {
        match self {
            Self::Certificate(error) | Self::Node(NodeTlsError::Certificate(error)) => match error {
                CertificateError::Unreadable { .. }
                | CertificateError::Empty { .. }
                | CertificateError::Mismatch { .. }
                | CertificateError::Unusable { .. } => true,
                CertificateError::Unwritable { .. } | CertificateError::NotMade { .. } => false,
            },
            Self::Roots(error) | Self::Trust(TrustError::Roots(error)) | Self::Node(NodeTlsError::Authority(error)) => {
                match error {
                    RootsError::Unreadable { .. } | RootsError::Empty { .. } | RootsError::Unusable { .. } => true,
                    RootsError::NoSystemRoots { .. } => false,
                }
            }
            Self::Trust(TrustError::Name { .. }) | Self::Node(NodeTlsError::Verifier(_)) => true,
            Self::Tls(_) | Self::Trust(TrustError::Library(_)) | Self::Node(NodeTlsError::Library(_)) => false,
        }
    }
}

/// A configuration and everything that it names: certificates, certificate authorities, routes to servers.
#[derive(Clone)]
pub struct Snapshot {
    /// The configuration, as it was read.
    pub config: Arc<Config>,
    /// The settings of sessions.
    pub settings: Arc<Settings>,
    /// The served domains.
    pub domains: Arc<HashSet<String>>,
    /// The hosts' certificates, by domain, in the order of the configuration.
    pub keys: Vec<(String, Arc<CertifiedKey>)>,
    /// The certificates for connections of clients.
    pub certificates: Certificates,
    /// The routes to the upstream servers.
    pub ways: Ways,
    /// TLS with the other nodes of the cluster, if there is one.
    pub node_tls: Option<Arc<NodeTls>>,
    /// The settings of publishing.
    pub(super) transports: Arc<TransportSettings>,
}

impl Snapshot {
    /// Loads everything that a configuration names, and creates development certificates where they are missing. `seed` is
    /// [`Settings::seed`] and stays the same while the process runs; `resource_key` is that of the store. Must be called inside a
    /// runtime; reads files.
    ///
    /// # Errors
    /// Returns all problems that were found, at least one.
    pub fn load(config: Config, seed: u64, resource_key: Secret<u128>) -> Result<Self, Vec<LoadError>> {
        let config = Arc::new(config);
        let mut problems: Vec<LoadError> = Vec::new();
        let mut keys = Vec::with_capacity(config.hosts.len());
        for host in &config.hosts {
            match certificate::load_or_make(host) {
                Ok(key) => keys.push((host.domain.clone(), key)),
                Err(error) => problems.push(error.into()),
            }
        }
        let ways = Ways::load(&config.hosts).map_err(|error| problems.push(error.into()));
        let transports = TransportSettings::load(Arc::clone(&config), keys.iter().cloned().collect())
            .map_err(|error| problems.push(error.into()));
        let node_tls = load_node_tls(&config).map_err(|error| problems.push(error.into()));
        let (Ok(ways), Ok(transports), Ok(node_tls), true) = (ways, transports, node_tls, problems.is_empty()) else {
            return Err(problems);
        };
        let certificates = Certificates::new(&keys).map_err(|error| vec![error.into()])?;
        let modern = config.hosts.iter().filter(|host| host.modern_login).map(|host| host.domain.clone());
        let settings = Settings {
            stream_management: config.stream_management.clone(),
            push: Arc::new(config.push.settings.clone()),
            hibernation: config.push.hibernation.clone(),
            fast: config.fast.clone(),
            publish_timeout: config.push.publish_timeout,
            server_timeout: config.limits.timeouts.server,
            session_queue: config.limits.queues.per_session,
            unauthenticated_stanza: config.limits.stanzas.unauthenticated,
            stanza: config.limits.stanzas.client,
            seed,
            offers: Arc::default(),
            fronting: Arc::new(Fronting::new(modern, resource_key)),
            sm_ids: Arc::default(),
        };
        let domains = Arc::new(config.hosts.iter().map(|host| host.domain.clone()).collect());
        let (settings, transports) = (Arc::new(settings), Arc::new(transports));
        Ok(Self { config, settings, domains, keys, certificates, ways, node_tls, transports })
    }

    /// Sets [`Settings::seed`] to that of a previous process.
    pub fn set_seed(&mut self, seed: u64) {
        Arc::make_mut(&mut self.settings).seed = seed;
    }

    /// Goes on with what stays the same while the process runs.
    pub(super) fn go_on_from(&mut self, before: &Self) {
        Arc::make_mut(&mut self.settings).sm_ids = Arc::clone(&before.settings.sm_ids);
    }

    /// Returns the limits for the frames of a client.
    pub(super) fn limits(&self, authentication: Authentication) -> FrameLimits {
        let limits = &self.config.limits;
        let bytes = match authentication {
            Authentication::Pending => limits.stanzas.unauthenticated,
            Authentication::Done => limits.stanzas.client,
        };
        FrameLimits::client(bytes, limits.stanzas.depth)
    }

    /// Gives a client that has logged in the limits of a login.
    pub(super) fn admit(&self, client: &mut Client) {
        client.framer().set_limits(self.limits(Authentication::Done));
        if let Some(permit) = client.permit() {
            permit.authenticated();
        }
    }

    /// Returns the limits for the frames of a server.
    pub(super) fn upstream_limits(&self) -> FrameLimits {
        FrameLimits::server(self.config.limits.stanzas.upstream)
    }

    /// Starts the negotiation of a client's login.
    pub(super) fn negotiation(&self) -> negotiate::Negotiation {
        let deadline = Instant::now() + self.config.limits.timeouts.authentication;
        let settings = Arc::clone(&self.settings);
        negotiate::Negotiation::new(Arc::clone(&self.domains), settings, rand::random, deadline)
    }
}

/// Loads the certificate of this node and the authorities of the cluster, if there is one.
///
/// # Errors
/// [`NodeTlsError`], which names the file.
pub fn load_node_tls(config: &Config) -> Result<Option<Arc<NodeTls>>, NodeTlsError> {
    let Some(cluster) = &config.cluster else { return Ok(None) };
    Ok(Some(Arc::new(NodeTls::load(&cluster.certificate, &cluster.key, &cluster.ca)?)))
}
