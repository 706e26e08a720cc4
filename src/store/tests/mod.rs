//! Tests of the store, with and without a disk that fails.

use redb::{Database, ReadableDatabase, ReadableTableMetadata};

use self::disk::TestDisk;
use super::schema::{ACCOUNTS, SPOOLS};
use super::*;
use crate::clock::{UnixMillis, UnixSecs};
use crate::jid::BareJid;
use crate::push::account::{Account, Change, DeviceId, DeviceRecognition, LoginId};
use crate::push::registration::{Field, Registration, Target};
use crate::secret::Secret;
use crate::seq::Seq;

mod ageing;
pub(in crate::store) mod both;
mod compact;
mod convert;
mod crash;
mod disk;
pub(crate) mod engine;
mod outcomes;
mod pieces;
#[path = "../../../tests/support/postgres.rs"]
pub(crate) mod postgres;
mod replicated;
mod slots;
mod spools;
mod unreadable;
mod version_2;

impl Store {
    /// Returns the database file.
    fn disk(&self) -> &Disk {
        match &self.shared.engine {
            Engines::Embedded(engine) => engine.disk(),
            Engines::Postgres(_) => panic!("no file"),
            Engines::Faulty(engine) => engine.disk(),
        }
    }

    /// Blocks the writer until the returned value is dropped.
    pub(crate) fn stall(&self) -> std::sync::mpsc::Sender<()> {
        let (go_on, stalled) = std::sync::mpsc::channel();
        self.jobs.send(Job::Stall(stalled)).unwrap();
        go_on
    }

    /// Overwrites the record of a stanza.
    pub(crate) fn set_stanza(&self, spool: &SpoolId, seq: u64, record: &[u8]) {
        let write = |database: &Database| {
            let transaction = database.begin_write()?;
            transaction.open_table(schema::STANZAS)?.insert(spool.stanza_key(Seq::new(seq)), record)?;
            Ok(transaction.commit()?)
        };
        self.disk().with(write).unwrap();
    }

    /// Overwrites the record of an account.
    pub(crate) fn set_account(&self, account: &BareJid, record: &[u8]) {
        let write = |database: &Database| {
            let transaction = database.begin_write()?;
            transaction.open_table(ACCOUNTS)?.insert(account.as_str(), record)?;
            Ok(transaction.commit()?)
        };
        self.disk().with(write).unwrap();
    }
}

fn account(name: &str) -> BareJid {
    format!("{name}@example.org").parse().unwrap()
}

fn registration(node: &str, last_seen: u64) -> Registration {
    Registration {
        target: Target { service: "push.example.net".parse().unwrap(), node: Some(node.to_owned()) },
        options: Some(vec![Field {
            var: "secret".to_owned(),
            kind: None,
            values: vec![Secret::new(format!("hunter2-{node}"))],
        }]),
        extensions: Box::default(),
        device: DeviceId(1),
        last_seen: UnixSecs::new(last_seen),
        errors: 0,
        last_success: None,
        undelivered_since: None,
    }
}

fn enable(node: &str, last_seen: u64) -> Change {
    Change::Enable {
        registration: registration(node, last_seen),
        recognition: DeviceRecognition::Guessed,
        max_devices: 3,
    }
}

#[tokio::test]
async fn accounts_are_listed_page_by_page_and_what_cannot_be_read_is_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    for name in ["a", "b", "c", "d"] {
        store.change(&account(name), enable(name, 1)).await.unwrap();
    }
    store.shutdown().await;
    drop(store);
    overwrite(directory.path(), &account("b"), b"\x01{");
    let store = Store::open(directory.path()).unwrap();
    assert_eq!(store.account_count().await.unwrap(), 4);
    let (mut after, mut pages) = (None, Vec::new());
    loop {
        let page = store.accounts(after, 2).await.unwrap();
        pages.push(page.accounts.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>());
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let name = |name| account(name).to_string();
    assert_eq!(pages, [vec![name("a")], vec![name("c"), name("d")], vec![]]);
}

