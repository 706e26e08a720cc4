//! What an operator should hear of the servers behind, once each.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crate::session::mechanism_filter::Notice;

/// What was told already.
#[derive(Debug, Default)]
pub(super) struct Notices {
    told: Mutex<HashSet<(String, Notice)>>,
}

impl Notices {
    /// Warns of the server of a domain. What makes every log-in fail is told at each, the rest once.
    pub(super) fn tell(&self, domain: String, notice: Notice) {
        let always = notice == Notice::TlsRequired;
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.insert((domain.clone(), notice)) || always {
            tracing::warn!(%domain, cause = %notice, remedy = notice.remedy(), "the server behind does not suit");
        }
    }
}
