//! Reads about the nodes.

use tokio_postgres::{Error, Row};

use super::connection::{PrimaryConnection, StatementCall, params};
use super::numbers;
use crate::jid::BareJid;
use crate::store::query::QueryAnswer;
use crate::store::values::{LoginKey, NodeRecord};

const OWNER: &str = "SELECT n.id, n.epoch, n.address, n.certificate, n.lease_until > clock_timestamp(), n.draining, 0::bigint \
    FROM account a JOIN node n ON n.id = a.owner AND n.epoch = a.owner_epoch \
    WHERE a.id = coalesce((SELECT account FROM login WHERE host = $1 AND authcid = $2), \
    (SELECT id FROM account WHERE jid = $3))";
const HOLDER: &str = "SELECT n.id, n.epoch, n.address, n.certificate, n.lease_until > clock_timestamp(), n.draining, 0::bigint \
    FROM component c JOIN node n ON n.id = c.owner AND n.epoch = c.owner_epoch WHERE c.jid = $1";
const NODES: &str = "SELECT n.id, n.epoch, n.address, n.certificate, n.lease_until > clock_timestamp(), n.draining, \
    CASE WHEN $1 THEN (SELECT count(*) FROM account a WHERE a.owner = n.id AND a.owner_epoch = n.epoch) ELSE 0 END \
    FROM node n ORDER BY n.id";

pub(super) async fn owner(
    connection: &PrimaryConnection,
    name: Option<&LoginKey>,
    account: Option<&BareJid>,
) -> Result<QueryAnswer, Error> {
    let (host, authcid) = (name.map(|name| name.host.clone()), name.map(|name| name.authcid.clone()));
    let account = account.map(|account| account.as_str().to_owned());
    let rows = connection.query(&StatementCall::new(OWNER, params![host, authcid, account])).await?;
    Ok(QueryAnswer::Nodes(rows.iter().map(record).collect()))
}

pub(super) async fn holder(connection: &PrimaryConnection, jid: &str) -> Result<QueryAnswer, Error> {
    let rows = connection.query(&StatementCall::new(HOLDER, params![jid.to_owned()])).await?;
    Ok(QueryAnswer::Nodes(rows.iter().map(record).collect()))
}

pub(super) async fn all(connection: &PrimaryConnection, counted: bool) -> Result<QueryAnswer, Error> {
    let rows = connection.query(&StatementCall::new(NODES, params![counted])).await?;
    Ok(QueryAnswer::Nodes(rows.iter().map(record).collect()))
}

/// Returns the nodes whose leases hold. Works with the tables of version 1, too.
pub(super) async fn running(connection: &PrimaryConnection) -> Result<Vec<NodeRecord>, Error> {
    let rows = connection.query(&StatementCall::new(NODES, params![false])).await?;
    Ok(rows.iter().map(record).map(|(node, _)| node).filter(|node| node.is_alive).collect())
}

fn record(row: &Row) -> (NodeRecord, u64) {
    let id: i16 = row.get(0);
    let node = NodeRecord {
        id: u8::try_from(id).unwrap_or_default(),
        epoch: row.get(1),
        address: row.get(2),
        certificate: row.get(3),
        is_alive: row.get(4),
        is_draining: row.get(5),
    };
    (node, numbers::count_of(row.get(6)))
}
