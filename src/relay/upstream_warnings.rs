//! [`UpstreamWarnings`]: warnings about upstream servers, each logged once.

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
    /// Logs a warning about the server of a domain. A warning about a problem that makes every login fail is logged each
    /// time, others once.
    pub(super) fn warn(&self, domain: String, warning: UpstreamWarning) {
        let always = warning == UpstreamWarning::TlsRequired;
        if lock(&self.logged).insert((domain.clone(), warning)) || always {
            tracing::warn!(%domain, cause = %warning, remedy = warning.remedy(), "upstream server is not compatible");
        }
    }
}