fn nodes(account: &Account) -> Vec<&str> {
    account.registrations.iter().filter_map(|r| r.target.node.as_deref()).collect()
}

/// Returns the rows of all spools.
fn rows(database: &Database) -> Vec<(SpoolId, schema::Row)> {
    let table = database.begin_read().unwrap().open_table(SPOOLS).unwrap();
    let mut rows = Vec::new();
    for entry in redb::ReadableTable::iter(&table).unwrap() {
        let (key, record) = entry.unwrap();
        let (name, login) = key.value();
        let spool = SpoolId { account: BareJid::new(name).unwrap(), login: LoginId(login) };
        let row = schema::Row::decode(&spool.account, record.value()).unwrap();
        rows.push((spool, row));
    }
    rows
}

/// Overwrites the record of an account in a closed database.
fn overwrite(directory: &Path, account: &BareJid, record: &[u8]) {
    let database = Database::open(directory.join(FILE)).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(ACCOUNTS).unwrap().insert(account.as_str(), record).unwrap();
    transaction.commit().unwrap();
}

fn raw(directory: &Path, account: &BareJid) -> Vec<u8> {
    let database = Database::open(directory.join(FILE)).unwrap();
    let table = database.begin_read().unwrap().open_table(ACCOUNTS).unwrap();
    table.get(account.as_str()).unwrap().unwrap().value().to_vec()
}

#[tokio::test]
async fn accounts_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("a/state");
    let store = Store::open(&state).unwrap();
    let (list, device) = store.change(&account("romeo"), enable("one", 1)).await.unwrap();
    assert_eq!(list.registrations, [registration("one", 1)]);
    assert_eq!(device, Some(DeviceId(1)));
    store.shutdown().await;
    drop(store);

    let store = Store::open(&state).unwrap();
    assert_eq!(store.account(&account("romeo")).await.unwrap(), list);
    assert_eq!(store.account(&account("juliet")).await.unwrap(), Account::default());
}

#[tokio::test]
async fn what_holds_secrets_is_readable_by_its_owner_only() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let _store = Store::open(&state).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    assert_eq!(mode(&state.join(FILE)), 0o600);
}

#[tokio::test]
async fn a_second_process_gets_the_error_that_the_database_is_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let _store = Store::open(directory.path()).unwrap();
    let error = Store::open(directory.path()).unwrap_err();
    assert!(matches!(error, StoreError::InUse), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE);
    std::fs::write(&path, "not a database, and longer than a header of one could be".repeat(100)).unwrap();
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(Store::open(directory.path()).unwrap_err(), StoreError::Database(_)));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn the_least_recently_seen_goes_when_an_account_has_too_many() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    for (node, seen) in [("a", 4), ("b", 1), ("c", 3), ("d", 2)] {
        store.change(&account("romeo"), enable(node, seen)).await.unwrap();
    }
    assert_eq!(nodes(&store.account(&account("romeo")).await.unwrap()), ["a", "c", "d"]);
}

#[tokio::test]
async fn an_account_without_devices_and_registrations_has_no_record() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    store.change(&account("romeo"), enable("one", 1)).await.unwrap();
    let service = "push.example.net".parse().unwrap();
    let (left, _) = store.change(&account("romeo"), Change::Disable { service, node: None }).await.unwrap();
    assert_eq!(left, Account::default());
    let record = store.disk().with(|database| {
        let table = database.begin_read()?.open_table(ACCOUNTS)?;
        Ok(table.get(account("romeo").as_str())?.is_some())
    });
    assert!(!record.unwrap());
}

#[tokio::test]
async fn a_change_that_makes_no_difference_costs_no_commit() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    store.change(&account("romeo"), enable("one", 5)).await.unwrap();
    let before = store.commits();
    let seen = Change::Seen { device: DeviceId(1), at: UnixSecs::new(5) };
    assert_eq!(nodes(&store.change(&account("romeo"), seen).await.unwrap().0), ["one"]);
    assert_eq!(store.commits(), before);
}

