//! Push services take registrations back over their own streams (XEP-0357 §8).

use super::Relay;
use crate::jid::BareJid;
use crate::publish::Revocation;
use crate::push::account::Change;
use crate::push::affiliation::Affiliation;
use crate::push::registration::Target;
use crate::store::StoreError;

impl Relay {
    /// Serves what push services say of registrations, one after the other, for ever.
    pub(super) async fn heed_push_services(&self) {
        let Some(mut revocations) = self.publisher.revocations() else { return };
        while let Some(revocation) = revocations.recv().await {
            let Revocation { account, told, reply } = revocation;
            match self.heed(&account, &told).await {
                // The stream may have ended.
                Ok(known) => drop(reply.send(known)),
                Err(error) => tracing::error!(%account, %error, "a registration cannot be taken back"),
            }
        }
    }

    /// Whether the account has a registration that this is about; it is disabled, if that is what is said.
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
