//! Many stanzas are deleted or moved in pieces, and other writes are performed in between.

use std::time::{Duration, Instant};

use super::slots::{check_counts, ended, item, items, login};
use super::*;

/// The number of stanzas in a large spool.
const MANY: u64 = 60_000;
/// Returns the longest time that a login may wait during work of this length. It is a share of the work, because a loaded machine
/// slows both.
fn allowed(work: Duration) -> Duration {
    (work / 4).max(Duration::from_millis(30))
}

async fn fill(store: &Store, spool: &SpoolId, count: u64) {
    let mut spooling = tokio::task::JoinSet::new();
    for first in (1..=count).step_by(4000) {
        let items = (first..(first + 4000).min(count + 1)).map(|seq| Spooled { shared: true, ..item(seq) }).collect();
        let (store, spool) = (store.clone(), spool.clone());
        spooling.spawn(async move { store.spool(&spool, DeviceId(1), items).await });
        // They are in order in the queue.
        tokio::task::yield_now().await;
    }
    while let Some(spooled) = spooling.join_next().await {
        spooled.unwrap().unwrap();
    }
}

/// Returns the longest wait of a login of another account while `work` runs, and the duration of the work.
async fn worst(store: &Store, work: impl Future<Output = ()>) -> (Duration, Duration) {
    let other = account("juliet");
    let start = Instant::now();
    let (done, mut worst) = (tokio_util::sync::CancellationToken::new(), Duration::ZERO);
    let log_in = async {
        while !done.is_cancelled() {
            let began = Instant::now();
            store.log_in(&other, login(9, "balcony", 9)).await.unwrap();
            worst = worst.max(began.elapsed());
            tokio::task::yield_now().await;
        }
    };
    let work = async {
        work.await;
        done.cancel();
    };
    tokio::join!(work, log_in);
    (worst, start.elapsed())
}

