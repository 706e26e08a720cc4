//! Tests of the spools of several sessions of one device.

use super::both::{hold, on_both_engines};
use super::slots::{all, check_counts, enable_on, ended, item, items, login, put, seqs, slot};
use super::*;

/// Enters the login with this number, for a new device or for an earlier one with the same resource.
async fn enter(store: &Store, name: &str, number: u64, resource: &str) -> SpoolId {
    hold(store, &account(name)).await;
    store.log_in(&account(name), login(number, resource, number)).await.unwrap();
    SpoolId { account: account(name), login: LoginId(number) }
}

on_both_engines! {
    /// Regression: the app restarted over a half-open connection, so one device had two live sessions. The sequence numbers of the
    /// newer one collided with those of the older one, and a deletion by either also deleted stanzas of the other.
    async fn two_sessions_of_one_device_do_not_reach_into_each_others_spool(engine) {
        let store = engine.open();
        let older = enter(&store, "romeo", 1, "phone").await;
        let newer = enter(&store, "romeo", 2, "phone").await;
        let device = DeviceId(1);
        store.spool(&newer, device, items(1..=5)).await.unwrap();
        store.spool(&older, device, items(1..=3)).await.unwrap();
        store.unspool(&newer, Seq::new(4)).await.unwrap();
        store.discard(&older, vec![Seq::range(2..=2)]).await.unwrap();
        let read = async |spool: &SpoolId| store.spooled(spool, Seq::ZERO, usize::MAX).await.unwrap();
        assert_eq!((read(&older).await, read(&newer).await), (items([1, 3]), items([5])));
        // The older session is live: nothing of it is taken over.
        assert_eq!(store.take_over(&older.account, device, newer.login).await.unwrap(), []);
        store.change(&older.account, ended(1)).await.unwrap();
        let inherited = store.take_over(&older.account, device, newer.login).await.unwrap();
        assert_eq!(inherited.iter().map(|i| (i.spool, i.backlog.count)).collect::<Vec<_>>(), [(older.login, 2)]);
        store.unspool(&newer, Seq::new(5)).await.unwrap();
        assert_eq!(read(&older).await, items([1, 3]));
        check_counts(&store);
    }
}

on_both_engines! {
    async fn a_session_takes_over_what_ended_ones_of_its_device_have_left_in_the_order_of_their_logins(engine) {
        let store = engine.open();
        let romeo = account("romeo");
        for n in [3, 1, 2, 4] {
            let spool = enter(&store, "romeo", n, "phone").await;
            store.spool(&spool, DeviceId(n), items(1..=n)).await.unwrap();
        }
        let other = enter(&store, "romeo", 5, "tablet").await;
        store.spool(&other, DeviceId(5), items([1])).await.unwrap();
        for n in [1, 2, 3, 5] {
            store.change(&romeo, ended(n)).await.unwrap();
        }
        // 4 is open, and 2 was delivered in the meantime.
        store.unspool(&SpoolId { account: romeo.clone(), login: LoginId(2) }, Seq::new(2)).await.unwrap();
        let took = async |to: u64| {
            let inherited = store.take_over(&romeo, DeviceId(3), LoginId(to)).await.unwrap();
            inherited.iter().map(|i| (i.spool.0, i.backlog.count)).collect::<Vec<_>>()
        };
        enter(&store, "romeo", 6, "phone").await;
        assert_eq!(took(6).await, [(1, 1), (3, 3)]);
        enter(&store, "romeo", 7, "phone").await;
        assert_eq!(took(7).await, [], "what a living session owns is not taken over");
        store.change(&romeo, ended(4)).await.unwrap();
        assert_eq!(took(6).await, [(1, 1), (3, 3), (4, 4)], "again, and what came since");
        store.change(&romeo, ended(6)).await.unwrap();
        store.discard(&SpoolId { account: romeo.clone(), login: LoginId(3) }, vec![Seq::range(0..=3)]).await.unwrap();
        assert_eq!(took(7).await, [(1, 1), (4, 4)]);
        check_counts(&store);
        store.shutdown().await;
        drop(store);
        let store = engine.open();
        store.recover(UnixSecs::new(1), Arc::default()).await.unwrap();
        hold(&store, &romeo).await;
        let inherited = store.take_over(&romeo, DeviceId(3), LoginId(8)).await.unwrap();
        assert_eq!(inherited.iter().map(|i| i.spool.0).collect::<Vec<_>>(), [1, 4]);
        assert_eq!(store.next_login(), LoginId(8), "a login that only took over leaves no trace but in the rows");
    }
}

