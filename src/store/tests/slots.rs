//! Tests of the stanzas that wait for a device.

use std::time::Duration;

use super::both::{hold, on_both_engines};
use super::*;

pub(super) fn slot(name: &str, device: u64) -> Slot {
    Slot { account: account(name), device: DeviceId(device) }
}

/// Returns the spool of the login that has the same number as the device, as [`login`] enters it.
pub(super) fn of(slot: &Slot) -> SpoolId {
    SpoolId { account: slot.account.clone(), login: LoginId(slot.device.0) }
}

/// Puts stanzas into that spool.
pub(super) async fn put(store: &Store, slot: &Slot, items: Vec<Spooled>) -> Result<(), StoreError> {
    hold(store, &slot.account).await;
    store.spool(&of(slot), slot.device, items).await
}

pub(super) fn item(seq: u64) -> Spooled {
    let bytes = format!("<message id='{seq}'><body>hunter2</body></message>").into();
    Spooled {
        seq: Seq::new(seq),
        received: UnixMillis::new(seq * 1000),
        shared: seq.is_multiple_of(2),
        archived: seq.is_multiple_of(3),
        bytes,
    }
}

pub(super) fn items(seqs: impl IntoIterator<Item = u64>) -> Vec<Spooled> {
    seqs.into_iter().map(item).collect()
}

pub(super) async fn all(store: &Store, slot: &Slot) -> Vec<Spooled> {
    store.spooled(&of(slot), Seq::ZERO, usize::MAX).await.unwrap()
}

pub(super) async fn seqs(store: &Store, slot: &Slot) -> Vec<u64> {
    all(store, slot).await.iter().map(|item| item.seq.get()).collect()
}

pub(super) fn login(device: u64, resource: &str, at: u64) -> Change {
    let (candidate, login) = (DeviceId(device), LoginId(device));
    Change::Login {
        candidate,
        login,
        resource: resource.to_owned(),
        agent: None,
        presented: None,
        at: UnixSecs::new(at),
    }
}

/// Ends the session that [`login`] began.
pub(super) fn ended(device: u64) -> Change {
    Change::Ended { login: LoginId(device) }
}

pub(super) fn enable_on(device: u64, node: &str, last_seen: u64) -> Change {
    let registration = Registration { device: DeviceId(device), ..registration(node, last_seen) };
    Change::Enable { registration, recognition: DeviceRecognition::Guessed, max_devices: 5 }
}

/// Writes pending deletions to the disk and opens the store again.
async fn reopened(store: Store, engine: &super::both::TestEngine) -> Store {
    store.shutdown().await;
    drop(store);
    engine.open()
}

/// Checks that the counts match the stanzas in the spools, as do the counts in the rows that have one.
pub(super) fn check_counts(store: &Store) {
    if let Engines::Postgres(engine) = &store.shared.engine {
        return engine.check_counts(&store.shared.counts);
    }
    let check = |database: &Database| {
        let transaction = database.begin_read()?;
        let mut held = std::collections::HashMap::<(String, u64), (u64, u64)>::new();
        let doomed = transaction.open_table(schema::DOOMED)?;
        for entry in redb::ReadableTable::iter(&transaction.open_table(schema::STANZAS)?)? {
            let (key, record) = entry?;
            let (account, login, seq) = key.value();
            if doomed.get((account, login))?.is_some_and(|up_to| seq <= up_to.value()) {
                continue;
            }
            let (count, bytes) = held.entry((account.to_owned(), login)).or_default();
            *count += 1;
            *bytes += record.value().len() as u64 - 10 + ITEM_OVERHEAD;
        }
        for entry in redb::ReadableTable::iter(&transaction.open_table(SPOOLS)?)? {
            let (key, record) = entry?;
            let (name, login) = key.value();
            let spool = SpoolId { account: BareJid::new(name).unwrap(), login: LoginId(login) };
            let row = schema::Row::decode(&spool.account, record.value())?;
            let (count, bytes) = held.remove(&(name.to_owned(), login)).unwrap_or_default();
            let counted = store.shared.counts.of(&spool).backlog;
            assert_eq!((counted.count, counted.bytes), (count, bytes), "{name} {login}");
            if let Some(counted) = row.count {
                assert_eq!((counted.backlog.count, counted.backlog.bytes), (count, bytes), "on disk: {name} {login}");
            }
        }
        assert!(held.is_empty(), "no row for {:?}", held.keys());
        Ok(())
    };
    store.disk().with(check).unwrap();
}

