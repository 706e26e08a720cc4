//! What becomes of an account's sessions when the operator has the account forgotten.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::Relay;
use super::jobs::unix;
use crate::jid::BareJid;
use crate::push::account::{Account, Change, Device};
use crate::registry::Handle;
use crate::session::EndReason;
use crate::store::StoreError;

impl Relay {
    /// Ends the held sessions of an account and returns how many there were, once all that they had is on disk.
    pub async fn end_held(self: &Arc<Self>, account: &BareJid) -> usize {
        let held = self.registry.sessions(account).into_iter().filter(|handle| handle.is_dark());
        let end = |handle: Arc<Handle>| {
            let relay = Arc::clone(self);
            async move { relay.end(&handle, EndReason::Superseded).await }
        };
        let mut ending: JoinSet<()> = held.map(end).collect();
        let ended = ending.len();
        while ending.join_next().await.is_some() {}
        ended
    }

    /// Writes anew what the sessions of a forgotten account need to go on, and returns how many there are: were their
    /// devices unknown, what is spooled for them would be lost. They are told, so that they know of no registration any more.
    /// `before`: what was kept about the account.
    ///
    /// # Errors
    /// As [`Store::change`](crate::store::Store::change).
    pub async fn remember_live(&self, account: &BareJid, before: &Account) -> Result<usize, StoreError> {
        self.memories.forget(account);
        let sessions = self.registry.sessions(account);
        let is_here = |device: &&Device| sessions.iter().any(|handle| handle.device() == device.id);
        for device in before.devices.iter().filter(is_here) {
            for login in device.open.iter().copied() {
                let (candidate, resource, agent) = (device.id, device.resource.clone(), device.agent.clone());
                let login = Change::Login { candidate, login, resource, agent, presented: None, at: unix() };
                self.change_account(account, login).await?;
            }
            for sm_id in device.sm_ids.iter().cloned() {
                self.change_account(account, Change::Resumable { device: device.id, sm_id }).await?;
            }
        }
        Ok(sessions.len())
    }
}
