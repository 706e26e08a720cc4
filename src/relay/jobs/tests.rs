//! The order of a session's jobs, and the handling of jobs that the store refuses.

use std::time::Duration;

use tempfile::{TempDir, tempdir};
use tokio::time::timeout;

use super::*;
use crate::clock::{UnixMillis, UnixSecs};
use crate::jid::BareJid;
use crate::push::account::DeviceId;
use crate::relay::rig;
use crate::session::Orphans;
use crate::session::negotiate::HeldSession;
use crate::session::queue::{Load, STRIDE};
use crate::store::tests::engine::Fault;
use crate::store::{SpoolLimits, Store};

const FULL: SpoolLimits = SpoolLimits { per_session: 0, per_account: 0, all: 0 };

struct Rig {
    jobs: Jobs,
    relay: Arc<Relay>,
    own: SpoolId,
    _directory: TempDir,
}

impl Rig {
    fn new() -> Self {
        let directory = tempdir().unwrap();
        let relay = rig::relay(directory.path());
        Self::of(relay, directory)
    }

    fn of(relay: Arc<Relay>, directory: TempDir) -> Self {
        let account: BareJid = "romeo@localhost".parse().unwrap();
        let held = HeldSession { account: account.clone(), identity: None };
        let (handle, _) = relay.registry().enter(relay.store().next_login(), held, "r".to_owned());
        handle.set_device(DeviceId(1));
        let own = SpoolId { account, login: handle.login() };
        Self { jobs: Jobs::new(Arc::clone(&relay), handle), relay, own, _directory: directory }
    }

    fn spool(&mut self, numbers: impl IntoIterator<Item = u64>) {
        let items = items(numbers);
        let last = items.last().unwrap().seq;
        self.jobs.ask(StoreRequest::Spool(items, last));
    }

    fn unspool(&mut self, numbers: RangeInclusive<u64>) {
        self.jobs.ask(StoreRequest::Unspool(None, vec![Seq::range(numbers)]));
    }

    fn load(&mut self, after: u64) {
        self.jobs.ask(StoreRequest::Load(Load { spool: None, after: Seq::new(after), weight: usize::MAX }));
    }

    /// Queues a request that no other request depends on.
    fn ask(&mut self) {
        self.jobs.ask(StoreRequest::TakeOver);
    }

    /// Waits for the result of the next job.
    async fn next(&mut self) -> String {
        match timeout(Duration::from_secs(30), self.jobs.done()).await.unwrap() {
            Done::Changed(..) => "changed".to_owned(),
            Done::Spooled(Spooling { last, result: Ok(()), .. }) => format!("spooled {last}"),
            Done::Spooled(Spooling { result: Err(error), refused, .. }) => {
                assert!(matches!(error, StoreError::SpoolFull { .. } | StoreError::NoAnswer { .. }), "{error}");
                format!("refused {refused}")
            }
            Done::Loaded(items) => format!("loaded {:?}", numbers(&items.unwrap())),
            Done::TookOver(_) => "took over".to_owned(),
            Done::Quiet(result) => format!("quiet {}", result.is_ok()),
        }
    }

    /// Waits for the results of all jobs.
    async fn all(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        while !self.jobs.are_done() {
            all.push(self.next().await);
        }
        all
    }

    /// Returns the contents of the session's own spool.
    async fn stored(&self) -> Vec<u64> {
        numbers(&self.relay.store().spooled(&self.own, Seq::ZERO, usize::MAX).await.unwrap())
    }

    fn lost(&self) -> u64 {
        let text = self.relay.metrics().text(&crate::metrics::Measured::default()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("pushward_stanzas_lost_total "));
        line.unwrap().parse().unwrap()
    }
}

fn items(numbers: impl IntoIterator<Item = u64>) -> Vec<Spooled> {
    let item = |seq| Spooled {
        seq: Seq::new(seq),
        received: UnixMillis::new(1),
        shared: true,
        archived: false,
        bytes: format!("<message id='{seq}'><body>hunter2</body></message>").into(),
    };
    numbers.into_iter().map(item).collect()
}

