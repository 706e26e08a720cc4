//! Tokens by which clients return to their sessions (FAST, XEP-0484). [`ClientTokens`] issues, verifies and revokes them.
//!
//! The newest tokens of an account are those of its published record, with the changes made here since. A decision and the
//! change that follows from it are made under one lock, so two clients with the same count are not both accepted. A change
//! has its effect at once; the disk follows.
//!
//! | file | holds |
//! |---|---|
//! | `unpublished.rs` | the changes of an account's tokens that its published record does not have yet |
//! | `recent.rs` | the accounts whose tokens were revoked during the longest possible login |

mod recent;
#[cfg(test)]
mod tests;
mod unpublished;

use std::collections::BTreeMap;
use std::sync::Arc;

use dashmap::DashMap;
use tokio::sync::oneshot;

use super::background::Background;
use super::client::{Handle, Registry};
use super::snapshot::Current;
use crate::clock::{self, Instant};
use crate::jid::BareJid;
use crate::limits::RateLimitedLog;
use crate::push::account::{Account, Change};
use crate::push::fast::{FastSettings, IssuedToken, TokenChange, TokenProof, TokenRequest, TokenVerdict};
use crate::session::{Resumption, ResumptionTokens, TokenWish};
use crate::store::{ChangedAccount, Store, StoreError};
use recent::RecentRevocations;
use unpublished::UnpublishedChanges;

/// The changes of tokens that the store has refused, by account.
pub(super) type RefusedTokenChanges = BTreeMap<BareJid, Vec<TokenChange>>;

/// The tokens of clients.
pub(super) struct ClientTokens {
    store: Store,
    registry: Arc<Registry>,
    current: Arc<Current>,
    background: Background,
    accounts: DashMap<BareJid, UnpublishedChanges>,
    revoked: RecentRevocations,
    not_stored: RateLimitedLog,
}

impl ClientTokens {
    pub(super) fn new(store: Store, registry: Arc<Registry>, current: Arc<Current>, background: Background) -> Self {
        Self {
            store,
            registry,
            current,
            background,
            accounts: DashMap::new(),
            revoked: RecentRevocations::default(),
            not_stored: RateLimitedLog::default(),
        }
    }

    fn settings(&self) -> FastSettings {
        self.current.load().settings.fast.clone()
    }

    /// Issues a token to a client whose login is accepted. `authcid`: see [`FastToken::authcid`](crate::push::fast::FastToken). `began`: the time at which its login began. `None` if tokens are
    /// off, if those of the account were revoked since the login began, or if the token would have expired already.
    pub(super) fn issue(
        self: &Arc<Self>,
        account: &BareJid,
        request: TokenRequest,
        authcid: Option<String>,
        began: Instant,
    ) -> Option<IssuedToken> {
        let ttl = Some(self.settings()).filter(FastSettings::is_on)?.ttl;
        self.decide(account, |changes| {
            if self.revoked_since(account, began) {
                return None;
            }
            let mut issued = IssuedToken::new(request, ttl, clock::unix_secs(), rand::random)?;
            issued.token.authcid = authcid;
            self.submit(account, changes, TokenChange::Issued(Box::new(issued.token.clone())));
            Some(issued)
        })
    }

    /// Decides about a proof without noting its use. Of an account without a session nothing is known.
    pub(super) fn verify(&self, account: &BareJid, proof: &TokenProof) -> TokenVerdict {
        let record = self.record(account);
        let tokens = match self.accounts.get(account) {
            Some(changes) => changes.after(&record),
            None => record.tokens.clone(),
        };
        self.verdict(tokens.verify(proof, clock::unix_secs()))
    }

