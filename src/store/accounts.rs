//! The calls of [`Store`] for accounts, devices, tombstones and wakes, for recovery after a restart and for expiry. Sessions
//! make them through `relay`; the upkeep task calls [`Store::recover`] and [`Store::expire`].

use std::collections::HashSet;
use std::sync::Arc;

use super::engine::Engine;
use super::engines::Engines;
use super::error::StoreError;
use super::lease::Lease;
use super::newest::ChangeId;
use super::op::{Effect, Op};
use super::ownership::{AccountOwnership, OwnedAccounts};
use super::postgres::Postgres;
use super::query::{Query, QueryAnswer};
use super::tasks::{PendingOutcome, Task, TaskKind, TaskWait, Ticket};
use super::values::{
    AccountPage, AccountScope, ChangedAccount, Expired, LoggedIn, Slot, SpoolId, Tombstone, Ttl, Wake, WakeReason,
};
use super::{NodeCalls, PostgresSettings, SpoolLimits, Store, ageing, claims};
use crate::clock::{self, UnixSecs};
use crate::jid::BareJid;
use crate::push::account::{Account, Change, DeviceId, LoginId};
use crate::sync::lock;

impl Store {
    /// Opens a database on PostgreSQL for this node: creates or updates its tables, and begins a new epoch, unless this process
    /// goes on with the sessions of the previous one. Blocks, for at most one lease after a crash.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::NewerSchema`], [`StoreError::NodeInUse`], [`StoreError::Moved`].
    pub fn open_postgres(settings: PostgresSettings, limits: SpoolLimits) -> Result<Self, StoreError> {
        let engine = Postgres::open(settings)?;
        let (handle, opening) = (engine.handle()?, engine.opening()?);
        let (owners, unused) = OwnedAccounts::new();
        let store = Self::begin(Engines::Postgres(Box::new(engine)), opening, limits, Some(owners))?;
        handle.spawn(claims::release_unused(claims::WeakStore::of(&store), unused));
        Ok(store)
    }

    /// Makes this node the owner of an account for as long as the returned value lives. Returns at once if it owns the account
    /// already, or if the database has one user.
    ///
    /// # Errors
    /// [`StoreError::Elsewhere`]: another living node owns it. [`StoreError::Fenced`], [`StoreError::NoAnswer`],
    /// [`StoreError::Unavailable`].
    pub async fn claim(&self, account: &BareJid) -> Result<AccountOwnership, StoreError> {
        claims::claim(self, account).await
    }

