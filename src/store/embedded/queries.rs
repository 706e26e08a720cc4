//! Answers to reads ([`Query`]), as of the last commit.

use std::collections::HashMap;
use std::ops::{Bound, ControlFlow};

use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata};

use super::{accounts, ageing, spools, wakes};
use crate::jid::BareJid;
use crate::push::account::LoginId;
use crate::seq::Seq;
use crate::session::queue::Spooled;
use crate::store::deletions::HiddenRanges;
use crate::store::error::StoreError;
use crate::store::op::Unreadable;
use crate::store::query::{HeldContents, Query, QueryAnswer};
use crate::store::schema::{ACCOUNTS, DOOMED, Row, SPOOLS, STANZAS, TOMBSTONES, WAKES, decode_account};
use crate::store::values::{AccountPage, SpoolId, Tombstone};

pub(super) fn answer(transaction: &ReadTransaction, query: Query) -> Result<QueryAnswer, StoreError> {
    Ok(match query {
        Query::Account { account } => {
            QueryAnswer::Account(accounts::load(&transaction.open_table(ACCOUNTS)?, &account)?)
        }
        Query::Accounts { after, limit, .. } => QueryAnswer::Accounts(page(transaction, after.as_deref(), limit)?),
        Query::Sizes => QueryAnswer::Sizes {
            accounts: transaction.open_table(ACCOUNTS)?.len()?,
            wakes: transaction.open_table(WAKES)?.len()?,
        },
        Query::Spools { account, hidden } => {
            let spools = of_account(transaction, &account, &hidden)?;
            let account = match accounts::load(&transaction.open_table(ACCOUNTS)?, &account) {
                Err(error @ StoreError::Database(_)) => return Err(error),
                loaded => loaded,
            };
            QueryAnswer::Spools { account, spools }
        }
        Query::Devices => {
            let mut devices = Vec::new();
            each_row(transaction, |spool, row| devices.push((spool, row.device)))?;
            QueryAnswer::Devices(devices)
        }
        Query::Count { spool } => {
            let doomed = doomed(transaction, &spool)?;
            QueryAnswer::Count(spools::count(&transaction.open_table(STANZAS)?, &spool, doomed)?)
        }
        Query::Stanzas { spool, hidden, after, weight } => {
            let (items, unreadable) = stanzas(transaction, &spool, &hidden, after, weight)?;
            QueryAnswer::Stanzas(items, unreadable)
        }
        Query::Tombstone { sm_id } => {
            let record = transaction.open_table(TOMBSTONES)?.get(sm_id.as_str())?;
            QueryAnswer::Tombstone(record.and_then(|record| Tombstone::decode(record.value())))
        }
        Query::Wakes => QueryAnswer::Wakes(wakes::all(transaction)?),
        Query::Unseen { after, before } => QueryAnswer::Unseen(ageing::unseen(transaction, &after, before)?),
        Query::OldTombstones { after, before } => {
            QueryAnswer::OldTombstones(ageing::old_tombstones(transaction, &after, before)?)
        }
        Query::Wake { slot } => {
            QueryAnswer::Wakes(wakes::all(transaction)?.into_iter().filter(|(noted, _)| *noted == slot).collect())
        }
        // Nobody else is there.
        Query::Owner { .. } | Query::ComponentHolder { .. } | Query::Nodes { .. } => QueryAnswer::Nodes(Vec::new()),
        Query::Away { after } => QueryAnswer::Away(ageing::away(transaction, &after)?),
    })
}

/// Returns a page of the accounts. Those that cannot be read are logged and skipped.
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
        match decode_account(&account, record.value()) {
            Ok(state) => page.accounts.push((account, state)),
            Err(error) => tracing::error!(%error, "unreadable record skipped"),
        }
    }
    Ok(page)
}

fn doomed(transaction: &ReadTransaction, spool: &SpoolId) -> Result<Seq, StoreError> {
    Ok(transaction.open_table(DOOMED)?.get(spool.key())?.map_or(Seq::ZERO, |up_to| Seq::new(up_to.value())))
}

/// Calls `take` with each row that can be read.
fn each_row(transaction: &ReadTransaction, mut take: impl FnMut(SpoolId, Row)) -> Result<(), StoreError> {
    for entry in transaction.open_table(SPOOLS)?.iter()? {
        let (key, record) = entry?;
        let (account, login) = key.value();
        let Ok(account) = BareJid::new(account) else { continue };
        match Row::decode(&account, record.value()) {
            Ok(row) => take(SpoolId { account, login: LoginId(login) }, row),
            Err(error) => tracing::error!(%error, "cannot count spool"),
        }
    }
    Ok(())
}

fn of_account(
    transaction: &ReadTransaction,
    account: &BareJid,
    hidden: &HashMap<SpoolId, HiddenRanges>,
) -> Result<Vec<HeldContents>, StoreError> {
    let (rows, stanzas) = (transaction.open_table(SPOOLS)?, transaction.open_table(STANZAS)?);
    let nothing = HiddenRanges::default();
    let mut held = Vec::new();
    for (spool, row) in spools::rows_of(&rows, account)? {
        let Some(from) = doomed(transaction, &spool)?.checked_next() else { continue };
        let mut waits = false;
        each(&stanzas, &spool, hidden.get(&spool).unwrap_or(&nothing), from, |_, _| {
            waits = true;
            ControlFlow::Break(())
        })?;
        held.push(HeldContents { login: spool.login, device: row.device, waits });
    }
    Ok(held)
}

/// Returns the stanzas of a spool after a number: at least one, then up to `weight` (the sum of [`Spooled::weight`]). Those
/// that cannot be read are skipped and returned separately.
fn stanzas(
    transaction: &ReadTransaction,
    spool: &SpoolId,
    hidden: &HiddenRanges,
    after: Seq,
    weight: usize,
) -> Result<(Vec<Spooled>, Unreadable), StoreError> {
    let (mut items, mut unreadable) = (Vec::new(), Unreadable::of(spool));
    let Some(from) = after.max(doomed(transaction, spool)?).checked_next() else { return Ok((items, unreadable)) };
    let mut left = Some(weight);
    each(&transaction.open_table(STANZAS)?, spool, hidden, from, |seq, record| {
        let item = match Spooled::decode(&spool.account, seq, record) {
            Ok(item) => item,
            Err(error) => {
                unreadable.add(seq, error);
                return ControlFlow::Continue(());
            }
        };
        // The first stanza is always returned.
        if !items.is_empty() && left.is_none_or(|left| item.weight() > left) {
            return ControlFlow::Break(());
        }
        left = left.and_then(|left| left.checked_sub(item.weight()));
        items.push(item);
        ControlFlow::Continue(())
    })?;
    Ok((items, unreadable))
}

/// Calls `take` with the number and record of each visible stanza of a spool, from a number on.
fn each(
    table: &impl ReadableTable<(&'static str, u64, u64), &'static [u8]>,
    spool: &SpoolId,
    hidden: &HiddenRanges,
    from: Seq,
    mut take: impl FnMut(Seq, &[u8]) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let mut next = Some(from);
    while let Some(mut from) = next.take() {
        if let Some(end) = hidden.end_of(from) {
            let Some(behind) = end.checked_next() else { return Ok(()) };
            from = behind;
        }
        for entry in table.range(spool.stanza_keys(from..=Seq::MAX))? {
            let (key, record) = entry?;
            let seq = Seq::new(key.value().2);
            if let Some(end) = hidden.end_of(seq) {
                // Many stanzas may be hidden: skip the whole range.
                next = end.checked_next();
                break;
            }
            if take(seq, record.value()).is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}