    /// Decides about a proof for a session, which is that of the proof's account and must be of its user agent. Notes the
    /// use of the token if it is accepted.
    pub(super) fn redeem(self: &Arc<Self>, session: &Handle, proof: &TokenProof) -> TokenVerdict {
        let account = session.account();
        self.decide(account, |changes| {
            let record = self.record(account);
            let at = clock::unix_secs();
            let verdict = self.verdict(changes.after(&record).verify(proof, at));
            let TokenVerdict::Accepted(accepted) = &verdict else { return verdict };
            let (id, count) = (accepted.id, proof.count);
            let is_removed = session.login() <= self.registry.published_account(account).removed;
            let agent = record.device(session.device()).and_then(|device| device.agent.as_deref());
            let own = session.held().identity.as_ref().map(|identity| identity.authcid.as_str());
            let is_login = accepted.authcid.is_none() || accepted.authcid.as_deref() == own;
            let opens = !is_removed && is_login && agent == Some(proof.agent.as_str());
            if opens {
                self.submit(account, changes, TokenChange::Used { id, count, at });
            }
            if proof.invalidate {
                self.submit(account, changes, TokenChange::Ended { id });
            }
            if opens { verdict } else { TokenVerdict::Unknown }
        })
    }

    /// Decides about a proof for which there is no session, and ends the token if the proof is valid and asks for that. Reads the
    /// disk for every account, so that the time does not show which accounts have a session.
    pub(super) async fn check(self: &Arc<Self>, account: &BareJid, proof: &TokenProof) -> TokenVerdict {
        let read = self.store.account_now(account).await.unwrap_or_else(|error| {
            self.log_not_stored(&error);
            Account::default()
        });
        self.decide(account, |changes| {
            let published = self.record(account);
            let record = if published.revision > read.revision { &*published } else { &read };
            let verdict = self.verdict(changes.after(record).verify(proof, clock::unix_secs()));
            if let TokenVerdict::Accepted(accepted) = &verdict
                && proof.invalidate
            {
                self.submit(account, changes, TokenChange::Ended { id: accepted.id });
            }
            verdict
        })
    }

    /// Checks the token of a resumption, if it has one, without noting its use.
    ///
    /// # Errors
    /// The verdict, if the token is not accepted.
    pub(super) fn examine(&self, account: &BareJid, tokens: &ResumptionTokens) -> Result<(), TokenVerdict> {
        match tokens.proof.as_ref().map(|proof| self.verify(account, proof)) {
            None | Some(TokenVerdict::Accepted(_)) => Ok(()),
            Some(refused) => Err(refused),
        }
    }

    /// Redeems the token of a resumption of this session, and issues the one that its client asks for. Both go into the
    /// `<success/>`. `began`: the time at which the login began.
    ///
    /// # Errors
    /// The verdict, if the token is not accepted.
    pub(super) fn complete(
        self: &Arc<Self>,
        session: &Handle,
        resumption: &mut Resumption,
        began: Instant,
    ) -> Result<(), TokenVerdict> {
        let redeemed = match resumption.tokens.proof.take().map(|proof| self.redeem(session, &proof)) {
            None => None,
            Some(TokenVerdict::Accepted(accepted)) => Some(accepted),
            Some(refused) => return Err(refused),
        };
        let root = redeemed.as_ref().map_or_else(clock::unix_secs, |accepted| accepted.root);
        let issued = resumption.tokens.wish.take().and_then(|TokenWish { agent, mechanism }| {
            let authcid = redeemed.as_ref().and_then(|accepted| accepted.authcid.clone());
            self.issue(session.account(), TokenRequest { agent, mechanism, root }, authcid, began)
        });
        resumption.complete(redeemed.as_ref().map(|accepted| &accepted.responder[..]), issued.as_ref());
        Ok(())
    }

    /// Ends all tokens of an account: they are not valid any more when this returns. The receiver yields the outcome on
    /// disk. Logins that have begun get no token.
    pub(super) fn revoke(self: &Arc<Self>, account: &BareJid) -> oneshot::Receiver<ChangedAccount> {
        self.decide(account, |changes| {
            self.revoked.note(account, Instant::now());
            if !changes.after(&self.record(account)).is_empty() {
                tracing::info!(%account, "FAST tokens revoked");
            }
            self.submit(account, changes, TokenChange::Revoked)
        })
    }

