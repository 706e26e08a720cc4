//! Opening of a database: creates missing tables, converts older versions, and counts.

use std::num::NonZeroU64;

use redb::{Database, ReadableDatabase, ReadableTable, TableHandle};

use super::{accounts, convert_version_1, spools};
use crate::jid::BareJid;
use crate::push::account::LoginId;
use crate::secret::Secret;
use crate::seq::Seq;
use crate::store::engine::OpeningState;
use crate::store::error::StoreError;
use crate::store::schema::{
    ACCOUNT_TOMBSTONES, ACCOUNTS, DOOMED, META, OLD_SLOTS, OLD_SPOOL, Row, SPOOLS, STANZAS, TOMBSTONES, VERSION, WAKES,
    decode_account, key,
};
use crate::store::values::SpoolId;

/// Creates missing tables and converts what an older version wrote.
///
/// # Errors
/// [`StoreError::NewerSchema`], [`StoreError::Database`].
pub(super) fn prepare(database: &Database) -> Result<(), StoreError> {
    let transaction = database.begin_read()?;
    let there: Vec<_> = transaction.list_tables()?.map(|table| table.name().to_owned()).collect();
    let has = |name: &str| there.iter().any(|known| known == name);
    let version = match has(META.name()) {
        true => accounts::number(&transaction.open_table(META)?, key::SCHEMA)?,
        false => None,
    };
    let has_key = match has(META.name()) {
        true => resource_key(&transaction.open_table(META)?)?.is_some(),
        false => false,
    };
    drop(transaction);
    if let Some(version) = version.filter(|version| *version > VERSION) {
        return Err(StoreError::NewerSchema { version });
    }
    let all =
        [ACCOUNTS.name(), SPOOLS.name(), STANZAS.name(), DOOMED.name(), TOMBSTONES.name(), ACCOUNT_TOMBSTONES.name()];
    if version != Some(VERSION) || !has_key || !all.into_iter().chain([WAKES.name()]).all(has) {
        create(database)?;
    }
    if [OLD_SLOTS.name(), OLD_SPOOL.name()].into_iter().any(has) {
        convert_version_1::convert(database)?;
    }
    Ok(())
}

/// Creates the tables. Nothing else is needed to convert version 2: its rows have counts, as rows of this version may.
fn create(database: &Database) -> Result<(), StoreError> {
    let transaction = database.begin_write()?;
    transaction.open_table(SPOOLS)?;
    transaction.open_table(STANZAS)?;
    transaction.open_table(DOOMED)?;
    transaction.open_table(TOMBSTONES)?;
    transaction.open_table(ACCOUNT_TOMBSTONES)?;
    transaction.open_table(WAKES)?;
    {
        let accounts = transaction.open_table(ACCOUNTS)?;
        let mut meta = transaction.open_table(META)?;
        if accounts::number(&meta, key::REVISION)?.is_none() {
            accounts::raise(&mut meta, key::REVISION, highest_revision(&accounts)?)?;
        }
        if resource_key(&meta)?.is_none() {
            for half in key::RESOURCES {
                meta.insert(half, rand::random::<u64>())?;
            }
        }
        meta.insert(key::SCHEMA, VERSION)?;
    }
    transaction.commit()?;
    Ok(())
}

/// Returns the key from which resources are made.
fn resource_key(meta: &impl ReadableTable<&'static str, u64>) -> Result<Option<u128>, StoreError> {
    let [high, low] = key::RESOURCES;
    let halves = accounts::number(meta, high)?.zip(accounts::number(meta, low)?);
    Ok(halves.map(|(high, low)| u128::from(high) << 64 | u128::from(low)))
}

fn highest_revision(accounts: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<u64, StoreError> {
    let mut highest = 0;
    for entry in accounts.iter()? {
        let (key, record) = entry?;
        let Ok(account) = BareJid::new(key.value()) else { continue };
        highest = decode_account(&account, record.value()).map_or(highest, |state| highest.max(state.revision));
    }
    Ok(highest)
}

/// Returns what the database holds. If the row of a spool has no count, as after a crash, its stanzas are counted.
pub(super) fn opening(database: &Database) -> Result<OpeningState, StoreError> {
    let transaction = database.begin_read()?;
    let meta = transaction.open_table(META)?;
    let number = |name| accounts::number(&meta, name).map(Option::unwrap_or_default);
    let resource_key = Secret::new(resource_key(&meta)?.unwrap_or_default());
    let handover = NonZeroU64::new(number(key::HANDOVER)?);
    let (mut login, revision) = (LoginId(number(key::LOGIN)?), number(key::REVISION)?);
    let (stanzas, doomed) = (transaction.open_table(STANZAS)?, transaction.open_table(DOOMED)?);
    let (mut counts, mut not_counted) = (Vec::new(), Vec::new());
    for entry in transaction.open_table(SPOOLS)?.iter()? {
        let (key, record) = entry?;
        let (account, name) = key.value();
        let Ok(account) = BareJid::new(account) else { continue };
        let spool = SpoolId { account, login: LoginId(name) };
        let row = Row::decode(&spool.account, record.value()).map_err(|error| {
            tracing::error!(%error, "cannot read spool record");
        });
        if let Ok(row) = row {
            // A login that names a spool was used, even if the `meta` table says otherwise.
            login = login.max(spool.login).max(row.owner);
        }
        let count = match row.ok().and_then(|row| row.count) {
            Some(count) => count,
            None => {
                let up_to = doomed.get(spool.key())?.map_or(Seq::ZERO, |up_to| Seq::new(up_to.value()));
                not_counted.push(spool.clone());
                spools::count(&stanzas, &spool, up_to)?
            }
        };
        counts.push((spool, count));
    }
    Ok(OpeningState { login, revision, handover, resource_key, counts, not_counted })
}