/// Returns once nothing is left to be deleted.
async fn wiped(store: &Store) {
    let doomed = |database: &Database| Ok(database.begin_read()?.open_table(schema::DOOMED)?.len()?);
    while store.disk().with(doomed).unwrap() > 0 || !store.shared.deletions.is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Regression: 60,000 stanzas in one spool delayed every client by 0.19 s at each bind of its user.
async fn log_ins_go_on_beside<'a, F: Future<Output = ()> + 'a>(work: impl Fn(Store, SpoolId) -> F) {
    /// Runs these tests one at a time, so that they do not slow down each other.
    static MEASURING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _measuring = MEASURING.lock().await;
    let mut all = Vec::new();
    for n in 1..=8 {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let spool = SpoolId { account: account("romeo"), login: LoginId(n) };
        store.log_in(&spool.account, login(n, "phone", n)).await.unwrap();
        fill(&store, &spool, MANY).await;
        store.change(&spool.account, ended(n)).await.unwrap();
        let (waited, total) = worst(&store, work(store.clone(), spool)).await;
        check_counts(&store);
        if waited < allowed(total) {
            return;
        }
        all.push((waited, total));
    }
    panic!("logins waited for so much of the work: {all:?}");
}

#[tokio::test]
async fn no_log_in_waits_for_the_removal_of_a_large_account() {
    log_ins_go_on_beside(|store, spool| async move {
        store.change(&spool.account, Change::Removed).await.unwrap();
        assert_eq!(store.spooled(&spool, Seq::ZERO, usize::MAX).await.unwrap(), []);
        wiped(&store).await;
    })
    .await;
}

#[tokio::test]
async fn no_log_in_waits_for_a_long_deletion() {
    log_ins_go_on_beside(|store, spool| async move {
        store.unspool(&spool, Seq::new(MANY - 10)).await.unwrap();
        assert_eq!(store.spooled(&spool, Seq::ZERO, usize::MAX).await.unwrap().len(), 10);
        store.discard(&spool, vec![Seq::range(MANY - 8..=MANY - 7)]).await.unwrap();
        assert_eq!(store.spooled(&spool, Seq::ZERO, usize::MAX).await.unwrap().len(), 8);
        wiped(&store).await;
    })
    .await;
}

#[tokio::test]
async fn no_log_in_waits_for_a_large_spool_to_be_taken_over_or_its_stanzas_to_be_adopted() {
    log_ins_go_on_beside(|store, spool| async move {
        let (romeo, to) = (spool.account.clone(), SpoolId { account: spool.account.clone(), login: LoginId(70) });
        store.log_in(&romeo, login(70, "tablet", 70)).await.unwrap();
        let mut moved = 0;
        while moved < 2560 {
            let places = Seq::new(moved + 1)..=Seq::MAX;
            moved += store.adopt_shared(&romeo, DeviceId(spool.login.0), &to, DeviceId(70), places).await.unwrap();
        }
        store.log_in(&romeo, login(80, "phone", 80)).await.unwrap();
        let device = DeviceId(spool.login.0);
        let inherited = store.take_over(&romeo, device, LoginId(80)).await.unwrap();
        assert_eq!(inherited.iter().map(|i| i.backlog.count).collect::<Vec<_>>(), [MANY - moved]);
        store.discard(&spool, vec![Seq::range(0..=MANY)]).await.unwrap();
        wiped(&store).await;
    })
    .await;
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Order {
    Remove,
    Forget,
    Discard,
    Unspool,
}

/// After a crash between two pieces, at most one piece is repeated, and what was durably deleted stays deleted.
#[allow(clippy::too_many_lines, reason = "a scenario reads best in one piece")]
async fn crash(order: Order) {
    const COUNT: u64 = 900;
    let created = TestDisk::new(Vec::new(), usize::MAX);
    let store = created.store().unwrap();
    let spool = SpoolId { account: account("romeo"), login: LoginId(1) };
    let other = SpoolId { account: account("romeo2"), login: LoginId(2) };
    store.log_in(&spool.account, login(1, "phone", 1)).await.unwrap();
    fill(&store, &spool, COUNT).await;
    store.spool(&other, DeviceId(2), items(1..=3)).await.unwrap();
    store.change(&spool.account, ended(1)).await.unwrap();
    store.shutdown().await;
    drop(store);
    let filled = created.after_crash(|_| true);
    let (mut step, mut between) = (0, 0);
    loop {
        let disk = TestDisk::new(filled.clone(), step);
        let mut answered = false;
        if let Ok(store) = disk.store() {
            answered = match order {
                Order::Remove => store.change(&spool.account, Change::Removed).await.is_ok(),
                Order::Forget => {
                    let ttl = Duration::ZERO;
                    store
                        .expire(
                            UnixSecs::new(1 << 40),
                            Ttl { orphan: Duration::MAX, tombstone: ttl, registration: ttl },
                        )
                        .await
                        .is_ok()
                }
                Order::Discard => store.discard(&spool, vec![Seq::range(100..=800)]).await.is_ok(),
                Order::Unspool => store.unspool(&spool, Seq::new(800)).await.is_err(),
            };
            store.shutdown().await;
        }
        for bytes in disk.after_crashes() {
            let store = TestDisk::new(bytes, usize::MAX).store().unwrap();
            let left = store.spooled(&spool, Seq::ZERO, usize::MAX).await.unwrap();
            assert!(left.is_sorted_by(|a, b| a.seq < b.seq));
            let whole = left.len() as u64 == COUNT;
            let gone = match order {
                Order::Remove | Order::Forget => left.is_empty(),
                Order::Discard => left.iter().map(|item| item.seq.get()).eq((1..100).chain(801..=COUNT)),
                Order::Unspool => left.iter().map(|item| item.seq.get()).eq(801..=COUNT),
            };
            if matches!(order, Order::Remove | Order::Forget) {
                assert!(whole || gone, "step {step}: {} are left", left.len());
            } else {
                let must: Vec<_> = if order == Order::Discard {
                    (1..100).chain(801..=COUNT).collect()
                } else {
                    (801..=COUNT).collect()
                };
                assert!(must.iter().all(|seq| left.iter().any(|item| item.seq.get() == *seq)), "step {step}: lost");
            }
            assert!(gone || !answered, "step {step}: came back");
            between += usize::from(!whole && !gone);
            assert_eq!(store.spooled(&other, Seq::ZERO, usize::MAX).await.unwrap(), items(1..=3));
            check_counts(&store);
            // The next start continues what was begun.
            let doomed = async |store: &Store| {
                let doomed = |database: &Database| Ok(database.begin_read()?.open_table(schema::DOOMED)?.len()?);
                store.disk().with(doomed).unwrap()
            };
            let until = Instant::now() + Duration::from_secs(20);
            while doomed(&store).await > 0 {
                assert!(Instant::now() < until, "step {step}: not wiped");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            check_counts(&store);
        }
        if disk.is_well() {
            break;
        }
        step += 7;
    }
    assert!(step > 10, "only {step} steps");
    if order == Order::Discard {
        assert!(between > 0, "no crash came between two pieces");
    }
}

#[tokio::test]
async fn the_removal_of_an_account_is_whole_or_nothing_whenever_the_disk_fails() {
    crash(Order::Remove).await;
}

#[tokio::test]
async fn a_device_is_forgotten_wholly_or_not_at_all_whenever_the_disk_fails() {
    crash(Order::Forget).await;
}

#[tokio::test]
async fn a_deletion_of_sequence_numbers_deletes_no_others_whenever_the_disk_fails() {
    crash(Order::Discard).await;
}

#[tokio::test]
async fn a_deletion_up_to_a_sequence_number_deletes_no_others_whenever_the_disk_fails() {
    crash(Order::Unspool).await;
}