    /// Returns whether the tokens of an account were revoked at this time or since, as far as is known: `true` also if it
    /// is too long ago.
    pub(super) fn revoked_since(&self, account: &BareJid, began: Instant) -> bool {
        self.revoked.since(account, began)
    }

    /// Returns the changes that the store has refused, for another process. They count although they are not on disk.
    pub(super) fn freeze(&self) -> RefusedTokenChanges {
        let refused = |changes: &UnpublishedChanges| Some(changes.refused().to_vec()).filter(|all| !all.is_empty());
        self.accounts.iter().filter_map(|entry| Some((entry.key().clone(), refused(entry.value())?))).collect()
    }

    /// Submits the changes that the store of another process has refused.
    pub(super) fn thaw(self: &Arc<Self>, refused: RefusedTokenChanges) {
        for (account, refused) in refused {
            self.decide(&account, |changes| {
                for change in refused {
                    // A change that is refused again is kept.
                    drop(self.submit_one(&account, changes, change));
                }
            });
        }
    }

    /// Returns the published record of an account.
    fn record(&self, account: &BareJid) -> Arc<Account> {
        self.registry.published_account(account).account.unwrap_or_default()
    }

    /// Returns a verdict, or the one for an unknown token if tokens are off.
    fn verdict(&self, verdict: TokenVerdict) -> TokenVerdict {
        if self.settings().is_on() { verdict } else { TokenVerdict::Unknown }
    }

    /// Makes a decision about an account while nothing else changes its tokens.
    fn decide<T>(&self, account: &BareJid, decision: impl FnOnce(&mut UnpublishedChanges) -> T) -> T {
        let decided = decision(&mut self.accounts.entry(account.clone()).or_default());
        self.accounts.remove_if(account, |_, changes| changes.is_empty());
        decided
    }

    /// Submits a change to the store, behind those that the store has refused.
    fn submit(
        self: &Arc<Self>,
        account: &BareJid,
        changes: &mut UnpublishedChanges,
        change: TokenChange,
    ) -> oneshot::Receiver<ChangedAccount> {
        for refused in changes.take_refused() {
            drop(self.submit_one(account, changes, refused));
        }
        self.submit_one(account, changes, change)
    }

    fn submit_one(
        self: &Arc<Self>,
        account: &BareJid,
        changes: &mut UnpublishedChanges,
        change: TokenChange,
    ) -> oneshot::Receiver<ChangedAccount> {
        let (answer, answered) = oneshot::channel();
        match self.store.submit_numbered(account, Change::Token(change.clone())) {
            Ok((revision, stored)) => {
                changes.add(revision, change);
                let (tokens, account) = (Arc::clone(self), account.clone());
                self.background.spawn(async move {
                    let stored = stored.await;
                    tokens.on_stored(&account, revision, &stored);
                    // The caller may not wait for the answer.
                    drop(answer.send(stored));
                });
            }
            Err(error) => {
                self.log_not_stored(&error);
                changes.refuse(change);
                drop(answer.send(Err(error)));
            }
        }
        answered
    }

    /// Notes the store's answer to a change.
    fn on_stored(&self, account: &BareJid, revision: u64, stored: &ChangedAccount) {
        match stored {
            // Published first: in between, the record and the change are both there.
            Ok((record, _)) => self.registry.keep(account, record),
            Err(error) => self.log_not_stored(error),
        }
        self.decide(account, |changes| {
            let change = changes.remove(revision);
            if let Some(change) = change.filter(|_| stored.is_err()) {
                changes.refuse(change);
            }
        });
    }

    fn log_not_stored(&self, error: &StoreError) {
        if let Some(suppressed) = self.not_stored.next() {
            tracing::error!(%error, suppressed, "cannot store FAST tokens");
        }
    }
}
