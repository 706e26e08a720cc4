//! Tests of expiry and of recovery after a restart.

use std::collections::HashSet;
use std::time::Duration;

use super::both::on_both_engines;
use super::slots::{check_counts, enable_on, ended, item, items, login, of, put, seqs, slot};
use super::*;

const TTL: Ttl = Ttl {
    orphan: Duration::from_secs(100),
    tombstone: Duration::from_secs(200),
    registration: Duration::from_secs(300),
};

fn tombstone_of(name: &str, at: u64) -> Tombstone {
    Tombstone { account: account(name), device: DeviceId(3), h: u32::MAX, at: UnixSecs::new(at) }
}

on_both_engines! {
    async fn a_tombstone_survives_a_restart_and_can_be_replaced(engine) {
        let store = engine.open();
        store.save_tombstone("one", tombstone_of("romeo", 1)).await.unwrap();
        store.save_tombstone("one", tombstone_of("juliet", 2)).await.unwrap();
        store.shutdown().await;
        drop(store);
        let store = engine.open();
        assert_eq!(store.tombstone("one").await.unwrap(), Some(tombstone_of("juliet", 2)));
        assert_eq!(store.tombstone("two").await.unwrap(), None);
        store.change(&account("romeo"), Change::Removed).await.unwrap();
        assert_eq!(store.tombstone("one").await.unwrap(), Some(tombstone_of("juliet", 2)));
    }
}

on_both_engines! {
    async fn a_wake_stands_until_the_device_comes_back_or_needs_none(engine) {
        let store = engine.open();
        let romeo = account("romeo");
        for device in 1..=4 {
            store.change(&romeo, login(device, &format!("r{device}"), 1)).await.unwrap();
            store.change(&romeo, enable_on(device, &format!("n{device}"), 1)).await.unwrap();
        }
        for (device, reason) in [(1, WakeReason::Expired), (2, WakeReason::UpstreamLost), (3, WakeReason::Restart)] {
            store.wake(&slot("romeo", device), Wake { since: UnixSecs::new(device), reason }).await.unwrap();
        }
        let wake = |device, reason| (slot("romeo", device), Wake { since: UnixSecs::new(device), reason });
        let [one, two, three] =
            [wake(1, WakeReason::Expired), wake(2, WakeReason::UpstreamLost), wake(3, WakeReason::Restart)];
        assert_eq!(store.wakes().await.unwrap(), [one, two.clone(), three.clone()]);
        store.change(&romeo, login(99, "r1", 2)).await.unwrap();
        assert_eq!(store.wakes().await.unwrap(), [two.clone(), three]);
        store.woken(&slot("romeo", 3)).await.unwrap();
        assert_eq!(store.wakes().await.unwrap(), [two]);
        let service = "push.example.net".parse().unwrap();
        store.change(&romeo, Change::Disable { service, node: Some("n2".to_owned()) }).await.unwrap();
        assert_eq!(store.wakes().await.unwrap(), []);
    }
}

on_both_engines! {
    async fn old_stanzas_go_unless_their_device_is_here(engine) {
        let store = engine.open();
        for (name, device) in [("juliet", 1), ("romeo", 1), ("romeo", 2)] {
            store.change(&account(name), login(device, &format!("r{device}"), 1000)).await.unwrap();
            put(&store, &slot(name, device), items(1..=700)).await.unwrap();
        }
        store.change(&account("romeo"), ended(2)).await.unwrap();
        // The account does not know this device.
        put(&store, &slot("nurse", 1), items(1..=3)).await.unwrap();

        let expired = store.expire(UnixSecs::new(701), TTL).await.unwrap();
        assert_eq!(expired, Expired { stanzas: 600 + 3, tombstones: 0, registrations: 0 });
        assert_eq!(seqs(&store, &slot("romeo", 2)).await, (601..=700).collect::<Vec<_>>());
        assert_eq!(store.backlog(&slot("romeo", 2)).await.unwrap().last_seq, Seq::new(700));
        assert_eq!(store.backlog(&slot("romeo", 1)).await.unwrap().count, 700);
        assert_eq!(store.backlog(&slot("juliet", 1)).await.unwrap().count, 700);
        assert_eq!(store.backlog(&slot("nurse", 1)).await.unwrap(), Backlog::default());
        check_counts(&store);
    }
}

on_both_engines! {
    async fn old_tombstones_and_registrations_are_deleted_with_the_records_that_depend_on_them(engine) {
        let store = engine.open();
        for n in 0..600 {
            store.save_tombstone(&format!("id{n}"), tombstone_of("romeo", if n < 300 { 100 } else { 900 })).await.unwrap();
        }
        let romeo = account("romeo");
        for (device, seen) in [(1, 100), (2, 100), (3, 900)] {
            store.change(&romeo, login(device, &format!("r{device}"), seen)).await.unwrap();
            store.change(&romeo, enable_on(device, &format!("n{device}"), seen)).await.unwrap();
            put(&store, &slot("romeo", device), vec![Spooled { received: UnixMillis::new(999_000), ..item(1) }])
                .await
                .unwrap();
        }
        store.change(&romeo, ended(1)).await.unwrap();
        store.wake(&slot("romeo", 1), Wake { since: UnixSecs::new(1), reason: WakeReason::Expired }).await.unwrap();

        let expired = store.expire(UnixSecs::new(1000), TTL).await.unwrap();
        assert_eq!(expired, Expired { stanzas: 0, tombstones: 300, registrations: 1 });
        let state = store.account(&romeo).await.unwrap();
        assert_eq!(nodes(&state), ["n3", "n2"]);
        assert!(state.device(DeviceId(1)).is_none() && state.device(DeviceId(2)).is_some());
        assert_eq!(store.backlog(&slot("romeo", 1)).await.unwrap(), Backlog::default());
        assert_eq!(store.wakes().await.unwrap(), []);
        assert_eq!(store.tombstone("id299").await.unwrap(), None);
        assert!(store.tombstone("id300").await.unwrap().is_some());
        assert_eq!(store.expire(UnixSecs::new(1000), TTL).await.unwrap(), Expired::default());
    }
}

