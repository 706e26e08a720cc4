//! The accounts: one byte of version, then JSON.

use std::ops::Bound;
use std::time::SystemTime;

use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, Table, TableDefinition};
use serde_json::error::Category;

use super::batch::Batch;
use super::writer::{Job, Work};
use super::{Backlog, Slot, Store, StoreError, row};
use crate::jid::BareJid;
use crate::push::account::{Account, Change, DeviceId};

/// Bare JID → its [`Account`]. An account without devices and registrations has no record.
pub(super) const ACCOUNTS: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("accounts");

/// The version of the records that are written. A change of [`Account`] that serde cannot bridge needs a new one.
const VERSION: u8 = 1;

impl Store {
    /// What is kept about an account, as it is on disk; the default if nothing is.
    ///
    /// # Errors
    /// [`StoreError::UnknownVersion`], [`StoreError::Corrupt`], [`StoreError::Database`]; [`StoreError::Closed`] if the
    /// runtime is shutting down.
    pub async fn account(&self, account: &BareJid) -> Result<Account, StoreError> {
        let account = account.clone();
        self.read(move |transaction| read(transaction, &account)).await
    }

    /// What is kept about an account after all changes up to now, be they on disk or not.
    ///
    /// # Errors
    /// As [`Store::account`]; [`StoreError::Closed`] after [`Store::shutdown`].
    pub async fn account_now(&self, account: &BareJid) -> Result<Account, StoreError> {
        let account = account.clone();
        self.write_in_turn(move |batch| load(&batch.accounts, &account)).await
    }

    /// Changes an account and returns it once the change is on disk, with what [`Account::apply`] returned. Changes of an
    /// account are applied in the order of the calls. A change that makes no difference costs no sync.
    ///
    /// What depends on a device goes with it: if the device turns out to be another, its spool and its wake become the
    /// other's, each `seq` raised by the other's [`Backlog::last_seq`](super::Backlog::last_seq); if it is forgotten, they
    /// are deleted. A login and the loss of the last registration delete the wake. [`Change::Removed`] deletes every
    /// record of the account, even those that cannot be read.
    ///
    /// Not cancel safe: dropped while waiting, the change may be applied or not.
    ///
    /// # Errors
    /// As [`Store::account`], and nothing was changed; except after [`StoreError::Database`], when that is unknown.
    /// [`StoreError::Closed`] after [`Store::shutdown`].
    pub async fn change(&self, account: &BareJid, change: Change) -> Result<(Account, Option<DeviceId>), StoreError> {
        let account = account.clone();
        if matches!(change, Change::Succeeded { .. } | Change::Resumable { .. }) {
            return self.write_patiently(0, move |batch| batch.change(&account, change)).await;
        }
        self.write(0, move |batch| batch.change(&account, change)).await
    }

    /// As [`Store::change`] for what a session leaves behind, but returns once the change is in order: all later changes of the
    /// account come behind it. What [`Store::change`] would return can be waited for.
    ///
    /// # Errors
    /// [`StoreError::Closed`] after [`Store::shutdown`]; the future's are those of [`Store::change`].
    pub async fn change_behind(
        &self,
        account: &BareJid,
        change: Change,
    ) -> Result<impl Future<Output = Result<(Account, Option<DeviceId>), StoreError>> + use<>, StoreError> {
        let account = account.clone();
        let (work, answered) = Work::new(0, move |batch| batch.change(&account, change));
        self.jobs.send(Job::Work(work.patiently())).await.map_err(|_| StoreError::Closed)?;
        Ok(async move { answered.await.map_err(|_| StoreError::Closed)? })
    }

    /// Applies a login as [`Store::change`] does, and says what waits for its device, as [`Store::backlog`] would at that
    /// moment. All later changes come behind it, but it is not on disk yet and reads do not see it: a crash may forget it
    /// unless a later change was stored, and so may a commit that fails, which is logged.
    ///
    /// # Errors
    /// As [`Store::change`]; and what cannot be counted alone, which leaves the login in force.
    pub async fn log_in(&self, account: &BareJid, login: Change) -> Result<LoggedIn, StoreError> {
        let account = account.clone();
        self.write_in_turn(move |batch| {
            let agent = if let Change::Login { agent, .. } = &login { agent.clone() } else { None };
            let knows = |known: Account| known.devices.iter().any(|device| device.agent == agent);
            let knew_agent = agent.is_some() && knows(load(&batch.accounts, &account)?);
            let (state, device) = batch.change(&account, login)?;
            let backlog = match device {
                Some(device) => row::load(&batch.slots, &Slot { account, device }).map(|row| row.backlog),
                None => Ok(Backlog::default()),
            };
            if let Err(error @ StoreError::Database(_)) = backlog {
                return Err(error);
            }
            Ok(LoggedIn { account: state, device, knew_agent, backlog })
        })
        .await
    }
}

/// What [`Store::log_in`] found.
#[derive(Clone, Debug)]
pub struct LoggedIn {
    /// The account after the change.
    pub account: Account,
    /// As [`Store::change`] returns it.
    pub device: Option<DeviceId>,
    /// Whether a device with this user agent was known before.
    pub knew_agent: bool,
    /// What waits for the device.
    pub backlog: Result<Backlog, StoreError>,
}

/// Unix milliseconds now.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Some of the accounts, in the order of their names.
#[derive(Clone, Debug, Default)]
pub struct AccountPage {
    /// The accounts.
    pub accounts: Vec<(BareJid, Account)>,
    /// Where the next page begins: behind this name; `None` if this is the last.
    pub next: Option<String>,
}