on_both_engines! {
    async fn what_waits_survives_a_restart_in_order_and_byte_for_byte(engine) {
        let store = engine.open();
        let [phone, tablet, other] = [slot("romeo", 1), slot("romeo", u64::MAX), slot("romeo2", 1)];
        put(&store, &phone, items(1..=300)).await.unwrap();
        put(&store, &tablet, items([7])).await.unwrap();
        put(&store, &other, items([1])).await.unwrap();
        put(&store, &phone, items([400])).await.unwrap();

        let store = reopened(store, engine).await;
        assert_eq!(all(&store, &phone).await, items((1..=300).chain([400])));
        assert_eq!(all(&store, &tablet).await, items([7]));
        assert_eq!(all(&store, &other).await, items([1]));
        assert_eq!(store.backlog(&phone).await.unwrap().count, 301);
        check_counts(&store);
    }
}

on_both_engines! {
    async fn scattered_sequence_numbers_are_deleted_by_one_commit(engine) {
        let store = engine.open();
        let slot = slot("romeo", 1);
        put(&store, &slot, items(1..=9)).await.unwrap();
        let before = store.commits();
        store.discard(&of(&slot), vec![Seq::range(2..=3), Seq::range(7..=7), Seq::range(20..=30)]).await.unwrap();
        assert_eq!(store.commits(), before + 1);
        assert_eq!(seqs(&store, &slot).await, [1, 4, 5, 6, 8, 9]);
        assert_eq!(store.backlog(&slot).await.unwrap().count, 6);
        check_counts(&store);
    }
}

on_both_engines! {
    async fn reading_is_paced_by_weight_but_never_stands_still(engine) {
        let store = engine.open();
        let slot = slot("romeo", 1);
        put(&store, &slot, items(1..=9)).await.unwrap();
        let weight = item(1).weight();
        assert!(weight > item(1).bytes.len());
        for (after, room, expected) in [
            (0, 0, vec![1]),
            (0, 1, vec![1]),
            (3, 2 * weight - 1, vec![4]),
            (3, 2 * weight, vec![4, 5]),
            (8, 0, vec![9]),
            (9, 9, vec![]),
            (u64::MAX, 9, vec![]),
        ] {
            let read = store.spooled(&of(&slot), Seq::new(after), room).await.unwrap();
            assert_eq!(
                read.iter().map(|item| item.seq.get()).collect::<Vec<_>>(),
                expected,
                "after {after}, room for {room}"
            );
        }
    }
}

on_both_engines! {
    async fn what_is_deleted_is_gone_at_once_for_readers_and_later_from_the_disk(engine) {
        let store = engine.open();
        let slot = slot("romeo", 1);
        put(&store, &slot, items(1..=5)).await.unwrap();
        let before = store.commits();
        for up_to in [1, 3, 2] {
            store.unspool(&of(&slot), Seq::new(up_to)).await.unwrap();
        }
        assert_eq!(seqs(&store, &slot).await, [4, 5]);
        assert_eq!(store.commits(), before);
        let backlog = store.backlog(&slot).await.unwrap();
        assert_eq!((backlog.count, backlog.last_seq), (2, Seq::new(5)));
        store.unspool(&of(&slot), Seq::new(5)).await.unwrap();
        let store = reopened(store, engine).await;
        // After an orderly end, the row of the spool says what its last number was.
        let last_seq = if engine.is_embedded() { Seq::new(5) } else { Seq::ZERO };
        assert_eq!(store.backlog(&slot).await.unwrap(), Backlog { count: 0, bytes: 0, last_seq });
        assert_eq!(seqs(&store, &slot).await, [0; 0]);
        check_counts(&store);
    }
}

