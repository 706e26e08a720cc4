//! What is asked of the store about accounts, their devices, and what a restart and time do to them.

use std::sync::Arc;

use super::Store;
use super::engine::Engine;
use super::error::StoreError;
use super::newest::ChangeId;
use super::op::{Effect, Op};
use super::query::{Piece, Query, QueryAnswer};
use super::tasks::{Asking, Task, TaskWait, Ticket, What};
use super::values::{AccountPage, Expired, LoggedIn, Slot, SpoolId, Tombstone, Ttl, Wake, WakeReason};
use crate::clock::{self, UnixMillis, UnixSecs};
use crate::jid::BareJid;
use crate::push::account::{Account, Change, DeviceId, LoginId};

impl Store {
    /// What is kept about an account, as it is on disk; the default if nothing is.
    ///
    /// # Errors
    /// [`StoreError::UnknownVersion`], [`StoreError::Corrupt`], [`StoreError::Database`], [`StoreError::NoAnswer`];
    /// [`StoreError::Closed`] if the runtime is shutting down.
    pub async fn account(&self, account: &BareJid) -> Result<Account, StoreError> {
        let QueryAnswer::Account(account) = self.read(Query::Account { account: account.clone() }).await? else {
            return Err(StoreError::Mistaken);
        };
        Ok(account)
    }

    /// What is kept about an account after all changes up to now, be they on disk or not.
    ///
    /// # Errors
    /// As [`Store::account`].
    pub async fn account_now(&self, account: &BareJid) -> Result<Account, StoreError> {
        let reader = self.shared.newest.read(account);
        let read = self.account(account).await?;
        Ok(reader.after(read))
    }

    /// Changes an account and returns it once the change is on disk, with what [`Account::apply`] returned. Changes of an
    /// account are applied in the order of the calls. A change that makes no difference costs no sync.
    ///
    /// What depends on a device goes with it: if the device turns out to be another, its spools and its wake become the
    /// other's; if it is forgotten, they are deleted. A login and the loss of the last registration delete the wake. The end of
    /// a session deletes its spool if that is empty.
    ///
    /// [`Change::Removed`] deletes every record of the account, even those that cannot be read, as far as they belong to logins
    /// that were given out before this call. From then on the spool calls of those logins are refused with
    /// [`StoreError::AccountRemoved`]; a login that is entered again goes on. No stanza that was deleted is read again, though it
    /// takes a while until all are gone from the disk.
    ///
    /// Not cancel safe: dropped while waiting, the change may be applied or not.
    ///
    /// # Errors
    /// As [`Store::account`], and nothing was changed; except after [`StoreError::Database`] and [`StoreError::NoAnswer`], when
    /// that is unknown. [`StoreError::Closed`] after [`Store::shutdown`].
    pub async fn change(&self, account: &BareJid, change: Change) -> Result<(Account, Option<DeviceId>), StoreError> {
        let patiently = matches!(change, Change::Succeeded { .. } | Change::Resumable { .. });
        let awaited = if patiently { TaskWait::Sometime } else { TaskWait::Commit };
        let (ticket, asking) = Ticket::new();
        self.send_change(account, change, ticket, awaited)?;
        changed(self.wait(asking).await?)
    }

    /// As [`Store::change`] for what a session leaves behind, but returns as soon as the change is in order: all later changes of
    /// the account come behind it. Does not wait. What [`Store::change`] would return can be waited for, without end.
    ///
    /// # Errors
    /// [`StoreError::Closed`] after [`Store::shutdown`]; the future's are those of [`Store::change`].
    pub fn change_behind(
        &self,
        account: &BareJid,
        change: Change,
    ) -> Result<impl Future<Output = Result<(Account, Option<DeviceId>), StoreError>> + use<>, StoreError> {
        let (ticket, asking) = Ticket::without_end();
        self.send_change(account, change, ticket, TaskWait::Sometime)?;
        Ok(answered(asking))
    }

