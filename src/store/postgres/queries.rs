//! Answers to reads, as of the last commit of the primary.

use std::collections::HashMap;

use tokio_postgres::{Error, Row};

use super::connection::{PrimaryConnection, StatementCall, params};
use super::knowledge::decode;
use super::{nodes, numbers};
use crate::jid::BareJid;
use crate::push::account::LoginId;
use crate::seq::Seq;
use crate::session::queue::Spooled;
use crate::store::deletions::HiddenRanges;
use crate::store::error::StoreError;
use crate::store::op::Unreadable;
use crate::store::query::{HeldContents, Piece, Query, QueryAnswer};
use crate::store::schema::{Count, decode_account};
use crate::store::values::AccountScope;
use crate::store::values::{AccountPage, Backlog, Slot, SpoolId, Tombstone, Wake};

/// The most records of a piece of a table.
const PIECE: i64 = 256;
/// The most ranges of hidden stanzas of a spool that a statement names.
const RANGES: usize = 1024;

/// Accounts that no other living node owns.
macro_rules! free_or_own {
    ($account:literal, $node:literal) => {
        concat!(
            "(",
            $account,
            ".owner IS NULL OR ",
            $account,
            ".owner = ",
            $node,
            " OR NOT EXISTS (SELECT 1 FROM node n WHERE n.id = ",
            $account,
            ".owner AND n.epoch = ",
            $account,
            ".owner_epoch))"
        )
    };
}

const ACCOUNT: &str = "SELECT record FROM account WHERE jid = $1";
const ACCOUNTS: &str = "SELECT jid, record FROM account WHERE jid > $1 AND record IS NOT NULL ORDER BY jid LIMIT $2";
const OWN_ACCOUNTS: &str = "SELECT a.jid, a.record FROM account a JOIN node n ON n.id = a.owner AND n.epoch = a.owner_epoch \
    WHERE a.jid > $1 AND a.record IS NOT NULL AND a.owner = $3 ORDER BY a.jid LIMIT $2";
const OWN_AND_FREE: &str = concat!(
    "SELECT jid, record FROM account WHERE jid > $1 AND record IS NOT NULL AND ",
    free_or_own!("account", "$3"),
    " ORDER BY jid LIMIT $2"
);
const SIZES: &str = "SELECT (SELECT count(*) FROM account WHERE record IS NOT NULL), (SELECT count(*) FROM wake)";
const SPOOLS: &str = "SELECT x.login, x.device, EXISTS (SELECT 1 FROM spool s \
    WHERE s.account = x.account AND s.session = x.login AND NOT EXISTS (SELECT 1 \
    FROM unnest($2::bigint[], $3::bigint[], $4::bigint[]) AS h(session, first, last) \
    WHERE h.session = s.session AND s.seq BETWEEN h.first AND h.last)) \
    FROM session x JOIN account a ON a.id = x.account WHERE a.jid = $1 ORDER BY x.login";
const DEVICES: &str =
    "SELECT a.jid, x.login, x.device FROM session x JOIN account a ON a.id = x.account WHERE a.owner = $1";
const COUNT: &str = "SELECT count(*), coalesce(sum(greatest(length(s.stanza) - 10, 0) + 64), 0)::bigint, \
    coalesce(max(s.seq), 0), \
    coalesce(sum(CASE WHEN length(s.stanza) > 1 THEN get_byte(s.stanza, 1) & 1 ELSE 0 END), 0)::bigint \
    FROM spool s JOIN account a ON a.id = s.account WHERE a.jid = $1 AND s.session = $2";
/// From one number to another, as many as fit into the weight: the sum includes the current row.
const STANZAS: &str = "SELECT seq, stanza FROM (SELECT s.seq, s.stanza, \
    sum(length(s.stanza)) OVER (ORDER BY s.seq) - length(s.stanza) AS before \
    FROM (SELECT s.seq, s.stanza FROM spool s JOIN account a ON a.id = s.account \
    WHERE a.jid = $1 AND s.session = $2 AND s.seq BETWEEN $3 AND $4 ORDER BY s.seq LIMIT $6) s) r \
    WHERE r.before <= $5 ORDER BY seq";
