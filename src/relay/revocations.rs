//! Registrations that push services revoke over server-to-server streams (XEP-0357 §8).

use std::sync::Arc;

use tokio::sync::mpsc;

use super::accounts::Accounts;
use super::shared::Relay;
use crate::cluster::directory::LocateError;
use crate::cluster::request::NodeRequestError;
use crate::jid::BareJid;
use crate::limits::RateLimitedLog;
use crate::publish::Revocation;
use crate::push::account::Change;
use crate::push::affiliation::Affiliation;
use crate::push::registration::Target;
use crate::store::StoreError;

/// Handles the affiliations that push services send.
pub(super) struct Revocations {
    relay: Arc<Relay>,
    failed: RateLimitedLog,
}

impl Revocations {
    pub(super) fn new(relay: Arc<Relay>) -> Self {
        Self { relay, failed: RateLimitedLog::default() }
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

    /// Returns whether the account has the registration. Disables it if the affiliation is `none`. The owner of the account
    /// does that, if it is another node.
    async fn apply(&self, account: &BareJid, affiliation: &Affiliation) -> Result<bool, RevocationError> {
        if let Some(nodes) = self.relay.node_requests()
            && let Some(owner) = nodes.owner(account).await?
        {
            return Ok(nodes.send_affiliation(&owner, account, affiliation).await?);
        }
        Ok(apply(self.relay.accounts(), account, affiliation).await?)
    }
}

/// The reason why an affiliation is not handled.
#[derive(Debug, thiserror::Error)]
enum RevocationError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the owner of the account is not known: {0}")]
    Owner(#[from] LocateError),
    #[error("the node that owns the account: {0}")]
    Node(#[from] NodeRequestError),
}

/// Returns whether an account that no other node owns has the registration. Disables it if the affiliation is `none`.
///
/// # Errors
/// As [`Accounts::change`].
pub(super) async fn apply(
    accounts: &Accounts,
    account: &BareJid,
    affiliation: &Affiliation,
) -> Result<bool, StoreError> {
    let known = accounts.stored(account).await?;
    let mut targets = known.registrations.iter().map(|r| &r.target);
    let Some(target) = targets.find(|target| affiliation.is_about(target)) else { return Ok(false) };
    if affiliation.is_none {
        let Target { service, node } = target.clone();
        accounts.change(account, Change::Disable { service: service.clone(), node }).await?;
        tracing::info!(%account, %service, "push registration revoked");
    }
    Ok(true)
}