on_both_engines! {
    async fn a_deletion_reaches_the_disk_by_itself(engine) {
        let store = engine.open();
        let slot = slot("romeo", 1);
        put(&store, &slot, items([1])).await.unwrap();
        let before = store.commits();
        store.unspool(&of(&slot), Seq::new(1)).await.unwrap();
        let committed = async {
            while store.commits() == before {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), committed).await.unwrap();
        assert!(store.shared.deletions.is_empty());
        assert_eq!(seqs(&store, &slot).await, [0; 0]);
    }
}

on_both_engines! {
    async fn a_deletion_of_nothing_costs_no_commit(engine) {
        let store = engine.open();
        let slot = slot("romeo", 1);
        put(&store, &slot, items(5..=6)).await.unwrap();
        let before = store.commits();
        store.unspool(&of(&slot), Seq::new(4)).await.unwrap();
        assert_eq!(store.backlog(&slot).await.unwrap().count, 2);
        assert!(store.shared.deletions.is_empty());
        store.unspool(&of(&slot), Seq::new(4)).await.unwrap();
        store.shutdown().await;
        // A server decides by itself what it has to write.
        assert!(store.commits() == before || !engine.is_embedded());
    }
}

on_both_engines! {
    async fn a_deletion_follows_what_was_spooled_before_it_and_spares_what_comes_after(engine) {
        let store = engine.open();
        let slot = slot("romeo", 1);
        let spool = of(&slot);
        for base in (0..50).step_by(10) {
            let (first, deleted, second) = tokio::join!(
                put(&store, &slot, items(base + 1..=base + 5)),
                store.unspool(&spool, Seq::new(base + 5)),
                put(&store, &slot, items(base + 6..=base + 7)),
            );
            first.and(deleted).and(second).unwrap();
            assert_eq!(seqs(&store, &slot).await, [base + 6, base + 7]);
        }
        check_counts(&store);
    }
}

on_both_engines! {
    async fn a_call_can_be_repeated_but_no_sequence_number_is_used_twice(engine) {
        let store = engine.open();
        let slot = slot("romeo", 1);
        put(&store, &slot, items(1..=3)).await.unwrap();
        let before = store.commits();
        put(&store, &slot, items(1..=3)).await.unwrap();
        assert_eq!(store.commits(), before);
        put(&store, &slot, items(2..=4)).await.unwrap();

        let other = Spooled { bytes: "<other/>".into(), ..item(4) };
        let error = put(&store, &slot, vec![item(5), other.clone()]).await.unwrap_err();
        let StoreError::SequenceTaken { seq, last_seq } = error else { panic!("{error}") };
        assert_eq!((seq, last_seq), (Seq::new(4), Seq::new(5)));
        put(&store, &slot, vec![other]).await.unwrap_err();
        put(&store, &slot, items([0])).await.unwrap_err();
        put(&store, &slot, vec![item(6), Spooled { shared: false, ..item(6) }]).await.unwrap_err();
        assert_eq!(all(&store, &slot).await, items(1..=4));
        store.unspool(&of(&slot), Seq::new(4)).await.unwrap();
        put(&store, &slot, items([3])).await.unwrap_err();
        assert_eq!(store.backlog(&slot).await.unwrap().last_seq, Seq::new(4));
        check_counts(&store);
    }
}

