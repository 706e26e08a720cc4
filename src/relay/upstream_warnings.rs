//! Warnings about upstream servers, each logged once.

use std::collections::HashSet;
use std::sync::Mutex;

use crate::session::sieve::Notice;
use crate::sync::lock;

/// The warnings that were logged.
#[derive(Debug, Default)]
pub(super) struct UpstreamWarnings {
    logged: Mutex<HashSet<(String, Notice)>>,
}

impl UpstreamWarnings {
    /// Warns of the server of a domain. A warning about what makes every login fail is logged at each of them, others once.
    pub(super) fn warn(&self, domain: String, notice: Notice) {
        let always = notice == Notice::TlsRequired;
        if lock(&self.logged).insert((domain.clone(), notice)) || always {
            tracing::warn!(%domain, cause = %notice, remedy = notice.remedy(), "the server behind does not suit");
        }
    }
}
