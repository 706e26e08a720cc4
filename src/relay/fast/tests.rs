use std::time::Duration;

use tempfile::{TempDir, tempdir};

use super::*;
use crate::clock::UnixSecs;
use crate::config::Config;
use crate::push::account::DeviceId;
use crate::push::fast::TokenMechanism;
use crate::push::fast::tests::proof;
use crate::relay::Relay;
use crate::relay::rig;
use crate::relay::snapshot::Snapshot;
use crate::secret::Secret;
use crate::session::negotiate::HeldSession;
use crate::session::sasl::SaslIdentity;
use crate::store::tests::engine::{Fault, Faults};

struct Rig {
    relay: Arc<Relay>,
    account: BareJid,
    phone: Arc<Handle>,
    faults: Arc<Faults>,
    directory: TempDir,
}

impl Rig {
    /// A relay with a session of the user agent `phone`.
    async fn new() -> Self {
        let directory = tempdir().unwrap();
        let (store, faults) = Store::faulty(directory.path());
        let relay = rig::relay_with(directory.path(), store);
        let account: BareJid = "romeo@localhost".parse().unwrap();
        let phone = session(&relay, &account, "phone").await;
        Self { relay, account, phone, faults, directory }
    }

    fn tokens(&self) -> &Arc<ClientTokens> {
        self.relay.accounts().tokens()
    }

    fn request(&self) -> TokenRequest {
        let root = clock::unix_secs();
        TokenRequest { agent: "phone".to_owned(), mechanism: TokenMechanism::Sha256None, root }
    }

    fn issue(&self) -> IssuedToken {
        self.tokens().issue(&self.account, self.request(), None, Instant::now()).unwrap()
    }

    /// Returns the outcome of a login by token to the session.
    fn redeem(&self, issued: &IssuedToken, count: Option<u64>) -> &'static str {
        name(&self.tokens().redeem(&self.phone, &proof(issued, count)))
    }

    /// Waits until all changes have been answered and published.
    async fn settle(&self) {
        while !self.tokens().accounts.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Returns the stored count of each token.
    async fn stored(&self) -> Vec<Option<u64>> {
        let account = self.relay.store().account(&self.account).await.unwrap();
        account.tokens.iter().map(|token| token.count).collect()
    }
}

async fn session(relay: &Relay, account: &BareJid, agent: &str) -> Arc<Handle> {
    let login = relay.store().next_login();
    let identity = SaslIdentity { host: account.domain().to_owned(), authcid: "romeo".to_owned() };
    let held = HeldSession { account: account.clone(), identity: Some(identity) };
    let (handle, _) = relay.registry().enter(login, held, agent.to_owned());
    let candidate = DeviceId(login.0);
    let (resource, agent) = (agent.to_owned(), Some(agent.to_owned()));
    let change = Change::Login { candidate, login, resource, agent, presented: None, at: UnixSecs::new(1) };
    let logged_in = relay.store().log_in(account, change).await.unwrap();
    handle.set_device(logged_in.device.unwrap());
    relay.registry().publish(account, &logged_in.account, None);
    handle
}

fn name(verdict: &TokenVerdict) -> &'static str {
    match verdict {
        TokenVerdict::Accepted(_) => "accepted",
        TokenVerdict::Expired => "expired",
        TokenVerdict::Replayed => "replayed",
        TokenVerdict::WrongHash => "wrong",
        TokenVerdict::Unknown => "unknown",
    }
}

#[tokio::test]
async fn a_token_of_a_login_without_a_bind_opens_sessions_of_the_same_login_only() {
    let rig = Rig::new().await;
    for (authcid, opens) in [("Romeo", false), ("other", false), ("romeo", true)] {
        let authcid = Some(authcid.to_owned());
        let issued = rig.tokens().issue(&rig.account, rig.request(), authcid.clone(), Instant::now()).unwrap();
        assert_eq!(rig.redeem(&issued, None), if opens { "accepted" } else { "unknown" }, "{authcid:?}");
        let verdict = rig.tokens().verify(&rig.account, &proof(&issued, None));
        let TokenVerdict::Accepted(accepted) = verdict else { panic!("{verdict:?}") };
        assert_eq!(accepted.authcid, authcid, "its successor is limited, too");
    }
}

