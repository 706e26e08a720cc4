//! Tests of records that cannot be read: each is set aside and blocks no other.

use std::collections::HashMap;
use std::time::Duration;

use redb::ReadableTable;

use super::schema::STANZAS;
use super::schema::WAKES;
use super::slots::{all, check_counts, enable_on, ended, items, login, of, put, seqs, slot};
use super::*;

const SECRET: &str = "hunter2";

fn change(store: &Store, change: impl Fn(&redb::WriteTransaction)) {
    let write = |database: &Database| {
        let transaction = database.begin_write()?;
        change(&transaction);
        Ok(transaction.commit()?)
    };
    store.disk().with(write).unwrap();
}

/// Damages stanzas: gives them an unknown version, or leaves nothing but the version.
fn spoil(store: &Store, spool: &SpoolId, places: impl IntoIterator<Item = u64>) {
    let places: Vec<_> = places.into_iter().collect();
    change(store, |transaction| {
        let mut table = transaction.open_table(STANZAS).unwrap();
        for seq in &places {
            let mut record = table.get(spool.stanza_key(Seq::new(*seq))).unwrap().unwrap().value().to_vec();
            record[0] = b'h';
            table.insert(spool.stanza_key(Seq::new(*seq)), record.as_slice()).unwrap();
        }
    });
}

fn set_row(store: &Store, spool: &SpoolId, record: &[u8]) {
    change(store, |transaction| {
        transaction.open_table(SPOOLS).unwrap().insert(spool.key(), record).unwrap();
    });
}

fn stored(store: &Store, spool: &SpoolId) -> Vec<u64> {
    let read = |database: &Database| {
        let table = database.begin_read()?.open_table(STANZAS)?;
        let places = table.range(spool.stanza_keys(Seq::ZERO..=Seq::MAX))?.map(|entry| entry.unwrap().0.value().2);
        Ok(places.collect())
    };
    store.disk().with(read).unwrap()
}

#[tokio::test]
async fn a_stanza_that_cannot_be_read_is_counted_once_and_deleted_and_what_is_behind_it_is_read() {
    for (bad, left) in [
        (vec![1], vec![2, 3, 4, 5]),
        (vec![2, 3, 5], vec![1, 4]),
        (vec![1, 2, 3, 4, 5], vec![]),
        (vec![5], vec![1, 2, 3, 4]),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let (phone, lost) = (slot("romeo", 1), bad.len() as u64);
        put(&store, &phone, items(1..=5)).await.unwrap();
        spoil(&store, &of(&phone), bad);
        for _ in 0..2 {
            assert_eq!(seqs(&store, &phone).await, left);
            assert_eq!(store.lost().get(), lost);
            assert_eq!(stored(&store, &of(&phone)), left);
            check_counts(&store);
        }
        put(&store, &phone, items([6])).await.unwrap();
        assert_eq!(all(&store, &phone).await.last().unwrap().seq, Seq::new(6));
    }
}

#[tokio::test]
async fn a_spool_of_which_only_garbage_is_left_counts_for_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let phone = slot("romeo", 1);
    put(&store, &phone, items(1..=3)).await.unwrap();
    for (seq, record) in [(1, &b""[..]), (2, b"\x01"), (3, b"\x01\x01short")] {
        store.set_stanza(&of(&phone), seq, record);
    }
    assert_eq!(seqs(&store, &phone).await, [0; 0]);
    assert_eq!(store.lost().get(), 3);
    assert_eq!(store.backlog(&phone).await.unwrap(), Backlog { last_seq: Seq::new(3), ..Backlog::default() });
    assert_eq!(store.spool_bytes().await.unwrap(), 0);
}

#[tokio::test]
async fn a_disk_that_fails_is_not_taken_for_garbage() {
    let disk = TestDisk::new(Vec::new(), usize::MAX);
    let store = disk.store().unwrap();
    let phone = slot("romeo", 1);
    put(&store, &phone, items(1..=3)).await.unwrap();
    spoil(&store, &of(&phone), [1]);
    disk.fail_writes();
    assert_eq!(seqs(&store, &phone).await, [2, 3], "though nothing can be deleted now");
    for _ in 0..2 {
        let error = store.spooled(&of(&phone), Seq::ZERO, usize::MAX).await.unwrap_err();
        assert!(matches!(error, StoreError::Database(_)) && !error.is_of_one_record(), "{error}");
    }
    disk.allow_writes();
    put(&store, &phone, items([4])).await.unwrap();
    assert_eq!(seqs(&store, &phone).await, [2, 3, 4]);
    assert_eq!(store.lost().get(), 1, "it was not read again");
    store.settle(&phone.account).await.unwrap();
    assert_eq!(stored(&store, &of(&phone)), [2, 3, 4]);
}

