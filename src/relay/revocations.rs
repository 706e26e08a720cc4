//! Registrations that push services revoke over server-to-server streams (XEP-0357 §8).

use std::sync::Arc;

use tokio::sync::mpsc;

use super::accounts::Accounts;
use crate::jid::BareJid;
use crate::limits::RateLimitedLog;
use crate::publish::Revocation;
use crate::push::account::Change;
use crate::push::affiliation::Affiliation;
use crate::push::registration::Target;
use crate::store::{Store, StoreError};

/// Handles the affiliations that push services send.
pub(super) struct Revocations {
    store: Store,
    accounts: Arc<Accounts>,
    failed: RateLimitedLog,
}

impl Revocations {
    pub(super) fn new(store: Store, accounts: Arc<Accounts>) -> Self {
        Self { store, accounts, failed: RateLimitedLog::default() }
    }

    /// Handles the affiliations one at a time, until the publisher is dropped.
    pub(super) async fn run(self, mut revocations: mpsc::Receiver<Revocation>) {
        while let Some(Revocation { account, affiliation, reply }) = revocations.recv().await {
            match self.apply(&account, &affiliation).await {
                // The stream may have ended.
                Ok(known) => drop(reply.send(known)),
                Err(error) => {
                    if let Some(suppressed) = self.failed.next() {
                        tracing::error!(%account, %error, suppressed, "cannot remove revoked registration");
                    }
                }
            }
        }
    }

    /// Returns whether the account has the registration. Disables it if the affiliation is `none`.
    async fn apply(&self, account: &BareJid, affiliation: &Affiliation) -> Result<bool, StoreError> {
        let known = self.store.account(account).await?;
        let mut targets = known.registrations.iter().map(|r| &r.target);
        let Some(target) = targets.find(|target| affiliation.is_about(target)) else { return Ok(false) };
        if affiliation.is_none {
            let Target { service, node } = target.clone();
            self.accounts.change(account, Change::Disable { service: service.clone(), node }).await?;
            tracing::info!(%account, %service, "push registration revoked");
        }
        Ok(true)
    }
}
