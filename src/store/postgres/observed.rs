//! The leases of other nodes, as this one has seen them ([`ObservedLeases`]).
//!
//! A node is dead for this one only after its lease has not moved for its whole length, by the clock of this machine and as
//! far as the database has answered. So it does not matter whose clock is wrong. After a failover of the database nobody
//! could renew for a while: the observation begins again with each connection.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::connection::{PrimaryConnection, StatementCall, TransactionError, params, unavailable};
use super::core::Core;
use crate::clock::Instant;
use crate::store::error::{DatabaseFailure, StoreError};

/// The others that live, or were not buried yet.
const LOOK_AT: &str =
    "SELECT id, epoch, lease_until::text, lease FROM node WHERE id <> $1 AND lease_until <> '-infinity'";
/// Begins an epoch of a dead node in which nobody lives, if this node's own epoch has not passed.
const TAKE_OVER: &str = "UPDATE node SET epoch = epoch + 1, lease_until = '-infinity', draining = false, handover = NULL \
    WHERE id = $1 AND epoch = $2 AND lease_until::text = $3 RETURNING id";

/// The leases of other nodes.
#[derive(Default)]
pub(super) struct ObservedLeases {
    seen: HashMap<i16, SeenLease>,
    /// The connection on which they were seen.
    connection: Option<Arc<PrimaryConnection>>,
}

/// A lease that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SeenLease {
    epoch: i64,
    /// Its end, as the database writes it.
    end: String,
    /// The longer one of its length and this node's.
    length: Duration,
    /// The time at which this node first saw it so.
    since: Instant,
}

/// A lease in an answer of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
struct LeaseRow {
    node: i16,
    epoch: i64,
    end: String,
    length: Duration,
}

impl ObservedLeases {
    /// Takes an answer of the database, which was asked and has answered at these times. Returns the nodes whose leases have
    /// not moved for their whole length.
    fn look(&mut self, rows: Vec<LeaseRow>, asked: Instant, answered: Instant) -> Vec<(i16, SeenLease)> {
        let before = std::mem::take(&mut self.seen);
        let mut dead = Vec::new();
        for LeaseRow { node, epoch, end, length } in rows {
            let same = before.get(&node).filter(|seen| seen.epoch == epoch && seen.end == end);
            let seen = match same {
                Some(seen) => SeenLease { length, ..seen.clone() },
                None => SeenLease { epoch, end, length, since: answered },
            };
            if asked.duration_since(seen.since) >= seen.length {
                dead.push((node, seen.clone()));
            }
            self.seen.insert(node, seen);
        }
        dead
    }

    /// Begins again, unless this is the connection on which everything was seen.
    fn on_connection(&mut self, connection: &Arc<PrimaryConnection>) {
        if !self.connection.as_ref().is_some_and(|known| Arc::ptr_eq(known, connection)) {
            self.seen.clear();
            self.connection = Some(Arc::clone(connection));
        }
    }
}

/// Looks at the leases of the other nodes, and takes the place of those that are dead.
pub(super) async fn observe(core: &Core, observed: &mut ObservedLeases) -> Result<(), StoreError> {
    let connection = core.leases.get().await?;
    observed.on_connection(&connection);
    let asked = Instant::now();
    let rows = match connection.query(&StatementCall::new(LOOK_AT, params![core.node()])).await {
        Ok(rows) => rows,
        Err(error) => {
            core.leases.drop_connection(&connection).await;
            return Err(unavailable(error));
        }
    };
    let own = core.settings.lease;
    let row = |row: &tokio_postgres::Row| LeaseRow {
        node: row.get(0),
        epoch: row.get(1),
        end: row.get(2),
        length: Duration::try_from_secs_f64(row.get(3)).unwrap_or(own).max(own),
    };
    let dead = observed.look(rows.iter().map(row).collect(), asked, Instant::now());
    for (node, seen) in dead {
        if core.lease.is_valid(Instant::now()) {
            take_place(core, &connection, node, &seen).await?;
        }
    }
    Ok(())
}

/// Takes the place of a dead node: nothing that it still sends is written from now on, and its accounts are free.
async fn take_place(
    core: &Core,
    connection: &Arc<PrimaryConnection>,
    node: i16,
    seen: &SeenLease,
) -> Result<(), StoreError> {
    let Some(epoch) = core.lease.epoch() else { return Ok(()) };
    let calls = [
        StatementCall::new(super::commit::OWN_EPOCH, params![core.node(), epoch]),
        StatementCall::new(TAKE_OVER, params![node, seen.epoch, seen.end.clone()]),
    ];
    let rows = match connection.transact(&calls).await {
        Ok(rows) => rows,
        Err(error) => {
            // If it was committed, the next look finds the node buried, and its accounts are freed all the same.
            core.leases.drop_connection(connection).await;
            core.lease.note_death();
            return Err(match error {
                TransactionError::NotSent(error) | TransactionError::Refused(error) | TransactionError::Lost(error) => {
                    unavailable(error)
                }
                TransactionError::Doubtful => StoreError::Unavailable(DatabaseFailure::Doubtful),
            });
        }
    };
    let [own, taken] = rows.as_slice() else { return Err(StoreError::WrongAnswer) };
    if own.is_empty() {
        core.lease.pass(epoch);
    } else if !taken.is_empty() {
        tracing::error!(node, epoch = seen.epoch, lease = ?seen.length, "node is dead: its lease was not renewed");
        core.lease.note_death();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(10);

    fn row(node: i16, epoch: i64, end: &str) -> LeaseRow {
        LeaseRow { node, epoch, end: end.to_owned(), length: LEASE }
    }

    fn dead(observed: &mut ObservedLeases, rows: Vec<LeaseRow>, at: Instant) -> Vec<i16> {
        observed.look(rows, at, at).into_iter().map(|(node, _)| node).collect()
    }

    #[test]
    fn a_node_is_dead_after_its_lease_has_not_moved_for_its_whole_length() {
        let (mut observed, now) = (ObservedLeases::default(), Instant::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        assert!(dead(&mut observed, vec![row(2, 5, "a"), row(3, 1, "x")], now).is_empty());
        assert!(dead(&mut observed, vec![row(2, 5, "a"), row(3, 1, "y")], after(9)).is_empty());
        assert_eq!(dead(&mut observed, vec![row(2, 5, "a"), row(3, 1, "y")], after(10)), [2]);
        // Another epoch is another life.
        assert!(dead(&mut observed, vec![row(2, 6, "a"), row(3, 1, "z")], after(30)).is_empty());
        assert_eq!(dead(&mut observed, vec![row(2, 6, "a"), row(3, 1, "z")], after(40)), [2, 3]);
    }

    #[test]
    fn only_what_was_asked_after_a_whole_lease_counts() {
        let (mut observed, now) = (ObservedLeases::default(), Instant::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        // The answer of the first question took long, and so did the second.
        assert!(observed.look(vec![row(2, 5, "a")], now, after(5)).is_empty());
        assert!(observed.look(vec![row(2, 5, "a")], after(14), after(20)).is_empty());
        assert_eq!(observed.look(vec![row(2, 5, "a")], after(15), after(16)).len(), 1);
    }

    #[test]
    fn the_longer_lease_counts() {
        let (mut observed, now) = (ObservedLeases::default(), Instant::now());
        let long = || vec![LeaseRow { length: LEASE * 3, ..row(2, 5, "a") }];
        assert!(dead(&mut observed, long(), now).is_empty());
        assert!(dead(&mut observed, long(), now + LEASE * 2).is_empty());
        assert_eq!(dead(&mut observed, long(), now + LEASE * 3), [2]);
    }
}