fn numbers(items: &[Spooled]) -> Vec<u64> {
    items.iter().map(|item| item.seq.get()).collect()
}

#[tokio::test]
async fn jobs_are_done_in_their_order_and_stanzas_that_wait_go_together() {
    let mut rig = Rig::new();
    rig.spool([1]);
    rig.load(0);
    rig.spool([2]);
    rig.ask();
    rig.spool([3, 4]);
    rig.load(0);
    assert_eq!(rig.jobs.len(), 5);
    assert_eq!(rig.all().await, ["spooled 1", "loaded [1]", "spooled 4", "took over", "loaded [1, 2, 3, 4]"]);
    assert_eq!(rig.jobs.len(), 0);
}

#[tokio::test]
async fn stanzas_acknowledged_before_their_job_begins_are_removed_from_it() {
    let mut rig = Rig::new();
    rig.ask();
    rig.spool([1, 2, 3]);
    rig.unspool(0..=1);
    rig.unspool(0..=2);
    assert_eq!(rig.jobs.len(), 3, "both deletions are one");
    assert_eq!((rig.next().await, rig.next().await), ("took over".to_owned(), "spooled 3".to_owned()));
    assert_eq!(rig.stored().await, [3], "before the deletion");
    assert_eq!(rig.all().await, ["quiet true"]);
    // Deletes all of it.
    let commits = rig.relay.store().commits();
    rig.ask();
    rig.spool([4, 5]);
    rig.unspool(0..=5);
    assert_eq!((rig.next().await, rig.next().await), ("took over".to_owned(), "spooled 5".to_owned()));
    assert_eq!(rig.relay.store().commits(), commits);
    assert_eq!(rig.all().await, ["quiet true"]);
    assert_eq!(rig.stored().await, [0; 0]);
}

#[tokio::test]
async fn stanzas_of_the_running_job_are_deleted_after_it() {
    let mut rig = Rig::new();
    rig.spool([1, 2, 3]);
    assert_eq!(rig.jobs.bytes_at_work(), items(1..=3).iter().map(Spooled::weight).sum::<usize>());
    rig.unspool(0..=2);
    assert_eq!(rig.all().await, ["spooled 3", "quiet true"]);
    assert_eq!((rig.stored().await, rig.jobs.bytes_at_work()), (vec![3], 0));
}

/// A deletion in the middle of the spool is for stanzas whose numbers are not used again. A deletion at the beginning may be
/// passed.
#[tokio::test]
async fn stanzas_pass_only_deletions_of_delivered_stanzas() {
    let mut rig = Rig::new();
    rig.ask();
    rig.spool([1, 2]);
    rig.unspool(0..=1);
    rig.spool([3]);
    assert_eq!(rig.jobs.len(), 3);
    rig.unspool(2..=2);
    rig.spool([4]);
    assert_eq!(rig.all().await, ["took over", "spooled 3", "quiet true", "spooled 4"]);
    assert_eq!(rig.stored().await, [3, 4]);
}

#[tokio::test]
async fn the_spool_of_an_earlier_session_is_another() {
    let mut rig = Rig::new();
    let earlier = SpoolId { login: rig.relay.store().next_login(), ..rig.own.clone() };
    rig.relay.store().spool(&earlier, DeviceId(1), items([1, 2])).await.unwrap();
    rig.ask();
    rig.spool([1, 2]);
    rig.jobs.ask(StoreRequest::Unspool(Some(earlier.login), vec![Seq::range(0..=1)]));
    rig.jobs.ask(StoreRequest::Load(Load { spool: Some(earlier.login), after: Seq::ZERO, weight: usize::MAX }));
    assert_eq!(rig.all().await, ["took over", "spooled 2", "quiet true", "loaded [2]"]);
    assert_eq!(rig.stored().await, [1, 2]);
}

