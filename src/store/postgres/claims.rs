//! The accounts that this node owns: claims, releases, and the accounts of nodes that are dead.

use super::changes::closed;
use super::connection::params;
use super::knowledge::{FREED, FreeableAccount, decode};
use super::numbers;
use super::plan::{GroupPlan, RowMeaning, done};
use crate::clock::UnixSecs;
use crate::jid::BareJid;
use crate::push::account::LoginId;
use crate::store::error::StoreError;
use crate::store::op::{Effect, Op, OpOutcome};
use crate::store::schema::encode_account;
use crate::store::values::LoginKey;
use crate::store::values::{Slot, Wake, WakeReason};

/// An account is free if nobody owns it, or if the epoch of its owner has passed.
const CLAIM: &str = "INSERT INTO account (jid, owner, owner_epoch) \
    SELECT jid, $2, $3 FROM unnest($1::text[]) AS r(jid) ORDER BY jid \
    ON CONFLICT (jid) DO UPDATE SET owner = excluded.owner, owner_epoch = excluded.owner_epoch \
    WHERE account.owner IS NULL OR account.owner = excluded.owner \
    OR NOT EXISTS (SELECT 1 FROM node n WHERE n.id = account.owner AND n.epoch = account.owner_epoch) \
    RETURNING id, jid, revision, last_login, record";
const COUNT_CLAIMED: &str = "SELECT x.account, x.login, count(s.seq), \
    coalesce(sum(greatest(length(s.stanza) - 10, 0) + 64) FILTER (WHERE s.seq IS NOT NULL), 0)::bigint, \
    coalesce(max(s.seq), 0), coalesce(sum(CASE WHEN length(s.stanza) > 1 THEN get_byte(s.stanza, 1) & 1 ELSE 0 END), 0)::bigint \
    FROM account a JOIN session x ON x.account = a.id \
    LEFT JOIN spool s ON s.account = x.account AND s.session = x.login \
    WHERE a.jid = ANY($1) AND a.owner = $2 AND a.owner_epoch = $3 GROUP BY x.account, x.login";
/// Frees accounts, unless somebody has claimed or changed them since they were read.
const FREE: &str = "UPDATE account a SET owner = CASE WHEN r.stays THEN a.owner END, \
    owner_epoch = CASE WHEN r.stays THEN a.owner_epoch END, record = r.record, revision = r.revision \
    FROM unnest($1::bigint[], $2::smallint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bytea[], $7::bool[]) \
    AS r(id, owner, owner_epoch, was, revision, record, stays) \
    WHERE a.id = r.id AND a.owner = r.owner AND a.owner_epoch = r.owner_epoch AND a.revision = r.was RETURNING a.id";
/// As many wakes as accounts were freed; a device that is to be woken already keeps its note.
const NOTE_WAKES: &str = "INSERT INTO wake (account, device, record) \
    SELECT r.account, r.device, r.record FROM unnest($1::bigint[], $2::bigint[], $3::bytea[], $4::bigint[]) \
    AS r(account, device, record, revision) JOIN account a ON a.id = r.account AND a.revision = r.revision \
    ORDER BY 1, 2 ON CONFLICT (account, device) DO NOTHING";

/// Claims accounts. The caller learns from the rows which of them it has got.
pub(super) fn claim(plan: &mut GroupPlan<'_>, accounts: &[BareJid]) {
    let jids: Vec<String> = accounts.iter().map(|account| account.as_str().to_owned()).collect();
    let (node, epoch) = (plan.writer.node, plan.writer.epoch);
    plan.call(CLAIM, params![jids.clone(), node, epoch], RowMeaning::Claimed);
    plan.call(COUNT_CLAIMED, params![jids, node, epoch], RowMeaning::Counted);
}

/// Notes with which name an account logs in. The account exists: it is claimed before.
pub(super) fn name(plan: &mut GroupPlan<'_>, account: &BareJid, name: &LoginKey) -> OpOutcome {
    const NAME: &str = "INSERT INTO login (host, authcid, account) SELECT $1, $2, a.id FROM account a WHERE a.jid = $3 \
        ON CONFLICT (host, authcid) DO UPDATE SET account = excluded.account WHERE login.account <> excluded.account";
    let params = params![name.host.clone(), name.authcid.clone(), account.as_str().to_owned()];
    plan.call(NAME, params, RowMeaning::Nothing);
    done()
}

/// Changes what other nodes know about this one.
pub(super) fn describe(plan: &mut GroupPlan<'_>, certificate: Option<&[u8]>, is_draining: Option<bool>) -> OpOutcome {
    const DESCRIBE: &str = "UPDATE node SET certificate = coalesce($2, certificate), draining = coalesce($3, draining) \
        WHERE id = $1";
    let params = params![plan.writer.node, certificate.map(<[u8]>::to_vec), is_draining];
    plan.call(DESCRIBE, params, RowMeaning::Nothing);
    done()
}

