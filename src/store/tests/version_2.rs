//! Tests of a database of version 2, in which the row of every spool has a count. Its tables are spelled out here.

use redb::{Database, TableDefinition};

use super::slots::{check_counts, item};
use super::*;

const ACCOUNTS: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("accounts");
const SPOOLS: TableDefinition<'static, (&'static str, u64), &'static [u8]> = TableDefinition::new("spools");
const STANZAS: TableDefinition<'static, (&'static str, u64, u64), &'static [u8]> = TableDefinition::new("stanzas");
const DOOMED: TableDefinition<'static, (&'static str, u64), u64> = TableDefinition::new("doomed");
const TOMBSTONES: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("tombstones");
const ACCOUNT_TOMBSTONES: TableDefinition<'static, (&'static str, &'static str), ()> = TableDefinition::new("buried");
const WAKES: TableDefinition<'static, (&'static str, u64), &'static [u8]> = TableDefinition::new("wakes");
const META: TableDefinition<'static, &'static str, u64> = TableDefinition::new("meta");

const ROMEO: &str = "romeo@example.org";
/// Ahead of every clock.
const REVISION: u64 = 1 << 50;

fn numbers(numbers: &[u64]) -> Vec<u8> {
    [1].into_iter().chain(numbers.iter().flat_map(|number| number.to_be_bytes())).collect()
}

