//! Changes of accounts. [`Accounts`] stores each change and publishes it to the sessions of the account.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::background::Background;
use super::client::{Handle, Registry};
use super::device_memories::Memories;
use super::fast::ClientTokens;
use crate::clock::{self, Instant};
use crate::jid::BareJid;
use crate::limits::RateLimitedLog;
use crate::metrics::{Metrics, Wait};
use crate::push::account::{Account, Change, Device, DeviceId, DeviceRecognition};
use crate::registry::handle::END_TIMEOUT;
use crate::session::{Bound, EndReason, Owner};
use crate::store::{AccountOwnership, LoggedIn, Store, StoreError};

/// Changes accounts in the store, and publishes them to their sessions.
pub(super) struct Accounts {
    store: Store,
    registry: Arc<Registry>,
    memories: Arc<Memories>,
    tokens: Arc<ClientTokens>,
    metrics: Arc<Metrics>,
    not_stored: RateLimitedLog,
}

impl Accounts {
    pub(super) fn new(store: Store, registry: Arc<Registry>, tokens: Arc<ClientTokens>, metrics: Arc<Metrics>) -> Self {
        Self { store, registry, memories: Arc::default(), tokens, metrics, not_stored: RateLimitedLog::default() }
    }

    /// Returns whether this node may act on its accounts: it holds its lease, if it needs one.
    pub(super) fn may_act(&self) -> bool {
        self.store.lease().is_none_or(|lease| lease.is_valid(Instant::now()))
    }

    /// Returns the tokens of clients.
    pub(super) fn tokens(&self) -> &Arc<ClientTokens> {
        &self.tokens
    }

    /// Returns the memories of the accounts' devices.
    pub(super) fn memories(&self) -> &Arc<Memories> {
        &self.memories
    }

    /// Returns the record of an account as it is on disk.
    ///
    /// # Errors
    /// As [`Store::account`].
    pub(super) async fn stored(&self, account: &BareJid) -> Result<Account, StoreError> {
        self.store.account(account).await
    }

    /// Changes an account, and publishes it to its sessions.
    ///
    /// # Errors
    /// As [`Store::change`].
    pub(super) async fn change(&self, account: &BareJid, change: Change) -> Result<(), StoreError> {
        let concerns_others = change.concerns_others();
        let (changed, _) = self.store.change(account, change).await?;
        if concerns_others {
            self.registry.publish(account, &changed, None);
        } else {
            self.registry.keep(account, &changed);
        }
        Ok(())
    }

    /// Logs that a change of an account failed. Rate limited: while the disk fails, a client can cause this as often as it
    /// likes.
    pub(super) fn log_not_stored(&self, error: &StoreError) {
        if let Some(suppressed) = self.not_stored.next() {
            tracing::error!(%error, suppressed, "cannot store account");
        }
    }

    /// Logs that the end of a session was not stored. Rate limited: many sessions may end at once.
    pub(super) fn log_end_not_stored(&self, error: &StoreError) {
        if let StoreError::Fenced = error {
            // The node that acts for this one closes it.
        } else if let Some(suppressed) = self.not_stored.next() {
            tracing::error!(%error, suppressed, "cannot store end of session");
        }
    }