const TOMBSTONE: &str = "SELECT record FROM tombstone WHERE sm_id = $1";
const WAKES: &str = concat!(
    "SELECT a.jid, w.device, w.record FROM wake w JOIN account a ON a.id = w.account WHERE ",
    free_or_own!("a", "$1"),
    " ORDER BY w.account, w.device"
);
const WAKE: &str = "SELECT a.jid, w.device, w.record FROM wake w JOIN account a ON a.id = w.account \
    WHERE a.jid = $1 AND w.device = $2";
const OLD_TOMBSTONES: &str = "SELECT sm_id, at FROM tombstone WHERE sm_id > $1 ORDER BY sm_id LIMIT $2";
const AWAY: &str = concat!(
    "SELECT a.jid, x.login, x.device, a.record FROM session x JOIN account a ON a.id = x.account \
     WHERE (a.jid, x.login) > ($1, $2) AND ",
    free_or_own!("a", "$4"),
    " ORDER BY a.jid, x.login LIMIT $3"
);

/// The error of a read.
pub(super) enum ReadError {
    /// The server or the connection failed.
    Postgres(Error),
    /// A record cannot be read.
    Record(StoreError),
}

impl From<Error> for ReadError {
    fn from(error: Error) -> Self {
        Self::Postgres(error)
    }
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        Self::Record(error)
    }
}

/// Answers a read. `node`: the number of this node.
pub(super) async fn answer(connection: &PrimaryConnection, node: i16, query: &Query) -> Result<QueryAnswer, ReadError> {
    Ok(match query {
        Query::Account { account } => {
            let rows = connection.query(&StatementCall::new(ACCOUNT, params![account.as_str().to_owned()])).await?;
            QueryAnswer::Account(decode(account, rows.first().and_then(|row| row.get(0)))?)
        }
        Query::Accounts { scope, after, limit } => {
            accounts(connection, node, *scope, after.clone().unwrap_or_default(), *limit).await?
        }
        Query::Sizes => {
            let rows = connection.query(&StatementCall::new(SIZES, Vec::new())).await?;
            let number = |n: usize| rows.first().map_or(0, |row| numbers::count_of(row.get(n)));
            QueryAnswer::Sizes { accounts: number(0), wakes: number(1) }
        }
        Query::Spools { account, hidden } => spools(connection, account, hidden).await?,
        Query::Devices => {
            let rows = connection.query(&StatementCall::new(DEVICES, params![node])).await?;
            let device = |row: &Row| Some((spool(row)?, numbers::device_of(row.get(2))));
            QueryAnswer::Devices(rows.iter().filter_map(device).collect())
        }
        Query::Count { spool } => {
            let params = params![spool.account.as_str().to_owned(), numbers::login(spool.login)];
            let rows = connection.query(&StatementCall::new(COUNT, params)).await?;
            QueryAnswer::Count(rows.first().map(count).unwrap_or_default())
        }
        Query::Stanzas { spool, hidden, after, weight } => {
            let (items, unreadable) = stanzas(connection, spool, hidden, *after, *weight).await?;
            QueryAnswer::Stanzas(items, unreadable)
        }
        Query::Tombstone { sm_id } => {
            let rows = connection.query(&StatementCall::new(TOMBSTONE, params![sm_id.clone()])).await?;
            QueryAnswer::Tombstone(rows.first().and_then(|row| Tombstone::decode(row.get(0))))
        }
        Query::Wakes => wakes(connection, StatementCall::new(WAKES, params![node])).await?,
        Query::Wake { slot } => {
            let params = params![slot.account.as_str().to_owned(), numbers::device(slot.device)];
            wakes(connection, StatementCall::new(WAKE, params)).await?
        }
        Query::Unseen { after, before } => {
            let rows = connection.query(&StatementCall::new(OWN_AND_FREE, params![after.clone(), PIECE, node])).await?;
            QueryAnswer::Unseen(unseen(&rows, *before))
        }
        Query::OldTombstones { after, before } => {
            let rows = connection.query(&StatementCall::new(OLD_TOMBSTONES, params![after.clone(), PIECE])).await?;
            let is_old = |row: &&Row| numbers::count_of(row.get(1)) < before.get();
            let due = rows.iter().filter(is_old).map(|row| row.get(0)).collect();
            QueryAnswer::OldTombstones(Piece { due, next: rows.last().map(|row| row.get(0)) })
        }
        Query::Away { after: (name, login) } => {
            let params = params![name.clone(), numbers::counted(*login), PIECE, node];
            QueryAnswer::Away(away(&connection.query(&StatementCall::new(AWAY, params)).await?))
        }
        Query::Owner { name, account } => nodes::owner(connection, name.as_ref(), account.as_ref()).await?,
        Query::ComponentHolder { jid } => nodes::holder(connection, jid).await?,
        Query::Nodes { counted } => nodes::all(connection, *counted).await?,
    })
}

