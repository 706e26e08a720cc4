//! Tests of outcomes that are unknown for a while or for too long.

use std::time::Duration;

use super::engine::{Fault, Faults};
use super::slots::{check_counts, enable_on, ended, item, items, login, of, slot};
use super::*;

const PATIENCE: Duration = Duration::from_millis(300);

struct Rig {
    store: Store,
    faults: Arc<Faults>,
    phone: Slot,
    _directory: tempfile::TempDir,
}

impl Rig {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (store, faults) = Store::faulty(directory.path());
        let phone = slot("romeo", 1);
        store.log_in(&phone.account, login(1, "phone", 1)).await.unwrap();
        store.spool(&of(&phone), phone.device, items([1])).await.unwrap();
        Self { store, faults, phone, _directory: directory }
    }

    /// Starts to put stanzas into the phone's spool, without waiting.
    fn spool(&self, seqs: impl IntoIterator<Item = u64>) -> tokio::task::JoinHandle<Result<(), StoreError>> {
        let (store, phone, items) = (self.store.clone(), self.phone.clone(), items(seqs));
        tokio::spawn(async move { store.spool(&of(&phone), phone.device, items).await })
    }

    async fn read(&self) -> Vec<u64> {
        super::slots::seqs(&self.store, &self.phone).await
    }

    /// Returns what is on disk, hidden or not.
    fn stored(&self) -> Vec<u64> {
        let read = |database: &Database| {
            let table = database.begin_read()?.open_table(schema::STANZAS)?;
            let mut seqs = Vec::new();
            for entry in redb::ReadableTable::iter(&table)? {
                seqs.push(entry?.0.value().2);
            }
            Ok(seqs)
        };
        self.store.disk().with(read).unwrap()
    }

    async fn until(&self, what: &str, is: impl Fn(&Self) -> bool) {
        let begin = std::time::Instant::now();
        while !is(self) {
            assert!(begin.elapsed() < Duration::from_secs(30), "{what}: {:?} on disk", self.stored());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Stalls the engine in a commit that puts stanzas into the phone's spool.
    async fn stall_with(&self, seqs: impl IntoIterator<Item = u64>) -> tokio::task::JoinHandle<Result<(), StoreError>> {
        let before = self.faults.asked();
        self.faults.set(Fault::StallsBefore);
        let spooled = self.spool(seqs);
        self.until("asked", |rig| rig.faults.asked() > before).await;
        spooled
    }

    async fn until_asked_again(&self) {
        let asked = self.faults.asked();
        self.until("asked again", |rig| rig.faults.asked() >= asked + 2).await;
    }
}

fn no_answer(outcome: Result<(), StoreError>) -> bool {
    matches!(outcome, Err(StoreError::NoAnswer { within }) if within == PATIENCE)
}

#[tokio::test]
async fn a_group_whose_answer_is_lost_is_asked_for_until_it_is_known_and_done_once() {
    for fault in [Fault::LosesAnswers, Fault::LosesGroups] {
        let rig = Rig::new().await;
        rig.store.change(&rig.phone.account, enable_on(1, "n", 1)).await.unwrap();
        let before = rig.store.account(&rig.phone.account).await.unwrap();
        let target = before.registrations[0].target.clone();
        rig.faults.set(fault);
        let spooled = rig.spool(2..=5);
        let (store, account) = (rig.store.clone(), rig.phone.account.clone());
        let failed = Change::Failed { target, max_errors: 9 };
        let failed = tokio::spawn(async move { store.change(&account, failed).await });
        rig.store.unspool(&of(&rig.phone), Seq::new(1)).await.unwrap();
        rig.until_asked_again().await;
        assert!(!spooled.is_finished() && !failed.is_finished());
        // It may not be on disk, but other logins see the account as it will be.
        assert_eq!(rig.store.account_now(&rig.phone.account).await.unwrap().registrations[0].errors, 1);
        rig.faults.set(Fault::None);
        spooled.await.unwrap().unwrap();
        let (after, _) = failed.await.unwrap().unwrap();
        assert_eq!(after.registrations[0].errors, 1, "{fault:?}: not counted twice");
        assert!(after.revision > before.revision);
        assert_eq!(rig.read().await, [2, 3, 4, 5]);
        rig.store.settle(&rig.phone.account).await.unwrap();
        assert_eq!((rig.stored(), rig.store.backlog(&rig.phone).await.unwrap().count), (vec![2, 3, 4, 5], 4));
        check_counts(&rig.store);
    }
}

/// Its session has returned the stanzas to their senders.
#[tokio::test]
async fn what_is_stored_after_its_caller_has_stopped_waiting_is_read_by_nobody_and_deleted() {
    for fault in [Fault::StallsBefore, Fault::StallsBehind, Fault::LosesAnswers, Fault::LosesGroups] {
        let rig = Rig::new().await;
        rig.store.set_patience(PATIENCE);
        rig.faults.set(fault);
        assert!(no_answer(rig.spool(2..=5).await.unwrap()), "{fault:?}");
        if matches!(fault, Fault::StallsBehind | Fault::LosesAnswers) {
            assert_eq!(rig.stored(), [1, 2, 3, 4, 5], "it is on disk");
        }
        assert_eq!(rig.read().await, [1]);
        rig.store.set_patience(Duration::from_secs(60));
        rig.faults.set(Fault::None);
        // The device's next session.
        rig.store.change(&rig.phone.account, ended(1)).await.unwrap();
        let next = rig.store.log_in(&rig.phone.account, login(2, "phone", 2)).await.unwrap();
        assert!(next.waits);
        let inherited = rig.store.take_over(&rig.phone.account, rig.phone.device, LoginId(2)).await.unwrap();
        assert_eq!(inherited.iter().map(|i| (i.spool.0, i.backlog.count)).collect::<Vec<_>>(), [(1, 1)], "{fault:?}");
        assert_eq!(rig.read().await, [1]);
        rig.until("deleted", |rig| rig.stored() == [1]).await;
        check_counts(&rig.store);
    }
}

/// Its session has kept the stanzas in memory.
#[tokio::test]
async fn what_is_handed_over_again_under_the_same_numbers_is_stored_once() {
    for fault in [Fault::StallsBefore, Fault::StallsBehind, Fault::LosesAnswers, Fault::LosesGroups] {
        let rig = Rig::new().await;
        rig.store.set_patience(PATIENCE);
        rig.faults.set(fault);
        assert!(no_answer(rig.spool(2..=5).await.unwrap()), "{fault:?}");
        // Handed over again while the first outcome is unknown, and once more.
        assert!(no_answer(rig.spool(2..=3).await.unwrap()), "{fault:?}");
        rig.store.set_patience(Duration::from_secs(60));
        let again = rig.spool(2..=3);
        rig.faults.set(Fault::None);
        again.await.unwrap().unwrap();
        assert_eq!(rig.read().await, [1, 2, 3], "{fault:?}");
        // Meanwhile the client has received 4.
        rig.spool(5..=6).await.unwrap().unwrap();
        assert_eq!(rig.read().await, [1, 2, 3, 5, 6], "{fault:?}");
        rig.store.settle(&rig.phone.account).await.unwrap();
        assert_eq!((rig.stored(), rig.read().await), (vec![1, 2, 3, 5, 6], vec![1, 2, 3, 5, 6]));
        let error = rig.store.spool(&of(&rig.phone), rig.phone.device, vec![item(3)]).await;
        error.unwrap();
        check_counts(&rig.store);
    }
}

#[tokio::test]
async fn a_refusal_is_reported_at_once() {
    let rig = Rig::new().await;
    rig.store.set_limits(SpoolLimits { per_session: 0, per_account: 0, all: 0 });
    assert!(matches!(rig.spool([2]).await.unwrap(), Err(StoreError::SpoolFull { .. })));
    let disk = TestDisk::new(Vec::new(), usize::MAX);
    let store = disk.store().unwrap();
    disk.fail_writes();
    let spool = of(&rig.phone);
    let refused = store.spool(&spool, rig.phone.device, items([1]));
    let refused = tokio::time::timeout(Duration::from_secs(20), refused).await.unwrap();
    assert!(matches!(refused, Err(StoreError::Database(_))));
}

#[tokio::test]
async fn while_an_outcome_is_unknown_others_are_read_and_log_ins_and_ends_are_not_lost() {
    let rig = Rig::new().await;
    rig.store.set_patience(PATIENCE);
    rig.faults.set(Fault::StallsBefore);
    let spooled = rig.spool([2]);
    rig.until("asked", |rig| rig.faults.asked() > 1).await;
    let other = rig.store.log_in(&rig.phone.account, login(7, "tablet", 7)).await.unwrap();
    let again = rig.store.log_in(&rig.phone.account, login(8, "tablet", 8)).await.unwrap();
    assert_eq!((other.device, again.device), (Some(DeviceId(7)), Some(DeviceId(7))), "it is known already");
    let end = rig.store.submit_change(&rig.phone.account, ended(7)).unwrap();
    assert!(no_answer(spooled.await.unwrap()));
    let refused = rig.store.change(&rig.phone.account, enable_on(7, "n", 1)).await;
    assert!(matches!(refused, Err(StoreError::NoAnswer { .. })));
    rig.faults.set(Fault::None);
    let (account, _) = end.await.unwrap();
    let open = |account: &Account| account.device(DeviceId(7)).unwrap().open.clone();
    assert_eq!((open(&account), account.registrations.len()), (vec![LoginId(8)], 0), "the refused one was withdrawn");
    assert_eq!(open(&rig.store.account(&rig.phone.account).await.unwrap()), [LoginId(8)]);
}

#[tokio::test]
async fn a_change_that_was_given_up_is_not_made_when_the_same_group_is_asked_for_again() {
    let rig = Rig::new().await;
    rig.store.set_patience(PATIENCE);
    rig.faults.set(Fault::LosesGroups);
    let refused = rig.store.change(&rig.phone.account, enable_on(1, "n", 1)).await;
    assert!(matches!(refused, Err(StoreError::NoAnswer { .. })));
    rig.until_asked_again().await;
    rig.store.set_patience(Duration::from_secs(60));
    rig.faults.set(Fault::None);
    let (account, _) =
        rig.store.change(&rig.phone.account, Change::Seen { device: DeviceId(1), at: UnixSecs::new(9) }).await.unwrap();
    assert_eq!((account.devices[0].last_seen, account.registrations.len()), (UnixSecs::new(9), 0));
}

#[tokio::test]
async fn a_shutdown_ends_though_the_database_never_answers() {
    let rig = Rig::new().await;
    rig.store.set_patience(PATIENCE);
    rig.faults.set(Fault::LosesGroups);
    let spooled = rig.spool([2]);
    rig.until_asked_again().await;
    tokio::time::timeout(Duration::from_secs(30), rig.store.shutdown()).await.unwrap();
    assert!(spooled.await.unwrap().is_err());
}

/// Regression test: stanzas were given up in the queue, offered again, and given up again in a commit that succeeded late. Its
/// deletion of the older copies showed the new copies again.
#[tokio::test]
async fn what_is_given_up_twice_stays_hidden_when_the_second_commit_succeeds_late() {
    let rig = Rig::new().await;
    rig.store.set_patience(PATIENCE);
    // The first offer does not even reach the writer's group.
    let stalled = rig.store.stall();
    assert!(no_answer(rig.spool(2..=3).await.unwrap()));
    drop(stalled);
    // The second one is in the commit that stalls.
    rig.faults.set(Fault::StallsBehind);
    assert!(no_answer(rig.spool(2..=3).await.unwrap()));
    assert_eq!((rig.read().await, rig.stored()), (vec![1], vec![1, 2, 3]), "hidden");
    rig.faults.set(Fault::None);
    rig.store.set_patience(Duration::from_secs(60));
    rig.store.change(&rig.phone.account, Change::Seen { device: DeviceId(1), at: UnixSecs::new(9) }).await.unwrap();
    rig.store.settle(&rig.phone.account).await.unwrap();
    assert_eq!((rig.read().await, rig.stored()), (vec![1], vec![1]), "refused twice, so nobody reads it");
    check_counts(&rig.store);
}

/// Regression test: the same with both stalls on the disk, and a commit of another session between them.
#[tokio::test]
async fn what_is_given_up_in_two_stalls_stays_hidden() {
    let rig = Rig::new().await;
    rig.store.set_patience(PATIENCE);
    rig.faults.set(Fault::StallsBefore);
    assert!(no_answer(rig.spool(2..=3).await.unwrap()));
    rig.faults.set(Fault::None);
    rig.store.set_patience(Duration::from_secs(60));
    rig.store.change(&rig.phone.account, Change::Seen { device: DeviceId(1), at: UnixSecs::new(8) }).await.unwrap();
    rig.store.settle(&rig.phone.account).await.unwrap();
    rig.store.set_patience(PATIENCE);
    let again = rig.stall_with(2..=3).await;
    assert!(no_answer(again.await.unwrap()));

    rig.faults.set(Fault::None);
    rig.store.set_patience(Duration::from_secs(60));
    rig.store.change(&rig.phone.account, Change::Seen { device: DeviceId(1), at: UnixSecs::new(9) }).await.unwrap();
    rig.store.settle(&rig.phone.account).await.unwrap();
    assert_eq!((rig.read().await, rig.stored()), (vec![1], vec![1]), "refused twice, so nobody reads it");
    // The device's next session.
    rig.store.change(&rig.phone.account, ended(1)).await.unwrap();
    rig.store.log_in(&rig.phone.account, login(2, "phone", 2)).await.unwrap();
    let inherited = rig.store.take_over(&rig.phone.account, rig.phone.device, LoginId(2)).await.unwrap();
    assert_eq!(inherited.iter().map(|i| (i.spool.0, i.backlog.count)).collect::<Vec<_>>(), [(1, 1)]);
}

/// Regression test: a deletion was dropped if its caller gave up before the writer had received it.
#[tokio::test]
async fn a_discard_that_is_given_up_in_the_queue_still_hides() {
    let rig = Rig::new().await;
    rig.store.set_patience(PATIENCE);
    rig.store.settle(&rig.phone.account).await.unwrap();
    let spooled = rig.stall_with(2..=2).await;
    let discarded = rig.store.discard(&of(&rig.phone), vec![Seq::range(1..=1)]).await;
    assert!(no_answer(discarded));
    drop(spooled.await);
    rig.store.set_patience(Duration::from_secs(60));
    rig.faults.set(Fault::None);
    rig.spool(3..=3).await.unwrap().unwrap();
    rig.store.settle(&rig.phone.account).await.unwrap();
    assert_eq!(rig.read().await, [3], "this process returns none of them again");
}

/// Regression test: a deletion of delivered stanzas had no deadline.
#[tokio::test]
async fn a_deletion_of_delivered_stanzas_ends_with_patience() {
    let rig = Rig::new().await;
    rig.store.set_patience(PATIENCE);
    rig.store.settle(&rig.phone.account).await.unwrap();
    let spooled = rig.stall_with(2..=2).await;
    let spool = of(&rig.phone);
    let answer = tokio::time::timeout(10 * PATIENCE, rig.store.unspool(&spool, Seq::new(1))).await;
    rig.faults.set(Fault::None);
    drop(spooled.await);
    assert!(answer.is_ok(), "every wait has a deadline");
}

/// Removal of the account during a stall, and a new login of that name.
#[tokio::test]
async fn a_removal_during_a_stall_leaves_nothing_and_the_next_account_starts_empty() {
    for fault in [Fault::StallsBefore, Fault::StallsBehind, Fault::LosesAnswers, Fault::LosesGroups] {
        let rig = Rig::new().await;
        rig.store.set_patience(PATIENCE);
        rig.faults.set(fault);
        assert!(no_answer(rig.spool(2..=5).await.unwrap()));
        let removed = rig.store.submit_change(&rig.phone.account, Change::Removed).unwrap();
        assert!(no_answer(rig.spool(2..=3).await.unwrap()));
        let next = rig.store.log_in(&rig.phone.account, login(2, "phone", 2)).await.unwrap();
        assert!(next.device.is_none() || next.device == Some(DeviceId(2)), "{next:?}");
        rig.store.set_patience(Duration::from_secs(60));
        rig.faults.set(Fault::None);
        removed.await.unwrap();
        assert!(matches!(rig.spool(2..=3).await.unwrap(), Err(StoreError::AccountRemoved { .. })));
        let second = SpoolId { account: rig.phone.account.clone(), login: LoginId(2) };
        rig.store.spool(&second, DeviceId(2), items([1])).await.unwrap();
        rig.store.settle(&rig.phone.account).await.unwrap();
        rig.until("wiped", |rig| rig.stored().len() == 1).await;
        assert_eq!(rig.read().await, [0; 0], "{fault:?}");
        let inherited = rig.store.take_over(&rig.phone.account, DeviceId(2), LoginId(2)).await.unwrap();
        assert_eq!(inherited, [], "{fault:?}");
        check_counts(&rig.store);
        assert_eq!(rig.store.measures(rig._directory.path()).await.unwrap().stanzas, 1);
        assert_eq!(rig.store.unanswered(), 0);
    }
}

/// A take-over that counts as refused and succeeds late, by a session that has ended meanwhile.
#[tokio::test]
async fn a_take_over_that_succeeds_late_passes_to_the_next_session() {
    for fault in [Fault::StallsBefore, Fault::StallsBehind, Fault::LosesAnswers, Fault::LosesGroups] {
        let rig = Rig::new().await;
        rig.store.change(&rig.phone.account, ended(1)).await.unwrap();
        rig.store.log_in(&rig.phone.account, login(2, "phone", 2)).await.unwrap();
        rig.store.set_patience(PATIENCE);
        rig.faults.set(fault);
        let refused = rig.store.take_over(&rig.phone.account, DeviceId(1), LoginId(2)).await;
        assert!(matches!(refused, Err(StoreError::NoAnswer { .. })));
        let end = rig.store.submit_change(&rig.phone.account, ended(2)).unwrap();
        rig.store.log_in(&rig.phone.account, login(3, "phone", 3)).await.unwrap();
        rig.store.set_patience(Duration::from_secs(60));
        rig.faults.set(Fault::None);
        end.await.unwrap();
        let inherited = rig.store.take_over(&rig.phone.account, DeviceId(1), LoginId(3)).await.unwrap();
        assert_eq!(inherited.iter().map(|i| (i.spool.0, i.backlog.count)).collect::<Vec<_>>(), [(1, 1)], "{fault:?}");
        check_counts(&rig.store);
    }
}

/// A random walk: offers, stalls longer than patience, deletions, client acknowledgements. What was acknowledged,
/// returned, or refused last is never read; what was accepted and not deleted is read once.
#[tokio::test]
#[allow(clippy::too_many_lines, reason = "a scenario reads best in one piece")]
async fn offers_stalls_and_deletions_in_any_order_agree_with_what_is_read() {
    for seed in 1..=12u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut random = move |n: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) % n
        };
        let rig = Rig::new().await;
        let mut on_disk: std::collections::BTreeSet<u64> = [1].into();
        let mut unsaved: Vec<u64> = Vec::new();
        let (mut next, mut trace) = (2u64, Vec::new());
        for _ in 0..8 {
            let fault =
                [Fault::None, Fault::StallsBefore, Fault::StallsBehind, Fault::LosesAnswers, Fault::LosesGroups]
                    [usize::try_from(random(5)).unwrap()];
            for _ in 0..=random(2) {
                unsaved.push(next);
                next += 1;
            }
            // The client gets some of the unsaved ones from memory, or they go back to their senders.
            if random(3) == 0 && !unsaved.is_empty() {
                unsaved.remove(0);
            }
            if unsaved.is_empty() {
                continue;
            }
            let take = 1 + usize::try_from(random(unsaved.len() as u64)).unwrap();
            let offered = unsaved[..take].to_vec();
            rig.store.set_patience(if fault == Fault::None {
                Duration::from_secs(60)
            } else {
                Duration::from_millis(60)
            });
            rig.faults.set(fault);
            let outcome = rig.spool(offered.clone()).await.unwrap();
            trace.push(format!("{fault:?} {offered:?} {}", outcome.is_ok()));
            if outcome.is_ok() {
                on_disk.extend(unsaved.drain(..take));
            }
            rig.store.set_patience(Duration::from_secs(60));
            if random(2) == 0 {
                rig.faults.set(Fault::None);
                rig.store.settle(&rig.phone.account).await.unwrap();
                trace.push("settled".to_owned());
            }
            let expected: Vec<u64> = on_disk.iter().copied().collect();
            assert_eq!(rig.read().await, expected, "seed {seed}: {trace:#?}");
            if random(4) == 0 && rig.faults.asked() > 0 {
                rig.faults.set(Fault::None);
                let upto = 1 + random(next - 1);
                if unsaved.first().is_none_or(|first| *first > upto) {
                    rig.store.unspool(&of(&rig.phone), Seq::new(upto)).await.unwrap();
                    on_disk.retain(|seq| *seq > upto);
                    trace.push(format!("acknowledged {upto}"));
                }
            }
        }
        rig.faults.set(Fault::None);
        let expected: Vec<u64> = on_disk.iter().copied().collect();
        rig.store.change(&rig.phone.account, Change::Seen { device: DeviceId(1), at: UnixSecs::new(9) }).await.unwrap();
        rig.store.settle(&rig.phone.account).await.unwrap();
        assert_eq!((rig.read().await, rig.stored()), (expected.clone(), expected), "seed {seed}: {trace:#?}");
        check_counts(&rig.store);
    }
}