    /// Applies a login as [`Store::change`] does, and returns what is known of its device at that moment. All later changes come
    /// behind it, but it is not on disk yet and reads do not see it: a crash may forget it unless a later change was stored, and
    /// so may a commit that fails, which is logged.
    ///
    /// # Errors
    /// As [`Store::change`]. A spool that cannot be read is logged and counts as empty.
    pub async fn log_in(&self, account: &BareJid, login: Change) -> Result<LoggedIn, StoreError> {
        Ok(self.log_in_knowing(account, None, login).await?.0)
    }

    /// The same for an account of which a newer state may be known than is on disk. Also returns what [`Store::change_behind`]
    /// does.
    ///
    /// # Errors
    /// As [`Store::log_in`].
    pub async fn log_in_knowing(
        &self,
        account: &BareJid,
        known: Option<Arc<Account>>,
        login: Change,
    ) -> Result<(LoggedIn, impl Future<Output = Result<(Account, Option<DeviceId>), StoreError>> + use<>), StoreError>
    {
        let (agent, id) =
            if let Change::Login { agent, login, .. } = &login { (agent.clone(), *login) } else { (None, LoginId(0)) };
        let reader = self.shared.newest.read(account);
        let hidden = self.shared.deletions.of_account(account);
        let query = Query::Spools { account: account.clone(), hidden };
        // Whoever logs in waits as long as the caller lets them.
        let QueryAnswer::Spools { account: read, spools } = self.shared.engine.read(query).await? else {
            return Err(StoreError::Mistaken);
        };
        let newest = known.filter(|known| read.as_ref().is_ok_and(|read| read.revision < known.revision));
        let read = newest.map_or(read, |newest| Ok((*newest).clone()))?;
        let (ticket, asking) = Ticket::without_end();
        let (before, after, device, sent) = reader.accept(read, &login, |id| {
            self.enqueue(self.change_task(account, login.clone(), ticket, TaskWait::Sometime, id))
        });
        self.sent(sent)?;
        let knew_agent = agent.is_some() && before.devices.iter().any(|device| device.agent == agent);
        let waits = spools.iter().any(|spool| Some(spool.device) == device && spool.login != id && spool.waits);
        Ok((LoggedIn { account: after, device, knew_agent, waits }, answered(asking)))
    }

    fn send_change(
        &self,
        account: &BareJid,
        change: Change,
        ticket: Ticket,
        awaited: TaskWait,
    ) -> Result<(), StoreError> {
        let accepted = change.clone();
        let sent = self
            .shared
            .newest
            .accept(account, &accepted, |id| self.enqueue(self.change_task(account, change, ticket, awaited, id)));
        self.sent(sent)
    }

    fn change_task(&self, account: &BareJid, change: Change, ticket: Ticket, awaited: TaskWait, id: ChangeId) -> Task {
        let (account, revision) = (account.clone(), id.revision);
        let op = if change == Change::Removed {
            Op::Remove { account, up_to: self.shared.logins.highest(), revision, left: None }
        } else {
            Op::Change { account, change, revision }
        };
        let what = What::Write(op);
        Task { what, weight: 0, awaited, ticket, behalf: None, change: Some(id), is_second_try: false }
    }

    /// The accounts behind a name that [`AccountPage::next`] gave, or from the first, as of the last commit: at most
    /// `limit` records are looked at. Those that cannot be read are logged and passed over.
    ///
    /// # Errors
    /// [`StoreError::Database`]; [`StoreError::Closed`] if the runtime is shutting down.
    pub async fn accounts(&self, after: Option<String>, limit: usize) -> Result<AccountPage, StoreError> {
        let QueryAnswer::Accounts(page) = self.read(Query::Accounts { after, limit }).await? else {
            return Err(StoreError::Mistaken);
        };
        Ok(page)
    }

    /// The number of accounts that have a record, as of the last commit.
    ///
    /// # Errors
    /// As [`Store::accounts`].
    pub async fn account_count(&self) -> Result<u64, StoreError> {
        let QueryAnswer::Sizes { accounts, .. } = self.read(Query::Sizes).await? else {
            return Err(StoreError::Mistaken);
        };
        Ok(accounts)
    }
}