on_both_engines! {
    async fn login_ids_rise_across_restarts_and_begin_at_one(engine) {
        let store = engine.open();
        let first = store.next_login();
        assert_eq!((first, store.next_login()), (LoginId(1), LoginId(2)));
        enter(&store, "romeo", 2, "phone").await;
        // Without a record of the account, the row of a spool is enough.
        let spool = SpoolId { account: account("juliet"), login: LoginId(7) };
        hold(&store, &spool.account).await;
        store.spool(&spool, DeviceId(1), items([1])).await.unwrap();
        store.unspool(&spool, Seq::new(1)).await.unwrap();
        store.change(&spool.account, ended(7)).await.unwrap();
        store.shutdown().await;
        drop(store);
        let store = engine.open();
        hold(&store, &spool.account).await;
        assert_eq!(store.next_login(), LoginId(8));
    }
}

#[tokio::test]
async fn the_rows_of_sessions_that_left_nothing_go_with_them() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let romeo = account("romeo");
    for n in 1..=20 {
        let spool = enter(&store, "romeo", n, "phone").await;
        store.spool(&spool, DeviceId(1), items(1..=3)).await.unwrap();
        store.unspool(&spool, Seq::new(3)).await.unwrap();
        if n < 20 {
            store.change(&romeo, ended(n)).await.unwrap();
        }
    }
    let rows = |store: &Store| {
        let count = |database: &Database| Ok(database.begin_read()?.open_table(SPOOLS)?.len()?);
        store.disk().with(count).unwrap()
    };
    store.backlog(&slot("romeo", 1)).await.unwrap();
    assert_eq!(rows(&store), 1);
    store.recover(UnixSecs::new(1), Arc::default()).await.unwrap();
    assert_eq!(rows(&store), 0);
    check_counts(&store);
}

on_both_engines! {
    async fn what_is_addressed_to_the_account_moves_to_another_device_once_and_in_pieces(engine) {
        let store = engine.open();
        let (romeo, from) = (account("romeo"), DeviceId(1));
        for n in [1, 2] {
            let spool = enter(&store, "romeo", n, "phone").await;
            let request = Spooled { bytes: "<iq type='get'/>".into(), ..item(1000) };
            store.spool(&spool, from, items(1..=700).into_iter().chain([request]).collect()).await.unwrap();
        }
        let to = enter(&store, "romeo", 3, "tablet").await;
        let adopt = async |first: u64, last: u64| {
            store.adopt_shared(&romeo, from, &to, DeviceId(3), Seq::range(first..=last)).await.unwrap()
        };
        assert_eq!(adopt(1, u64::MAX).await, 0, "its sessions are open");
        store.change(&romeo, ended(1)).await.unwrap();
        store.unspool(&SpoolId { account: romeo.clone(), login: LoginId(1) }, Seq::new(100)).await.unwrap();
        assert_eq!(adopt(1, 10).await, 10);
        assert_eq!(adopt(11, u64::MAX).await, 256);
        assert_eq!(adopt(267, u64::MAX).await, 34, "up to the end of a spool");
        assert_eq!(adopt(301, u64::MAX).await, 0, "the other session is open");
        store.change(&romeo, ended(2)).await.unwrap();
        assert_eq!((adopt(301, u64::MAX).await, adopt(600, u64::MAX).await), (256, 94));
        assert_eq!(adopt(900, u64::MAX).await, 0);
        let moved = store.spooled(&to, Seq::ZERO, usize::MAX).await.unwrap();
        let order: Vec<_> = (102..=700).chain(2..=700).filter(|seq| seq % 2 == 0).collect();
        assert_eq!(moved.iter().map(|item| item.received.get() / 1000).collect::<Vec<_>>(), order);
        assert!(moved.is_sorted_by(|a, b| a.seq < b.seq));
        let left = seqs(&store, &slot("romeo", 1)).await;
        assert_eq!(left, (101..=699).step_by(2).chain([1000]).collect::<Vec<_>>(), "requests were for their session");
        check_counts(&store);
    }
}