on_both_engines! {
    async fn many_slots_share_commits(engine) {
        const SLOTS: u64 = 400;
        let store = engine.open();
        let mut waiting = tokio::task::JoinSet::new();
        for n in 0..SLOTS {
            let store = store.clone();
            waiting.spawn(async move {
                let slot = slot(&format!("user{}", n / 2), n % 2);
                for seq in 1..=3 {
                    put(&store, &slot, items([seq])).await.unwrap();
                }
                store.unspool(&of(&slot), Seq::new(1)).await.unwrap();
                assert_eq!(seqs(&store, &slot).await, [2, 3]);
            });
        }
        while let Some(done) = waiting.join_next().await {
            done.unwrap();
        }
        assert!(store.commits() < SLOTS, "{} commits for {} calls", store.commits(), 3 * SLOTS);
        let store = reopened(store, engine).await;
        for n in 0..SLOTS {
            assert_eq!(seqs(&store, &slot(&format!("user{}", n / 2), n % 2)).await, [2, 3]);
        }
        check_counts(&store);
    }
}

on_both_engines! {
    async fn a_bound_refuses_the_whole_call_and_names_itself(engine) {
        let cost = item(1).cost();
        let limits = SpoolLimits { per_session: 3 * cost, per_account: u64::MAX, all: 26 * cost };
        let store = engine.open_with(limits);
        let [a, b] = [slot("romeo", 1), slot("juliet", 2)];
        put(&store, &a, items(1..=2)).await.unwrap();
        let error = put(&store, &a, items(3..=4)).await.unwrap_err();
        let StoreError::SpoolFull { limit, which } = error else { panic!("{error}") };
        assert_eq!((limit, which), (3 * cost, SpoolBound::PerSession));
        put(&store, &a, items([3])).await.unwrap();
        for n in 0..7 {
            put(&store, &slot(&format!("user{n}"), 1), items(1..=3)).await.unwrap();
        }
        put(&store, &b, items(1..=2)).await.unwrap();
        let full = async |store: &Store| {
            let error = put(store, &b, items([3])).await.unwrap_err();
            let StoreError::SpoolFull { which, .. } = error else { panic!("{error}") };
            assert_eq!(which, SpoolBound::All);
        };
        full(&store).await;
        put(&store, &b, items([2])).await.unwrap();

        // The total is counted again at a start.
        store.shutdown().await;
        drop(store);
        let store = engine.open_with(limits);
        // Accounts of other nodes are not counted here.
        for name in (0..7).map(|n| format!("user{n}")).chain(["romeo".to_owned()]) {
            hold(&store, &account(&name)).await;
        }
        full(&store).await;
        store.unspool(&of(&a), Seq::new(1)).await.unwrap();
        put(&store, &b, items([3])).await.unwrap();
        store.change(&b.account, Change::Removed).await.unwrap();
        put(&store, &slot("nurse", 1), items(1..=3)).await.unwrap();
        check_counts(&store);
    }
}

on_both_engines! {
    async fn orphans_are_what_waits_for_others_that_are_not_here(engine) {
        let store = engine.open();
        let romeo = account("romeo");
        for device in 1..=4 {
            store.change(&romeo, login(device, &format!("r{device}"), 1)).await.unwrap();
            put(&store, &slot("romeo", device), items([1])).await.unwrap();
        }
        put(&store, &slot("romeo", 5), items([1])).await.unwrap();
        put(&store, &slot("juliet", 3), items([1])).await.unwrap();
        for device in [2, 3, 4] {
            store.change(&romeo, ended(device)).await.unwrap();
        }
        store.unspool(&of(&slot("romeo", 4)), Seq::new(1)).await.unwrap();
        let orphans = store.orphans(&romeo, DeviceId(2)).await.unwrap();
        let backlog = Backlog { count: 1, bytes: item(1).cost(), last_seq: Seq::new(1) };
        assert_eq!(orphans, [(DeviceId(3), backlog), (DeviceId(5), backlog)]);
    }
}

