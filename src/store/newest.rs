//! Changes of accounts that are accepted but not answered yet. With [`NewestRecords`] the store knows an account after all
//! changes before they are on disk.
//!
//! Each change gets a revision, in the order in which the writer receives the changes. The record of an account includes the
//! changes up to its revision.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use crate::jid::BareJid;
use crate::push::account::{Account, Change, DeviceId};
use crate::sync::lock;

/// Accounts with changes that are not answered.
#[derive(Debug, Default)]
pub(super) struct NewestRecords(Mutex<NewestAccounts>);

#[derive(Debug, Default)]
struct NewestAccounts {
    open: HashMap<BareJid, OpenAccount>,
    /// The highest revision that was given to a change. Revisions also increase across restarts.
    revision: u64,
}

#[derive(Debug, Default)]
struct OpenAccount {
    /// In order of their revisions.
    changes: Vec<Accepted>,
    /// The number of current reads of the account. While it is not 0, answered changes are kept, since it is unknown whether
    /// the readers see them.
    readers: usize,
}

#[derive(Debug)]
struct Accepted {
    revision: u64,
    change: Change,
    is_answered: bool,
}

/// The identity of an accepted change.
#[derive(Debug)]
pub(super) struct ChangeId {
    account: BareJid,
    /// The revision of the account after the change.
    pub(super) revision: u64,
}

impl NewestRecords {
    /// Starts after the highest revision that was stored.
    pub(super) fn behind(revision: u64) -> Self {
        Self(Mutex::new(NewestAccounts { revision, ..NewestAccounts::default() }))
    }

    fn accounts(&self) -> MutexGuard<'_, NewestAccounts> {
        lock(&self.0)
    }

    /// Raises the revision to that of an account which another node has written.
    pub(super) fn raise(&self, revision: u64) {
        let mut accounts = self.accounts();
        accounts.revision = accounts.revision.max(revision);
    }

    /// Accepts a change after all earlier ones of its account. `send` puts it into the writer's queue in the same order.
    pub(super) fn accept<T>(&self, account: &BareJid, change: &Change, send: impl FnOnce(ChangeId) -> T) -> T {
        self.accounts().accept(account, change, send)
    }

    /// Gives a revision to a write that concerns many accounts. `send` puts it into the writer's queue in the same order.
    pub(super) fn in_order<T>(&self, send: impl FnOnce(u64) -> T) -> T {
        let mut accounts = self.accounts();
        let revision = accounts.next_revision();
        send(revision)
    }

    /// Notes that a change is on disk.
    pub(super) fn on_stored(&self, change: &ChangeId) {
        let mut accounts = self.accounts();
        match accounts.open.get_mut(&change.account) {
            Some(open) if open.readers > 0 => {
                let known = open.changes.iter_mut().find(|known| known.revision == change.revision);
                known.into_iter().for_each(|known| known.is_answered = true);
                accounts.forget_if_idle(&change.account);
            }
            Some(_) | None => accounts.forget(change),
        }
    }

    /// Notes that a change was refused.
    pub(super) fn on_refused(&self, change: &ChangeId) {
        self.accounts().forget(change);
    }

    /// Begins to read an account. Call it before the read.
    pub(super) fn read<'n>(&'n self, account: &BareJid) -> NewestReader<'n> {
        self.accounts().open.entry(account.clone()).or_default().readers += 1;
        NewestReader { newest: self, account: account.clone() }
    }
}

impl NewestAccounts {
    fn accept<T>(&mut self, account: &BareJid, change: &Change, send: impl FnOnce(ChangeId) -> T) -> T {
        let revision = self.next_revision();
        let accepted = Accepted { revision, change: change.clone(), is_answered: false };
        self.open.entry(account.clone()).or_default().changes.push(accepted);
        send(ChangeId { account: account.clone(), revision })
    }

    fn forget(&mut self, change: &ChangeId) {
        let Some(open) = self.open.get_mut(&change.account) else { return };
        open.changes.retain(|known| known.revision != change.revision);
        self.forget_if_idle(&change.account);
    }

