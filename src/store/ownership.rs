//! The accounts that this node owns ([`AccountOwnership`]). Only their owner reads their spools and changes their records.
//!
//! An account is claimed for its first user and released after the last one. While it is claimed or released, others wait. A
//! database of one process needs none of this.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::{Mutex as AsyncMutex, mpsc};

use crate::jid::BareJid;
use crate::sync::lock;

/// Keeps an account with this node, until it is dropped.
#[derive(Clone, Debug, Default)]
pub struct AccountOwnership(
    #[expect(dead_code, reason = "its end ends the use of the account")] Option<Arc<AccountUse>>,
);

/// One use of an account.
#[derive(Debug)]
struct AccountUse {
    account: BareJid,
    owners: Arc<OwnedAccounts>,
}

impl Drop for AccountUse {
    fn drop(&mut self) {
        self.owners.let_go(&self.account);
    }
}

impl AccountOwnership {
    /// Returns what a database of one process needs.
    pub(super) fn not_needed() -> Self {
        Self(None)
    }
}

/// The accounts of this node.
#[derive(Debug)]
pub(super) struct OwnedAccounts {
    accounts: Mutex<HashMap<BareJid, OwnedAccount>>,
    /// Accounts without a user.
    unused: mpsc::UnboundedSender<BareJid>,
    /// True if what was claimed stays with this node: the next process goes on with it.
    keeps: AtomicBool,
}

#[derive(Debug, Default)]
struct OwnedAccount {
    users: usize,
    turn: Arc<AccountTurn>,
}

/// The right to claim or release an account, which one task has at a time.
#[derive(Debug, Default)]
pub(super) struct AccountTurn {
    turn: AsyncMutex<()>,
    is_owned: AtomicBool,
}

impl OwnedAccounts {
    /// Returns the accounts, and the receiver of those that have no user any more.
    pub(super) fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<BareJid>) {
        let (unused, receiver) = mpsc::unbounded_channel();
        let owners = Self { accounts: Mutex::default(), unused, keeps: AtomicBool::new(false) };
        (Arc::new(owners), receiver)
    }

    /// Begins to use an account. Also returns the turn in which it has to be claimed, unless it is owned.
    pub(super) fn begin(self: &Arc<Self>, account: &BareJid) -> (AccountOwnership, Option<Arc<AccountTurn>>) {
        let mut accounts = lock(&self.accounts);
        let owned = accounts.entry(account.clone()).or_default();
        owned.users += 1;
        let turn = (!owned.turn.is_owned()).then(|| Arc::clone(&owned.turn));
        drop(accounts);
        let used = AccountUse { account: account.clone(), owners: Arc::clone(self) };
        (AccountOwnership(Some(Arc::new(used))), turn)
    }

    /// Releases no account any more: the next process goes on with them.
    pub(super) fn keep_all(&self) {
        self.keeps.store(true, Ordering::Relaxed);
    }

    /// Uses an account once more, if it is owned.
    pub(super) fn again(self: &Arc<Self>, account: &BareJid) -> Option<AccountOwnership> {
        let mut accounts = lock(&self.accounts);
        let owned = accounts.get_mut(account).filter(|owned| owned.users > 0 && owned.turn.is_owned())?;
        owned.users += 1;
        drop(accounts);
        let used = AccountUse { account: account.clone(), owners: Arc::clone(self) };
        Some(AccountOwnership(Some(Arc::new(used))))
    }

    fn let_go(&self, account: &BareJid) {
        if self.keeps.load(Ordering::Relaxed) {
            return;
        }
        let mut accounts = lock(&self.accounts);
        let Some(owned) = accounts.get_mut(account) else { return };
        owned.users = owned.users.saturating_sub(1);
        if owned.users == 0 {
            // Nobody releases accounts when the process ends.
            drop(self.unused.send(account.clone()));
        }
    }

    /// Returns the turn of an account that has no user.
    pub(super) fn unused(&self, account: &BareJid) -> Option<Arc<AccountTurn>> {
        lock(&self.accounts).get(account).filter(|owned| owned.users == 0).map(|owned| Arc::clone(&owned.turn))
    }

    /// Notes that this node no longer owns an account, unless it has a user. Returns whether it has none. Call it in the
    /// account's turn: a new user waits for that.
    pub(super) fn give_up(&self, account: &BareJid) -> bool {
        let accounts = lock(&self.accounts);
        let unused = accounts.get(account).filter(|owned| owned.users == 0);
        unused.inspect(|owned| owned.turn.set_owned(false)).is_some()
    }

    /// Forgets an account that has no user and is not owned.
    pub(super) fn forget(&self, account: &BareJid) {
        let mut accounts = lock(&self.accounts);
        if accounts.get(account).is_some_and(|owned| owned.users == 0 && !owned.turn.is_owned()) {
            accounts.remove(account);
        }
    }

    /// Returns the number of accounts that this node owns.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        lock(&self.accounts).values().filter(|owned| owned.turn.is_owned()).count()
    }
}

impl AccountTurn {
    /// Waits for the turn.
    pub(super) async fn take(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    pub(super) fn is_owned(&self) -> bool {
        self.is_owned.load(Ordering::Acquire)
    }

    pub(super) fn set_owned(&self, is_owned: bool) {
        self.is_owned.store(is_owned, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_unused_after_its_last_user() {
        let (owners, mut unused) = OwnedAccounts::new();
        let romeo: BareJid = "romeo@example.org".parse().unwrap();
        assert!(owners.again(&romeo).is_none());
        let (first, turn) = owners.begin(&romeo);
        assert!(owners.again(&romeo).is_none(), "it is not claimed yet");
        turn.unwrap().set_owned(true);
        assert!(!owners.give_up(&romeo), "it has a user");
        let second = owners.again(&romeo).unwrap();
        let third = second.clone();
        drop((first, second));
        assert!(unused.try_recv().is_err() && owners.unused(&romeo).is_none());
        drop(third);
        assert_eq!(unused.try_recv().unwrap(), romeo);
        assert!(owners.unused(&romeo).is_some() && owners.count() == 1);
        owners.forget(&romeo);
        assert_eq!(owners.count(), 1, "what is owned is not forgotten");
        assert!(owners.begin(&romeo).1.is_none() && owners.give_up(&romeo));
        let (again, turn) = owners.begin(&romeo);
        turn.unwrap().set_owned(true);
        drop(again);
        assert!(owners.give_up(&romeo));
        owners.forget(&romeo);
        assert!(owners.unused(&romeo).is_none() && owners.count() == 0);
    }
}
