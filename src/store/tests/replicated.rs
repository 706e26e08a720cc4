//! Faults of a primary with two standbys, of which one has to confirm each commit.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::both::{TestDatabase, hold};
use super::postgres::Replicated;
use super::slots::{items, of, slot};
use super::*;
use crate::store::DatabaseFailure;

/// A store on such servers.
struct Rig {
    servers: Replicated,
    store: Store,
}

impl Rig {
    async fn new() -> Self {
        let servers = Replicated::start();
        let settings = PostgresSettings {
            config: servers.database("pushward").parse().unwrap(),
            may_be_single: false,
            lease: Duration::from_secs(5),
            ..TestDatabase::any(0)
        };
        let store = Store::open_postgres(settings, SpoolLimits::default()).unwrap();
        store.shared.owners.as_ref().unwrap().keep_all();
        Self { servers, store }
    }

    /// Begins to store a stanza for a device of its own account.
    fn put(&self, calls: &mut JoinSet<(u64, Result<(), StoreError>)>, number: u64) {
        let store = self.store.clone();
        calls.spawn(async move {
            let slot = slot(&format!("user{number}"), 1);
            hold(&store, &slot.account).await;
            (number, store.spool(&of(&slot), slot.device, items([number])).await)
        });
    }

    async fn holds(&self, number: u64) -> bool {
        let slot = slot(&format!("user{number}"), 1);
        self.store.spooled(&of(&slot), Seq::ZERO, usize::MAX).await.unwrap() == items([number])
    }
}

#[tokio::test]
async fn what_was_answered_is_there_after_the_primary_is_killed() {
    let rig = Rig::new().await;
    let mut calls = JoinSet::new();
    for number in 1..=100 {
        rig.put(&mut calls, number);
    }
    let mut answered = 0;
    while answered < 30 {
        answered += u64::from(calls.join_next().await.unwrap().unwrap().1.is_ok());
    }
    // Some are under way now.
    for number in 101..=200 {
        rig.put(&mut calls, number);
    }
    tokio::task::yield_now().await;
    rig.servers.fail_over();
    for number in 201..=220 {
        rig.put(&mut calls, number);
    }
    while let Some(answer) = calls.join_next().await {
        let (number, answer) = answer.unwrap();
        answer.unwrap_or_else(|error| panic!("{number}: {error}"));
    }
    for number in 1..=220 {
        assert!(rig.holds(number).await, "{number} is lost");
    }
    rig.store.shutdown().await;
}

#[tokio::test]
async fn nothing_is_answered_before_a_standby_has_it_whatever_the_primary_says() {
    let rig = Rig::new().await;
    let mut calls = JoinSet::new();
    rig.put(&mut calls, 1);
    calls.join_next().await.unwrap().unwrap().1.unwrap();
    rig.servers.servers[1..].iter().for_each(|standby| standby.signal("STOP"));
    let slot = slot("user1", 1);
    let (store, other) = (rig.store.clone(), slot.clone());
    let mut call = tokio::spawn(async move { store.spool(&of(&other), other.device, items([2])).await });
    let waits = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep' \
        AND query LIKE 'COMMIT%'";
    // The wait of the primary is cancelled, so it reports the commit as done. Also when it is repeated.
    for _ in 0..2 {
        while rig.servers.servers[0].psql("postgres", waits).trim() == "0" {
            assert!(timeout(Duration::from_millis(50), &mut call).await.is_err(), "answered without a standby");
        }
        assert!(timeout(Duration::from_millis(300), &mut call).await.is_err(), "answered without a standby");
    }
    let lease = rig.store.lease().unwrap();
    while lease.is_valid(crate::clock::Instant::now()) {
        sleep(Duration::from_millis(50)).await;
    }
    rig.servers.servers[1].signal("CONT");
    call.await.unwrap().unwrap();
    assert!(lease.is_valid(crate::clock::Instant::now()), "an answer needs a lease");
    assert_eq!(rig.store.spooled(&of(&slot), Seq::ZERO, usize::MAX).await.unwrap(), items([1, 2]));
    rig.servers.servers[2].signal("CONT");
    rig.store.shutdown().await;
}

#[tokio::test]
async fn a_server_without_a_standby_is_not_available_unless_that_is_accepted() {
    let database = TestDatabase::new();
    let settings = PostgresSettings { may_be_single: false, ..database.settings(0) };
    let refused = Store::open_postgres(settings, SpoolLimits::default()).unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable(DatabaseFailure::NoStandby)), "{refused}");
}
