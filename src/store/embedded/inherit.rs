//! Spools that change hands: from a device's ended session to its next, or from one device to another.

use std::ops::{ControlFlow, RangeInclusive};

use redb::ReadTransaction;

use crate::jid::BareJid;
use crate::push::account::{DeviceId, LoginId};
use crate::store::accounts;
use crate::store::embedded::transaction::Batch;
use crate::store::embedded::unreadable::Unreadable;
use crate::store::row::{self, Row, SPOOLS};
use crate::store::spool::{Backlog, SpoolId, Spooled, measure};
use crate::store::writer::Work;
use crate::store::{Store, StoreError};

/// Records that are looked at in search of shared stanzas before others get their turn.
const LOOKS: usize = 4096;

/// A spool that a session took over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inherited {
    /// The login that names it.
    pub spool: LoginId,
    /// What is in it.
    pub backlog: Backlog,
}

impl Store {
    /// Makes a session the owner of the spools that ended sessions of its device have left, and returns them, in the order of
    /// their logins, once that is on disk: every spool of the device in which something is, other than `to`'s own, whose owner
    /// is `to` or is not among the account's open logins. If the account cannot be read, only what is `to`'s already. No stanza
    /// moves. Can be repeated: what is left of the spools that
    /// `to` owns already is returned again.
    ///
    /// # Errors
    /// As [`Store::account`]; [`StoreError::AccountRemoved`].
    pub async fn take_over(
        &self,
        account: &BareJid,
        device: DeviceId,
        to: LoginId,
    ) -> Result<Vec<Inherited>, StoreError> {
        let account = account.clone();
        self.ask(Work::in_pieces(move |batch| batch.take_over(&account, device, to))).await
    }

    /// Moves stanzas that are addressed to the account itself from the spools that ended sessions of another device have left
    /// into `to`, at the first of these places, in their order: at most 256, and as many as there are places. Returns how many
    /// moved, once that is on disk; the caller repeats the call with the next places until it is 0. The bounds of the spool are
    /// not checked, since nothing is added.
    ///
    /// # Errors
    /// As [`Store::spool`].
    pub async fn adopt_shared(
        &self,
        account: &BareJid,
        from: DeviceId,
        (to, to_device): (&SpoolId, DeviceId),
        places: RangeInclusive<u64>,
    ) -> Result<u64, StoreError> {
        let (account, to) = (account.clone(), to.clone());
        let mut search = None;
        let work = Work::in_pieces(move |batch| {
            let search = match &mut search {
                Some(search) => search,
                None => search.insert(batch.search(&account, from)?),
            };
            let Some(found) = batch.find_shared(search)? else { return Ok(None) };
            batch.place(found, (&to, to_device), places.clone()).map(Some)
        });
        self.ask(work).await
    }

    /// The other devices of an account that have stanzas waiting and no open session.
    ///
    /// # Errors
    /// As [`Store::account`].
    pub async fn orphans(&self, account: &BareJid, not: DeviceId) -> Result<Vec<(DeviceId, Backlog)>, StoreError> {
        self.settle(account).await?;
        let account = account.clone();
        self.read(move |transaction| orphans(transaction, &account, not)).await
    }
}

fn orphans(
    transaction: &ReadTransaction,
    account: &BareJid,
    not: DeviceId,
) -> Result<Vec<(DeviceId, Backlog)>, StoreError> {
    let state = accounts::read(transaction, account)?;
    let mut orphans = Vec::<(DeviceId, Backlog)>::new();
    for (_, row) in row::of(&transaction.open_table(SPOOLS)?, account)? {
        let here = state.device(row.device).is_some_and(|device| device.is_open());
        if row.device == not || row.backlog.count == 0 || here {
            continue;
        }
        match orphans.iter_mut().find(|(device, _)| *device == row.device) {
            Some((_, sum)) => *sum = sum.and(row.backlog),
            None => orphans.push((row.device, row.backlog)),
        }
    }
    Ok(orphans)
}

/// A search for shared stanzas, spool by spool.
struct Search {
    /// Those still to be looked through, the next one last.
    spools: Vec<SpoolId>,
    /// Where to go on in the next one.
    from: u64,
}

/// Shared stanzas of one spool.
type Found = Option<(SpoolId, Vec<Spooled>)>;

