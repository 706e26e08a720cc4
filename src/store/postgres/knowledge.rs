//! [`Knowledge`]: the facts that the operations of a group need before it is written. Nobody else writes what
//! this node owns, so it holds until the commit.

use std::collections::{HashMap, HashSet};

use tokio_postgres::Row;

use super::connection::{PrimaryConnection, StatementCall, params};
use super::numbers;
use crate::clock::UnixMillis;
use crate::jid::BareJid;
use crate::push::account::{Account, DeviceId};
use crate::seq::Seq;
use crate::session::queue::Spooled;
use crate::store::engine::OpGroup;
use crate::store::error::StoreError;
use crate::store::op::Op;
use crate::store::schema::decode_account;
use crate::store::values::SpoolId;

/// The most stanzas that move or expire with one operation.
const PIECE: i64 = 256;
/// The most bytes of shared stanzas that move with one operation.
const PIECE_BYTES: usize = 4 << 20;

const RECORDS: &str = "SELECT id, record FROM account WHERE id = ANY($1)";
const STANZAS: &str = "SELECT seq, stanza FROM spool WHERE account = $1 AND session = $2 AND seq = ANY($3)";
const MOVED: &str = "SELECT count(*) FROM spool WHERE account = $1 AND session = $2 AND seq BETWEEN $3 AND $4";
const FRONT: &str = "SELECT x.device, s.seq, substring(s.stanza FOR 11) FROM session x \
    JOIN spool s ON s.account = x.account AND s.session = x.login \
    WHERE x.account = $1 AND x.login = $2 ORDER BY s.seq LIMIT $3";
/// Shared messages in the spools of a device that no open session uses, oldest spool first.
const SHARED: &str = "SELECT x.login, s.seq, s.stanza FROM session x \
    JOIN spool s ON s.account = x.account AND s.session = x.login \
    WHERE x.account = $1 AND x.device = $2 AND NOT x.login = ANY($3) AND NOT x.reader = ANY($3) \
    AND NOT x.login = ANY($4) AND length(s.stanza) > 13 AND get_byte(s.stanza, 1) & 1 = 1 \
    AND substring(s.stanza FROM 11 FOR 3) <> '<iq'::bytea ORDER BY x.login, s.seq LIMIT $5";

/// Accounts of this node from an id on, or those whose owner is dead.
const OWN_ACCOUNTS: &str = "SELECT id, jid, record, revision, owner, owner_epoch FROM account \
    WHERE owner = $1 AND owner_epoch = $2 AND id > $3 ORDER BY id LIMIT $4";
const DEAD_ACCOUNTS: &str = "SELECT a.id, a.jid, a.record, a.revision, a.owner, a.owner_epoch \
    FROM node n JOIN account a ON a.owner = n.id AND a.owner_epoch < n.epoch LIMIT $1";
/// The most accounts that are freed in one transaction.
pub(super) const FREED: usize = 256;

/// The node and the epoch that write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodeWriter {
    pub(super) node: i16,
    pub(super) epoch: i64,
    pub(super) may_be_single: bool,
}

/// The facts that were read for a group.
#[derive(Default)]
pub(super) struct Knowledge {
    /// The accounts that this node owns, as far as the group names them.
    pub(super) ids: HashMap<BareJid, i64>,
    records: HashMap<BareJid, Result<Account, StoreError>>,
    /// Spools that have a row.
    rows: HashSet<SpoolId>,
    present: HashMap<(SpoolId, Seq), Vec<u8>>,
    adoptable: HashMap<usize, Adoptable>,
    fronts: HashMap<usize, Front>,
    freeable: HashMap<usize, Vec<FreeableAccount>>,
}

/// The accounts and spools that the engine remembers between groups.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) ids: HashMap<BareJid, i64>,
    /// Spools that are known to have a row.
    pub(super) rows: HashSet<SpoolId>,
}