impl Store {
    /// The accounts behind a name that [`AccountPage::next`] gave, or from the first, as of the last commit: at most
    /// `limit` records are looked at. Those that cannot be read are logged and passed over.
    ///
    /// # Errors
    /// [`StoreError::Database`]; [`StoreError::Closed`] if the runtime is shutting down.
    pub async fn accounts(&self, after: Option<String>, limit: usize) -> Result<AccountPage, StoreError> {
        self.read(move |transaction| page(transaction, after.as_deref(), limit)).await
    }

    /// How many accounts have a record, as of the last commit.
    ///
    /// # Errors
    /// As [`Store::accounts`].
    pub async fn account_count(&self) -> Result<u64, StoreError> {
        self.read(|transaction| Ok(transaction.open_table(ACCOUNTS)?.len()?)).await
    }
}

/// Some of the accounts, as [`Store::accounts`] gives them.
pub(super) fn page(
    transaction: &ReadTransaction,
    after: Option<&str>,
    limit: usize,
) -> Result<AccountPage, StoreError> {
    let table = transaction.open_table(ACCOUNTS)?;
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut page = AccountPage::default();
    for (n, entry) in table.range::<&str>((from, Bound::Unbounded))?.take(limit.max(1)).enumerate() {
        let (key, record) = entry?;
        if n + 1 == limit.max(1) {
            page.next = Some(key.value().to_owned());
        }
        let Ok(account) = BareJid::new(key.value()) else { continue };
        match decode(&account, record.value()) {
            Ok(state) => page.accounts.push((account, state)),
            Err(error) => tracing::error!(%error, "passed over"),
        }
    }
    Ok(page)
}

impl Batch<'_> {
    fn change(&mut self, account: &BareJid, change: Change) -> Result<(Account, Option<DeviceId>), StoreError> {
        if change == Change::Removed {
            self.remove_account(account)?;
            return Ok((Account { revision: unix_ms(), ..Account::default() }, None));
        }
        let before = load(&self.accounts, account)?;
        let mut after = before.clone();
        let logs_in = matches!(change, Change::Login { .. });
        let enabling = if let Change::Enable { registration, .. } = &change { Some(registration.device) } else { None };
        let device = after.apply(change);
        if let (Some(newcomer), Some(known)) = (enabling, device)
            && newcomer != known
        {
            let slot = |device| Slot { account: account.clone(), device };
            self.merge_slots(&slot(newcomer), &slot(known))?;
        }
        if let (true, Some(device)) = (logs_in, device) {
            self.delete_wake(account, device)?;
        }
        if before != after {
            // What is removed and comes again is newer than what it was.
            after.revision = unix_ms().max(before.revision + 1);
        }
        self.replace(account, &before, &after)?;
        Ok((after, device))
    }

    /// Stores an account and deletes what depended on that which it has no more.
    pub(super) fn replace(&mut self, account: &BareJid, before: &Account, after: &Account) -> Result<(), StoreError> {
        if before == after {
            return Ok(());
        }
        let record = encode(account, after)?;
        for device in before.devices.iter().map(|device| device.id).filter(|id| after.device(*id).is_none()) {
            self.delete_slot(&Slot { account: account.clone(), device })?;
        }
        for device in before.registrations.iter().map(|r| r.device).filter(|id| after.owned(*id).next().is_none()) {
            self.delete_wake(account, device)?;
        }
        self.differs = true;
        save(&mut self.accounts, account, record.as_deref())
    }

    fn remove_account(&mut self, account: &BareJid) -> Result<(), StoreError> {
        self.differs |= self.accounts.remove(account.as_str())?.is_some();
        self.delete_slots(account)?;
        self.delete_tombstones(account)?;
        self.delete_wakes(account)
    }
}

/// What came of reading an account.
pub(super) type Loaded = Result<Account, StoreError>;

/// An account as of the last commit.
pub(super) fn read(transaction: &ReadTransaction, account: &BareJid) -> Result<Account, StoreError> {
    load(&transaction.open_table(ACCOUNTS)?, account)
}

/// An account in an open table.
pub(super) fn load(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    account: &BareJid,
) -> Result<Account, StoreError> {
    match table.get(account.as_str())? {
        Some(record) => decode(account, record.value()),
        None => Ok(Account::default()),
    }
}

fn save(
    table: &mut Table<'_, &'static str, &'static [u8]>,
    account: &BareJid,
    record: Option<&[u8]>,
) -> Result<(), StoreError> {
    match record {
        Some(record) => table.insert(account.as_str(), record)?,
        None => table.remove(account.as_str())?,
    };
    Ok(())
}

/// The record of an account, if it has one.
fn encode(account: &BareJid, state: &Account) -> Result<Option<Vec<u8>>, StoreError> {
    if *state == Account::default() {
        return Ok(None);
    }
    let mut record = vec![VERSION];
    match serde_json::to_writer(&mut record, state) {
        Ok(()) => Ok(Some(record)),
        Err(error) => Err(corrupt(account, &error, record.len())),
    }
}

/// The account in a record.
pub(super) fn decode(account: &BareJid, record: &[u8]) -> Result<Account, StoreError> {
    match record.split_first() {
        Some((&VERSION, json)) => serde_json::from_slice(json).map_err(|error| corrupt(account, &error, record.len())),
        Some((&version, _)) => Err(StoreError::UnknownVersion { account: account.clone(), version }),
        None => Err(StoreError::Corrupt { account: account.clone(), reason: "empty record", at: 0, len: 0 }),
    }
}

/// serde's own message may quote values, which are secrets.
fn corrupt(account: &BareJid, error: &serde_json::Error, len: usize) -> StoreError {
    let reason = match error.classify() {
        Category::Io => "unwritable",
        Category::Syntax => "not JSON",
        Category::Data => "not an account",
        Category::Eof => "cut short",
    };
    StoreError::Corrupt { account: account.clone(), reason, at: error.column(), len }
}