on_both_engines! {
    async fn an_account_that_reaches_its_bound_is_refused_and_others_are_not(engine) {
        let cost = item(1).cost();
        let limits = SpoolLimits { per_session: 100 * cost, per_account: 5 * cost, all: 1000 * cost };
        let store = engine.open_with(limits);
        let [a, b] = [enter(&store, "romeo", 1, "a").await, enter(&store, "romeo", 2, "b").await];
        store.spool(&a, DeviceId(1), items(1..=3)).await.unwrap();
        store.spool(&b, DeviceId(2), items(1..=2)).await.unwrap();
        let refused = async |store: &Store, limit: u64| {
            let error = store.spool(&a, DeviceId(1), items([5])).await.unwrap_err();
            assert!(
                matches!(error, StoreError::SpoolFull { limit: l, which: SpoolBound::PerAccount } if l == limit),
                "{error}"
            );
            assert!(error.to_string().contains("spool_per_account"));
        };
        refused(&store, 5 * cost).await;
        put(&store, &slot("juliet", 3), items(1..=5)).await.unwrap();
        // Moving is never refused.
        store.change(&a.account, ended(1)).await.unwrap();
        assert_eq!(store.adopt_shared(&a.account, DeviceId(1), &b, DeviceId(2), Seq::range(10..=20)).await.unwrap(), 1);
        // The bytes are counted again at a start, and the bound is never more than an eighth of all.
        store.shutdown().await;
        drop(store);
        let limits = SpoolLimits { per_session: u64::MAX, per_account: u64::MAX, all: 40 * cost };
        let store = engine.open_with(limits);
        hold(&store, &a.account).await;
        refused(&store, 5 * cost).await;
        store.unspool(&b, Seq::new(1)).await.unwrap();
        store.settle(&b.account).await.unwrap();
        store.spool(&a, DeviceId(1), items([4])).await.unwrap();
        refused(&store, 5 * cost).await;
        check_counts(&store);
    }
}

on_both_engines! {
    /// The stanzas of a removed account never reach another account of the same name, and its sessions cannot add more.
    async fn a_removal_deletes_what_was_there_when_it_was_ordered_and_refuses_the_sessions_of_that_time(engine) {
        let store = engine.open();
        let romeo = account("romeo");
        let old = enter(&store, "romeo", 1, "phone").await;
        store.change(&romeo, enable_on(1, "one", 1)).await.unwrap();
        store.spool(&old, DeviceId(1), items(1..=2000)).await.unwrap();
        let removal = store.change(&romeo, Change::Removed);
        let renewal = async {
            let login = store.next_login();
            let new = enter(&store, "romeo", login.0, "phone").await;
            store.spool(&new, DeviceId(2), items(1..=5)).await.unwrap();
            new
        };
        let (removed, new) = tokio::join!(removal, renewal);
        assert_eq!(removed.unwrap().0, Account::default());
        assert!(new.login > old.login);
        for spool in [&old, &SpoolId { account: romeo.clone(), login: LoginId(0) }] {
            let error = store.spool(spool, DeviceId(1), items([3000])).await.unwrap_err();
            assert!(matches!(error, StoreError::AccountRemoved { .. }), "{error}");
        }
        let error = store.take_over(&romeo, DeviceId(2), old.login).await.unwrap_err();
        assert!(matches!(error, StoreError::AccountRemoved { .. }), "{error}");
        let error = store.adopt_shared(&romeo, DeviceId(2), &old, DeviceId(1), Seq::range(1..=9)).await.unwrap_err();
        assert!(matches!(error, StoreError::AccountRemoved { .. }), "{error}");
        assert_eq!(store.spooled(&old, Seq::ZERO, usize::MAX).await.unwrap(), []);
        assert_eq!(store.spooled(&new, Seq::ZERO, usize::MAX).await.unwrap(), items(1..=5));
        let state = store.account(&romeo).await.unwrap();
        assert_eq!((state.devices.len(), state.registrations.len()), (1, 0));
        // The operator removed the account while the session is live: it is entered again and continues.
        enter(&store, "romeo", 1, "phone").await;
        store.spool(&old, DeviceId(2), items([3001])).await.unwrap();
        assert_eq!(store.spooled(&old, Seq::ZERO, usize::MAX).await.unwrap(), items([3001]));
        check_counts(&store);
    }
}