/// Makes this node the holder of a component, unless another living node is.
pub(super) fn hold(plan: &mut GroupPlan<'_>, jid: &str) -> OpOutcome {
    const HOLD: &str = "INSERT INTO component (jid, owner, owner_epoch) VALUES ($1, $2, $3) ON CONFLICT (jid) DO UPDATE \
        SET owner = excluded.owner, owner_epoch = excluded.owner_epoch WHERE component.owner = excluded.owner \
        OR NOT EXISTS (SELECT 1 FROM node n WHERE n.id = component.owner AND n.epoch = component.owner_epoch)";
    plan.call(HOLD, params![jid.to_owned(), plan.writer.node, plan.writer.epoch], RowMeaning::Nothing);
    done()
}

/// Gives an account up.
pub(super) fn release(plan: &mut GroupPlan<'_>, account: &BareJid) -> Result<OpOutcome, StoreError> {
    let id = plan.id(account)?;
    plan.released.push(account.clone());
    plan.late.push(id);
    Ok(done())
}

/// Closes the logins that nobody serves any more, of the accounts that were read for this operation: first those of this
/// node, except for the logins that were kept, then those of dead nodes. Notes wakes for their devices.
pub(super) fn recover(plan: &mut GroupPlan<'_>, number: usize, op: &Op) -> OpOutcome {
    let Op::Recover { now, revision, kept, after, found } = op else { return done() };
    let Some(read) = plan.known.freeable(number) else { return OpOutcome::Done(Effect::Recovered(found.clone())) };
    let mut found = found.clone();
    let is_own = after.is_some();
    let is_lost = |login: LoginId| !is_own || !kept.contains(&login);
    let mut freed = FreedRows::default();
    for account in read {
        found.extend(freed.add(account, *now, *revision, &is_lost));
    }
    if !freed.ids.is_empty() {
        plan.call(FREE, freed.rows(), RowMeaning::Nothing);
    }
    if !freed.wakes.0.is_empty() {
        let (ids, devices, records, revisions) = freed.wakes;
        plan.call(NOTE_WAKES, params![ids, devices, records, revisions], RowMeaning::Nothing);
    }
    let next = match (after, read.last()) {
        (Some(_), Some(last)) if read.len() == FREED => Some(Some(last.id)),
        (Some(_), _) => Some(None),
        (None, Some(_)) if read.len() == FREED => Some(None),
        (None, _) => None,
    };
    match next {
        Some(after) => {
            let (now, revision, kept) = (*now, *revision, kept.clone());
            OpOutcome::Unfinished(Op::Recover { now, revision, kept, after, found })
        }
        None => OpOutcome::Done(Effect::Recovered(found)),
    }
}

/// The columns of the accounts that are freed.
#[derive(Default)]
struct FreedRows {
    ids: Vec<i64>,
    owners: (Vec<i16>, Vec<i64>),
    revisions: (Vec<i64>, Vec<i64>),
    records: Vec<Option<Vec<u8>>>,
    stay: Vec<bool>,
    wakes: (Vec<i64>, Vec<i64>, Vec<Vec<u8>>, Vec<i64>),
}

impl FreedRows {
    /// Adds an account. Returns its devices that have no session any more.
    fn add(
        &mut self,
        account: &FreeableAccount,
        now: UnixSecs,
        revision: u64,
        is_lost: &impl Fn(LoginId) -> bool,
    ) -> Vec<Slot> {
        let FreeableAccount { id, account: name, record, revision: was, owner, owner_epoch } = account;
        // One that cannot be read keeps its record.
        let state = decode(name, record.as_deref()).ok();
        let closed = state.as_ref().and_then(|state| closed(state, revision, is_lost));
        let rewritten = closed.as_ref().and_then(|closed| encode_account(name, &closed.state).ok());
        let new = closed.as_ref().map_or(*was, |closed| numbers::counted(closed.state.revision));
        let left = closed.as_ref().map(|closed| &closed.state).or(state.as_ref());
        let mut open = left.into_iter().flat_map(|state| &state.devices).flat_map(|device| &device.open);
        self.ids.push(*id);
        self.owners.0.push(*owner);
        self.owners.1.push(*owner_epoch);
        self.revisions.0.push(*was);
        self.revisions.1.push(new);
        self.stay.push(open.any(|login| !is_lost(*login)));
        self.records.push(rewritten.unwrap_or_else(|| record.clone()));
        let Some(closed) = closed else { return Vec::new() };
        for device in closed.to_wake {
            self.wakes.0.push(*id);
            self.wakes.1.push(numbers::device(device));
            self.wakes.2.push(Wake { since: now, reason: WakeReason::Restart }.encode());
            self.wakes.3.push(new);
        }
        closed.away.into_iter().map(|device| Slot { account: name.clone(), device }).collect()
    }

    fn rows(&mut self) -> Vec<Box<dyn tokio_postgres::types::ToSql + Send + Sync>> {
        let Self { ids, owners, revisions, records, stay, .. } = self;
        let (ids, records, stay) = (std::mem::take(ids), std::mem::take(records), std::mem::take(stay));
        let (owners, epochs) = std::mem::take(owners);
        let (was, new) = std::mem::take(revisions);
        params![ids, owners, epochs, was, new, records, stay]
    }
}