#[tokio::test]
async fn an_unreadable_account_stops_neither_ageing_nor_a_start() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    store.change(&account("romeo"), login(1, "r1", 1)).await.unwrap();
    put(&store, &slot("bad", 1), items([1])).await.unwrap();
    store.shutdown().await;
    drop(store);
    overwrite(directory.path(), &account("bad"), b"\x03from the future");
    let store = Store::open(directory.path()).unwrap();
    assert_eq!(store.recover(UnixSecs::new(5), Arc::default()).await.unwrap(), [slot("romeo", 1)]);
    assert_eq!(store.expire(UnixSecs::new(1000), TTL).await.unwrap(), Expired::default());
    assert_eq!(store.account(&account("romeo")).await.unwrap(), Account::default());
    assert_eq!(seqs(&store, &slot("bad", 1)).await, [1]);
    store.change(&account("bad"), Change::Removed).await.unwrap();
    assert_eq!(seqs(&store, &slot("bad", 1)).await, [0; 0]);
}

on_both_engines! {
    async fn after_a_crash_lost_devices_are_named_and_those_with_push_are_to_be_woken(engine) {
        let store = engine.open();
        for (name, device) in [("juliet", 1), ("romeo", 1), ("romeo", 2), ("romeo", 3)] {
            store.change(&account(name), login(device, &format!("r{device}"), 1)).await.unwrap();
        }
        for device in [1, 3] {
            store.change(&account("romeo"), enable_on(device, &format!("n{device}"), 1)).await.unwrap();
        }
        store.change(&account("romeo"), ended(3)).await.unwrap();
        let before = store.commits();
        let lost = store.recover(UnixSecs::new(50), Arc::default()).await.unwrap();
        assert_eq!(lost, [slot("juliet", 1), slot("romeo", 1), slot("romeo", 2)]);
        assert_eq!(store.commits(), before + 1);
        let restart = Wake { since: UnixSecs::new(50), reason: WakeReason::Restart };
        assert_eq!(store.wakes().await.unwrap(), [(slot("romeo", 1), restart)]);
        assert!(store.account(&account("romeo")).await.unwrap().devices.iter().all(|device| !device.is_open()));
        assert_eq!(store.recover(UnixSecs::new(60), Arc::default()).await.unwrap(), []);
        assert_eq!(store.wakes().await.unwrap(), [(slot("romeo", 1), restart)]);
    }
}

on_both_engines! {
    async fn logins_that_another_process_has_taken_up_stay_open_once(engine) {
        let number = NonZeroU64::new(7).unwrap();
        let store = engine.open();
        assert_eq!(store.handover(), None);
        for device in [1, 2] {
            store.change(&account("romeo"), login(device, &format!("r{device}"), 1)).await.unwrap();
            store.change(&account("romeo"), enable_on(device, &format!("n{device}"), 1)).await.unwrap();
            put(&store, &slot("romeo", device), items([1, 2])).await.unwrap();
        }
        store.begin_handover(number).await.unwrap();
        store.shutdown().await;
        drop(store);
        let store = engine.open();
        assert_eq!(store.handover(), Some(number));
        let kept = Arc::new(HashSet::from([LoginId(1)]));
        assert_eq!(store.recover(UnixSecs::new(50), Arc::clone(&kept)).await.unwrap(), [slot("romeo", 2)]);
        let state = store.account(&account("romeo")).await.unwrap();
        assert!(state.device(DeviceId(1)).unwrap().is_open() && !state.device(DeviceId(2)).unwrap().is_open());
        let restart = Wake { since: UnixSecs::new(50), reason: WakeReason::Restart };
        assert_eq!(store.wakes().await.unwrap(), [(slot("romeo", 2), restart)]);
        // The session of the first login goes on: its spool continues behind its last stanza.
        put(&store, &slot("romeo", 1), items([3])).await.unwrap();
        assert_eq!(seqs(&store, &slot("romeo", 1)).await, [1, 2, 3]);
        check_counts(&store);
        store.shutdown().await;
        drop(store);
        let store = engine.open();
        assert_eq!(store.handover(), None, "a handover is used once");
        assert_eq!(store.recover(UnixSecs::new(60), Arc::default()).await.unwrap(), [slot("romeo", 1)]);
    }
}

#[tokio::test]
async fn the_row_of_a_spool_without_stanzas_stays_for_a_session_that_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    store.change(&account("romeo"), login(1, "r1", 1)).await.unwrap();
    put(&store, &slot("romeo", 1), items([1, 2])).await.unwrap();
    store.unspool(&of(&slot("romeo", 1)), Seq::new(2)).await.unwrap();
    store.shutdown().await;
    drop(store);
    let store = Store::open(directory.path()).unwrap();
    store.recover(UnixSecs::new(5), Arc::new(HashSet::from([LoginId(1)]))).await.unwrap();
    // A stanza with a number that was used before would be refused, or taken for the one that was delivered.
    assert!(put(&store, &slot("romeo", 1), items([2])).await.is_err());
    put(&store, &slot("romeo", 1), items([3])).await.unwrap();
    assert_eq!(seqs(&store, &slot("romeo", 1)).await, [3]);
}