impl Store {
    /// Writes a session's tombstone and returns once it is on disk. `sm_id` is the resumption id that the session had.
    ///
    /// # Errors
    /// [`StoreError::Database`], and it may be there or not; [`StoreError::Closed`] after [`Store::shutdown`].
    pub async fn save_tombstone(&self, sm_id: &str, tombstone: Tombstone) -> Result<(), StoreError> {
        self.write(Op::SaveTombstone { sm_id: sm_id.to_owned(), tombstone }).await.map(drop)
    }

    /// As [`Store::save_tombstone`], unless the account was removed since the session's login: nothing is kept of it.
    ///
    /// # Errors
    /// As [`Store::save_tombstone`].
    pub async fn save_tombstone_of(&self, login: LoginId, sm_id: &str, tombstone: Tombstone) -> Result<(), StoreError> {
        let session = SpoolId { account: tombstone.account.clone(), login };
        let what = What::Write(Op::SaveTombstone { sm_id: sm_id.to_owned(), tombstone });
        match self.ask(what, 0, TaskWait::Commit, Some(session)).await {
            Ok(_) | Err(StoreError::AccountRemoved { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The tombstone of the session that had this resumption id. The caller compares the account.
    ///
    /// # Errors
    /// [`StoreError::Database`]; [`StoreError::Closed`] if the runtime is shutting down.
    pub async fn tombstone(&self, sm_id: &str) -> Result<Option<Tombstone>, StoreError> {
        let QueryAnswer::Tombstone(tombstone) = self.read(Query::Tombstone { sm_id: sm_id.to_owned() }).await? else {
            return Err(StoreError::Mistaken);
        };
        Ok(tombstone)
    }

    /// Notes that a device is to be woken, in place of an earlier note, and returns once that is on disk. A login of the
    /// device undoes it, as does the loss of its last registration.
    ///
    /// # Errors
    /// [`StoreError::Database`], and it may be noted or not; [`StoreError::Closed`] after [`Store::shutdown`].
    pub async fn wake(&self, slot: &Slot, wake: Wake) -> Result<(), StoreError> {
        self.write(Op::SaveWake { slot: slot.clone(), wake }).await.map(drop)
    }

    /// The devices that are to be woken. A note that cannot be read is replaced: the device is woken too.
    ///
    /// # Errors
    /// [`StoreError::Database`]; [`StoreError::Closed`] if the runtime is shutting down.
    pub async fn wakes(&self) -> Result<Vec<(Slot, Wake)>, StoreError> {
        let QueryAnswer::Wakes(noted) = self.read(Query::Wakes).await? else { return Err(StoreError::Mistaken) };
        let mut wakes = Vec::with_capacity(noted.len());
        for (slot, wake) in noted {
            let wake = match wake {
                Some(wake) => wake,
                None => self.replace_wake(&slot).await?,
            };
            wakes.push((slot, wake));
        }
        Ok(wakes)
    }

    /// Writes a note that cannot be read again, as far as its key says what it was.
    async fn replace_wake(&self, slot: &Slot) -> Result<Wake, StoreError> {
        let wake = Wake { since: clock::unix_secs(), reason: WakeReason::Restart };
        tracing::error!(account = %slot.account, "unreadable wake record replaced");
        self.wake(slot, wake).await?;
        Ok(wake)
    }

    /// Notes that a device needs not to be woken any more.
    ///
    /// # Errors
    /// As [`Store::wake`].
    pub async fn woken(&self, slot: &Slot) -> Result<(), StoreError> {
        self.write(Op::DeleteWake { slot: slot.clone() }).await.map(drop)
    }

    // Age, and a restart

    /// To be called once, before anybody logs in: the sessions that were open when the process ended are lost. Marks their
    /// devices so, notes those that own a registration to be woken, unless they are noted already, deletes empty spools, and
    /// returns the slots of all, in one transaction. Accounts that cannot be read are passed over.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Closed`].
    pub async fn recover(&self, now: UnixSecs) -> Result<Vec<Slot>, StoreError> {
        let Effect::Recovered(slots) = self.write_many(|revision| Op::Recover { now, revision }).await? else {
            return Err(StoreError::Mistaken);
        };
        Ok(slots)
    }

    /// Deletes what is too old at `now`, piece by piece; what waits for a device that is forgotten goes with
    /// it. Records that cannot be read are passed over.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Closed`]; what was deleted before stays deleted.
    pub async fn expire(&self, now: UnixSecs, ttl: Ttl) -> Result<Expired, StoreError> {
        self.expire_noting(now, ttl, |_, _| {}).await
    }

    /// The same. Calls back with each account that has changed.
    ///
    /// # Errors
    /// As [`Store::expire`].
    pub async fn expire_noting(
        &self,
        now: UnixSecs,
        ttl: Ttl,
        note: impl FnMut(&BareJid, &Account),
    ) -> Result<Expired, StoreError> {
        Ok(Expired {
            registrations: self.expire_registrations(now.minus(ttl.registration), note).await?,
            tombstones: self.expire_tombstones(now.minus(ttl.tombstone)).await?,
            stanzas: self.expire_stanzas(now.minus(ttl.orphan).to_millis()).await?,
        })
    }

    async fn expire_registrations(
        &self,
        before: UnixSecs,
        mut note: impl FnMut(&BareJid, &Account),
    ) -> Result<u64, StoreError> {
        let (mut from, mut count) = (Some(String::new()), 0u64);
        while let Some(after) = from {
            let QueryAnswer::Unseen(Piece { due, next }) = self.read(Query::Unseen { after, before }).await? else {
                return Err(StoreError::Mistaken);
            };
            from = next;
            if due.is_empty() {
                continue;
            }
            let forget = |revision| Op::Forget { accounts: due, before, revision };
            let Effect::Forgot(changed, gone) = self.write_many(forget).await? else {
                return Err(StoreError::Mistaken);
            };
            changed.iter().for_each(|(account, state)| note(account, state));
            count = count.saturating_add(gone);
        }
        Ok(count)
    }

    async fn expire_tombstones(&self, before: UnixSecs) -> Result<u64, StoreError> {
        let (mut from, mut count) = (Some(String::new()), 0u64);
        while let Some(after) = from {
            let QueryAnswer::OldTombstones(Piece { due, next }) =
                self.read(Query::OldTombstones { after, before }).await?
            else {
                return Err(StoreError::Mistaken);
            };
            from = next;
            if !due.is_empty() {
                count = count.saturating_add(self.expired(Op::ExpireTombstones { sm_ids: due, before }).await?);
            }
        }
        Ok(count)
    }

    async fn expire_stanzas(&self, before: UnixMillis) -> Result<u64, StoreError> {
        let (mut from, mut count) = (Some((String::new(), 0)), 0u64);
        while let Some(after) = from {
            let QueryAnswer::Away(Piece { due, next }) = self.read(Query::Away { after }).await? else {
                return Err(StoreError::Mistaken);
            };
            from = next;
            for spool in due {
                loop {
                    let gone = self.expired(Op::Expire { spool: spool.clone(), before }).await?;
                    count = count.saturating_add(gone);
                    if gone == 0 {
                        break;
                    }
                }
            }
        }
        Ok(count)
    }

    /// Has something written that changes many accounts.
    async fn write_many(&self, op: impl FnOnce(u64) -> Op) -> Result<Effect, StoreError> {
        let (ticket, asking) = Ticket::new();
        let sent = self.shared.newest.in_order(|revision| {
            let what = What::Write(op(revision));
            let (awaited, behalf) = (TaskWait::Commit, None);
            self.enqueue(Task { what, weight: 0, awaited, ticket, behalf, change: None, is_second_try: false })
        });
        self.sent(sent)?;
        self.wait(asking).await
    }

    async fn expired(&self, op: Op) -> Result<u64, StoreError> {
        let Effect::Expired(count) = self.write(op).await? else { return Err(StoreError::Mistaken) };
        Ok(count)
    }
}

fn changed(effect: Effect) -> Result<(Account, Option<DeviceId>), StoreError> {
    let Effect::Changed(account, device) = effect else { return Err(StoreError::Mistaken) };
    Ok((account, device))
}

/// Waits for the outcome of a change without end.
async fn answered(asking: Asking) -> Result<(Account, Option<DeviceId>), StoreError> {
    changed(asking.answered.await.map_err(|_| StoreError::Closed)??)
}