impl Knowledge {
    /// Reads what a group needs.
    pub(super) async fn read(
        connection: &PrimaryConnection,
        memory: &std::sync::Mutex<Memory>,
        writer: NodeWriter,
        group: &OpGroup<'_>,
    ) -> Result<Self, tokio_postgres::Error> {
        let ops = group.ops;
        let mut known = Self::remembered(memory, group);
        known.read_records(connection, ops).await?;
        for (number, op) in ops.iter().enumerate() {
            match op {
                Op::Spool { spool, items, known: last, .. } => {
                    known.read_present(connection, spool, items, *last).await?;
                }
                Op::Adopt { .. } => known.read_adoptable(connection, number, op).await?,
                Op::Expire { spool, .. } => known.read_front(connection, number, spool).await?,
                Op::Recover { after, .. } => known.read_freeable(connection, number, writer, *after).await?,
                Op::Change { .. }
                | Op::Remove { .. }
                | Op::Delete(_)
                | Op::TakeOver { .. }
                | Op::Claim { .. }
                | Op::SaveLoginName { .. }
                | Op::DescribeNode { .. }
                | Op::HoldComponent { .. }
                | Op::Release { .. }
                | Op::CloseStale { .. }
                | Op::SaveTombstone { .. }
                | Op::ExpireTombstones { .. }
                | Op::SaveWake { .. }
                | Op::DeleteWake { .. }
                | Op::SaveHandover { .. }
                | Op::Forget { .. }
                | Op::SaveCount { .. } => {}
            }
        }
        Ok(known)
    }

    fn remembered(memory: &std::sync::Mutex<Memory>, group: &OpGroup<'_>) -> Self {
        let memory = crate::sync::lock(memory);
        let mut known = Self::default();
        let lazy = group.lazy.iter().map(|deletion| &deletion.spool.account);
        for account in group.ops.iter().flat_map(Op::accounts).chain(lazy) {
            if let Some(id) = memory.ids.get(account) {
                known.ids.insert(account.clone(), *id);
            }
        }
        for op in group.ops {
            let (Op::Spool { spool, .. } | Op::Adopt { to: spool, .. }) = op else { continue };
            if memory.rows.contains(spool) {
                known.rows.insert(spool.clone());
            }
        }
        known
    }

    async fn read_records(&mut self, connection: &PrimaryConnection, ops: &[Op]) -> Result<(), tokio_postgres::Error> {
        let needed: HashSet<&BareJid> =
            ops.iter().flat_map(|op| needs_record(op, |spool| self.rows.contains(spool))).collect();
        let names: HashMap<i64, BareJid> =
            needed.into_iter().filter_map(|name| Some((*self.ids.get(name)?, name.clone()))).collect();
        if names.is_empty() {
            return Ok(());
        }
        let ids: Vec<i64> = names.keys().copied().collect();
        for row in connection.query(&StatementCall::new(RECORDS, params![ids])).await? {
            if let Some(name) = names.get(&row.get(0)) {
                self.records.insert(name.clone(), decode(name, row.get(1)));
            }
        }
        Ok(())
    }

    /// Reads the stanzas of a call that must be in the spool already.
    async fn read_present(
        &mut self,
        connection: &PrimaryConnection,
        spool: &SpoolId,
        items: &[Spooled],
        known: Seq,
    ) -> Result<(), tokio_postgres::Error> {
        let again = items.iter().map(|item| item.seq).filter(|seq| *seq <= known);
        let again: Vec<i64> = again.map(numbers::seq).collect();
        let Some(id) = self.ids.get(&spool.account).filter(|_| !again.is_empty()) else { return Ok(()) };
        let params = params![*id, numbers::login(spool.login), again];
        for row in connection.query(&StatementCall::new(STANZAS, params)).await? {
            self.present.insert((spool.clone(), numbers::seq_of(row.get(0))), row.get(1));
        }
        Ok(())
    }