fn spool(row: &Row) -> Option<SpoolId> {
    let account = BareJid::new(row.get::<_, &str>(0)).ok()?;
    Some(SpoolId { account, login: numbers::login_of(row.get(1)) })
}

async fn accounts(
    connection: &PrimaryConnection,
    node: i16,
    scope: AccountScope,
    after: String,
    limit: usize,
) -> Result<QueryAnswer, ReadError> {
    let limit = limit.max(1);
    let mut params = params![after, i64::try_from(limit).unwrap_or(i64::MAX)];
    let sql = match scope {
        AccountScope::All => ACCOUNTS,
        AccountScope::Own => OWN_ACCOUNTS,
        AccountScope::OwnAndFree => OWN_AND_FREE,
    };
    if scope != AccountScope::All {
        params.push(Box::new(node));
    }
    Ok(QueryAnswer::Accounts(page(&connection.query(&StatementCall::new(sql, params)).await?, limit)))
}

async fn wakes(connection: &PrimaryConnection, call: StatementCall) -> Result<QueryAnswer, ReadError> {
    Ok(QueryAnswer::Wakes(connection.query(&call).await?.iter().filter_map(wake).collect()))
}

/// Returns a page of the accounts. Those that cannot be read are logged and skipped.
fn page(rows: &[Row], limit: usize) -> AccountPage {
    let next = rows.last().filter(|_| rows.len() >= limit).map(|row| row.get(0));
    let mut page = AccountPage { accounts: Vec::new(), next };
    for row in rows {
        let Ok(account) = BareJid::new(row.get::<_, &str>(0)) else { continue };
        match decode_account(&account, row.get(1)) {
            Ok(state) => page.accounts.push((account, state)),
            Err(error) => tracing::error!(%error, "unreadable record skipped"),
        }
    }
    page
}

async fn spools(
    connection: &PrimaryConnection,
    account: &BareJid,
    hidden: &HashMap<SpoolId, HiddenRanges>,
) -> Result<QueryAnswer, ReadError> {
    let (mut sessions, mut firsts, mut lasts) = (Vec::new(), Vec::new(), Vec::new());
    for (spool, hidden) in hidden {
        for (first, last) in hidden.first(Seq::ZERO, RANGES).iter().map(numbers::seqs) {
            sessions.push(numbers::login(spool.login));
            firsts.push(first);
            lasts.push(last);
        }
    }
    let name = account.as_str().to_owned();
    let spools = StatementCall::new(SPOOLS, params![name.clone(), sessions, firsts, lasts]);
    let record = StatementCall::new(ACCOUNT, params![name]);
    let (spools, record) = tokio::try_join!(connection.query(&spools), connection.query(&record))?;
    let held = |row: &Row| HeldContents {
        login: LoginId(numbers::count_of(row.get(0))),
        device: numbers::device_of(row.get(1)),
        waits: row.get(2),
    };
    let account = decode(account, record.first().and_then(|row| row.get(0)));
    Ok(QueryAnswer::Spools { account, spools: spools.iter().map(held).collect() })
}