    /// Stores the login of a session and returns its device. If the store fails, the session continues as that of a new
    /// device. The change is published in the background, once it is stored.
    pub(super) async fn log_in(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        bound: &Bound,
        background: &Background,
    ) -> Owner {
        let candidate = DeviceId(rand::random());
        let presented = bound.presented.as_ref().map(|id| id.as_str().to_owned());
        let resource = bound.jid.resource().to_owned();
        let (agent, login, at) = (bound.agent.clone(), handle.login(), clock::unix_secs());
        let change = Change::Login { candidate, login, resource, agent, presented: presented.clone(), at };
        let known = self.registry.published_account(handle.account()).account;
        let logged_in = match self.store.log_in_knowing(handle.account(), known, change).await {
            Ok((logged_in, stored)) => {
                let (accounts, handle) = (Arc::clone(self), Arc::clone(handle));
                background.spawn(async move {
                    // A failure has already been logged.
                    if let Ok((account, _)) = stored.await {
                        accounts.registry.publish(handle.account(), &account, Some(&handle));
                    }
                });
                logged_in
            }
            Err(error) => {
                tracing::error!(%error, "cannot read or store account");
                LoggedIn {
                    account: Account::default(),
                    device: None,
                    knew_agent: false,
                    waits: false,
                    ownership: AccountOwnership::default(),
                }
            }
        };
        let LoggedIn { account, device: known_device, knew_agent, waits, ownership: _ } = logged_in;
        let device = known_device.unwrap_or(candidate);
        handle.set_device(device);
        self.registry.publish(handle.account(), &account, Some(handle));
        let known = |id: &String| account.device(device).is_some_and(|d| d.sm_ids.contains(id));
        let recognition = match knew_agent || presented.as_ref().is_some_and(known) {
            true => DeviceRecognition::Certain,
            false => DeviceRecognition::Guessed,
        };
        Owner { device, recognition, account, waits, older: false }
    }

    /// Removes a session from the registry and notifies the device's other sessions.
    pub(super) fn unregister(&self, handle: &Handle) {
        self.registry.leave(handle);
        handle.set_ended();
        self.registry.notify_same(handle);
        if let Some(newer) = self.registry.newer(handle) {
            newer.inherit();
        }
    }

    /// Stores the end of a login, after everything that was stored for it.
    pub(super) async fn store_end(&self, handle: &Handle) {
        let login = handle.login();
        let ended = match self.store.submit_change(handle.account(), Change::Ended { login }) {
            Ok(ended) => ended.await,
            Err(error) => Err(error),
        };
        match ended {
            Ok((account, _)) => self.registry.publish(handle.account(), &account, None),
            Err(error) => self.log_end_not_stored(&error),
        }
    }

    /// Asks a session to end if it is held. Waits until it has ended or has decided to stay, or until the deadline.
    pub(super) async fn end_session(&self, session: &Handle, reason: EndReason) {
        if !session.end(reason).await {
            self.metrics.deadline_passed(Wait::GiveWay);
            let reason = reason.name();
            tracing::warn!(account = %session.account(), reason, within = ?END_TIMEOUT, "session did not end in time");
        }
    }

    /// Ends the held sessions of an account. Returns their number, once all of their data is on disk.
    pub(super) async fn end_held(self: &Arc<Self>, account: &BareJid) -> usize {
        let held = self.registry.sessions(account).into_iter().filter(|handle| handle.is_dark());
        let end = |handle: Arc<Handle>| {
            let accounts = Arc::clone(self);
            async move { accounts.end_session(&handle, EndReason::Superseded).await }
        };
        let mut ending: JoinSet<()> = held.map(end).collect();
        let ended = ending.len();
        while ending.join_next().await.is_some() {}
        ended
    }

    /// Stores again the devices of an account's sessions after the account was deleted. Returns the number of sessions. If
    /// their devices were unknown, the stanzas spooled for them would be lost. The sessions are notified, so they drop all
    /// registrations. `before`: the account before it was deleted.
    ///
    /// # Errors
    /// As [`Store::change`].
    pub(super) async fn remember_live(&self, account: &BareJid, before: &Account) -> Result<usize, StoreError> {
        self.memories.forget(account);
        let sessions = self.registry.sessions(account);
        let is_here = |device: &&Device| sessions.iter().any(|handle| handle.device() == device.id);
        for device in before.devices.iter().filter(is_here) {
            for login in device.open.iter().copied() {
                let (candidate, resource, agent) = (device.id, device.resource.clone(), device.agent.clone());
                let at = clock::unix_secs();
                let login = Change::Login { candidate, login, resource, agent, presented: None, at };
                self.change(account, login).await?;
            }
            for sm_id in device.sm_ids.iter().cloned() {
                self.change(account, Change::Resumable { device: device.id, sm_id }).await?;
            }
        }
        Ok(sessions.len())
    }
}