    async fn read_adoptable(
        &mut self,
        connection: &PrimaryConnection,
        number: usize,
        op: &Op,
    ) -> Result<(), tokio_postgres::Error> {
        let Op::Adopt { account, from, to, seqs, without, .. } = op else { return Ok(()) };
        let Some(id) = self.ids.get(account).copied() else { return Ok(()) };
        let (first, last) = numbers::seqs(seqs);
        let rows =
            connection.query(&StatementCall::new(MOVED, params![id, numbers::login(to.login), first, last])).await?;
        let moved: i64 = rows.first().map_or(0, |row| row.get(0));
        let mut found = Adoptable { moved_before: numbers::count_of(moved), ..Adoptable::default() };
        if let (0, Some(Ok(state))) = (moved, self.records.get(account)) {
            let open = state.devices.iter().flat_map(|device| &device.open);
            let open: Vec<i64> = open.map(|login| numbers::login(*login)).collect();
            let without: Vec<i64> = without.iter().map(|login| numbers::login(*login)).collect();
            let params = params![id, numbers::device(*from), open, without, PIECE];
            found.take(account, &connection.query(&StatementCall::new(SHARED, params)).await?);
        }
        self.adoptable.insert(number, found);
        Ok(())
    }

    async fn read_front(
        &mut self,
        connection: &PrimaryConnection,
        number: usize,
        spool: &SpoolId,
    ) -> Result<(), tokio_postgres::Error> {
        let Some(id) = self.ids.get(&spool.account) else { return Ok(()) };
        let params = params![*id, numbers::login(spool.login), PIECE];
        let rows = connection.query(&StatementCall::new(FRONT, params)).await?;
        let Some(device) = rows.first().map(|row| numbers::device_of(row.get(0))) else { return Ok(()) };
        let stanzas = rows.iter().map(|row| (numbers::seq_of(row.get(1)), row.get(2))).collect();
        self.fronts.insert(number, Front { device, stanzas });
        Ok(())
    }

    async fn read_freeable(
        &mut self,
        connection: &PrimaryConnection,
        number: usize,
        writer: NodeWriter,
        after: Option<i64>,
    ) -> Result<(), tokio_postgres::Error> {
        let most = i64::try_from(FREED).unwrap_or(i64::MAX);
        let call = match after {
            Some(after) => StatementCall::new(OWN_ACCOUNTS, params![writer.node, writer.epoch, after, most]),
            None => StatementCall::new(DEAD_ACCOUNTS, params![most]),
        };
        let rows = connection.query(&call).await?;
        let mut accounts: Vec<_> = rows.iter().filter_map(freeable).collect();
        // Two nodes that free the same accounts wait for each other in one order.
        accounts.sort_unstable_by_key(|account| account.id);
        self.freeable.insert(number, accounts);
        Ok(())
    }

    /// Returns the record of an account.
    pub(super) fn record(&self, account: &BareJid) -> Result<Account, StoreError> {
        self.records.get(account).cloned().unwrap_or_else(|| Ok(Account::default()))
    }

    pub(super) fn has_row(&self, spool: &SpoolId) -> bool {
        self.rows.contains(spool)
    }

    /// Returns whether a spool contains exactly this stanza, byte for byte.
    pub(super) fn holds(&self, spool: &SpoolId, item: &Spooled) -> bool {
        self.present.get(&(spool.clone(), item.seq)).is_some_and(|record| *record == item.encode())
    }

    pub(super) fn adoptable(&self, number: usize) -> Option<&Adoptable> {
        self.adoptable.get(&number)
    }

    pub(super) fn front(&self, number: usize) -> Option<&Front> {
        self.fronts.get(&number)
    }

    pub(super) fn freeable(&self, number: usize) -> Option<&[FreeableAccount]> {
        self.freeable.get(&number).map(Vec::as_slice)
    }
}