#[tokio::test]
async fn after_a_refusal_nothing_is_spooled_until_it_is_offered_again() {
    let mut rig = Rig::new();
    rig.relay.store().set_limits(FULL);
    rig.spool([1, 2]);
    rig.spool([3]);
    rig.jobs.ask(StoreRequest::Adopt(Orphans::OfUnregistered, Seq::range(4..=9)));
    rig.spool([10]);
    rig.load(0);
    assert_eq!(rig.next().await, "refused 4");
    rig.relay.store().set_limits(SpoolLimits::default());
    assert_eq!(rig.all().await, ["loaded []"]);
    rig.spool([1, 2, 3]);
    assert_eq!(rig.all().await, ["spooled 3"]);
    assert_eq!((rig.stored().await, rig.lost()), (vec![1, 2, 3], 0));
}

#[tokio::test]
async fn a_job_continues_after_its_wait_was_dropped() {
    let mut rig = Rig::new();
    let stalled = rig.relay.store().stall();
    rig.spool([1]);
    rig.spool([2]);
    rig.unspool(0..=1);
    for _ in 0..3 {
        timeout(Duration::from_millis(10), rig.jobs.done()).await.unwrap_err();
        assert_eq!((rig.jobs.len(), rig.jobs.are_done()), (3, false));
    }
    let Rig { jobs, relay, own, _directory } = rig;
    let mut finish = Box::pin(jobs.finish());
    timeout(Duration::from_millis(10), &mut finish).await.unwrap_err();
    drop(stalled);
    timeout(Duration::from_secs(30), finish).await.unwrap();
    assert_eq!(numbers(&relay.store().spooled(&own, Seq::ZERO, usize::MAX).await.unwrap()), [2]);
    assert_eq!(relay.store().lost().get(), 0);
}

/// The database does not answer for longer than `[store] patience`. The session treats that as a refusal and offers its
/// stanzas again.
#[tokio::test]
async fn what_the_store_gives_up_waiting_for_is_refused_and_stored_once_when_it_is_offered_again() {
    for fault in [Fault::StallsBefore, Fault::StallsBehind, Fault::LosesAnswers, Fault::LosesGroups] {
        let directory = tempdir().unwrap();
        let (store, faults) = Store::faulty(directory.path());
        let mut rig = Rig::of(rig::relay_with(directory.path(), store), directory);
        rig.relay.store().set_patience(Duration::from_millis(200));
        faults.set(fault);
        rig.spool([1, 2, 3]);
        rig.spool([4]);
        assert_eq!(rig.next().await, "refused 4", "{fault:?}");
        // The client resumed and got 1 and 2 from memory.
        rig.relay.store().set_patience(Duration::from_secs(60));
        rig.unspool(0..=2);
        rig.spool([3, 4]);
        rig.load(0);
        faults.set(Fault::None);
        let all = rig.all().await;
        assert_eq!(all, ["quiet true", "spooled 4", "loaded [3, 4]"], "{fault:?}");
        assert_eq!((rig.stored().await, rig.lost()), (vec![3, 4], 0));
    }
}

/// The session has returned its stanzas to their senders and has ended. The device's next session gets none of them.
#[tokio::test]
async fn what_a_session_gave_back_is_not_delivered_by_the_next_when_the_store_answers_late() {
    for fault in [Fault::StallsBehind, Fault::LosesAnswers] {
        let directory = tempdir().unwrap();
        let (store, faults) = Store::faulty(directory.path());
        let mut rig = Rig::of(rig::relay_with(directory.path(), store), directory);
        let store = rig.relay.store().clone();
        store.set_patience(Duration::from_millis(200));
        faults.set(fault);
        rig.spool([1, 2]);
        // The deletions that a session requests when it returns stanzas.
        rig.unspool(1..=1);
        rig.unspool(2..=2);
        assert_eq!(rig.next().await, "refused 0", "{fault:?}");
        store.set_patience(Duration::from_secs(60));
        faults.set(Fault::None);
        let inherited = store.take_over(&rig.own.account, DeviceId(1), store.next_login()).await.unwrap();
        assert_eq!(inherited, [], "{fault:?}");
        assert_eq!(rig.all().await, ["quiet true"]);
        assert_eq!((rig.stored().await, rig.lost()), (vec![], 0));
    }
}