    /// Returns the calls about the nodes that share the database.
    pub fn cluster(&self) -> NodeCalls<'_> {
        NodeCalls(self)
    }

    /// Returns the lease of this node; `None` if the database has one user.
    pub fn lease(&self) -> Option<&Arc<Lease>> {
        self.shared.engine.lease()
    }

    /// Returns the record of an account as it is on disk, or the default if there is none.
    ///
    /// # Errors
    /// [`StoreError::UnknownVersion`], [`StoreError::Corrupt`], [`StoreError::Database`], [`StoreError::NoAnswer`];
    /// [`StoreError::Closed`] if the runtime is shutting down.
    pub async fn account(&self, account: &BareJid) -> Result<Account, StoreError> {
        let QueryAnswer::Account(account) = self.read(Query::Account { account: account.clone() }).await? else {
            return Err(StoreError::WrongAnswer);
        };
        Ok(account)
    }

    /// Returns an account after all changes accepted so far, including those that are not on disk yet.
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
    /// Records that depend on a device follow it. If the device turns out to be another known device, its spools and its wake
    /// move to that device; if the device is forgotten, they are deleted. A login and the loss of the last registration delete
    /// the wake. The end of a session deletes its spool if that is empty.
    ///
    /// [`Change::Removed`] deletes every record of the account that belongs to a login id given out before this call,
    /// including records that cannot be read. From then on the spool calls of those logins are refused with
    /// [`StoreError::AccountRemoved`]; a login that is entered again continues. No deleted stanza is read again, though it
    /// takes a while until all are gone from the disk.
    ///
    /// Not cancel safe: if the future is dropped while waiting, the change may or may not be applied.
    ///
    /// # Errors
    /// As [`Store::account`], and nothing was changed; after [`StoreError::Database`] and [`StoreError::NoAnswer`] it is
    /// unknown whether something was. [`StoreError::Closed`] after [`Store::shutdown`].
    pub async fn change(&self, account: &BareJid, change: Change) -> Result<(Account, Option<DeviceId>), StoreError> {
        let _owned = self.claim(account).await?;
        let patiently = matches!(change, Change::Succeeded { .. } | Change::Resumable { .. });
        let awaited = if patiently { TaskWait::Sometime } else { TaskWait::Commit };
        let (ticket, pending) = Ticket::new();
        self.send_change(account, change, ticket, awaited)?;
        changed(self.wait(pending).await?)
    }

    /// As [`Store::change`], for the changes that a session leaves behind, but returns without waiting, as soon as the change
    /// has its place in the order: all later changes of the account come after it. The returned future yields what
    /// [`Store::change`] would return and waits without a deadline.
    ///
    /// # Errors
    /// [`StoreError::Closed`] after [`Store::shutdown`]; the future's are those of [`Store::change`].
    pub fn submit_change(
        &self,
        account: &BareJid,
        change: Change,
    ) -> Result<impl Future<Output = Result<(Account, Option<DeviceId>), StoreError>> + use<>, StoreError> {
        Ok(self.submit_numbered(account, change)?.1)
    }

    /// As [`Store::submit_change`]. Also returns the revision of the change: a record with a lower one does not include it.
    ///
    /// # Errors
    /// As [`Store::submit_change`].
    pub fn submit_numbered(
        &self,
        account: &BareJid,
        change: Change,
    ) -> Result<(u64, impl Future<Output = ChangedAccount> + use<>), StoreError> {
        let owned = claims::owned(self, account)?;
        let (ticket, pending) = Ticket::without_end();
        let revision = self.send_change(account, change, ticket, TaskWait::Sometime)?;
        Ok((revision, answered(pending, owned)))
    }

    /// Applies a login as [`Store::change`] does, and returns what is known of its device at that moment. All later changes
    /// come after it. The login is not on disk yet and reads do not see it. It may be lost in a crash, unless a later change
    /// was stored, or by a failed commit, which is logged.
    ///
    /// # Errors
    /// As [`Store::change`]. A spool that cannot be read is logged and counts as empty.
    pub async fn log_in(&self, account: &BareJid, login: Change) -> Result<LoggedIn, StoreError> {
        Ok(self.log_in_knowing(account, None, login).await?.0)
    }

    /// As [`Store::log_in`], for an account of which the caller may know a newer state than the disk has. Also returns the
    /// future that [`Store::submit_change`] returns.
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
        let ownership = self.claim(account).await?;
        let reader = self.shared.newest.read(account);
        let hidden = self.shared.deletions.of_account(account);
        let query = Query::Spools { account: account.clone(), hidden };
        // No deadline here: the caller limits how long a login waits.
        let QueryAnswer::Spools { account: read, spools } = self.shared.engine.read(query).await? else {
            return Err(StoreError::WrongAnswer);
        };
        let newest = known.filter(|known| read.as_ref().is_ok_and(|read| read.revision < known.revision));
        let read = newest.map_or(read, |newest| Ok((*newest).clone()))?;
        let (ticket, pending) = Ticket::without_end();
        let (before, after, device, sent) = reader.accept(read, &login, |id| {
            self.enqueue(self.change_task(account, login.clone(), ticket, TaskWait::Sometime, id))
        });
        self.sent(sent)?;
        let knew_agent = agent.is_some() && before.devices.iter().any(|device| device.agent == agent);
        let waits = spools.iter().any(|spool| Some(spool.device) == device && spool.login != id && spool.waits);
        let stored = answered(pending, ownership.clone());
        Ok((LoggedIn { account: after, device, knew_agent, waits, ownership }, stored))
    }

    fn send_change(
        &self,
        account: &BareJid,
        change: Change,
        ticket: Ticket,
        awaited: TaskWait,
    ) -> Result<u64, StoreError> {
        let accepted = change.clone();
        let (revision, sent) = self.shared.newest.accept(account, &accepted, |id| {
            (id.revision, self.enqueue(self.change_task(account, change, ticket, awaited, id)))
        });
        self.sent(sent).map(|()| revision)
    }

    fn change_task(&self, account: &BareJid, change: Change, ticket: Ticket, awaited: TaskWait, id: ChangeId) -> Task {
        let (account, revision) = (account.clone(), id.revision);
        let op = if change == Change::Removed {
            Op::Remove { account, up_to: self.shared.logins.highest(), revision, left: None }
        } else {
            Op::Change { account, change, revision }
        };
        let kind = TaskKind::Write(op);
        Task { kind, weight: 0, awaited, ticket, behalf: None, change: Some(id), is_second_try: false }
    }

    /// Returns accounts as of the last commit, from the first one or after a name that [`AccountPage::next`] gave. Reads at
    /// most `limit` records. Those that cannot be read are logged and skipped.
    ///
    /// # Errors
    /// [`StoreError::Database`]; [`StoreError::Closed`] if the runtime is shutting down.
    pub async fn accounts(&self, after: Option<String>, limit: usize) -> Result<AccountPage, StoreError> {
        self.accounts_of(AccountScope::All, after, limit).await
    }

    /// As [`Store::accounts`], for some of the accounts.
    ///
    /// # Errors
    /// As [`Store::accounts`].
    pub async fn accounts_of(
        &self,
        scope: AccountScope,
        after: Option<String>,
        limit: usize,
    ) -> Result<AccountPage, StoreError> {
        let QueryAnswer::Accounts(page) = self.read(Query::Accounts { scope, after, limit }).await? else {
            return Err(StoreError::WrongAnswer);
        };
        Ok(page)
    }

    /// Returns the number of accounts that have a record, as of the last commit.
    ///
    /// # Errors
    /// As [`Store::accounts`].
    pub async fn account_count(&self) -> Result<u64, StoreError> {
        let QueryAnswer::Sizes { accounts, .. } = self.read(Query::Sizes).await? else {
            return Err(StoreError::WrongAnswer);
        };
        Ok(accounts)
    }
}

