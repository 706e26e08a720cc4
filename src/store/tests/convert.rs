//! Tests of a database of version 1, in which a spool belonged to a device.
//!
//! `data/version-1.redb` was written by that version: [`SLOTS`] lists its slots, and [`stanza`] returns the content of each
//! stanza.

use super::slots::check_counts;
use super::*;

const DATABASE: &[u8] = include_bytes!("data/version-1.redb");

/// Account, device, first sequence number, number of stanzas. Several entries for one device belong to several of its
/// sessions.
const SLOTS: [(&str, u64, u64, u64); 6] = [
    // Of 40, five were delivered.
    ("romeo", 1, (1_700_000_000_000 << 16) + 5, 35),
    ("romeo", 1, 1_700_000_100_000 << 16, 30),
    ("romeo", 2, 1_700_000_200_000 << 16, 20),
    ("romeo", 3, 1_700_000_300_000 << 16, 10),
    // The account does not know the device.
    ("romeo", 9, 1, 3),
    ("nurse", u64::MAX, 1, 600),
];

fn stanza(name: &str, device: u64, seq: u64) -> Spooled {
    let (start, end) = if seq % 11 == 7 { ("iq type='get'", "iq") } else { ("message", "message") };
    let bytes = format!("<{start} id='{seq}' to='{name}@example.org'><body>{device} {seq}</body></{end}>").into();
    let (received, shared, archived) = (1_700_000_000_000 + seq % 1000, seq.is_multiple_of(2), seq.is_multiple_of(3));
    Spooled { seq: Seq::new(seq), received: UnixMillis::new(received), shared, archived, bytes }
}

fn expected(name: &str, device: u64) -> Vec<Spooled> {
    let slots = SLOTS.iter().filter(|slot| (slot.0, slot.1) == (name, device));
    slots.flat_map(|slot| (slot.2..slot.2 + slot.3).map(|seq| stanza(name, device, seq))).collect()
}

/// Checks that every stanza is still for the same device, in the same order, under logins that are not given out again.
async fn verify(store: &Store) {
    let rows = store.disk().with(|database| Ok(super::rows(database))).unwrap();
    let next = store.next_login();
    let mut devices = Vec::new();
    for (spool, row) in rows {
        assert!(row.owner == spool.login && spool.login < next && spool.login > LoginId(0));
        let name = spool.account.to_string().replace("@example.org", "");
        assert_eq!(store.spooled(&spool, Seq::ZERO, usize::MAX).await.unwrap(), expected(&name, row.device.0));
        assert_eq!(store.shared.counts.of(&spool).backlog.last_seq, expected(&name, row.device.0).last().unwrap().seq);
        devices.push((name, row.device.0));
    }
    assert_eq!(
        devices,
        [("nurse", u64::MAX), ("romeo", 1), ("romeo", 2), ("romeo", 3), ("romeo", 9)].map(|(n, d)| (n.to_owned(), d))
    );
    let tables = |database: &Database| Ok(database.begin_read()?.list_tables()?.count());
    assert_eq!(store.disk().with(tables).unwrap(), schema::TABLES);
    check_counts(store);
}