#[tokio::test]
async fn a_token_is_valid_at_once_and_its_use_is_stored() {
    let rig = Rig::new().await;
    rig.faults.set(Fault::StallsBefore);
    let token = rig.issue();
    assert_eq!(name(&rig.tokens().verify(&rig.account, &proof(&token, Some(1)))), "accepted");
    assert_eq!((rig.redeem(&token, Some(1)), rig.redeem(&token, Some(1))), ("accepted", "replayed"));
    assert_eq!((rig.redeem(&token, Some(2)), rig.redeem(&token, None)), ("accepted", "accepted"));
    rig.faults.set(Fault::None);
    rig.settle().await;
    assert_eq!(rig.stored().await, [Some(2)]);
    assert_eq!((rig.redeem(&token, Some(2)), rig.redeem(&token, Some(3))), ("replayed", "accepted"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_clients_with_the_same_count_one_is_accepted() {
    let rig = Rig::new().await;
    let token = rig.issue();
    let runtime = tokio::runtime::Handle::current();
    for count in 1..=50 {
        let start = std::sync::Barrier::new(4);
        let outcomes: Vec<&'static str> = std::thread::scope(|scope| {
            let (rig, token, start, runtime) = (&rig, &token, &start, &runtime);
            let redeem = move || {
                let _entered = runtime.enter();
                start.wait();
                rig.redeem(token, Some(count))
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(redeem)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let accepted = outcomes.iter().filter(|outcome| **outcome == "accepted").count();
        assert_eq!((accepted, outcomes.len()), (1, 4), "{outcomes:?}");
    }
    rig.settle().await;
    assert_eq!(rig.stored().await, [Some(50)]);
}

/// A change of the account that was made before the use of a token is published after it.
#[tokio::test]
async fn an_older_record_does_not_bring_a_count_back() {
    let rig = Rig::new().await;
    let token = rig.issue();
    rig.settle().await;
    let seen = Change::Seen { device: rig.phone.device(), at: UnixSecs::new(5) };
    let (older, _) = rig.relay.store().change(&rig.account, seen).await.unwrap();
    rig.faults.set(Fault::StallsBefore);
    assert_eq!(rig.redeem(&token, Some(1)), "accepted");
    rig.relay.registry().publish(&rig.account, &older, None);
    assert_eq!((rig.redeem(&token, Some(1)), rig.redeem(&token, Some(2))), ("replayed", "accepted"));
    rig.faults.set(Fault::None);
}

#[tokio::test]
async fn a_token_opens_the_session_of_its_user_agent_only() {
    let rig = Rig::new().await;
    let token = rig.issue();
    let laptop = session(&rig.relay, &rig.account, "laptop").await;
    let other: BareJid = "juliet@localhost".parse().unwrap();
    let others = session(&rig.relay, &other, "phone").await;
    for session in [&laptop, &others] {
        assert_eq!(name(&rig.tokens().redeem(session, &proof(&token, Some(7)))), "unknown");
    }
    assert_eq!(name(&rig.tokens().verify(&"nobody@localhost".parse().unwrap(), &proof(&token, None))), "unknown");
    assert_eq!(rig.redeem(&token, Some(7)), "accepted", "the refusals did not use the count");
    // The account was removed, and its session has not ended yet.
    rig.relay.registry().publish_removal(&rig.account, rig.phone.login());
    assert_eq!(rig.redeem(&token, Some(8)), "unknown");
}

#[tokio::test]
async fn a_revocation_has_its_effect_before_it_is_stored_and_on_logins_that_have_begun() {
    let rig = Rig::new().await;
    let token = rig.issue();
    rig.settle().await;
    rig.faults.set(Fault::StallsBefore);
    let began = Instant::now();
    let revoked = rig.tokens().revoke(&rig.account);
    assert_eq!(rig.redeem(&token, None), "unknown");
    assert!(rig.tokens().issue(&rig.account, rig.request(), None, began).is_none());
    let next = rig.issue();
    assert_eq!((rig.redeem(&next, None), rig.redeem(&token, None)), ("accepted", "wrong"));
    rig.faults.set(Fault::None);
    assert!(revoked.await.unwrap().is_ok());
    rig.settle().await;
    assert_eq!((rig.stored().await, rig.redeem(&next, None)), (vec![None], "accepted"));
    assert_eq!(rig.redeem(&token, None), "wrong");
}

#[tokio::test]
async fn a_change_that_the_store_refuses_has_its_effect_in_memory() {
    let rig = Rig::new().await;
    let [first, second] = [rig.issue(), rig.issue()];
    rig.settle().await;
    rig.relay.store().shutdown().await;
    assert_eq!((rig.redeem(&first, Some(1)), rig.redeem(&first, Some(1))), ("accepted", "replayed"));
    assert_eq!((rig.redeem(&second, Some(1)), rig.redeem(&first, Some(2))), ("accepted", "wrong"));
    let unstored = rig.issue();
    assert_eq!(rig.redeem(&unstored, None), "wrong", "a restart would lose it");
    assert!(rig.tokens().revoke(&rig.account).await.unwrap().is_err());
    assert_eq!(rig.redeem(&second, Some(2)), "unknown");
    assert_eq!(rig.tokens().accounts.get(&rig.account).unwrap().refused().len(), 1);
}

#[tokio::test]
async fn a_change_that_the_store_refused_counts_in_the_next_process() {
    let rig = Rig::new().await;
    let token = rig.issue();
    rig.settle().await;
    rig.relay.store().shutdown().await;
    assert_eq!(rig.redeem(&token, Some(7)), "accepted");
    let bytes = rmp_serde::to_vec_named(&rig.tokens().freeze()).unwrap();
    assert!(rmp_serde::from_slice::<RefusedTokenChanges>(&bytes[..bytes.len() - 1]).is_err());
    let next = rig::relay_with(rig.directory.path(), Store::open(rig.directory.path()).unwrap());
    let tokens = next.accounts().tokens();
    tokens.thaw(rmp_serde::from_slice(&bytes).unwrap());
    assert_eq!(name(&tokens.check(&rig.account, &proof(&token, Some(7))).await), "replayed");
    while !tokens.accounts.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let stored = next.store().account(&rig.account).await.unwrap();
    assert_eq!(stored.tokens.iter().map(|token| token.count).collect::<Vec<_>>(), [Some(7)]);
}

#[tokio::test]
async fn a_client_ends_its_token_with_and_without_a_session() {
    let rig = Rig::new().await;
    let token = rig.issue();
    let ending = |token: &IssuedToken| TokenProof { invalidate: true, ..proof(token, Some(1)) };
    assert_eq!(name(&rig.tokens().redeem(&rig.phone, &ending(&token))), "accepted");
    assert_eq!((rig.redeem(&token, Some(2)), rig.stored_after().await), ("unknown", vec![]));

    let (token, other) = (rig.issue(), rig.issue());
    rig.settle().await;
    rig.relay.registry().leave(&rig.phone);
    assert_eq!(name(&rig.tokens().verify(&rig.account, &proof(&token, None))), "unknown", "it is on disk only");
    let wrong = TokenProof { agent: "laptop".to_owned(), ..ending(&token) };
    assert_eq!(name(&rig.tokens().check(&rig.account, &wrong).await), "unknown");
    assert_eq!(name(&rig.tokens().check(&rig.account, &ending(&token)).await), "accepted");
    assert_eq!(rig.stored_after().await.len(), 1);
    assert_eq!(name(&rig.tokens().check(&rig.account, &ending(&token)).await), "wrong");
    assert_eq!(name(&rig.tokens().check(&rig.account, &ending(&other)).await), "accepted");
    assert_eq!(rig.stored_after().await, []);
    // The session of another user agent: the token ends, and opens nothing.
    let token = rig.issue();
    let laptop = session(&rig.relay, &rig.account, "laptop").await;
    assert_eq!(name(&rig.tokens().redeem(&laptop, &ending(&token))), "unknown");
    assert_eq!(rig.stored_after().await, []);
}

#[tokio::test]
async fn without_a_ttl_there_are_no_tokens() {
    let rig = Rig::new().await;
    let token = rig.issue();
    let file = |name: &str| rig.directory.path().join(name).display().to_string();
    let config = format!(
        "[[host]]\ndomain = 'localhost'\ncertificate = '{}'\nkey = '{}'\n[fast]\nttl = '0s'",
        file("c.pem"),
        file("c.key")
    );
    let off = Snapshot::load(Config::parse(&config, std::path::Path::new("c")).unwrap(), 1, Secret::new(1)).unwrap();
    rig.relay.switch(off);
    assert_eq!(rig.redeem(&token, None), "unknown");
    assert_eq!(name(&rig.tokens().verify(&rig.account, &proof(&token, None))), "unknown");
    assert!(rig.tokens().issue(&rig.account, rig.request(), None, Instant::now()).is_none());
}

/// Regression test of the order: the operator's command removes the record, and a login that had begun stored a token.
#[tokio::test]
async fn a_forgotten_account_gets_no_token_from_a_login_that_had_begun() {
    let rig = Rig::new().await;
    let (token, began) = (rig.issue(), Instant::now());
    rig.relay.revoke_tokens(&rig.account);
    rig.relay.store().change(&rig.account, Change::Removed).await.unwrap();
    assert!(rig.tokens().issue(&rig.account, rig.request(), None, began).is_none());
    assert_eq!(rig.redeem(&token, None), "unknown");
    assert_eq!(rig.stored_after().await, []);
}

impl Rig {
    /// Returns the stored counts once all changes have been answered.
    async fn stored_after(&self) -> Vec<Option<u64>> {
        self.settle().await;
        self.stored().await
    }
}