#[tokio::test]
async fn stanzas_refused_after_the_end_of_the_session_are_lost_and_counted() {
    let mut rig = Rig::new();
    rig.relay.store().set_limits(FULL);
    rig.spool([1, 2, 3]);
    rig.spool([4, 5]);
    // The client has two of these five.
    rig.unspool(0..=1);
    rig.unspool(5..=5);
    let (relay, jobs) = (Arc::clone(&rig.relay), std::mem::replace(&mut rig.jobs, Rig::new().jobs));
    timeout(Duration::from_secs(30), jobs.finish()).await.unwrap();
    assert_eq!((rig.lost(), relay.store().lost().get()), (3, 3));
}

#[tokio::test]
async fn stanzas_of_a_removed_account_do_not_count_as_lost() {
    let mut rig = Rig::new();
    rig.relay.store().change(&rig.own.account, Change::Removed).await.unwrap();
    rig.spool([1, 2, 3]);
    let jobs = std::mem::replace(&mut rig.jobs, Rig::new().jobs);
    timeout(Duration::from_secs(30), jobs.finish()).await.unwrap();
    assert_eq!((rig.lost(), rig.stored().await), (0, vec![]));
}

/// The session offered the stanza with the same number without end, and all later ones waited for it.
#[tokio::test]
async fn a_stanza_whose_sequence_number_is_taken_gets_one_above_all_that_the_spool_ever_had() {
    const S: u64 = STRIDE;
    let mut rig = Rig::new();
    let foreign = |n| Spooled { bytes: "<message id='foreign'/>".into(), ..items([n * S]).remove(0) };
    let store = rig.relay.store().clone();
    store.spool(&rig.own, DeviceId(1), vec![items([S]).remove(0), foreign(2), foreign(5)]).await.unwrap();
    // The first one is taken already.
    rig.spool([S, 2 * S, 3 * S]);
    rig.load(0);
    rig.spool([4 * S]);
    rig.load(0);
    let loaded = |numbers: &[u64]| format!("loaded {numbers:?}");
    let spooled = |number| format!("spooled {number}");
    let outcomes = [spooled(3 * S), loaded(&[S, 2 * S, 3 * S]), spooled(4 * S), loaded(&[S, 2 * S, 3 * S, 4 * S])];
    assert_eq!(rig.all().await, outcomes);
    assert_eq!(rig.stored().await, [S, 2 * S, 5 * S, 6 * S, 7 * S, 8 * S]);
    rig.jobs.ask(StoreRequest::Load(Load { spool: None, after: Seq::new(S), weight: 1 }));
    assert_eq!(rig.all().await, [loaded(&[2 * S])], "however little is read at once");
    // The numbers of earlier spools are not changed.
    let earlier = SpoolId { login: store.next_login(), ..rig.own.clone() };
    store.spool(&earlier, DeviceId(1), items([2 * S, 3 * S])).await.unwrap();
    rig.jobs.ask(StoreRequest::Load(Load { spool: Some(earlier.login), after: Seq::ZERO, weight: usize::MAX }));
    rig.jobs.ask(StoreRequest::Unspool(Some(earlier.login), vec![Seq::range(2 * S..=2 * S)]));
    rig.jobs.ask(StoreRequest::Load(Load { spool: Some(earlier.login), after: Seq::ZERO, weight: usize::MAX }));
    assert_eq!(rig.all().await, [loaded(&[2 * S, 3 * S]), "quiet true".to_owned(), loaded(&[3 * S])]);
    // Stanzas of others are not deleted.
    rig.unspool(0..=3 * S);
    rig.load(0);
    assert_eq!(rig.all().await, ["quiet true".to_owned(), loaded(&[4 * S])]);
    assert_eq!(rig.stored().await, [2 * S, 5 * S, 8 * S]);
    // The stanzas that the session adopts also get higher numbers.
    let login = |login, device, resource: &str| {
        let (candidate, resource) = (DeviceId(device), resource.to_owned());
        Change::Login { candidate, login, resource, agent: None, presented: None, at: UnixSecs::new(1) }
    };
    let other = SpoolId { login: store.next_login(), ..rig.own.clone() };
    store.log_in(&other.account, login(rig.own.login, 1, "r")).await.unwrap();
    store.log_in(&other.account, login(other.login, 2, "other")).await.unwrap();
    store.spool(&other, DeviceId(2), items([7])).await.unwrap();
    store.change(&other.account, Change::Ended { login: other.login }).await.unwrap();
    rig.jobs.ask(StoreRequest::Adopt(Orphans::OfUnregistered, Seq::range(5 * S..=5 * S + 9)));
    rig.spool([6 * S]);
    rig.load(4 * S);
    assert_eq!(rig.all().await, [spooled(5 * S + 9), spooled(6 * S), loaded(&[5 * S, 6 * S])]);
}

