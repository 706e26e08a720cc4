//! The transaction of a group ([`GroupPlan`]): statements in order, and what the rows of each mean.
//!
//! All statements are sent at once, so none depends on the rows of another. What an operation has to know was read before
//! ([`Knowledge`]): nobody else writes what this node owns. An operation that depends on what another one of the same group does
//! to the same spools waits for the next group.

use std::collections::{HashMap, HashSet};

use tokio_postgres::types::ToSql;

use super::connection::{StatementCall, params};
use super::knowledge::{Knowledge, NodeWriter};
use super::numbers;
use crate::jid::BareJid;
use crate::push::account::{Account, DeviceId, LoginId};
use crate::session::queue::Spooled;
use crate::store::error::StoreError;
use crate::store::op::{CountChange, Deletion, Effect, OpOutcome};
use crate::store::schema::encode_account;
use crate::store::values::SpoolId;

/// The meaning of the rows of a statement.
pub(super) enum RowMeaning {
    /// Nothing.
    Nothing,
    /// Each row is an account that was written; this many are expected.
    Written(usize),
    /// Each row is a spool with what was deleted from it: account, session, stanzas, bytes, shared ones.
    Deleted,
    /// Each row is a spool that is gone: account, login.
    Gone,
    /// As [`RowMeaning::Gone`], of a device that was forgotten.
    Forgotten,
    /// Each row is the login of a spool that the operation with this number took over.
    TookOver(usize),
    /// The number of rows is the result of the operation with this number.
    Expired(usize),
    /// Each row is an account that was claimed: id, address, revision, last login, record.
    Claimed,
    /// Each row is a spool of a claimed account with its count.
    Counted,
}

/// A record that the group writes.
pub(super) struct NewRecord {
    pub(super) state: Account,
    /// The highest login that the group noted.
    pub(super) login: LoginId,
}

/// The statements of a transaction.
pub(super) struct GroupPlan<'k> {
    pub(super) writer: NodeWriter,
    pub(super) known: &'k Knowledge,
    pub(super) calls: Vec<(StatementCall, RowMeaning)>,
    pub(super) outcomes: Vec<OpOutcome>,
    /// The accounts that the group names, by their ids.
    pub(super) names: HashMap<i64, BareJid>,
    /// The records to be written, which later operations of the group see.
    pub(super) records: HashMap<BareJid, NewRecord>,
    /// Accounts whose spools the group has changed.
    pub(super) touched: HashSet<BareJid>,
    /// Spools that got a row in this group.
    pub(super) begun: HashSet<SpoolId>,
    /// Changes of counts that are known before the commit.
    pub(super) counted: Vec<(SpoolId, CountChange)>,
    /// The accounts that are given up, and their ids.
    pub(super) released: Vec<BareJid>,
    pub(super) late: Vec<i64>,
    inserts: Vec<(i64, SpoolId, Spooled)>,
    deletes: Vec<(i64, Deletion)>,
}

impl<'k> GroupPlan<'k> {
    pub(super) fn new(writer: NodeWriter, known: &'k Knowledge) -> Self {
        Self {
            writer,
            known,
            calls: Vec::new(),
            outcomes: Vec::new(),
            names: HashMap::new(),
            records: HashMap::new(),
            touched: HashSet::new(),
            begun: HashSet::new(),
            counted: Vec::new(),
            released: Vec::new(),
            late: Vec::new(),
            inserts: Vec::new(),
            deletes: Vec::new(),
        }
    }

    /// Adds a statement after all that was added so far.
    pub(super) fn call(&mut self, sql: &'static str, params: Vec<Box<dyn ToSql + Send + Sync>>, reading: RowMeaning) {
        self.flush();
        self.calls.push((StatementCall::new(sql, params), reading));
    }

    /// Returns the id of an account that this node owns.
    pub(super) fn id(&mut self, account: &BareJid) -> Result<i64, StoreError> {
        let id = self.known.ids.get(account).copied();
        let id = id.ok_or_else(|| StoreError::NotOwned { account: account.clone() })?;
        self.names.insert(id, account.clone());
        Ok(id)
    }

