//! The expiry of old records, piece by piece.

use super::Store;
use super::error::StoreError;
use super::op::{Effect, Op};
use super::ownership::AccountOwnership;
use super::query::{Piece, Query, QueryAnswer};
use crate::clock::{UnixMillis, UnixSecs};
use crate::jid::BareJid;
use crate::push::account::Account;

pub(super) async fn expire_registrations(
    store: &Store,
    before: UnixSecs,
    mut note: impl FnMut(&BareJid, &Account),
) -> Result<u64, StoreError> {
    let (mut from, mut count) = (Some(String::new()), 0u64);
    while let Some(after) = from {
        let QueryAnswer::Unseen(Piece { due, next }) = store.read(Query::Unseen { after, before }).await? else {
            return Err(StoreError::WrongAnswer);
        };
        from = next;
        let (due, _owned) = claim_free(store, due).await?;
        if due.is_empty() {
            continue;
        }
        let forget = |revision| Op::Forget { accounts: due, before, revision };
        let Effect::Forgot(changed, gone) = store.write_many(forget).await? else {
            return Err(StoreError::WrongAnswer);
        };
        changed.iter().for_each(|(account, state)| note(account, state));
        count = count.saturating_add(gone);
    }
    Ok(count)
}

pub(super) async fn expire_tombstones(store: &Store, before: UnixSecs) -> Result<u64, StoreError> {
    let (mut from, mut count) = (Some(String::new()), 0u64);
    while let Some(after) = from {
        let QueryAnswer::OldTombstones(Piece { due, next }) =
            store.read(Query::OldTombstones { after, before }).await?
        else {
            return Err(StoreError::WrongAnswer);
        };
        from = next;
        if !due.is_empty() {
            count = count.saturating_add(expired(store, Op::ExpireTombstones { sm_ids: due, before }).await?);
        }
    }
    Ok(count)
}

pub(super) async fn expire_stanzas(store: &Store, before: UnixMillis) -> Result<u64, StoreError> {
    let (mut from, mut count) = (Some((String::new(), 0)), 0u64);
    while let Some(after) = from {
        let QueryAnswer::Away(Piece { due, next }) = store.read(Query::Away { after }).await? else {
            return Err(StoreError::WrongAnswer);
        };
        from = next;
        for spool in due {
            let _owned = match store.claim(&spool.account).await {
                // It belongs to another node by now.
                Err(StoreError::Elsewhere { .. }) => continue,
                claimed => claimed?,
            };
            loop {
                let gone = expired(store, Op::Expire { spool: spool.clone(), before }).await?;
                count = count.saturating_add(gone);
                if gone == 0 {
                    break;
                }
            }
        }
    }
    Ok(count)
}

/// Claims those of the accounts that no other node owns.
async fn claim_free(
    store: &Store,
    accounts: Vec<BareJid>,
) -> Result<(Vec<BareJid>, Vec<AccountOwnership>), StoreError> {
    let (mut own, mut owned) = (Vec::with_capacity(accounts.len()), Vec::new());
    for account in accounts {
        match store.claim(&account).await {
            Ok(ownership) => {
                own.push(account);
                owned.push(ownership);
            }
            Err(StoreError::Elsewhere { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok((own, owned))
}

async fn expired(store: &Store, op: Op) -> Result<u64, StoreError> {
    let Effect::Expired(count) = store.write(op).await? else { return Err(StoreError::WrongAnswer) };
    Ok(count)
}