on_both_engines! {
    async fn a_newcomer_that_turns_out_to_be_a_known_device_brings_its_spool(engine) {
        let store = engine.open();
        let (romeo, known, newcomer) = (account("romeo"), slot("romeo", 1), slot("romeo", 2));
        store.change(&romeo, login(1, "old", 1)).await.unwrap();
        store.change(&romeo, enable_on(1, "phone", 1)).await.unwrap();
        put(&store, &known, items(1..=5)).await.unwrap();
        store.change(&romeo, ended(1)).await.unwrap();
        store.wake(&known, Wake { since: UnixSecs::new(2), reason: WakeReason::UpstreamLost }).await.unwrap();
        store.change(&romeo, login(2, "new", 3)).await.unwrap();
        put(&store, &newcomer, items(1..=3)).await.unwrap();
        store.unspool(&of(&newcomer), Seq::new(1)).await.unwrap();
        store.unspool(&of(&known), Seq::new(4)).await.unwrap();

        let (state, device) = store.change(&romeo, enable_on(2, "phone", 3)).await.unwrap();
        assert_eq!(device, Some(known.device));
        assert_eq!(state.devices.len(), 1);
        assert_eq!(store.backlog(&known).await.unwrap().count, 3);
        assert_eq!(store.backlog(&newcomer).await.unwrap(), Backlog::default());
        // It has just been in contact.
        assert_eq!(store.wakes().await.unwrap(), []);
        // Its session continues with its own sequence numbers, and takes over what the earlier one has left.
        put(&store, &newcomer, items([4])).await.unwrap();
        let inherited = store.take_over(&romeo, DeviceId(1), LoginId(2)).await.unwrap();
        let backlog = Backlog { count: 1, bytes: item(5).cost(), last_seq: Seq::new(5) };
        assert_eq!(inherited, [InheritedSpool { spool: LoginId(1), backlog }]);
        assert_eq!((seqs(&store, &known).await, seqs(&store, &newcomer).await), (vec![5], vec![2, 3, 4]));
        check_counts(&store);
    }
}

on_both_engines! {
    async fn a_merge_keeps_the_newcomers_wake(engine) {
        let store = engine.open();
        let romeo = account("romeo");
        store.change(&romeo, login(1, "old", 1)).await.unwrap();
        store.change(&romeo, enable_on(1, "phone", 1)).await.unwrap();
        store.change(&romeo, login(2, "new", 3)).await.unwrap();
        let wake = Wake { since: UnixSecs::new(4), reason: WakeReason::Expired };
        store.wake(&slot("romeo", 2), wake).await.unwrap();
        store.change(&romeo, enable_on(2, "phone", 5)).await.unwrap();
        assert_eq!(store.wakes().await.unwrap(), [(slot("romeo", 1), wake)]);
    }
}

on_both_engines! {
    async fn what_waits_for_a_forgotten_device_is_deleted(engine) {
        let store = engine.open();
        let romeo = account("romeo");
        for device in 1..=40 {
            store.change(&romeo, login(device, &format!("r{device}"), device)).await.unwrap();
            put(&store, &slot("romeo", device), items([1])).await.unwrap();
            store.change(&romeo, ended(device)).await.unwrap();
        }
        let state = store.account(&romeo).await.unwrap();
        assert_eq!(state.devices.len(), 32);
        for device in 1..=40 {
            let kept = state.device(DeviceId(device)).is_some();
            assert_eq!(seqs(&store, &slot("romeo", device)).await.len(), usize::from(kept), "device {device}");
        }
        assert_eq!(store.lost().get(), 8);
        check_counts(&store);
    }
}