    fn next_revision(&mut self) -> u64 {
        self.revision = crate::clock::unix_millis().get().max(self.revision.saturating_add(1));
        self.revision
    }

    fn forget_if_idle(&mut self, account: &BareJid) {
        if let Some(open) = self.open.get_mut(account) {
            if open.readers == 0 {
                open.changes.retain(|known| !known.is_answered);
            }
            if open.readers == 0 && open.changes.is_empty() {
                self.open.remove(account);
            }
        }
    }

    /// Returns the account after all accepted changes.
    fn after(&self, account: &BareJid, mut state: Account) -> Account {
        let read = state.revision;
        let changes = self.open.get(account).into_iter().flat_map(|open| &open.changes);
        for accepted in changes.filter(|accepted| accepted.revision > read) {
            state.apply(accepted.change.clone());
            state.revision = accepted.revision;
        }
        state
    }
}

/// A read of an account from the disk that is in progress.
pub(super) struct NewestReader<'n> {
    newest: &'n NewestRecords,
    account: BareJid,
}

impl NewestReader<'_> {
    /// Returns the account after all changes accepted so far. `read` is what the disk has.
    pub(super) fn after(&self, read: Account) -> Account {
        self.newest.accounts().after(&self.account, read)
    }

    /// Accepts a change and returns the account before it, the account after it, and what [`Account::apply`] returned.
    pub(super) fn accept<T>(
        &self,
        read: Account,
        change: &Change,
        send: impl FnOnce(ChangeId) -> T,
    ) -> (Account, Account, Option<DeviceId>, T) {
        let mut accounts = self.newest.accounts();
        let before = accounts.after(&self.account, read);
        let sent = accounts.accept(&self.account, change, send);
        let revision = accounts.revision;
        drop(accounts);
        let mut after = before.clone();
        let device = after.apply(change.clone());
        after.revision = revision;
        (before, after, device, sent)
    }
}

impl Drop for NewestReader<'_> {
    fn drop(&mut self) {
        let mut accounts = self.newest.accounts();
        if let Some(open) = accounts.open.get_mut(&self.account) {
            open.readers = open.readers.saturating_sub(1);
        }
        accounts.forget_if_idle(&self.account);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixSecs;

    fn subscribed(newest: &NewestRecords, account: &BareJid, at: u64) -> ChangeId {
        newest.accept(account, &login(at), |id| id)
    }

    fn login(at: u64) -> Change {
        let (candidate, login) = (DeviceId(at), crate::push::account::LoginId(at));
        Change::Login {
            candidate,
            login,
            resource: at.to_string(),
            agent: None,
            presented: None,
            at: UnixSecs::new(at),
        }
    }

    fn devices(account: &Account) -> Vec<u64> {
        account.devices.iter().map(|device| device.id.0).collect()
    }

    #[test]
    fn a_reader_sees_what_was_accepted_before_and_while_it_reads() {
        let (newest, account) = (NewestRecords::behind(u64::MAX - 9), "romeo@example.org".parse().unwrap());
        let first = subscribed(&newest, &account, 1);
        let reader = newest.read(&account);
        // It is on disk, and the reader may or may not have seen it.
        newest.on_stored(&first);
        let second = subscribed(&newest, &account, 2);
        newest.on_refused(&second);
        let third = subscribed(&newest, &account, 3);
        let after = reader.after(Account::default());
        assert_eq!((devices(&after), after.revision), (vec![1, 3], third.revision));
        let read = Account { revision: first.revision, ..Account::default() };
        assert_eq!(devices(&reader.after(read)), [3], "what was read has the first");
        let (before, after, device, fourth) = reader.accept(Account::default(), &login(4), |id| id);
        assert_eq!((devices(&before), devices(&after)), (vec![1, 3], vec![1, 3, 4]));
        assert_eq!((device, after.revision), (Some(DeviceId(4)), fourth.revision));
        drop(reader);
        newest.on_stored(&third);
        assert_eq!(devices(&newest.read(&account).after(Account::default())), [4], "the others are on disk");
        assert!(newest.in_order(|revision| revision) > fourth.revision);
    }
}
