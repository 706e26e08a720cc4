//! This node's row: joining with a new epoch, renewing the lease, leaving.

use std::num::NonZeroU64;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_postgres::Row;

use super::connection::{Line, StatementCall, params, unavailable};
use super::core::Core;
use super::numbers;
use super::observed::{self, ObservedLeases};
use super::settings::PostgresSettings;
use crate::clock::Instant;
use crate::store::error::StoreError;

/// The time between two looks at a lease that is waited for.
const LOOK: Duration = Duration::from_millis(200);

const LOOK_AT: &str =
    "SELECT epoch, lease_until::text, lease_until > clock_timestamp(), handover, address FROM node WHERE id = $1";
const CREATE: &str = "INSERT INTO node (id, epoch, address, certificate, lease_until) \
    VALUES ($1, 0, $2, $3, '-infinity') ON CONFLICT (id) DO NOTHING";
const BEGIN_EPOCH: &str = "UPDATE node SET epoch = epoch + 1, address = $3, certificate = $4, draining = false, \
    handover = NULL, lease = $5, lease_until = clock_timestamp() + make_interval(secs => $5) \
    WHERE id = $1 AND epoch = $2 AND lease_until <= clock_timestamp() RETURNING epoch";
const GO_ON: &str = "UPDATE node SET address = $3, certificate = $4, lease = $5, \
    lease_until = clock_timestamp() + make_interval(secs => $5) \
    WHERE id = $1 AND epoch = $2 AND handover = $6 RETURNING epoch";
const RENEW: &str = "UPDATE node SET lease_until = clock_timestamp() + make_interval(secs => $3) \
    WHERE id = $1 AND epoch = $2 RETURNING id";
/// The next epoch, in which nobody lives: what this node still owns is free at once.
const LEAVE: &str = "UPDATE node SET epoch = epoch + 1, lease_until = '-infinity', draining = false, handover = NULL \
    WHERE id = $1 AND epoch = $2";
/// A node without a cluster and nodes of a cluster cannot share a database: nobody could reach the accounts of the first.
const OTHER_KIND: &str = "SELECT id, address FROM node \
    WHERE (id = 0) <> ($1::smallint = 0) AND lease_until > clock_timestamp() ORDER BY id LIMIT 1";

/// The begin of this node's work.
pub(super) struct Joined {
    pub(super) epoch: i64,
    pub(super) until: Instant,
    /// The number of the handover that the previous process began.
    pub(super) handover: Option<NonZeroU64>,
}

/// This node's row.
struct NodeRow {
    epoch: i64,
    lease: String,
    is_alive: bool,
    handover: Option<NonZeroU64>,
    address: String,
}

/// Begins a new epoch, or goes on with the epoch of the process whose handover this one continues. A lease that is not over is
/// waited for, unless it is renewed: then the node's number is in use.
///
/// # Errors
/// [`StoreError::NodeInUse`], [`StoreError::Unavailable`].
pub(super) async fn join(settings: &PostgresSettings, line: &Line) -> Result<Joined, StoreError> {
    let node = i16::from(settings.node.id);
    let connection = line.get().await?;
    let query = async |sql, params| connection.query(&StatementCall::new(sql, params)).await.map_err(unavailable);
    if let Some(row) = query(OTHER_KIND, params![node]).await?.first() {
        return Err(in_use(row.get(0), row.get(1)));
    }
    let (address, certificate) = (settings.node.address.clone(), settings.node.certificate.clone());
    query(CREATE, params![node, address.clone(), certificate.clone()]).await?;
    let mut before: Option<String> = None;
    loop {
        let rows = query(LOOK_AT, params![node]).await?;
        let Some(row) = rows.first().map(node_row) else { return Err(StoreError::WrongAnswer) };
        let (sent, lease) = (Instant::now(), settings.lease.as_secs_f64());
        let handed_over = row.handover.filter(|_| settings.goes_on);
        let (address, certificate) = (address.clone(), certificate.clone());
        let begun = if let Some(number) = handed_over {
            let number = numbers::random(number.get());
            query(GO_ON, params![node, row.epoch, address, certificate, lease, number]).await?
        } else if !row.is_alive {
            query(BEGIN_EPOCH, params![node, row.epoch, address, certificate, lease]).await?
        } else if before.as_ref().is_some_and(|before| *before != row.lease) {
            return Err(in_use(node, &row.address));
        } else {
            if before.is_none() {
                tracing::info!(node, "waiting for the lease of the previous process");
            }
            Vec::new()
        };
        if let Some(begun) = begun.first() {
            return Ok(Joined { epoch: begun.get(0), until: settings.lease_from(sent), handover: row.handover });
        }
        before = Some(row.lease);
        sleep(LOOK).await;
    }
}

fn node_row(row: &Row) -> NodeRow {
    let handover: Option<i64> = row.get(3);
    NodeRow {
        epoch: row.get(0),
        lease: row.get(1),
        is_alive: row.get(2),
        handover: handover.and_then(|number| NonZeroU64::new(u64::from_ne_bytes(number.to_ne_bytes()))),
        address: row.get(4),
    }
}

fn in_use(node: i16, address: &str) -> StoreError {
    StoreError::NodeInUse { node: u8::try_from(node).unwrap_or_default(), address: address.to_owned() }
}

impl Core {
    /// Renews the lease, and observes those of the other nodes, for as long as the engine lives.
    pub(super) async fn keep_lease(&self) {
        let mut observed = ObservedLeases::default();
        loop {
            sleep(self.settings.renewal()).await;
            let Some(epoch) = self.lease.epoch() else { continue };
            let work = async {
                self.renew(epoch).await?;
                observed::observe(self, &mut observed).await
            };
            match timeout(self.settings.lease, work).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => self.note_unavailable(&error),
                Err(_) => {
                    let error = crate::store::error::DatabaseFailure::Silent;
                    self.note_unavailable(&StoreError::Unavailable(error));
                }
            }
        }
    }

    async fn renew(&self, epoch: i64) -> Result<(), StoreError> {
        let connection = self.leases.get().await?;
        let sent = Instant::now();
        let renew = StatementCall::new(RENEW, params![self.node(), epoch, self.settings.lease.as_secs_f64()]);
        let rows = match connection.query(&renew).await {
            Ok(rows) if !connection.is_lost() => rows,
            Ok(_) => return Err(StoreError::Unavailable(crate::store::error::DatabaseFailure::Doubtful)),
            Err(error) => {
                self.leases.drop_connection(&connection).await;
                return Err(unavailable(error));
            }
        };
        if rows.is_empty() {
            tracing::error!(node = self.node(), epoch, "epoch has passed: another node has taken this node's place");
            self.lease.pass(epoch);
        } else {
            self.lease.renew(epoch, self.settings.lease_from(sent));
        }
        Ok(())
    }

    /// Gives the lease up, so that others need not wait for its end.
    pub(super) async fn leave(&self) -> Result<(), StoreError> {
        let Some(epoch) = self.lease.epoch() else { return Ok(()) };
        let connection = self.leases.get().await?;
        connection.query(&StatementCall::new(LEAVE, params![self.node(), epoch])).await.map_err(unavailable)?;
        self.lease.pass(epoch);
        Ok(())
    }
}