#[tokio::test]
async fn what_others_left_is_taken_over_and_adopted_around_what_cannot_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let (phone, tablet, romeo) = (slot("romeo", 1), slot("romeo", 2), account("romeo"));
    for n in [1, 2] {
        store.log_in(&romeo, login(n, &format!("r{n}"), n)).await.unwrap();
        put(&store, &slot("romeo", n), items(1..=10)).await.unwrap();
        store.change(&romeo, ended(n)).await.unwrap();
        spoil(&store, &of(&slot("romeo", n)), [1, 2, 6]);
    }
    store.log_in(&romeo, login(3, "r1", 3)).await.unwrap();
    let taken = store.take_over(&romeo, phone.device, LoginId(3)).await.unwrap();
    assert_eq!(taken.iter().map(|i| i.spool.0).collect::<Vec<_>>(), [1]);
    assert_eq!(seqs(&store, &phone).await, [3, 4, 5, 7, 8, 9, 10]);
    assert_eq!(store.lost().get(), 3);
    // Those with an even number are shared.
    let to = SpoolId { account: romeo.clone(), login: LoginId(3) };
    let adopt = async |places| store.adopt_shared(&romeo, tablet.device, &to, phone.device, places).await.unwrap();
    assert_eq!(adopt(Seq::range(1..=99)).await, 3);
    assert_eq!(adopt(Seq::range(4..=99)).await, 0);
    assert_eq!(store.spooled(&to, Seq::ZERO, usize::MAX).await.unwrap().len(), 3);
    assert_eq!((store.lost().get(), stored(&store, &of(&tablet))), (5, vec![1, 3, 5, 7, 9]));
    assert_eq!(seqs(&store, &tablet).await, [3, 5, 7, 9]);
    assert_eq!(store.lost().get(), 6);
    check_counts(&store);
}

#[tokio::test]
async fn what_cannot_be_read_does_not_keep_what_is_behind_it_from_growing_old() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let phone = slot("romeo", 1);
    put(&store, &phone, items(1..=9)).await.unwrap();
    spoil(&store, &of(&phone), [1, 4, 8]);
    let ttl = Ttl {
        orphan: Duration::from_secs(3),
        tombstone: Duration::from_secs(1000),
        registration: Duration::from_secs(1000),
    };
    store.expire(UnixSecs::new(9), ttl).await.unwrap();
    assert_eq!(seqs(&store, &phone).await, [6, 7, 9]);
    assert_eq!(store.lost().get(), 3);
    check_counts(&store);
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_built_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    // Of romeo's devices, the phone has a session. The only device of juliet has none. For nurse it is unknown which device
    // the spool is for.
    for (name, n) in [("romeo", 1), ("romeo", 2), ("juliet", 3), ("nurse", 4), ("nurse", 5), ("other", 6)] {
        store.log_in(&account(name), login(n, &format!("r{n}"), n)).await.unwrap();
        put(&store, &slot(name, n), items(1..=n)).await.unwrap();
    }
    for (name, n) in [("juliet", 3), ("nurse", 4), ("nurse", 5)] {
        store.change(&account(name), ended(n)).await.unwrap();
    }
    let [phone, juliet, nurse] = [slot("romeo", 1), slot("juliet", 3), slot("nurse", 4)];
    for slot in [&phone, &juliet, &nurse] {
        set_row(&store, &of(slot), SECRET.as_bytes());
    }
    // The session continues.
    put(&store, &phone, items(2..=3)).await.unwrap();
    store.unspool(&of(&phone), Seq::new(1)).await.unwrap();
    assert_eq!(store.backlog(&phone).await.unwrap().count, 2);
    set_row(&store, &of(&phone), b"");
    store.discard(&of(&phone), vec![Seq::range(3..=3)]).await.unwrap();
    assert_eq!((seqs(&store, &phone).await, stored(&store, &of(&phone))), (vec![2], vec![2]));
    set_row(&store, &of(&phone), b"\x01");
    // The account does not know the device of this spool, but its session does.
    let stranger = slot("romeo", 8);
    for n in [1, 2] {
        put(&store, &stranger, items([n])).await.unwrap();
        set_row(&store, &of(&stranger), b"");
    }
    put(&store, &stranger, items([3])).await.unwrap();
    assert_eq!(store.backlog(&stranger).await.unwrap().count, 3);
    store.shutdown().await;
    drop(store);

    let store = Store::open(directory.path()).unwrap();
    let lost = store.recover(UnixSecs::new(1), Arc::default()).await.unwrap();
    assert_eq!(lost.iter().map(|slot| slot.device.0).collect::<Vec<_>>(), [6, 1, 2]);
    let backlogs = store.backlogs().await.unwrap();
    let counts: HashMap<_, _> = backlogs.iter().map(|(slot, backlog)| (slot.device.0, backlog.count)).collect();
    assert_eq!(counts, HashMap::from([(1, 1), (2, 2), (3, 3), (5, 5), (6, 6), (8, 3)]));
    assert_eq!(store.lost().get(), 4, "what was the nurse's");
    assert_eq!(store.spooled(&of(&nurse), Seq::ZERO, usize::MAX).await.unwrap(), []);
    for (name, device, count) in [("romeo", 1, 1), ("juliet", 3, 3)] {
        let taken = store.take_over(&account(name), DeviceId(device), LoginId(9)).await.unwrap();
        assert_eq!(taken.iter().map(|i| i.backlog.count).collect::<Vec<_>>(), [count]);
    }
    check_counts(&store);
}

