//! Records that cannot be read: no version of this program wrote them, or a newer one did.
//!
//! One such record never blocks others. A stanza is counted as lost, logged without its content, and deleted. The row of a spool
//! is built again from the stanzas. A wake is replaced. A tombstone says as little as none. Only the record of an account is
//! kept as it is: it is refused alone, until the operator removes the account or runs a newer version. An error of the disk is
//! none of this: the caller tries again.

use std::ops::RangeInclusive;

use prometheus_client::metrics::counter::Counter;
use redb::ReadableTable;

use crate::jid::BareJid;
use crate::push::account::{DeviceId, LoginId};
use crate::store::embedded::transaction::Batch;
use crate::store::error::tolerate;
use crate::store::row::{self, Row};
use crate::store::spool::{SpoolId, measure};
use crate::store::{Store, StoreError, accounts};

/// Stanzas of a spool that cannot be read.
#[derive(Debug, Default)]
pub(in crate::store) struct Unreadable {
    places: Vec<RangeInclusive<u64>>,
    /// Of the first of them.
    error: Option<StoreError>,
}

impl Unreadable {
    pub(in crate::store) fn add(&mut self, seq: u64, error: StoreError) {
        self.places.push(seq..=seq);
        self.error.get_or_insert(error);
    }

    fn note(&self, spool: &SpoolId, lost: &Counter) {
        let Some(error) = &self.error else { return };
        let (stanzas, first) = (self.places.len(), self.places.first().map(|places| *places.start()));
        lost.inc_by(stanzas as u64);
        tracing::error!(
            account = %spool.account, login = spool.login.0, stanzas, first, %error,
            "stanzas on disk cannot be read: they are lost and deleted"
        );
    }
}

impl Store {
    /// Counts, logs and deletes stanzas that cannot be read. Waits for the disk; this process does not show them again, whatever
    /// becomes of that.
    pub(in crate::store) async fn set_aside(&self, spool: &SpoolId, unreadable: Unreadable) {
        if unreadable.places.is_empty() {
            return;
        }
        unreadable.note(spool, &self.shared.lost);
        if let Err(error) = self.discard(spool, unreadable.places).await {
            tracing::warn!(%error, "stanzas that cannot be read are not deleted yet");
        }
    }
}

impl Batch<'_> {
    /// Counts and logs stanzas that cannot be read, and has them deleted.
    pub(in crate::store) fn set_aside(&mut self, spool: &SpoolId, unreadable: &Unreadable) {
        if unreadable.places.is_empty() {
            return;
        }
        unreadable.note(spool, self.lost);
        self.hide(spool, &unreadable.places);
        self.differs = true;
    }

    /// The row of a spool; one that cannot be read is built again.
    ///
    /// # Errors
    /// As [`row::load`], if it is not known which device the stanzas are for.
    pub(in crate::store) fn row(&mut self, spool: &SpoolId) -> Result<Option<Row>, StoreError> {
        match row::load(&self.spools, spool) {
            Err(error) if error.is_of_one_record() => match self.device_of(spool)? {
                Some(device) => self.rebuild(spool, device).map(Some),
                None => Err(error),
            },
            loaded => loaded,
        }
    }

    /// The device that a spool is for, as its account says: that of its session, or the only one.
    fn device_of(&self, spool: &SpoolId) -> Result<Option<DeviceId>, StoreError> {
        let state = match accounts::load(&self.accounts, &spool.account) {
            Err(error) if error.is_of_one_record() => return Ok(None),
            state => state?,
        };
        let only = match state.devices.as_slice() {
            [only] => Some(only.id),
            _ => None,
        };
        Ok(state.device_of(spool.login).or(only))
    }

    /// Writes the row of a spool from what is in it.
    pub(in crate::store) fn rebuild(&mut self, spool: &SpoolId, device: DeviceId) -> Result<Row, StoreError> {
        let row = self.counted(spool, device)?;
        tracing::error!(
            account = %spool.account, login = spool.login.0, stanzas = row.backlog.count,
            "the row of a spool could not be read: it was built again"
        );
        self.totals.add(&spool.account, row.backlog.bytes);
        self.differs = true;
        self.set_row(spool, row)?;
        Ok(row)
    }

    /// A row that says what is in a spool.
    fn counted(&self, spool: &SpoolId, device: DeviceId) -> Result<Row, StoreError> {
        let mut row = Row::new(device, spool.login);
        row.backlog.last_seq = self.doomed.get(spool.key())?.map_or(0, |up_to| up_to.value());
        for entry in self.stanzas.range(spool.places(row.backlog.last_seq.saturating_add(1)..=u64::MAX))? {
            let (key, record) = entry?;
            let (cost, shared) = measure(record.value());
            row.add(cost, shared);
            row.backlog.last_seq = key.value().2;
        }
        Ok(row)
    }

    /// Builds the rows again that cannot be read. Where nothing says which device a spool is for, its stanzas are lost and
    /// deleted; unless the account cannot be read either.
    pub(in crate::store) fn rebuild_rows(&mut self) -> Result<(), StoreError> {
        let mut unreadable = Vec::new();
        for entry in self.spools.iter()? {
            let (key, record) = entry?;
            let (account, login) = key.value();
            let Ok(account) = BareJid::new(account) else { continue };
            if Row::decode(&account, record.value()).is_err() {
                unreadable.push(SpoolId { account, login: LoginId(login) });
            }
        }
        for spool in unreadable {
            let known = accounts::load(&self.accounts, &spool.account).map(drop);
            if known.is_err() {
                tolerate(known)?;
            } else if let Some(device) = self.device_of(&spool)? {
                self.rebuild(&spool, device)?;
            } else {
                let row = self.counted(&spool, DeviceId::default())?;
                self.lost.inc_by(row.backlog.count);
                tracing::error!(
                    account = %spool.account, login = spool.login.0, stanzas = row.backlog.count,
                    "nothing says which device a spool is for: its stanzas are lost and deleted"
                );
                self.totals.add(&spool.account, row.backlog.bytes);
                self.doom(&spool, row)?;
            }
        }
        Ok(())
    }
}