#[tokio::test]
async fn a_stanza_that_cannot_be_read_does_not_block_the_session() {
    let mut rig = Rig::new();
    rig.spool([1, 2, 3]);
    assert_eq!(rig.all().await, ["spooled 3"]);
    rig.relay.store().set_stanza(&rig.own, 1, b"hunter2");
    rig.load(0);
    rig.load(0);
    assert_eq!(rig.all().await, ["loaded [2, 3]", "loaded [2, 3]"]);
    assert_eq!(rig.lost(), 1);
    rig.relay.store().set_stanza(&rig.own, 3, b"");
    rig.load(2);
    rig.unspool(0..=2);
    assert_eq!(rig.all().await, ["loaded []", "quiet true"], "all has been read");
    assert_eq!((rig.lost(), rig.stored().await), (2, vec![]));
}

fn login(login: LoginId, device: u64, resource: &str) -> Change {
    let (candidate, resource) = (DeviceId(device), resource.to_owned());
    Change::Login { candidate, login, resource, agent: None, presented: None, at: UnixSecs::new(1) }
}

fn faulty_rig() -> (Rig, Arc<crate::store::tests::engine::Faults>) {
    let directory = tempdir().unwrap();
    let (store, faults) = Store::faulty(directory.path());
    let rig = Rig::of(rig::relay_with(directory.path(), store), directory);
    (rig, faults)
}

/// Regression test: the move of another device's stanzas counted as refused after patience. It succeeded late, and the client's
/// next acknowledgement deleted stanzas that no client had received.
#[tokio::test]
async fn an_adoption_that_is_committed_late_is_answered_late() {
    for fault in [Fault::StallsBefore, Fault::StallsBehind] {
        let (mut rig, faults) = faulty_rig();
        let store = rig.relay.store().clone();
        let other = SpoolId { login: store.next_login(), ..rig.own.clone() };
        store.log_in(&other.account, login(rig.own.login, 1, "r")).await.unwrap();
        store.log_in(&other.account, login(other.login, 2, "other")).await.unwrap();
        store.spool(&other, DeviceId(2), items([7])).await.unwrap();
        store.change(&other.account, Change::Ended { login: other.login }).await.unwrap();
        store.set_patience(Duration::from_millis(50));
        faults.set(fault);
        rig.jobs.ask(StoreRequest::Adopt(Orphans::OfUnregistered, Seq::range(5..=9)));
        assert!(tokio::time::timeout(Duration::from_millis(300), rig.jobs.done()).await.is_err(), "{fault:?}");
        store.set_patience(Duration::from_secs(60));
        faults.set(Fault::None);
        assert_eq!(rig.next().await, "spooled 9", "{fault:?}");
        rig.load(0);
        assert_eq!(rig.next().await, "loaded [5]", "{fault:?}");
        assert_eq!(rig.lost(), 0, "{fault:?}");
    }
}