on_both_engines! {
    async fn nothing_is_kept_of_an_account_that_was_removed(engine) {
        let store = engine.open();
        let (wake, h) = (Wake { since: UnixSecs::new(1), reason: WakeReason::Expired }, 7);
        for name in ["romeo", "romeo2"] {
            store.change(&account(name), login(1, "r", 1)).await.unwrap();
            store.change(&account(name), enable_on(1, "one", 1)).await.unwrap();
            put(&store, &slot(name, 1), items(1..=3)).await.unwrap();
            put(&store, &slot(name, 9), items(1..=3)).await.unwrap();
            store.wake(&slot(name, 1), wake).await.unwrap();
            let tombstone = Tombstone { account: account(name), device: DeviceId(1), h, at: UnixSecs::new(1) };
            store.save_tombstone(&format!("id-{name}"), tombstone).await.unwrap();
        }
        let (state, _) = store.change(&account("romeo"), Change::Removed).await.unwrap();
        assert_eq!(state, Account::default());
        let store = reopened(store, engine).await;
        for device in [1, 9] {
            assert_eq!(store.backlog(&slot("romeo", device)).await.unwrap(), Backlog::default());
            assert_eq!(seqs(&store, &slot("romeo2", device)).await, [1, 2, 3]);
        }
        assert_eq!(store.tombstone("id-romeo").await.unwrap(), None);
        assert_eq!(store.tombstone("id-romeo2").await.unwrap().unwrap().h, h);
        assert_eq!(store.wakes().await.unwrap(), [(slot("romeo2", 1), wake)]);
        assert_eq!(store.account(&account("romeo")).await.unwrap(), Account::default());
        let before = store.commits();
        store.change(&account("romeo"), Change::Removed).await.unwrap();
        assert!(store.commits() == before || !engine.is_embedded());
        check_counts(&store);
    }
}

#[tokio::test]
async fn a_full_disk_fails_calls_until_there_is_room_and_forgets_no_deletion() {
    let disk = TestDisk::new(Vec::new(), usize::MAX);
    let store = disk.store().unwrap();
    let slot = slot("romeo", 1);
    put(&store, &slot, items(1..=3)).await.unwrap();
    disk.fail_writes();
    store.unspool(&of(&slot), Seq::new(2)).await.unwrap();
    for _ in 0..3 {
        let error = put(&store, &slot, items(4..=5)).await.unwrap_err();
        assert!(matches!(error, StoreError::Database(_)), "{error}");
    }
    disk.allow_writes();
    put(&store, &slot, items(4..=5)).await.unwrap();
    assert_eq!(seqs(&store, &slot).await, [3, 4, 5]);
    check_counts(&store);
    let after = TestDisk::new(disk.after_crash(|_| false), usize::MAX).store().unwrap();
    assert_eq!(seqs(&after, &slot).await, [3, 4, 5]);
}

#[tokio::test]
async fn a_stanza_never_reaches_a_log() {
    let told = format!("{:?}", item(1));
    assert!(told.contains("seq: 1") && !told.contains("hunter2"), "{told}");
}

#[tokio::test]
async fn a_record_of_a_newer_version_is_not_given_out() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let slot = slot("romeo", 1);
    put(&store, &slot, items(1..=2)).await.unwrap();
    store.shutdown().await;
    drop(store);
    let database = Database::open(directory.path().join(FILE)).unwrap();
    let transaction = database.begin_write().unwrap();
    let record = &b"\x02hunter2"[..];
    transaction.open_table(schema::STANZAS).unwrap().insert((slot.account.as_str(), 1, 2), record).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let store = Store::open(directory.path()).unwrap();
    assert_eq!(store.spooled(&of(&slot), Seq::ZERO, 0).await.unwrap(), items([1]));
    assert_eq!(store.spooled(&of(&slot), Seq::new(1), 0).await.unwrap(), []);
    assert_eq!(store.lost().get(), 1);
}