on_both_engines! {
    /// Another session of the device may not know yet that the device turned out to be another.
    async fn a_spool_is_for_the_device_of_its_login_whatever_its_session_believes(engine) {
        let store = engine.open();
        enter(&store, "romeo", 1, "old").await;
        store.change(&account("romeo"), enable_on(1, "phone", 1)).await.unwrap();
        enter(&store, "romeo", 2, "new").await;
        let sibling = enter(&store, "romeo", 3, "new").await;
        store.change(&account("romeo"), enable_on(2, "phone", 2)).await.unwrap();
        store.spool(&sibling, DeviceId(2), items([1])).await.unwrap();
        assert_eq!(store.backlog(&slot("romeo", 1)).await.unwrap().count, 1);
        assert_eq!(store.backlog(&slot("romeo", 2)).await.unwrap().count, 0);
    }
}

#[tokio::test]
async fn damaged_rows_are_skipped_and_stop_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    for n in 1..=3 {
        let spool = enter(&store, "romeo", n, "phone").await;
        store.spool(&spool, DeviceId(1), items(1..=3)).await.unwrap();
        store.change(&account("romeo"), ended(n)).await.unwrap();
    }
    for record in [&b""[..], b"\x01", b"\x01short", &[0xff; 49], &[1; 48]] {
        store.shutdown().await;
        let path = directory.path().join(FILE);
        let other = tempfile::tempdir().unwrap();
        std::fs::copy(&path, other.path().join(FILE)).unwrap();
        let database = Database::open(other.path().join(FILE)).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(SPOOLS).unwrap().insert((account("romeo").as_str(), 2), record).unwrap();
        transaction.open_table(schema::META).unwrap().insert("login", u64::MAX).unwrap();
        transaction.commit().unwrap();
        drop(database);
        let store = Store::open(other.path()).unwrap();
        assert_eq!((store.next_login(), store.next_login()), (LoginId(u64::MAX), LoginId(u64::MAX)));
        let logged_in = store.log_in(&account("romeo"), login(9, "phone", 9)).await.unwrap();
        assert!(logged_in.waits);
        let inherited = store.take_over(&account("romeo"), DeviceId(1), LoginId(9)).await.unwrap();
        assert_eq!(inherited.len(), 2, "{record:?}");
        store.unspool(&SpoolId { account: account("romeo"), login: LoginId(2) }, Seq::new(3)).await.unwrap();
        store.backlog(&slot("romeo", 1)).await.unwrap();
        store.spool_bytes().await.unwrap();
        store.measures(other.path()).await.unwrap();
        store.orphans(&account("romeo"), DeviceId(5)).await.unwrap();
        store.change(&account("romeo"), Change::Removed).await.unwrap();
        assert_eq!(all(&store, &slot("romeo", 2)).await, []);
    }
}
