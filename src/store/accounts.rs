//! The accounts: one byte of version, then JSON.

use std::ops::Bound;
use std::time::SystemTime;

use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, Table, TableDefinition};
use serde_json::error::Category;
use tokio::sync::oneshot;

use super::embedded::transaction::Batch;
use super::writer::{Job, Work};
use super::{Slot, Store, StoreError};
use crate::jid::BareJid;
use crate::push::account::{Account, Change, DeviceId, LoginId};

/// Bare JID → its [`Account`]. An account without devices and registrations has no record.
pub(super) const ACCOUNTS: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("accounts");

/// The version of the records that are written. A change of [`Account`] that serde cannot bridge needs a new one.
const VERSION: u8 = 2;
/// The version before, in which the ids of logins were random: they count as older than all that are given out now.
const RANDOM_LOGINS: u8 = 1;

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
    /// As [`Store::account`], and nothing was changed; except after [`StoreError::Database`], when that is unknown.
    /// [`StoreError::Closed`] after [`Store::shutdown`].
    pub async fn change(&self, account: &BareJid, change: Change) -> Result<(Account, Option<DeviceId>), StoreError> {
        let patiently = matches!(change, Change::Succeeded { .. } | Change::Resumable { .. });
        let (work, answered) = self.change_work(account, change);
        self.ask((if patiently { work.patiently() } else { work }, answered)).await
    }

    fn change_work(&self, account: &BareJid, change: Change) -> (Work, Answered) {
        let account = account.clone();
        if change != Change::Removed {
            return Work::new(0, move |batch| batch.change(&account, change));
        }
        let (up_to, mut removal) = (self.shared.logins.highest(), None);
        Work::in_pieces(move |batch| {
            let removal = match &mut removal {
                Some(removal) => removal,
                None => removal.insert(batch.remove_account(&account, up_to)?),
            };
            Ok(batch.clear_some_graves(&mut removal.graves)?.then(|| (removal.left.clone(), None)))
        })
    }

    /// As [`Store::change`] for what a session leaves behind, but returns as soon as the change is in order: all later changes of
    /// the account come behind it. Does not wait. What [`Store::change`] would return can be waited for.
    ///
    /// # Errors
    /// [`StoreError::Closed`] after [`Store::shutdown`]; the future's are those of [`Store::change`].
    pub fn change_behind(
        &self,
        account: &BareJid,
        change: Change,
    ) -> Result<impl Future<Output = Result<(Account, Option<DeviceId>), StoreError>> + use<>, StoreError> {
        let (work, answered) = self.change_work(account, change);
        self.send(Job::Work(work.patiently()))?;
        Ok(async move { answered.await.map_err(|_| StoreError::Closed)? })
    }

    /// Applies a login as [`Store::change`] does, and says whether anything waits for its device at that moment. All later changes come behind it, but it is not on disk yet and reads do not see it: a crash may forget it
    /// unless a later change was stored, and so may a commit that fails, which is logged.
    ///
    /// # Errors
    /// As [`Store::change`]. A spool that cannot be read is logged and counts as empty.
    pub async fn log_in(&self, account: &BareJid, login: Change) -> Result<LoggedIn, StoreError> {
        let account = account.clone();
        self.write_in_turn(move |batch| {
            let (agent, id) = if let Change::Login { agent, login, .. } = &login {
                (agent.clone(), *login)
            } else {
                (None, LoginId(0))
            };
            let knows = |known: Account| known.devices.iter().any(|device| device.agent == agent);
            let knew_agent = agent.is_some() && knows(load(&batch.accounts, &account)?);
            let (state, device) = batch.change(&account, login)?;
            let waits = match device {
                Some(device) => batch.waits(&Slot { account, device }, id)?,
                None => false,
            };
            Ok(LoggedIn { account: state, device, knew_agent, waits })
        })
        .await
    }
}

type Answered = oneshot::Receiver<Result<(Account, Option<DeviceId>), StoreError>>;

/// What [`Store::log_in`] found.
#[derive(Clone, Debug)]
pub struct LoggedIn {
    /// The account after the change.
    pub account: Account,
    /// As [`Store::change`] returns it.
    pub device: Option<DeviceId>,
    /// Whether a device with this user agent was known before.
    pub knew_agent: bool,
    /// Whether a spool of the device other than the session's own has stanzas.
    pub waits: bool,
}

/// Unix milliseconds now.
pub(super) fn unix_ms() -> u64 {
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
        let before = load(&self.accounts, account)?;
        let mut after = before.clone();
        let logs_in = if let Change::Login { login, .. } = &change { Some(*login) } else { None };
        let ended = if let Change::Ended { login } = &change { Some(*login) } else { None };
        let enabling = if let Change::Enable { registration, .. } = &change { Some(registration.device) } else { None };
        let device = after.apply(change);
        if let (Some(newcomer), Some(known)) = (enabling, device)
            && newcomer != known
        {
            let slot = |device| Slot { account: account.clone(), device };
            self.merge_slots(&slot(newcomer), &slot(known))?;
        }
        if let (Some(login), Some(device)) = (logs_in, device) {
            self.pending.entered(account, login);
            self.note_login(login)?;
            self.delete_wake(account, device)?;
        }
        if let Some(login) = ended {
            self.close_spool(account, login)?;
        }
        if before != after {
            // What is removed and comes again is newer than what it was.
            after.revision = unix_ms().max(before.revision.saturating_add(1));
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

    /// Deletes what is kept about an account and belongs to logins up to this one. The tombstones are left to the caller.
    fn remove_account(&mut self, account: &BareJid, up_to: LoginId) -> Result<Removal, StoreError> {
        let before = match load(&self.accounts, account) {
            Err(error @ StoreError::Database(_)) => return Err(error),
            other => other.ok(),
        };
        let had = self.accounts.get(account.as_str())?.is_some();
        // Somebody who logged in since belongs to a new account of that name.
        let mut left = Account::default();
        for mut device in before.iter().flat_map(|before| before.devices.clone()) {
            device.open.retain(|login| *login > up_to);
            if device.is_open() {
                left.devices.push(device);
            }
        }
        let revision = before.as_ref().map_or(0, |before| before.revision);
        self.differs |= before.is_none_or(|before| before != left) && had;
        let record = encode(account, &left)?;
        save(&mut self.accounts, account, record.as_deref())?;
        self.doom_account(account, up_to)?;
        self.delete_wakes(account, |device| left.device(device).is_none())?;
        self.removals.push((account.clone(), up_to));
        left.revision = unix_ms().max(revision.saturating_add(1));
        Ok(Removal { left, graves: self.graves(account)? })
    }
}

/// What an account's removal leaves to do.
struct Removal {
    left: Account,
    /// The tombstones that are still to be deleted.
    graves: Vec<String>,
}

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
    let parse = |json| serde_json::from_slice(json).map_err(|error| corrupt(account, &error, record.len()));
    match record.split_first() {
        Some((&VERSION, json)) => parse(json),
        Some((&RANDOM_LOGINS, json)) => parse(json).map(Account::with_old_logins),
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
