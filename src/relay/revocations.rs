//! Registrations that push services take back over the domain's streams (XEP-0357 §8).

use super::Relay;
use crate::jid::BareJid;
use crate::publish::Revocation;
use crate::push::account::Change;
use crate::push::affiliation::Affiliation;
use crate::push::registration::Target;
use crate::store::StoreError;

impl Relay {
    /// Handles the affiliations that push services send, one after the other. Never returns while the publisher lives.
    pub(super) async fn heed_push_services(&self) {
        let Some(mut revocations) = self.publisher.revocations() else { return };
        while let Some(revocation) = revocations.recv().await {
            let Revocation { account, told, reply } = revocation;
            match self.heed(&account, &told).await {
                // The stream may have ended.
                Ok(known) => drop(reply.send(known)),
                Err(error) => {
                    if let Some(suppressed) = self.seldom.not_revoked.next() {
                        tracing::error!(%account, %error, suppressed, "a registration cannot be taken back");
                    }
                }
            }
        }
    }

    /// Returns whether the account has the registration. Disables it if the affiliation is `none`.
    async fn heed(&self, account: &BareJid, told: &Affiliation) -> Result<bool, StoreError> {
        let known = self.store.account(account).await?;
        let Some(target) = known.registrations.iter().map(|r| &r.target).find(|target| told.is_about(target)) else {
            return Ok(false);
        };
        if told.is_none {
            let Target { service, node } = target.clone();
            self.change_account(account, Change::Disable { service: service.clone(), node }).await?;
            tracing::info!(%account, %service, "push revoked by its service");
        }
        Ok(true)
    }
}
