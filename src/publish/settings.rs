//! [`TransportSettings`]: the loaded configuration of the transports.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::sign::CertifiedKey;

use super::s2s::dial::Dialer;
use crate::config::{Component, Config, Transport};
use crate::net::roots::RootsError;

/// A configuration and the state that the transports load from it. A reload replaces all of it.
pub struct TransportSettings {
    pub(super) config: Arc<Config>,
    pub(super) dialer: Arc<Dialer>,
}

/// The settings that are in force.
pub(super) type CurrentSettings = ArcSwap<TransportSettings>;

impl TransportSettings {
    /// Loads the certificate authorities of all `[[push.route]]`. `keys` are the certificates of the hosts. Reads files.
    ///
    /// # Errors
    /// Returns the error of the first route whose file cannot be used.
    pub fn load(config: Arc<Config>, keys: HashMap<String, Arc<CertifiedKey>>) -> Result<Self, RootsError> {
        let dialer = Arc::new(Dialer::new(Arc::clone(&config), keys)?);
        Ok(Self { config, dialer })
    }

    /// Returns the component of a host, if publishes may use it.
    pub(super) fn component(&self, domain: &str) -> Option<&Component> {
        let host = self.config.hosts.iter().find(|host| host.domain == domain)?;
        host.component.as_ref().filter(|_| self.config.push.transports.contains(&Transport::Component))
    }
}