#[tokio::test]
async fn a_database_of_the_version_before_opens_and_delivers_everything_in_the_same_order() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(FILE), DATABASE).unwrap();
    let store = Store::open(directory.path()).unwrap();
    verify(&store).await;
    let romeo = account("romeo");
    let open = |state: &Account| state.devices.iter().map(|d| (d.id.0, d.open.clone())).collect::<Vec<_>>();
    let state = store.account(&romeo).await.unwrap();
    assert_eq!(open(&state), [(1, vec![LoginId(0)]), (2, vec![]), (3, vec![])], "random ids are older than all others");
    assert_eq!(nodes(&state), ["tablet", "phone"]);
    let wake =
        |device, since, reason| (Slot { account: account("romeo"), device: DeviceId(device) }, Wake { since, reason });
    let expired = wake(2, UnixSecs::new(1_700_000_003), WakeReason::Expired);
    assert_eq!(store.wakes().await.unwrap(), std::slice::from_ref(&expired));
    for (id, name, device, h) in [("grave-romeo", "romeo", 1, 17), ("grave-juliet", "juliet", 4, u32::MAX)] {
        let tombstone =
            Tombstone { account: account(name), device: DeviceId(device), h, at: UnixSecs::new(1_700_000_004) };
        assert_eq!(store.tombstone(id).await.unwrap(), Some(tombstone));
    }
    let lost = store.recover(UnixSecs::new(1_700_000_009), Arc::default()).await.unwrap();
    assert_eq!(lost.iter().map(|slot| slot.device.0).collect::<Vec<_>>(), [4, u64::MAX, 1]);
    assert_eq!(store.wakes().await.unwrap(), [wake(1, UnixSecs::new(1_700_000_009), WakeReason::Restart), expired]);

    // The devices come back, the phone with its user agent and the tablet with its resource.
    let orphans = store.orphans(&romeo, DeviceId(2)).await.unwrap();
    assert_eq!(
        orphans.iter().map(|(device, backlog)| (device.0, backlog.count)).collect::<Vec<_>>(),
        [(1, 65), (3, 10), (9, 3)]
    );
    for (device, resource, agent, count) in [(1, "elsewhere", Some("agent-1"), 65), (2, "tablet", None, 20)] {
        let login = store.next_login();
        let agent = agent.map(str::to_owned);
        let change = Change::Login {
            candidate: DeviceId(77),
            login,
            resource: resource.to_owned(),
            agent,
            presented: None,
            at: UnixSecs::new(1),
        };
        let logged_in = store.log_in(&romeo, change).await.unwrap();
        assert_eq!((logged_in.device, logged_in.waits), (Some(DeviceId(device)), true));
        let inherited = store.take_over(&romeo, DeviceId(device), login).await.unwrap();
        assert_eq!(inherited.iter().map(|i| i.backlog.count).collect::<Vec<_>>(), [count]);
        assert!(inherited[0].spool < login);
        let from = SpoolId { account: romeo.clone(), login: inherited[0].spool };
        assert_eq!(store.spooled(&from, Seq::ZERO, usize::MAX).await.unwrap(), expected("romeo", device));
    }
    // Another device that is online takes what no device fetches.
    let to = SpoolId { account: romeo.clone(), login: store.next_login() };
    assert_eq!(
        store.adopt_shared(&romeo, DeviceId(3), &to, DeviceId(2), Seq::range(1..=99)).await.unwrap(),
        4,
        "five less a request"
    );
    check_counts(&store);
    store.shutdown().await;
    drop(store);
    let store = Store::open(directory.path()).unwrap();
    assert_eq!(store.account(&romeo).await.unwrap().devices.iter().filter(|d| d.is_open()).count(), 2);
}

#[tokio::test]
async fn a_conversion_that_is_interrupted_at_any_step_loses_nothing() {
    let mut step = 0;
    let mut states = 0;
    loop {
        let disk = TestDisk::new(DATABASE.to_vec(), step);
        if let Ok(store) = disk.store() {
            store.shutdown().await;
        }
        for bytes in disk.after_crashes() {
            let disk = TestDisk::new(bytes, usize::MAX);
            let store = disk.store().unwrap();
            verify(&store).await;
            states += 1;
        }
        if disk.is_well() {
            break;
        }
        step += 3;
    }
    assert!(step > 30 && states > 30, "only {step} steps, {states} states");
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    Store::open(directory.path()).unwrap().shutdown().await;
    let set = |version: u64| {
        let database = Database::open(directory.path().join(FILE)).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(schema::META).unwrap().insert("schema", version).unwrap();
        transaction.commit().unwrap();
    };
    set(4);
    let error = Store::open(directory.path()).unwrap_err();
    assert!(matches!(error, StoreError::NewerSchema { version: 4 }), "{error}");
    set(3);
    Store::open(directory.path()).unwrap();
}

#[tokio::test]
async fn what_cannot_be_read_in_the_version_before_stops_neither_the_start_nor_what_is_behind_it() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(FILE), DATABASE).unwrap();
    {
        let database = Database::open(directory.path().join(FILE)).unwrap();
        let transaction = database.begin_write().unwrap();
        {
            let mut stanzas = transaction.open_table(crate::store::schema::OLD_SPOOL).unwrap();
            let romeo = account("romeo");
            for seq in [1_700_000_200_000 << 16, (1_700_000_200_000 << 16) + 7] {
                stanzas.insert((romeo.as_str(), 2, seq), &b"hunter2"[..]).unwrap();
            }
            let mut slots = transaction.open_table(crate::store::schema::OLD_SLOTS).unwrap();
            slots.insert((romeo.as_str(), 1), &b""[..]).unwrap();
        }
        transaction.commit().unwrap();
    }
    let store = Store::open(directory.path()).unwrap();
    store.recover(UnixSecs::new(1), Arc::default()).await.unwrap();
    let mut read = Vec::new();
    for (slot, _) in store.backlogs().await.unwrap() {
        let taken = store.take_over(&slot.account, slot.device, store.next_login()).await.unwrap();
        let from = SpoolId { account: slot.account.clone(), login: taken[0].spool };
        let count = store.spooled(&from, Seq::ZERO, usize::MAX).await.unwrap().len();
        read.push((slot.device.0, count));
    }
    read.sort_unstable();
    assert_eq!(read, [(1, 65), (2, 18), (3, 10), (9, 3), (u64::MAX, 600)]);
    assert_eq!(store.lost().get(), 2);
}
