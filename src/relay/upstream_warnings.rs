//! Warnings about upstream servers, each logged once.

use std::collections::HashSet;
use std::sync::Mutex;

use crate::session::mechanism_filter::UpstreamWarning;
use crate::sync::lock;

/// The warnings that were logged.
#[derive(Debug, Default)]
pub(super) struct UpstreamWarnings {
    logged: Mutex<HashSet<(String, UpstreamWarning)>>,
}

impl UpstreamWarnings {
    /// Warns of the server of a domain. A warning about what makes every login fail is logged at each of them, others once.
    pub(super) fn warn(&self, domain: String, warning: UpstreamWarning) {
        let always = warning == UpstreamWarning::TlsRequired;
        if lock(&self.logged).insert((domain.clone(), warning)) || always {
            tracing::warn!(%domain, cause = %warning, remedy = warning.remedy(), "upstream server is not compatible");
        }
    }
}
