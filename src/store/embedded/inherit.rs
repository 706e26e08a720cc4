//! Spools that change owner: from an ended session of a device to its next one, or from one device to another.

use std::ops::{ControlFlow, RangeInclusive};

use super::deliver::{self, prepare_row};
use super::spools::PIECE;
use super::tables::Tables;
use crate::jid::BareJid;
use crate::push::account::{DeviceId, LoginId};
use crate::seq::Seq;
use crate::session::queue::Spooled;
use crate::store::error::StoreError;
use crate::store::op::{Effect, Op, OpOutcome, SpoolSearch, Unreadable};
use crate::store::schema::{Count, Row, measure};
use crate::store::values::SpoolId;

/// The number of records that one turn of a search reads before other writes are performed.
const LOOKS: usize = 4096;
/// The most bytes of shared stanzas that move in one call.
const PIECE_BYTES: usize = 4 << 20;

/// Makes a login the owner of the spools that ended sessions of the device have left.
pub(super) fn take_over(
    tx: &mut Tables<'_>,
    account: &BareJid,
    device: DeviceId,
    to: LoginId,
) -> Result<Effect, StoreError> {
    let state = tx.accounts.load_if_readable(account)?;
    let is_closed = |login| state.as_ref().is_some_and(|state| state.device_of(login).is_none());
    let mut taken = Vec::new();
    for (spool, row) in tx.spools.rows_of(account)? {
        let is_free = row.owner == to || is_closed(row.owner);
        if row.device != device || spool.login == to || !is_free || tx.spools.is_empty(&spool)? {
            continue;
        }
        if row.owner != to || row.count.is_some() {
            tx.spools.set_row(&spool, Row { owner: to, count: None, ..row })?;
        }
        taken.push(spool.login);
    }
    Ok(Effect::TookOver(taken))
}

/// Moves shared stanzas of one spool of a device without a session into another spool.
pub(super) fn adopt(tx: &mut Tables<'_>, op: &Op) -> Result<OpOutcome, StoreError> {
    let Op::Adopt { account, from, to, device, seqs, without, search } = op else {
        return Ok(OpOutcome::Done(Effect::Nothing));
    };
    if let Some(moved) = adopted_before(tx, to, seqs)? {
        return Ok(OpOutcome::Done(Effect::Adopted(moved)));
    }
    let mut search = match search {
        Some(search) => search.clone(),
        None => begin(tx, account, *from, without)?,
    };
    let Some(found) = find(tx, &mut search)? else {
        let search = Some(search);
        let (account, to, seqs, without) = (account.clone(), to.clone(), seqs.clone(), without.clone());
        return Ok(OpOutcome::Unfinished(Op::Adopt {
            account,
            from: *from,
            to,
            device: *device,
            seqs,
            without,
            search,
        }));
    };
    let Some((spool, items)) = found else { return Ok(OpOutcome::Done(Effect::Adopted(0))) };
    let items: Vec<_> = items.into_iter().zip((seqs.start().get()..=seqs.end().get()).map(Seq::new)).collect();
    if items.is_empty() {
        return Ok(OpOutcome::Done(Effect::Adopted(0)));
    }
    prepare_row(tx, to, *device, &[], Seq::ZERO)?;
    let mut moved = Count::default();
    for (item, seq) in items {
        tx.spools.remove(&spool, item.seq)?;
        moved.add(item.cost(), item.shared);
        moved.backlog.last_seq = seq;
        tx.spools.insert(to, &Spooled { seq, ..item })?;
    }
    tx.spools.note_added(to, moved);
    tx.spools.freed(&spool, moved)?;
    if tx.spools.is_empty(&spool)? {
        tx.spools.drop_row(&spool)?;
    }
    Ok(OpOutcome::Done(Effect::Adopted(moved.backlog.count)))
}

/// Returns the number of stanzas at these numbers. If there are any, they moved there when the same group was committed
/// before.
fn adopted_before(tx: &Tables<'_>, to: &SpoolId, seqs: &RangeInclusive<Seq>) -> Result<Option<u64>, StoreError> {
    let mut count = 0u64;
    tx.spools.each(to, *seqs.start(), |seq, _| {
        if seq > *seqs.end() {
            return ControlFlow::Break(());
        }
        count = count.saturating_add(1);
        ControlFlow::Continue(())
    })?;
    Ok(Some(count).filter(|count| *count > 0))
}

/// Returns the spools of a device that no open session uses, the last one first.
fn begin(tx: &Tables<'_>, account: &BareJid, from: DeviceId, without: &[LoginId]) -> Result<SpoolSearch, StoreError> {
    let state = tx.accounts.load(account)?;
    let closed = |(spool, row): &(SpoolId, Row)| {
        let is_open = |login| state.device_of(login).is_some();
        row.device == from && !is_open(spool.login) && !is_open(row.owner) && !without.contains(&spool.login)
    };
    let rows = tx.spools.rows_of(account)?.into_iter().filter(closed);
    Ok(SpoolSearch { spools: rows.map(|(spool, _)| spool).rev().collect(), from: Seq::ZERO })
}

/// Shared stanzas of one spool, at most one piece; `None` if no spool has any.
type Found = Option<(SpoolId, Vec<Spooled>)>;

/// Returns the next shared stanzas; `None` if the search continues in the next turn.
fn find(tx: &mut Tables<'_>, search: &mut SpoolSearch) -> Result<Option<Found>, StoreError> {
    let (mut looks, mut found) = (LOOKS, Vec::new());
    while let Some(spool) = search.spools.last().cloned() {
        let (mut bytes, mut unreadable) = (0usize, Unreadable::of(&spool));
        tx.spools.each(&spool, search.from, |seq, record| {
            search.from = seq;
            if looks == 0 || found.len() >= PIECE || bytes >= PIECE_BYTES {
                return ControlFlow::Break(());
            }
            looks -= 1;
            if measure(record).1 {
                bytes = bytes.saturating_add(record.len());
                match Spooled::decode(&spool.account, seq, record) {
                    Ok(item) if item.bytes.starts_with(b"<iq") => {}
                    Ok(item) => found.push(item),
                    Err(error) => unreadable.add(seq, error),
                }
            }
            ControlFlow::Continue(())
        })?;
        if !unreadable.seqs.is_empty() {
            tx.unreadable.push(unreadable);
        }
        if !found.is_empty() {
            return Ok(Some(Some((spool, found))));
        }
        if looks == 0 {
            return Ok(None);
        }
        search.spools.pop();
        search.from = Seq::ZERO;
    }
    Ok(Some(None))
}

/// Rebuilds the rows that cannot be read. If the device of a spool is unknown, its stanzas are lost and deleted, unless the
/// account cannot be read either.
pub(super) fn rebuild_rows(tx: &mut Tables<'_>, unreadable: Vec<SpoolId>) -> Result<(), StoreError> {
    for spool in unreadable {
        if let Err(error) = tx.accounts.load(&spool.account) {
            crate::store::error::tolerate(Err(error))?;
        } else if let Some(device) = deliver::device_of(tx, &spool)? {
            deliver::rebuild(tx, &spool, device)?;
        } else {
            let stanzas = tx.spools.count(&spool)?.backlog.count;
            tx.lost = tx.lost.saturating_add(stanzas);
            tracing::error!(
                account = %spool.account, login = spool.login.0, stanzas,
                "spool without a device: its stanzas are lost and deleted"
            );
            tx.spools.delete_spool(&spool)?;
        }
    }
    Ok(())
}