impl Batch<'_> {
    fn take_over(
        &mut self,
        account: &BareJid,
        device: DeviceId,
        to: LoginId,
    ) -> Result<Option<Vec<Inherited>>, StoreError> {
        self.refuse_removed(account, to)?;
        let state = match accounts::load(&self.accounts, account) {
            Err(error) if error.is_of_one_record() => None,
            state => Some(state?),
        };
        let is_closed = |login| state.as_ref().is_some_and(|state| state.device_of(login).is_none());
        let free = |row: &Row| row.owner == to || is_closed(row.owner);
        let mut inherited = Vec::new();
        for (spool, row) in row::of(&self.spools, account)? {
            if row.device != device || spool.login == to || !free(&row) {
                continue;
            }
            // What was delivered already is not counted.
            if !self.sweep(&spool)? {
                return Ok(None);
            }
            let Some(row) = self.row(&spool)?.filter(|row| row.backlog.count > 0) else { continue };
            if row.owner != to {
                self.set_row(&spool, Row { owner: to, ..row })?;
                self.differs = true;
            }
            inherited.push(Inherited { spool: spool.login, backlog: row.backlog });
        }
        Ok(Some(inherited))
    }

    fn search(&self, account: &BareJid, from: DeviceId) -> Result<Search, StoreError> {
        let state = accounts::load(&self.accounts, account)?;
        let closed = |(spool, row): &(SpoolId, Row)| {
            let open = |login| state.device_of(login).is_some();
            row.device == from && row.shared > 0 && !open(spool.login) && !open(row.owner)
        };
        let rows = row::of(&self.spools, account)?.into_iter().filter(closed);
        Ok(Search { spools: rows.map(|(spool, _)| spool).rev().collect(), from: 0 })
    }

    /// The next shared stanzas, at most a piece; `None` if the search goes on in the next turn.
    fn find_shared(&mut self, search: &mut Search) -> Result<Option<Found>, StoreError> {
        let (mut looks, mut found) = (LOOKS, Vec::new());
        while let Some(spool) = search.spools.last().cloned() {
            let (mut bytes, mut unreadable) = (0usize, Unreadable::default());
            self.each_stanza(&spool, search.from, |seq, record| {
                search.from = seq;
                if looks == 0 || found.len() >= crate::store::embedded::erase::PIECE || bytes >= PIECE_BYTES {
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
            self.set_aside(&spool, &unreadable);
            if !found.is_empty() {
                return Ok(Some(Some((spool, found))));
            }
            if looks == 0 {
                return Ok(None);
            }
            search.spools.pop();
            search.from = 0;
        }
        Ok(Some(None))
    }

    /// Moves stanzas into a spool, as many as there are places.
    fn place(
        &mut self,
        found: Found,
        (to, device): (&SpoolId, DeviceId),
        places: RangeInclusive<u64>,
    ) -> Result<u64, StoreError> {
        let mut row = self.row_to_fill(to, device)?;
        let Some((from, items)) = found else { return Ok(0) };
        let Some(before) = self.row(&from)? else { return Ok(0) };
        let free = *places.start().max(&row.backlog.last_seq.saturating_add(1))..=*places.end();
        let (mut left, mut moved) = (before, 0u64);
        for (item, place) in items.into_iter().zip(free) {
            self.stanzas.remove(from.place(item.seq))?;
            left.subtract(item.cost(), item.shared);
            let item = Spooled { seq: place, ..item };
            self.stanzas.insert(to.place(place), item.encode().as_slice())?;
            row.add(item.cost(), item.shared);
            row.backlog.last_seq = place;
            self.totals.add(&to.account, item.cost());
            moved = moved.saturating_add(1);
        }
        if moved > 0 {
            self.shrink(&from, before, left)?;
            self.drop_if_empty(&from, left)?;
            self.set_row(to, row)?;
        }
        Ok(moved)
    }

    /// Removes the row of a closed spool from which the last stanza went.
    pub(in crate::store) fn drop_if_empty(&mut self, spool: &SpoolId, row: Row) -> Result<(), StoreError> {
        if row.backlog.count == 0 {
            self.spools.remove(spool.key())?;
        }
        Ok(())
    }
}

/// Bytes of shared stanzas that move together.
const PIECE_BYTES: usize = 4 << 20;