    /// Returns the record of an account after what the group has done so far.
    pub(super) fn load(&self, account: &BareJid) -> Result<Account, StoreError> {
        if let Some(new) = self.records.get(account) {
            return Ok(new.state.clone());
        }
        self.known.record(account)
    }

    /// As [`GroupPlan::load`], but returns `None` if the record cannot be read.
    pub(super) fn load_if_readable(&self, account: &BareJid) -> Result<Option<Account>, StoreError> {
        match self.load(account) {
            Err(error) if error.is_of_one_record() => Ok(None),
            loaded => loaded.map(Some),
        }
    }

    /// Writes the record of an account at the end of the group.
    pub(super) fn save(&mut self, account: &BareJid, state: Account, login: LoginId) -> Result<(), StoreError> {
        // An error here concerns this operation alone.
        encode_account(account, &state)?;
        let login = self.records.get(account).map_or(login, |new| new.login.max(login));
        self.records.insert(account.clone(), NewRecord { state, login });
        Ok(())
    }

    pub(super) fn insert(&mut self, id: i64, spool: &SpoolId, item: Spooled) {
        if !self.deletes.is_empty() {
            self.flush();
        }
        self.inserts.push((id, spool.clone(), item));
    }

    pub(super) fn delete(&mut self, id: i64, deletion: &Deletion) {
        if !self.inserts.is_empty() {
            self.flush();
        }
        self.deletes.push((id, deletion.clone()));
    }

    pub(super) fn wake_deleted(&mut self, id: i64, device: DeviceId) {
        let params = params![id, numbers::device(device)];
        self.call("DELETE FROM wake WHERE account = $1 AND device = $2", params, RowMeaning::Nothing);
    }

    /// Adds the statements for stanzas that were collected so far.
    fn flush(&mut self) {
        let inserts = std::mem::take(&mut self.inserts);
        if !inserts.is_empty() {
            self.calls.push(insert_stanzas(&inserts));
        }
        let deletes = std::mem::take(&mut self.deletes);
        if !deletes.is_empty() {
            self.calls.extend(delete_stanzas(&deletes));
        }
    }

    /// Adds what is written at the end of a group.
    pub(super) fn finish(&mut self) {
        self.flush();
        let records: Vec<_> = self.records.drain().collect();
        let (mut ids, mut written) = (Vec::new(), Vec::new());
        let (mut revisions, mut logins) = (Vec::new(), Vec::new());
        for (account, NewRecord { state, login }) in records {
            let (Some(id), Ok(record)) = (self.known.ids.get(&account), encode_account(&account, &state)) else {
                continue;
            };
            self.names.insert(*id, account);
            ids.push(*id);
            written.push(record);
            revisions.push(numbers::counted(state.revision));
            logins.push(numbers::login(login));
        }
        if !ids.is_empty() {
            let reading = RowMeaning::Written(ids.len());
            let params = params![ids, written, revisions, logins, self.writer.node, self.writer.epoch];
            self.calls.push((StatementCall::new(WRITE_RECORDS, params), reading));
        }
        self.finish_releases();
    }

    /// Adds the statements that give accounts up, after the records of the group are written.
    fn finish_releases(&mut self) {
        let ids = std::mem::take(&mut self.late);
        if ids.is_empty() {
            return;
        }
        let (node, epoch) = (self.writer.node, self.writer.epoch);
        self.call(RELEASE, params![ids.clone(), node, epoch], RowMeaning::Nothing);
        self.call(DELETE_UNUSED, params![ids], RowMeaning::Nothing);
    }

    /// Returns whether a group of these operations would change anything.
    pub(super) fn differs(&self) -> bool {
        !self.calls.is_empty()
    }
}

const WRITE_RECORDS: &str = "UPDATE account a SET record = r.record, revision = r.revision, \
    last_login = greatest(a.last_login, r.login) \
    FROM unnest($1::bigint[], $2::bytea[], $3::bigint[], $4::bigint[]) AS r(id, record, revision, login) \
    WHERE a.id = r.id AND a.owner = $5 AND a.owner_epoch = $6 RETURNING a.id";

