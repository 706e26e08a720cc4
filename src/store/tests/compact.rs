//! Tests of the compaction of a sparse file.

use std::time::{Duration, Instant};

use super::super::embedded::compact::LARGE;
use super::slots::{all, check_counts, item, items, of, put, slot};
use super::*;

/// The number of slots that are filled.
const SLOTS: u64 = 8;
/// The number of stanzas in each.
const EACH: u64 = 250;

/// Fills a file beyond the size from which it is compacted.
async fn fill(store: &Store) {
    for device in 0..SLOTS {
        let items = (1..=EACH).map(|seq| Spooled { bytes: vec![b'x'; 64_000].into(), ..item(seq) }).collect();
        put(store, &slot("romeo", device), items).await.unwrap();
    }
}

fn len(directory: &Path) -> u64 {
    Store::file_size(directory).unwrap()
}

async fn until_smaller(directory: &Path, bytes: u64) {
    let until = Instant::now() + Duration::from_secs(60);
    while len(directory) > bytes {
        assert!(Instant::now() < until, "{} bytes", len(directory));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_file_shrinks_while_the_store_runs_once_what_waited_is_delivered() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    store.change(&account("romeo"), enable("phone", 1)).await.unwrap();
    put(&store, &slot("juliet", 1), items(1..=3)).await.unwrap();
    fill(&store).await;
    assert!(len(directory.path()) > 2 * LARGE);
    for device in 0..SLOTS {
        store.unspool(&of(&slot("romeo", device)), Seq::new(EACH)).await.unwrap();
    }
    // redb shrinks the file a little by itself, and a file that is small after that is not compacted.
    until_smaller(directory.path(), LARGE).await;
    assert_eq!(nodes(&store.account(&account("romeo")).await.unwrap()), ["phone"]);
    assert_eq!(all(&store, &slot("juliet", 1)).await.len(), 3);
    assert_eq!(store.backlog(&slot("romeo", 0)).await.unwrap().last_seq, Seq::new(EACH));
    check_counts(&store);
    put(&store, &slot("juliet", 1), items(4..=5)).await.unwrap();
    store.shutdown().await;
    drop(store);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    let store = Store::open(directory.path()).unwrap();
    assert_eq!(all(&store, &slot("juliet", 1)).await.len(), 5);
}

#[tokio::test]
async fn what_is_written_and_read_while_the_file_is_renewed_stands() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    fill(&store).await;
    let full = len(directory.path());
    for device in 0..SLOTS {
        store.unspool(&of(&slot("romeo", device)), Seq::new(EACH)).await.unwrap();
    }
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            let mut last = 0;
            // The file is compacted in a pause of one second; when that begins is not visible from here.
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_millis(2500) {
                last += 1;
                put(&store, &slot("juliet", 1), items([last])).await.unwrap();
                assert_eq!(store.backlog(&slot("juliet", 1)).await.unwrap().last_seq, Seq::new(last));
                tokio::time::sleep(Duration::from_millis(if last == 3 { 990 } else { 3 })).await;
            }
            last
        }
    });
    let last = writer.await.unwrap();
    until_smaller(directory.path(), full / 10).await;
    assert_eq!(store.backlog(&slot("juliet", 1)).await.unwrap().count, last);
    check_counts(&store);
}

#[tokio::test]
async fn a_large_file_that_is_mostly_free_shrinks_when_it_is_opened() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    fill(&store).await;
    for device in 1..SLOTS {
        store.unspool(&of(&slot("romeo", device)), Seq::new(EACH)).await.unwrap();
    }
    store.shutdown().await;
    drop(store);
    let before = len(directory.path());
    std::fs::write(directory.path().join("pushward.redb.new"), "left by one that was killed").unwrap();
    let store = Store::open(directory.path()).unwrap();
    let after = len(directory.path());
    assert!(after * 2 < before, "{before} → {after} bytes");
    assert_eq!(all(&store, &slot("romeo", 0)).await.len() as u64, EACH);
    assert_eq!(store.backlog(&slot("romeo", 1)).await.unwrap().last_seq, Seq::new(EACH));
    check_counts(&store);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_copy_that_is_given_up_or_fails_leaves_everything_as_it_was() {
    let disk = TestDisk::new(Vec::new(), usize::MAX);
    let store = disk.store().unwrap();
    put(&store, &slot("romeo", 1), items(1..=3)).await.unwrap();
    assert!(!store.disk().compact(&mut |_| false).unwrap());
    disk.fail_syncs();
    store.disk().compact(&mut |_| true).unwrap_err();
    disk.allow_syncs();
    disk.fail_writes();
    store.disk().compact(&mut |_| true).unwrap_err();
    disk.allow_writes();
    put(&store, &slot("romeo", 1), items(4..=5)).await.unwrap();
    assert_eq!(all(&store, &slot("romeo", 1)).await.len(), 5);
    assert!(store.disk().compact(&mut |_| true).unwrap());
    assert_eq!(all(&store, &slot("romeo", 1)).await.len(), 5);
    check_counts(&store);
}

#[tokio::test]
async fn nothing_is_promised_while_a_crash_may_bring_the_old_file_back() {
    let created = TestDisk::new(Vec::new(), usize::MAX);
    let store = created.store().unwrap();
    put(&store, &slot("romeo", 1), items(1..=3)).await.unwrap();
    store.shutdown().await;
    drop(store);
    let bytes = created.after_crash(|_| true);
    let counted = TestDisk::new(bytes.clone(), usize::MAX);
    let store = counted.store().unwrap();
    let before = counted.steps();
    assert!(store.disk().compact(&mut |_| true).unwrap());
    let steps = counted.steps();
    assert!(steps > before);
    // The last step makes the rename durable.
    let disk = TestDisk::new(bytes, steps - 1);
    let store = disk.store().unwrap();
    store.disk().compact(&mut |_| true).unwrap_err();
    disk.heal();
    put(&store, &slot("romeo", 1), items(4..=5)).await.unwrap_err();
    store.health().await.unwrap_err();
    for bytes in disk.after_crashes() {
        let store = TestDisk::new(bytes, usize::MAX).store().unwrap();
        assert_eq!(all(&store, &slot("romeo", 1)).await.len(), 3);
    }
}