on_both_engines! {
    /// The least time in milliseconds between commits that no caller waits for, however many jobs there are.
    async fn what_nobody_waits_for_shares_its_commits_while_much_comes(engine) {
        const APART: u128 = 20;
        let store = engine.open();
        let (before, began) = (store.commits(), std::time::Instant::now());
        let mut spooling = tokio::task::JoinSet::new();
        for device in 0..300 {
            let (store, slot) = (store.clone(), slot("romeo", device));
            spooling.spawn(async move { put(&store, &slot, items(1..=2)).await });
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        while let Some(spooled) = spooling.join_next().await {
            spooled.unwrap().unwrap();
        }
        let (commits, at_most) = (store.commits() - before, began.elapsed().as_millis() / APART + 2);
        assert!(u128::from(commits) <= at_most, "{commits} commits, not {at_most}");
        assert_eq!(store.measures(engine.path()).await.unwrap().stanzas, 600);
        check_counts(&store);
    }
}

on_both_engines! {
    async fn a_login_returns_what_waits(engine) {
        let store = engine.open();
        let slot = slot("romeo", 1);
        let first = store.log_in(&slot.account, login(1, "phone", 1)).await.unwrap();
        assert_eq!((first.device, first.waits), (Some(slot.device), false));
        put(&store, &slot, items(1..=9)).await.unwrap();
        let again = store.log_in(&slot.account, login(1, "phone", 1)).await.unwrap();
        assert!(!again.waits, "its own spool does not count");
        store.unspool(&of(&slot), Seq::new(3)).await.unwrap();
        let second = store.log_in(&slot.account, login(2, "phone", 2)).await.unwrap();
        assert_eq!((second.device, second.waits), (Some(slot.device), true));
        assert_eq!(second.account, store.account_now(&slot.account).await.unwrap());
        // Stanzas that were just deleted do not count, even if the deletion is not committed yet.
        store.unspool(&of(&slot), Seq::new(9)).await.unwrap();
        assert!(!store.log_in(&slot.account, login(3, "phone", 3)).await.unwrap().waits);
    }
}

/// A login promises nothing, so it succeeds even on a disk that fails.
#[tokio::test]
async fn a_log_in_waits_for_no_disk_and_what_is_promised_behind_it_does() {
    let disk = TestDisk::new(Vec::new(), usize::MAX);
    let store = disk.store().unwrap();
    let slot = slot("romeo", 1);
    disk.fail_syncs();
    let logged_in = store.log_in(&slot.account, login(1, "phone", 1)).await.unwrap();
    assert_eq!(logged_in.device, Some(slot.device));
    put(&store, &slot, items(1..=1)).await.unwrap_err();
}

on_both_engines! {
    async fn log_ins_and_ends_are_in_order_before_any_is_on_disk(engine) {
        let store = engine.open();
        let slot = slot("romeo", 1);
        let (mut last, mut ends) = (0, Vec::new());
        for n in 2..=20 {
            let logged_in = store.log_in(&slot.account, login(n, "phone", n)).await.unwrap();
            let device = logged_in.account.device(logged_in.device.unwrap()).unwrap().clone();
            assert_eq!((device.id, device.open, device.last_seen), (DeviceId(2), vec![LoginId(n)], UnixSecs::new(n)));
            assert!(!logged_in.knew_agent);
            ends.push(store.submit_change(&slot.account, ended(n)).unwrap());
            last = n;
        }
        let now = store.account_now(&slot.account).await.unwrap();
        assert_eq!(
            (now.devices.len(), now.devices[0].is_open(), now.devices[0].last_seen),
            (1, false, UnixSecs::new(last))
        );
        for (end, at) in ends.into_iter().zip(2..) {
            assert_eq!(end.await.unwrap().0.devices[0].last_seen, UnixSecs::new(at));
        }
        assert_eq!(store.account(&slot.account).await.unwrap(), now);
        assert!(store.commits() < 2 * 19, "{} commits for as many log-ins and ends", store.commits());
    }
}

on_both_engines! {
    async fn a_user_agent_is_known_once_it_has_logged_in(engine) {
        let store = engine.open();
        let slot = slot("romeo", 1);
        let login = |candidate, agent: Option<&str>| Change::Login {
            candidate: DeviceId(candidate),
            login: LoginId(candidate),
            resource: "phone".to_owned(),
            agent: agent.map(str::to_owned),
            presented: None,
            at: UnixSecs::new(1),
        };
        for (agent, known) in [(None, false), (Some("a"), false), (Some("a"), true), (Some("b"), false), (None, false)] {
            let logged_in = store.log_in(&slot.account, login(1, agent)).await.unwrap();
            assert_eq!(logged_in.knew_agent, known, "{agent:?}");
        }
    }
}