const RELEASE: &str = "UPDATE account SET owner = NULL, owner_epoch = NULL \
    WHERE id = ANY($1) AND owner = $2 AND owner_epoch = $3";
/// An account about which nothing is known needs no row.
const DELETE_UNUSED: &str = "DELETE FROM account a WHERE a.id = ANY($1) AND a.owner IS NULL AND a.record IS NULL \
    AND NOT EXISTS (SELECT 1 FROM session x WHERE x.account = a.id)";

const INSERT_STANZAS: &str = "INSERT INTO spool (account, session, seq, stanza) \
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bytea[]) \
    ON CONFLICT (account, session, seq) DO UPDATE SET stanza = excluded.stanza";

const DELETE_STANZAS: &str = "WITH gone AS (DELETE FROM spool s \
    USING unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) AS r(account, session, first, last) \
    WHERE s.account = r.account AND s.session = r.session AND s.seq BETWEEN r.first AND r.last \
    RETURNING s.account, s.session, length(s.stanza) AS len, \
    CASE WHEN length(s.stanza) > 1 THEN get_byte(s.stanza, 1) & 1 ELSE 0 END AS shared) \
    SELECT account, session, count(*), sum(greatest(len - 10, 0) + 64)::bigint, sum(shared)::bigint \
    FROM gone GROUP BY account, session";

/// The session of a spool that another login reads has ended.
const DROP_INHERITED: &str = "DELETE FROM session x USING unnest($1::bigint[], $2::bigint[]) AS r(account, login) \
    WHERE x.account = r.account AND x.login = r.login AND x.reader <> x.login \
    AND NOT EXISTS (SELECT 1 FROM spool s WHERE s.account = x.account AND s.session = x.login) \
    RETURNING x.account, x.login";

fn insert_stanzas(inserts: &[(i64, SpoolId, Spooled)]) -> (StatementCall, RowMeaning) {
    // Of two with the same number the last one counts, and one statement cannot write a row twice.
    let mut last: HashMap<(i64, i64, i64), usize> = HashMap::with_capacity(inserts.len());
    for (n, (id, spool, item)) in inserts.iter().enumerate() {
        last.insert((*id, numbers::login(spool.login), numbers::seq(item.seq)), n);
    }
    let len = last.len();
    let (mut ids, mut sessions) = (Vec::with_capacity(len), Vec::with_capacity(len));
    let (mut seqs, mut records) = (Vec::with_capacity(len), Vec::with_capacity(len));
    for (n, (id, spool, item)) in inserts.iter().enumerate() {
        let (session, seq) = (numbers::login(spool.login), numbers::seq(item.seq));
        if last.get(&(*id, session, seq)) == Some(&n) {
            ids.push(*id);
            sessions.push(session);
            seqs.push(seq);
            records.push(item.encode());
        }
    }
    (StatementCall::new(INSERT_STANZAS, params![ids, sessions, seqs, records]), RowMeaning::Nothing)
}

fn delete_stanzas(deletes: &[(i64, Deletion)]) -> [(StatementCall, RowMeaning); 2] {
    let (mut ids, mut sessions, mut firsts, mut lasts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut spool_ids, mut spools) = (Vec::new(), Vec::new());
    for (id, deletion) in deletes {
        spool_ids.push(*id);
        spools.push(numbers::login(deletion.spool.login));
        for (first, last) in deletion.ranges.iter().map(numbers::seqs) {
            ids.push(*id);
            sessions.push(numbers::login(deletion.spool.login));
            firsts.push(first);
            lasts.push(last);
        }
    }
    [
        (StatementCall::new(DELETE_STANZAS, params![ids, sessions, firsts, lasts]), RowMeaning::Deleted),
        (StatementCall::new(DROP_INHERITED, params![spool_ids, spools]), RowMeaning::Gone),
    ]
}

/// Notes an operation that is done once its statements are committed.
pub(super) fn done() -> OpOutcome {
    OpOutcome::Done(Effect::Nothing)
}