/// Regression test: the end of a login counted as refused after patience if its session ended in a stall. The login stayed open,
/// and no later session of the device got its stanzas.
#[tokio::test]
async fn the_end_of_a_session_is_stored_though_the_stall_is_longer_than_patience() {
    let (mut rig, faults) = faulty_rig();
    let store = rig.relay.store().clone();
    store.log_in(&rig.own.account, login(rig.own.login, 1, "r")).await.unwrap();
    rig.spool([1, 2]);
    assert_eq!(rig.all().await, ["spooled 2"]);
    store.set_patience(Duration::from_millis(300));
    faults.set(Fault::StallsBefore);
    // `relay::bound::driver::leave::follow` does the same 5 s after the end began.
    rig.spool([3]);
    let (relay, own) = (Arc::clone(&rig.relay), rig.own.clone());
    let handle = Arc::clone(&rig.jobs.handle);
    let jobs = std::mem::replace(&mut rig.jobs, Rig::new().jobs);
    jobs.finish().await;
    let end = tokio::spawn(async move {
        let relay = relay;
        relay.accounts().store_end(&handle).await;
    });
    // Longer than patience.
    tokio::time::sleep(Duration::from_millis(900)).await;
    // The disk works again.
    store.set_patience(Duration::from_secs(60));
    faults.set(Fault::None);
    end.await.unwrap();
    let next = store.next_login();
    store.log_in(&own.account, login(next, 1, "r")).await.unwrap();
    let inherited = store.take_over(&own.account, DeviceId(1), next).await.unwrap();
    assert_eq!(
        inherited.iter().map(|spool| spool.spool).collect::<Vec<_>>(),
        [own.login],
        "1 and 2 wait for the device"
    );
}

/// Regression test: a deletion of delivered stanzas that waited for the writer blocked all later requests of the session.
#[tokio::test]
async fn requests_behind_a_deletion_end_with_patience() {
    let (mut rig, faults) = faulty_rig();
    let store = rig.relay.store().clone();
    rig.spool([1]);
    assert_eq!(rig.all().await, ["spooled 1"]);
    store.set_patience(Duration::from_millis(200));
    faults.set(Fault::StallsBefore);
    // Another session's write.
    let other = SpoolId { login: store.next_login(), ..rig.own.clone() };
    let writes = tokio::spawn({
        let store = store.clone();
        async move { store.spool(&other, DeviceId(2), items([7])).await }
    });
    assert!(writes.await.unwrap().is_err());
    rig.unspool(0..=1);
    rig.spool([2]);
    let mut outcomes = Vec::new();
    while let Ok(done) = timeout(Duration::from_secs(4), rig.jobs.done()).await {
        outcomes.push(format!("{done:?}"));
        if rig.jobs.are_done() {
            break;
        }
    }
    faults.set(Fault::None);
    assert!(rig.jobs.are_done(), "20 times patience");
}

/// The server has ended the stream because it does not trust the login any more, and the disk stalls.
#[tokio::test]
async fn a_revocation_of_tokens_does_not_wait_for_earlier_requests() {
    use crate::push::fast::{TokenMechanism, TokenRequest, TokenVerdict, tests::proof};

    let (mut rig, faults) = faulty_rig();
    let (tokens, account) = (Arc::clone(rig.relay.accounts().tokens()), rig.own.account.clone());
    let root = clock::unix_secs();
    let request = TokenRequest { agent: "phone".to_owned(), mechanism: TokenMechanism::Sha256None, root };
    let began = crate::clock::Instant::now();
    let issued = tokens.issue(&account, request.clone(), None, began).unwrap();
    faults.set(Fault::StallsBefore);
    rig.spool([1]);
    rig.ask();
    assert!(matches!(tokens.verify(&account, &proof(&issued, None)), TokenVerdict::Accepted(_)));
    rig.jobs.ask(StoreRequest::Change(None, Change::Token(TokenChange::Revoked)));
    assert_eq!(tokens.verify(&account, &proof(&issued, None)), TokenVerdict::Unknown);
    assert!(tokens.issue(&account, request.clone(), None, began).is_none() && tokens.revoked_since(&account, began));
    faults.set(Fault::None);
    assert_eq!(rig.all().await, ["spooled 1", "took over", "changed"]);
    assert!(rig.relay.store().account(&account).await.unwrap().tokens.is_empty());
    // The server has removed the account.
    let began = crate::clock::Instant::now();
    rig.jobs.ask(StoreRequest::Change(None, Change::Removed));
    assert!(tokens.issue(&account, request, None, began).is_none());
    assert_eq!(rig.all().await, ["changed"]);
}