impl Store {
    /// Writes a session's tombstone and returns once it is on disk. `sm_id` is the resumption id that the session had.
    ///
    /// # Errors
    /// [`StoreError::Database`]: the tombstone may or may not be stored. [`StoreError::Closed`] after [`Store::shutdown`].
    pub async fn save_tombstone(&self, sm_id: &str, tombstone: Tombstone) -> Result<(), StoreError> {
        self.write(Op::SaveTombstone { sm_id: sm_id.to_owned(), tombstone }).await.map(drop)
    }

    /// As [`Store::save_tombstone`], but stores nothing if the account was removed after the session's login.
    ///
    /// # Errors
    /// As [`Store::save_tombstone`].
    pub async fn save_tombstone_of(&self, login: LoginId, sm_id: &str, tombstone: Tombstone) -> Result<(), StoreError> {
        let session = SpoolId { account: tombstone.account.clone(), login };
        let kind = TaskKind::Write(Op::SaveTombstone { sm_id: sm_id.to_owned(), tombstone });
        match self.ask(kind, 0, TaskWait::Commit, Some(session)).await {
            Ok(_) | Err(StoreError::AccountRemoved { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Returns the tombstone of the session that had this resumption id. The caller compares the account.
    ///
    /// # Errors
    /// [`StoreError::Database`]; [`StoreError::Closed`] if the runtime is shutting down.
    pub async fn tombstone(&self, sm_id: &str) -> Result<Option<Tombstone>, StoreError> {
        let QueryAnswer::Tombstone(tombstone) = self.read(Query::Tombstone { sm_id: sm_id.to_owned() }).await? else {
            return Err(StoreError::WrongAnswer);
        };
        Ok(tombstone)
    }

    /// Saves a note that a device is to be woken, replacing an earlier note, and returns once it is on disk. A login of the
    /// device and the loss of its last registration delete the note.
    ///
    /// # Errors
    /// [`StoreError::Database`]: the note may or may not be stored. [`StoreError::Closed`] after [`Store::shutdown`].
    pub async fn wake(&self, slot: &Slot, wake: Wake) -> Result<(), StoreError> {
        let _owned = self.claim(&slot.account).await?;
        self.write(Op::SaveWake { slot: slot.clone(), wake }).await.map(drop)
    }

    /// Returns the devices that are to be woken. A note that cannot be read is replaced, so its device is woken too.
    ///
    /// # Errors
    /// [`StoreError::Database`]; [`StoreError::Closed`] if the runtime is shutting down.
    pub async fn wakes(&self) -> Result<Vec<(Slot, Wake)>, StoreError> {
        let QueryAnswer::Wakes(noted) = self.read(Query::Wakes).await? else { return Err(StoreError::WrongAnswer) };
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

    /// Rewrites an unreadable note. The key says which device it is for; the time and the reason are lost.
    async fn replace_wake(&self, slot: &Slot) -> Result<Wake, StoreError> {
        let wake = Wake { since: clock::unix_secs(), reason: WakeReason::Restart };
        tracing::error!(account = %slot.account, "unreadable wake record replaced");
        self.wake(slot, wake).await?;
        Ok(wake)
    }

    /// Deletes the note that a device is to be woken.
    ///
    /// # Errors
    /// As [`Store::wake`].
    pub async fn woken(&self, slot: &Slot) -> Result<(), StoreError> {
        let _owned = self.claim(&slot.account).await?;
        self.write(Op::DeleteWake { slot: slot.clone() }).await.map(drop)
    }

    // Age, and a restart

    /// Handles the sessions that were open when the previous process ended: they are lost, except for those of the logins
    /// that were `kept`. Marks their devices as closed, saves a wake for those that own a registration and have none yet,
    /// deletes empty spools, removes the number of the handover, and returns the slots of all these devices, in one
    /// transaction. Accounts that cannot be read are skipped. Call it once, before any login.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Closed`].
    pub async fn recover(&self, now: UnixSecs, kept: Arc<HashSet<LoginId>>) -> Result<Vec<Slot>, StoreError> {
        *lock(&self.shared.kept) = Arc::clone(&kept);
        let recover = |revision| {
            let (kept, found) = (Arc::clone(&kept), Vec::new());
            Op::Recover { now, revision, kept, after: Some(0), found }
        };
        let Effect::Recovered(slots) = self.write_many(recover).await? else {
            return Err(StoreError::WrongAnswer);
        };
        Ok(slots)
    }

    /// Deletes records that are too old at `now`, in pieces. A device that is forgotten takes its waiting stanzas with it.
    /// Records that cannot be read are skipped.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Closed`]. Pieces deleted before the error stay deleted.
    pub async fn expire(&self, now: UnixSecs, ttl: Ttl) -> Result<Expired, StoreError> {
        self.expire_noting(now, ttl, |_, _| {}).await
    }

    /// As [`Store::expire`], and calls `note` with each account that has changed.
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
            registrations: ageing::expire_registrations(self, now.minus(ttl.registration), note).await?,
            tombstones: ageing::expire_tombstones(self, now.minus(ttl.tombstone)).await?,
            stanzas: ageing::expire_stanzas(self, now.minus(ttl.orphan).to_millis()).await?,
        })
    }

    /// Sends a write that changes many accounts and waits for its outcome.
    pub(super) async fn write_many(&self, op: impl FnOnce(u64) -> Op) -> Result<Effect, StoreError> {
        let (ticket, pending) = Ticket::new();
        let sent = self.shared.newest.in_order(|revision| {
            let kind = TaskKind::Write(op(revision));
            let (awaited, behalf) = (TaskWait::Commit, None);
            self.enqueue(Task { kind, weight: 0, awaited, ticket, behalf, change: None, is_second_try: false })
        });
        self.sent(sent)?;
        self.wait(pending).await
    }
}

fn changed(effect: Effect) -> Result<(Account, Option<DeviceId>), StoreError> {
    let Effect::Changed(account, device) = effect else { return Err(StoreError::WrongAnswer) };
    Ok((account, device))
}

/// Waits for the outcome of a change, without a deadline. Keeps the account until then.
async fn answered(pending: PendingOutcome, _owned: AccountOwnership) -> ChangedAccount {
    changed(pending.answered.await.map_err(|_| StoreError::Closed)??)
}