/// Writes a database: three stanzas in the spool of login 4, which is for device 1 and read by login 6, which is open; one
/// stanza in the spool of login 6; two doomed stanzas of login 5.
fn write(database: &Database) {
    let transaction = database.begin_write().unwrap();
    {
        let mut meta = transaction.open_table(META).unwrap();
        meta.insert("schema", 2).unwrap();
        meta.insert("login", 6).unwrap();
        let account = format!(
            "\x02{{\"revision\":{REVISION},\"devices\":[{{\"id\":1,\"resource\":\"phone\",\"sm_ids\":[\"id\"],\
             \"last_seen\":9,\"open\":[6]}}]}}"
        );
        transaction.open_table(ACCOUNTS).unwrap().insert(ROMEO, account.as_bytes()).unwrap();
        let mut stanzas = transaction.open_table(STANZAS).unwrap();
        for (login, seq) in [(4, 1), (4, 2), (4, 4), (5, 1), (5, 2), (6, 3)] {
            let item = item(seq);
            let mut record = vec![1, u8::from(item.shared) | u8::from(item.archived) << 1];
            record.extend_from_slice(&item.received.get().to_be_bytes());
            record.extend_from_slice(&item.bytes);
            stanzas.insert((ROMEO, login, seq), record.as_slice()).unwrap();
        }
        let bytes = |seqs: &[u64]| seqs.iter().map(|seq| item(*seq).bytes.len() as u64 + ITEM_OVERHEAD).sum();
        let mut spools = transaction.open_table(SPOOLS).unwrap();
        spools.insert((ROMEO, 4), numbers(&[1, 6, 9, 3, bytes(&[1, 2, 4]), 2]).as_slice()).unwrap();
        spools.insert((ROMEO, 6), numbers(&[1, 6, 3, 1, bytes(&[3]), 0]).as_slice()).unwrap();
        transaction.open_table(DOOMED).unwrap().insert((ROMEO, 5), 2).unwrap();
        let mut tombstone = vec![1];
        tombstone.extend_from_slice(&1u64.to_be_bytes());
        tombstone.extend_from_slice(&7u32.to_be_bytes());
        tombstone.extend_from_slice(&8u64.to_be_bytes());
        tombstone.extend_from_slice(ROMEO.as_bytes());
        transaction.open_table(TOMBSTONES).unwrap().insert("grave", tombstone.as_slice()).unwrap();
        transaction.open_table(ACCOUNT_TOMBSTONES).unwrap().insert((ROMEO, "grave"), ()).unwrap();
        let mut wake = vec![1, 2];
        wake.extend_from_slice(&5u64.to_be_bytes());
        transaction.open_table(WAKES).unwrap().insert((ROMEO, 2), wake.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
}

async fn verify(store: &Store) {
    let (phone, romeo) = (super::slots::slot("romeo", 1), account("romeo"));
    let spool = |login| SpoolId { account: romeo.clone(), login: LoginId(login) };
    let seqs = async |login| {
        let items = store.spooled(&spool(login), Seq::ZERO, usize::MAX).await.unwrap();
        assert!(items.iter().all(|read| *read == item(read.seq.get())));
        items.iter().map(|item| item.seq.get()).collect::<Vec<_>>()
    };
    assert_eq!((seqs(4).await, seqs(5).await, seqs(6).await), (vec![1, 2, 4], vec![], vec![3]));
    assert_eq!(store.backlog(&phone).await.unwrap().count, 4);
    assert_eq!(store.account(&romeo).await.unwrap().device_of(LoginId(6)), Some(phone.device));
    assert_eq!(store.tombstone("grave").await.unwrap().unwrap().h, 7);
    let restart = Wake { since: UnixSecs::new(5), reason: WakeReason::Restart };
    assert_eq!(store.wakes().await.unwrap(), [(super::slots::slot("romeo", 2), restart)]);
    check_counts(store);
}

#[tokio::test]
async fn a_database_of_version_2_opens_with_its_counts_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    write(&Database::create(directory.path().join(FILE)).unwrap());
    let store = Store::open(directory.path()).unwrap();
    verify(&store).await;
    assert_eq!(store.next_login(), LoginId(7));
    let changed = store.change(&account("romeo"), enable("n", 1)).await.unwrap().0;
    assert!(changed.revision > REVISION, "newer than all that the database has");
    let taken = store.take_over(&account("romeo"), DeviceId(1), LoginId(6)).await.unwrap();
    assert_eq!(
        taken.iter().map(|i| (i.spool.0, i.backlog.count, i.backlog.last_seq.get())).collect::<Vec<_>>(),
        [(4, 3, 9)]
    );
    let own = SpoolId { account: account("romeo"), login: LoginId(6) };
    store.spool(&own, DeviceId(1), vec![item(7)]).await.unwrap();
    store.unspool(&own, Seq::new(3)).await.unwrap();
    store.discard(&SpoolId { login: LoginId(4), ..own.clone() }, vec![Seq::range(1..=2)]).await.unwrap();
    check_counts(&store);
    // As after a crash: no row has a count.
    let rows: Vec<_> = store.disk().with(|database| Ok(super::rows(database))).unwrap();
    assert_eq!(rows.iter().map(|(spool, row)| (spool.login.0, row.count)).collect::<Vec<_>>(), [(4, None), (6, None)]);
    let other = tempfile::tempdir().unwrap();
    std::fs::copy(directory.path().join(FILE), other.path().join(FILE)).unwrap();
    store.shutdown().await;
    for directory in [&directory, &other] {
        let store = Store::open(directory.path()).unwrap();
        assert_eq!(store.backlogs().await.unwrap().values().map(|backlog| backlog.count).collect::<Vec<_>>(), [2]);
        check_counts(&store);
    }
}

#[tokio::test]
async fn a_conversion_from_version_2_that_is_interrupted_at_any_step_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE);
    write(&Database::create(&path).unwrap());
    let database = std::fs::read(&path).unwrap();
    let mut step = 0;
    loop {
        let disk = TestDisk::new(database.clone(), step);
        if let Ok(store) = disk.store() {
            store.shutdown().await;
        }
        for bytes in disk.after_crashes() {
            verify(&TestDisk::new(bytes, usize::MAX).store().unwrap()).await;
        }
        if disk.is_well() {
            break;
        }
        step += 1;
    }
    assert!(step > 5, "only {step} steps");
}
