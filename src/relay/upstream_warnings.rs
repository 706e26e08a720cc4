//! What an operator should hear of the servers behind, once each.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crate::session::mechanism_filter::UpstreamWarning;

/// What was told already.
#[derive(Debug, Default)]
pub(super) struct Notices {
    told: Mutex<HashSet<(String, UpstreamWarning)>>,
}

impl Notices {
    /// Warns of the server of a domain. What makes every log-in fail is told at each, the rest once.
    pub(super) fn tell(&self, domain: String, warning: UpstreamWarning) {
        let always = warning == UpstreamWarning::TlsRequired;
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.insert((domain.clone(), warning)) || always {
            tracing::warn!(%domain, cause = %warning, remedy = warning.remedy(), "the server behind does not suit");
        }
    }
}
