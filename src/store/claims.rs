//! The calls of [`Store`] by which a node claims and releases accounts of a database that several nodes share.

use std::sync::{Arc, Weak};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Store;
use super::error::StoreError;
use super::op::{ClaimedAccount, Effect, Op};
use super::ownership::{AccountOwnership, AccountTurn};
use super::shared::Shared;
use super::tasks::{Job, TaskKind, TaskScope, TaskWait};
use super::values::SpoolId;
use crate::clock;
use crate::jid::BareJid;

/// Makes this node the owner of an account for as long as the returned value lives. Returns at once if it owns the account
/// already, or if the database has one user.
///
/// # Errors
/// [`StoreError::Elsewhere`]: another living node owns it. [`StoreError::Fenced`], [`StoreError::NoAnswer`],
/// [`StoreError::Unavailable`].
pub(super) async fn claim(store: &Store, account: &BareJid) -> Result<AccountOwnership, StoreError> {
    let Some(owners) = &store.shared.owners else { return Ok(AccountOwnership::not_needed()) };
    let (ownership, turn) = owners.begin(account);
    if let Some(turn) = turn {
        let _turn = turn.take().await;
        if !turn.is_owned() {
            claim_now(store, account, &turn).await?;
        }
    }
    Ok(ownership)
}

/// Returns the ownership of an account that this node owns.
///
/// # Errors
/// [`StoreError::NotOwned`].
pub(super) fn owned(store: &Store, account: &BareJid) -> Result<AccountOwnership, StoreError> {
    let Some(owners) = &store.shared.owners else { return Ok(AccountOwnership::not_needed()) };
    owners.again(account).ok_or_else(|| StoreError::NotOwned { account: account.clone() })
}

async fn claim_now(store: &Store, account: &BareJid, turn: &AccountTurn) -> Result<(), StoreError> {
    let Effect::Claimed(claimed) = store.write(Op::Claim { account: account.clone() }).await? else {
        return Err(StoreError::WrongAnswer);
    };
    let ClaimedAccount { revision, login, open, counts } = claimed;
    let shared = &store.shared;
    shared.newest.raise(revision);
    shared.logins.note_used(login);
    for (login, count) in counts {
        // A login that names a spool was used, even if the account's row says otherwise.
        shared.logins.note_used(login);
        shared.counts.set(&SpoolId { account: account.clone(), login }, count);
    }
    let kept = shared.kept();
    if open.iter().any(|login| !kept.contains(login)) {
        let (account, now) = (account.clone(), clock::unix_secs());
        store.write_many(|revision| Op::CloseStale { account, now, revision, kept }).await?;
    }
    turn.set_owned(true);
    Ok(())
}

async fn release(store: &Store, account: &BareJid) {
    let Some(owners) = &store.shared.owners else { return };
    let Some(turn) = owners.unused(account) else { return };
    {
        let _turn = turn.take().await;
        if owners.give_up(account)
            && let Err(error) = release_now(store, account).await
        {
            // It is claimed again for its next user. The next epoch of this node does not own it.
            tracing::debug!(%error, %account, "account not released");
        }
    }
    owners.forget(account);
}

async fn release_now(store: &Store, account: &BareJid) -> Result<(), StoreError> {
    let scope = TaskScope::Account(account.clone());
    store.ask(TaskKind::Settle(scope), 0, TaskWait::Commit, None).await?;
    store.write(Op::Release { account: account.clone() }).await?;
    store.shared.counts.forget(account);
    Ok(())
}

/// A handle that does not keep the store open.
pub(super) struct WeakStore {
    shared: Weak<Shared>,
    jobs: mpsc::WeakUnboundedSender<Job>,
    ended: CancellationToken,
}

impl WeakStore {
    pub(super) fn of(store: &Store) -> Self {
        Self { shared: Arc::downgrade(&store.shared), jobs: store.jobs.downgrade(), ended: store.ended.clone() }
    }

    fn upgrade(&self) -> Option<Store> {
        let (shared, jobs) = (self.shared.upgrade()?, self.jobs.upgrade()?);
        Some(Store { shared, jobs, ended: self.ended.clone() })
    }
}

/// Releases accounts that have no user any more, for as long as there are handles of the store.
pub(super) async fn release_unused(store: WeakStore, mut unused: mpsc::UnboundedReceiver<BareJid>) {
    while let Some(account) = unused.recv().await {
        let Some(store) = store.upgrade() else { return };
        tokio::spawn(async move { release(&store, &account).await });
    }
}