fn count(row: &Row) -> Count {
    let last_seq = Seq::new(numbers::count_of(row.get(2)));
    let backlog = Backlog { count: numbers::count_of(row.get(0)), bytes: numbers::count_of(row.get(1)), last_seq };
    Count { backlog, shared: numbers::count_of(row.get(3)) }
}

/// Returns the stanzas of a spool after a number: at least one, then up to `weight` (the sum of [`Spooled::weight`]). Those
/// that cannot be read are skipped and returned separately.
async fn stanzas(
    connection: &PrimaryConnection,
    spool: &SpoolId,
    hidden: &HiddenRanges,
    after: Seq,
    weight: usize,
) -> Result<(Vec<Spooled>, Unreadable), ReadError> {
    let (mut items, mut unreadable) = (Vec::new(), Unreadable::of(spool));
    let (mut next, mut left) = (after.checked_next(), Some(weight));
    while let Some(mut from) = next {
        if let Some(end) = hidden.end_of(from) {
            let Some(behind) = end.checked_next() else { break };
            from = behind;
        }
        // Up to the next hidden range.
        let last = hidden.first(from, 1).first().map_or(Seq::MAX, |range| range.start().previous());
        let bytes = i64::try_from(left.unwrap_or_default()).unwrap_or(i64::MAX);
        let (first, end) = numbers::seqs(&(from..=last));
        let name = spool.account.as_str().to_owned();
        let params = params![name, numbers::login(spool.login), first, end, bytes, PIECE];
        let rows = connection.query(&StatementCall::new(STANZAS, params)).await?;
        next = match rows.last() {
            Some(row) => numbers::seq_of(row.get(0)).checked_next(),
            None if last == Seq::MAX => None,
            None => last.checked_next(),
        };
        for row in &rows {
            let seq = numbers::seq_of(row.get(0));
            match Spooled::decode(&spool.account, seq, row.get(1)) {
                Err(error) => unreadable.add(seq, error),
                // The first stanza is always returned.
                Ok(item) if !items.is_empty() && left.is_none_or(|left| item.weight() > left) => {
                    return Ok((items, unreadable));
                }
                Ok(item) => {
                    left = left.and_then(|left| left.checked_sub(item.weight()));
                    items.push(item);
                }
            }
        }
    }
    Ok((items, unreadable))
}

fn wake(row: &Row) -> Option<(Slot, Option<Wake>)> {
    let account = BareJid::new(row.get::<_, &str>(0)).ok()?;
    let wake = Wake::decode(&account, row.get(2)).ok();
    Some((Slot { account, device: numbers::device_of(row.get(1)) }, wake))
}

fn unseen(rows: &[Row], before: crate::clock::UnixSecs) -> Piece<String, BareJid> {
    let mut piece = Piece { due: Vec::new(), next: rows.last().map(|row| row.get(0)) };
    for row in rows {
        let Ok(account) = BareJid::new(row.get::<_, &str>(0)) else { continue };
        let Ok(mut state) = decode_account(&account, row.get(1)) else { continue };
        let old = state.clone();
        state.forget_unseen(before);
        if state != old {
            piece.due.push(account);
        }
    }
    piece
}

fn away(rows: &[Row]) -> Piece<(String, u64), SpoolId> {
    let next = rows.last().map(|row| (row.get(0), numbers::count_of(row.get(1))));
    let mut piece = Piece { due: Vec::new(), next };
    for row in rows {
        let Some(spool) = spool(row) else { continue };
        // An account that cannot be read may have an open session.
        let state = decode(&spool.account, row.get(3));
        if state.is_ok_and(|state| state.is_away(numbers::device_of(row.get(2)))) {
            piece.due.push(spool);
        }
    }
    piece
}