#[tokio::test]
async fn concurrent_changes_share_commits_and_see_each_other() {
    const ACCOUNTS: u64 = 500;
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let mut waiting = tokio::task::JoinSet::new();
    for n in 0..ACCOUNTS {
        let store = store.clone();
        waiting.spawn(async move {
            let account = account(&format!("user{n}"));
            let (first, second) =
                tokio::join!(store.change(&account, enable("one", n)), store.change(&account, enable("two", n + 1)),);
            assert_eq!(nodes(&first.unwrap().0), ["one"]);
            assert_eq!(nodes(&second.unwrap().0), ["two", "one"]);
        });
    }
    while let Some(done) = waiting.join_next().await {
        done.unwrap();
    }
    assert!(store.commits() < ACCOUNTS, "{} commits for {} changes", store.commits(), 2 * ACCOUNTS);
}

#[tokio::test]
async fn a_shutdown_waits_for_what_was_accepted_and_refuses_the_rest() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let mut accepted = tokio::task::JoinSet::new();
    for n in 0..100 {
        let store = store.clone();
        accepted.spawn(async move { store.change(&account(&format!("user{n}")), enable("one", 1)).await });
    }
    tokio::task::yield_now().await;
    tokio::join!(store.shutdown(), store.shutdown());
    let mut kept = 0;
    while let Some(answer) = accepted.join_next().await {
        match answer.unwrap() {
            Ok(_) => kept += 1,
            Err(error) => assert!(matches!(error, StoreError::Closed), "{error}"),
        }
    }
    let late = store.change(&account("late"), enable("one", 1)).await.unwrap_err();
    assert!(matches!(late, StoreError::Closed), "{late}");
    store.shutdown().await;
    // It is closed even if there are still handles.
    let again = Store::open(directory.path()).unwrap();
    assert_eq!(again.measures(directory.path()).await.unwrap().accounts, kept);
    assert_eq!((store.unanswered(), again.unanswered()), (0, 0));
}

#[tokio::test]
async fn a_record_of_a_newer_version_is_refused_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    Store::open(directory.path()).unwrap().shutdown().await;
    overwrite(directory.path(), &account("romeo"), b"\x03from the future");

    let store = Store::open(directory.path()).unwrap();
    let read = store.account(&account("romeo")).await.unwrap_err();
    assert!(read.to_string().contains("romeo@example.org is of version 3"), "{read}");
    let [romeo, juliet] = ["romeo", "juliet"].map(account);
    let (other, changed) =
        tokio::join!(store.change(&juliet, enable("one", 1)), store.change(&romeo, enable("one", 1)));
    assert_eq!(nodes(&other.unwrap().0), ["one"]);
    assert!(matches!(changed.unwrap_err(), StoreError::UnknownVersion { version: 3, .. }));
    store.shutdown().await;
    drop(store);
    assert_eq!(raw(directory.path(), &account("romeo")), b"\x03from the future");
}

#[tokio::test]
async fn a_corrupt_record_is_an_error_that_names_the_account_but_no_content() {
    for record in
        [&b"\x01[{\"hunter2\":"[..], b"\x01{\"devices\":\"hunter2\"}", b"\x01[\"hunter2\"]", b"\x01hunter2", b""]
    {
        let directory = tempfile::tempdir().unwrap();
        Store::open(directory.path()).unwrap().shutdown().await;
        overwrite(directory.path(), &account("romeo"), record);
        let store = Store::open(directory.path()).unwrap();
        let error = store.change(&account("romeo"), enable("one", 1)).await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        let told = format!("{error} {error:?}");
        assert!(told.contains("romeo@example.org") && !told.contains("hunter2"), "{told}");
        store.shutdown().await;
        drop(store);
        assert_eq!(raw(directory.path(), &account("romeo")), record);
    }
}