/// Regression: the session asked for the device's stanzas every five seconds, and everything else waited for that.
#[tokio::test]
async fn an_account_that_cannot_be_read_does_not_keep_a_session_from_going_on() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let romeo = account("romeo");
    for n in [1, 2] {
        store.log_in(&romeo, login(n, "phone", n)).await.unwrap();
        put(&store, &slot("romeo", n), items(1..=3)).await.unwrap();
    }
    store.change(&romeo, ended(1)).await.unwrap();
    let taken = async |to| store.take_over(&romeo, DeviceId(1), LoginId(to)).await;
    assert_eq!(taken(2).await.unwrap().len(), 1);
    store.set_account(&romeo, SECRET.as_bytes());
    assert_eq!(taken(2).await.unwrap().len(), 1, "what it has already");
    assert_eq!(taken(3).await.unwrap(), [], "which logins are open is not known");
    put(&store, &slot("romeo", 2), items([4])).await.unwrap();
    store.shutdown().await;
    drop(store);
    let store = Store::open(directory.path()).unwrap();
    store.recover(UnixSecs::new(1), Arc::default()).await.unwrap();
    assert_eq!(store.backlogs().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_wake_that_cannot_be_read_wakes_its_device_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let romeo = account("romeo");
    for n in 1..=3 {
        store.change(&romeo, login(n, &format!("r{n}"), 1)).await.unwrap();
        store.change(&romeo, enable_on(n, &format!("n{n}"), 1)).await.unwrap();
        store.wake(&slot("romeo", n), Wake { since: UnixSecs::new(n), reason: WakeReason::Expired }).await.unwrap();
    }
    change(&store, |transaction| {
        transaction.open_table(WAKES).unwrap().insert(slot("romeo", 1).key(), &b"\x01\x07"[..]).unwrap();
    });
    let mut wakes = store.wakes().await.unwrap();
    wakes.sort_by_key(|(slot, _)| slot.device);
    assert_eq!(wakes.iter().map(|(slot, _)| slot.device.0).collect::<Vec<_>>(), [1, 2, 3]);
    let commits = store.commits();
    assert_eq!((store.wakes().await.unwrap(), store.commits()), (wakes, commits), "it was replaced");
    store.woken(&slot("romeo", 1)).await.unwrap();
    assert_eq!(store.wakes().await.unwrap().len(), 2);
}

#[tokio::test]
async fn an_unreadable_tombstone_counts_as_absent_and_is_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let good = Tombstone { account: account("romeo"), device: DeviceId(1), h: 7, at: UnixSecs::new(1000) };
    for id in ["a", "b"] {
        store.save_tombstone(id, good.clone()).await.unwrap();
    }
    change(&store, |transaction| {
        transaction.open_table(schema::TOMBSTONES).unwrap().insert("a", &b"\x01\x00"[..]).unwrap();
    });
    assert_eq!((store.tombstone("a").await.unwrap(), store.tombstone("b").await.unwrap()), (None, Some(good.clone())));
    let ttl = [(); 3].map(|()| Duration::from_secs(500));
    let ttl = Ttl { orphan: ttl[0], tombstone: ttl[1], registration: ttl[2] };
    assert_eq!(store.expire(UnixSecs::new(1001), ttl).await.unwrap().tombstones, 1);
    assert_eq!(store.tombstone("b").await.unwrap(), Some(good));
    store.change(&account("romeo"), Change::Removed).await.unwrap();
    assert_eq!(store.tombstone("b").await.unwrap(), None);
}
