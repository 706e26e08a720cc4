//! The tables of the accounts and of the numbers that the database keeps ([`META`]).

use std::num::NonZeroU64;

use redb::{ReadableTable, Table, WriteTransaction};

use crate::jid::BareJid;
use crate::push::account::{Account, LoginId};
use crate::store::error::StoreError;
use crate::store::schema::{ACCOUNTS, META, decode_account, encode_account, key};

/// The accounts, in one transaction.
pub(super) struct AccountRows<'t> {
    records: Table<'t, &'static str, &'static [u8]>,
    meta: Table<'t, &'static str, u64>,
    differs: bool,
}

impl<'t> AccountRows<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, StoreError> {
        let (records, meta) = (transaction.open_table(ACCOUNTS)?, transaction.open_table(META)?);
        Ok(Self { records, meta, differs: false })
    }

    /// Returns whether there is anything to commit.
    pub(super) fn differs(&self) -> bool {
        self.differs
    }

    pub(super) fn load(&self, account: &BareJid) -> Result<Account, StoreError> {
        load(&self.records, account)
    }

    /// As [`AccountRows::load`], but returns `None` if the record cannot be read.
    pub(super) fn load_if_readable(&self, account: &BareJid) -> Result<Option<Account>, StoreError> {
        match self.load(account) {
            Err(error) if error.is_of_one_record() => Ok(None),
            loaded => loaded.map(Some),
        }
    }

    /// Stores an account, or deletes its record if there is nothing to keep.
    pub(super) fn save(&mut self, account: &BareJid, state: &Account) -> Result<(), StoreError> {
        match encode_account(account, state)? {
            Some(record) => {
                self.records.insert(account.as_str(), record.as_slice())?;
                raise(&mut self.meta, key::REVISION, state.revision)?;
                self.differs = true;
            }
            None => self.differs |= self.records.remove(account.as_str())?.is_some(),
        }
        Ok(())
    }

    /// Returns the accounts for which `has` holds. Those that cannot be read are logged and skipped.
    pub(super) fn find(&self, has: impl Fn(&Account) -> bool) -> Result<Vec<(BareJid, Account)>, StoreError> {
        let mut found = Vec::new();
        for entry in self.records.iter()? {
            let (key, record) = entry?;
            let Ok(account) = BareJid::new(key.value()) else { continue };
            match decode_account(&account, record.value()) {
                Ok(state) if has(&state) => found.push((account, state)),
                Ok(_) => {}
                Err(error) => tracing::error!(%error, "unreadable record skipped"),
            }
        }
        Ok(found)
    }

    /// Stores or removes the number of the handover that was begun.
    pub(super) fn set_handover(&mut self, number: Option<NonZeroU64>) -> Result<(), StoreError> {
        let differs = match number {
            Some(number) => {
                self.meta.insert(key::HANDOVER, number.get())?.is_none_or(|old| old.value() != number.get())
            }
            None => self.meta.remove(key::HANDOVER)?.is_some(),
        };
        self.differs |= differs;
        Ok(())
    }

    /// Raises the highest login that was used to this one.
    pub(super) fn note_login(&mut self, login: LoginId) -> Result<(), StoreError> {
        raise(&mut self.meta, key::LOGIN, login.0)
    }
}

/// Reads an account from an open table.
pub(super) fn load(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    account: &BareJid,
) -> Result<Account, StoreError> {
    match table.get(account.as_str())? {
        Some(record) => decode_account(account, record.value()),
        None => Ok(Account::default()),
    }
}

/// Reads a number from [`META`].
pub(super) fn number(
    meta: &impl ReadableTable<&'static str, u64>,
    name: &'static str,
) -> Result<Option<u64>, StoreError> {
    Ok(meta.get(name)?.map(|number| number.value()))
}

/// Stores a number if it is higher than the stored one.
pub(super) fn raise(meta: &mut Table<'_, &'static str, u64>, name: &'static str, to: u64) -> Result<(), StoreError> {
    if number(meta, name)?.is_none_or(|known| known < to) {
        meta.insert(name, to)?;
    }
    Ok(())
}