/// Makes changes of several accounts, some of them at once; returns those that succeeded.
async fn work(store: &Store) -> Vec<(BareJid, String)> {
    let mut promised = Vec::new();
    for round in 0..4 {
        let node = format!("node{round}");
        let accounts = ["romeo", "juliet", "nurse"].map(account);
        let [a, b, c] = &accounts;
        let answers = tokio::join!(
            store.change(a, enable(&node, round)),
            store.change(b, enable(&node, round)),
            store.change(c, enable(&node, round)),
        );
        for (answer, account) in [answers.0, answers.1, answers.2].into_iter().zip(accounts) {
            match answer {
                Ok(_) => promised.push((account, node.clone())),
                Err(error) => assert!(matches!(error, StoreError::Database(_)), "{error}"),
            }
        }
    }
    promised
}

/// Checks that the newest promise of each account is on the disk, and nothing that was never asked for.
async fn verify(bytes: Vec<u8>, promised: &[(BareJid, String)], step: usize) {
    let store = TestDisk::new(bytes, usize::MAX).store().unwrap();
    for (account, node) in promised {
        let list = store.account(account).await.unwrap();
        // An account keeps three registrations, so a later round that was stored but not answered may have evicted an early
        // one.
        let round = |node: &str| node.strip_prefix("node").and_then(|n| n.parse::<usize>().ok());
        let newest = nodes(&list).first().and_then(|n| round(n));
        let evicted = newest.zip(round(node)).is_some_and(|(newest, round)| newest >= round + 3);
        let kept = nodes(&list).contains(&node.as_str()) || evicted;
        assert!(kept, "step {step}: {account} lost {node}, has {:?}", nodes(&list));
    }
    store.change(&account("romeo"), enable("afterwards", 99)).await.unwrap();
}

#[tokio::test]
async fn what_was_promised_outlives_a_disk_that_fails_at_any_step() {
    let created = TestDisk::new(Vec::new(), usize::MAX);
    created.store().unwrap().shutdown().await;
    let empty = created.after_crash(|_| true);

    let mut step = 0;
    loop {
        let disk = TestDisk::new(empty.clone(), step);
        let promised = match disk.store() {
            Ok(store) => {
                let promised = work(&store).await;
                store.shutdown().await;
                promised
            }
            Err(_) => Vec::new(),
        };
        for bytes in disk.after_crashes() {
            verify(bytes, &promised, step).await;
        }
        if disk.is_well() {
            assert_eq!(promised.len(), 12);
            break;
        }
        step += 1;
    }
    assert!(step > 20, "only {step} steps were tried");
}

#[tokio::test]
async fn a_disk_that_was_full_for_a_while_is_used_again() {
    let disk = TestDisk::new(Vec::new(), usize::MAX);
    let store = disk.store().unwrap();
    store.change(&account("romeo"), enable("before", 1)).await.unwrap();
    disk.fail_writes();
    for _ in 0..3 {
        let error = store.change(&account("romeo"), enable("during", 2)).await.unwrap_err();
        assert!(matches!(error, StoreError::Database(_)), "{error}");
    }
    disk.allow_writes();
    let last = store.change(&account("romeo"), enable("after", 3)).await.unwrap().0;
    assert_eq!(nodes(&last), ["after", "before"]);
    assert_eq!(store.account(&account("romeo")).await.unwrap(), last);
    verify(disk.after_crash(|_| false), &[(account("romeo"), "after".to_owned())], 0).await;
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_promised_any_more() {
    let disk = TestDisk::new(Vec::new(), usize::MAX);
    let store = disk.store().unwrap();
    store.change(&account("romeo"), enable("before", 1)).await.unwrap();
    disk.fail_syncs();
    store.change(&account("romeo"), enable("during", 2)).await.unwrap_err();
    disk.allow_syncs();
    for _ in 0..3 {
        store.change(&account("romeo"), enable("after", 3)).await.unwrap_err();
    }
}
