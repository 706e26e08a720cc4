//! What a reload may change, loaded as a whole: whoever begins something takes the current one, and keeps it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use rustls::sign::CertifiedKey;
use thiserror::Error;

use crate::config::{Component, Config, Transport};
use crate::net::certificate::{self, CertificateError};
use crate::net::roots::RootsError;
use crate::net::tls::Certificates;
use crate::net::trust::TrustError;
use crate::net::upstream::Ways;
use crate::publish::Dialer;
use crate::session::{Settings, negotiate};
use crate::xml::FrameLimits;

/// What is current.
pub type Current = ArcSwap<Snapshot>;

/// Why a configuration that is right in itself cannot be used.
#[derive(Debug, Error)]
pub enum LoadError {
    /// A certificate cannot be used, or made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// The authorities of a `[[push.route]]` cannot be used.
    #[error("[[push.route]] ca: {0}")]
    Roots(#[from] RootsError),
    /// The server of a host cannot be trusted.
    #[error("upstream_ca: {0}")]
    Trust(#[from] TrustError),
}

/// A configuration and all that it names: certificates, authorities, ways to servers.
pub struct Snapshot {
    /// As it was read.
    pub config: Arc<Config>,
    /// What sessions are to know of it.
    pub settings: Arc<Settings>,
    /// The domains served.
    pub domains: Arc<HashSet<String>>,
    /// The hosts' certificates, by domain, in the order of the configuration.
    pub keys: Vec<(String, Arc<CertifiedKey>)>,
    /// What clients see.
    pub certificates: Certificates,
    /// The ways to the servers.
    pub ways: Ways,
    /// The way to push services.
    pub(crate) dialer: Arc<Dialer>,
}

impl Snapshot {
    /// Loads all that a configuration names, and makes certificates for development where they are missing. `seed` is
    /// [`Settings::seed`], the same for as long as the process runs. Inside a runtime; reads files.
    ///
    /// # Errors
    /// All problems that were found; never none.
    pub fn load(config: Config, seed: u64) -> Result<Self, Vec<LoadError>> {
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
        let dialer = Dialer::new(Arc::clone(&config), keys.iter().cloned().collect())
            .map_err(|error| problems.push(error.into()));
        let (Ok(ways), Ok(dialer), true) = (ways, dialer, problems.is_empty()) else { return Err(problems) };
        let certificates = Certificates::new(&keys).map_err(|error| vec![error.into()])?;
        let settings = Settings {
            stream_management: config.stream_management.clone(),
            push: Arc::new(config.push.settings.clone()),
            hibernation: config.push.hibernation.clone(),
            publish_timeout: config.push.publish_timeout,
            server_timeout: config.limits.server_timeout,
            session_queue: config.limits.session_queue,
            unauthenticated_stanza: config.limits.unauthenticated_stanza,
            stanza: config.limits.stanza,
            seed,
            offers: Arc::default(),
        };
        let domains = Arc::new(config.hosts.iter().map(|host| host.domain.clone()).collect());
        let (settings, dialer) = (Arc::new(settings), Arc::new(dialer));
        Ok(Self { config, settings, domains, keys, certificates, ways, dialer })
    }

    /// The component of a host, where publishes may go by it.
    pub(crate) fn component(&self, domain: &str) -> Option<&Component> {
        let host = self.config.hosts.iter().find(|host| host.domain == domain)?;
        host.component.as_ref().filter(|_| self.config.push.transports.contains(&Transport::Component))
    }

    /// The bounds of what a client may send at once.
    pub(super) fn limits(&self, authenticated: bool) -> FrameLimits {
        let limits = &self.config.limits;
        let bytes = if authenticated { limits.stanza } else { limits.unauthenticated_stanza };
        FrameLimits::client(bytes, limits.depth)
    }

    /// The bounds of what a server may send at once.
    pub(super) fn upstream_limits(&self) -> FrameLimits {
        FrameLimits::server(self.config.limits.upstream_stanza)
    }

    /// A client begins to log in.
    pub(super) fn negotiation(&self) -> negotiate::Negotiation {
        let deadline = Instant::now() + self.config.limits.authentication_timeout;
        let settings = Arc::clone(&self.settings);
        negotiate::Negotiation::new(Arc::clone(&self.domains), settings, rand::random, deadline)
    }
}