impl Adoptable {
    /// Takes the stanzas of the first spool, at most one piece. Those that cannot be read stay where they are.
    fn take(&mut self, account: &BareJid, rows: &[Row]) {
        let mut bytes = 0usize;
        for row in rows {
            let login = numbers::login_of(row.get(0));
            if self.spool.as_ref().is_some_and(|spool| spool.login != login) || bytes >= PIECE_BYTES {
                return;
            }
            let record: &[u8] = row.get(2);
            let Ok(item) = Spooled::decode(account, numbers::seq_of(row.get(1)), record) else { continue };
            bytes = bytes.saturating_add(record.len());
            self.spool.get_or_insert_with(|| SpoolId { account: account.clone(), login });
            self.items.push(item);
        }
    }
}

fn freeable(row: &Row) -> Option<FreeableAccount> {
    let account = BareJid::new(row.get::<_, &str>(1)).ok()?;
    let (id, record, revision, owner, owner_epoch) = (row.get(0), row.get(2), row.get(3), row.get(4), row.get(5));
    Some(FreeableAccount { id, account, record, revision, owner, owner_epoch })
}

/// Decodes the record of an account, if there is one.
pub(super) fn decode(account: &BareJid, record: Option<&[u8]>) -> Result<Account, StoreError> {
    record.map_or_else(|| Ok(Account::default()), |record| decode_account(account, record))
}

/// An account that may have to be freed.
pub(super) struct FreeableAccount {
    pub(super) id: i64,
    pub(super) account: BareJid,
    pub(super) record: Option<Vec<u8>>,
    pub(super) revision: i64,
    pub(super) owner: i16,
    pub(super) owner_epoch: i64,
}

/// The first stanzas of a spool, without their bodies.
pub(super) struct Front {
    pub(super) device: DeviceId,
    /// Sequence number and the first bytes of the record.
    pub(super) stanzas: Vec<(Seq, Vec<u8>)>,
}

impl Front {
    /// Returns the number of stanzas that came before this time, and the last of them. Unreadable ones in between go with them.
    pub(super) fn older_than(&self, account: &BareJid, before: UnixMillis) -> (u64, Option<Seq>) {
        let (mut old, mut last) = (0u64, None);
        for (seq, header) in &self.stanzas {
            match Spooled::decode(account, *seq, header) {
                Ok(item) if item.received < before => (old, last) = (old.saturating_add(1), Some(*seq)),
                Ok(_) => break,
                Err(_) => {}
            }
        }
        (old, last)
    }
}

/// Shared stanzas that can move into another spool.
#[derive(Default)]
pub(super) struct Adoptable {
    /// The stanzas that moved when the same group was committed before.
    pub(super) moved_before: u64,
    /// The first spool that has some.
    pub(super) spool: Option<SpoolId>,
    pub(super) items: Vec<Spooled>,
}

/// Returns the accounts whose records an operation needs. `has_row`: whether a spool is known to have a row.
fn needs_record(op: &Op, has_row: impl Fn(&SpoolId) -> bool) -> Vec<&BareJid> {
    match op {
        Op::Change { account, .. }
        | Op::Remove { account, .. }
        | Op::TakeOver { account, .. }
        | Op::Adopt { account, .. }
        | Op::CloseStale { account, .. } => vec![account],
        Op::Spool { spool, .. } if has_row(spool) => Vec::new(),
        Op::Spool { spool, .. } | Op::Expire { spool, .. } => vec![&spool.account],
        Op::Forget { accounts, .. } => accounts.iter().collect(),
        Op::Delete(_)
        | Op::Claim { .. }
        | Op::SaveLoginName { .. }
        | Op::DescribeNode { .. }
        | Op::HoldComponent { .. }
        | Op::Release { .. }
        | Op::SaveTombstone { .. }
        | Op::ExpireTombstones { .. }
        | Op::SaveWake { .. }
        | Op::DeleteWake { .. }
        | Op::SaveHandover { .. }
        | Op::Recover { .. }
        | Op::SaveCount { .. } => Vec::new(),
    }
}
