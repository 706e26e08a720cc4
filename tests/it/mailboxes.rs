//! Many simultaneous sessions of one account: none blocks another without limit, and nobody else waits for them.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::{Client, PATIENCE, Pushward, Scene, Setup, StubOptions, StubUpstream, eventually, push_enable};

/// Number of clients of one account that bind at the same moment.
const FLEET: usize = 60;

async fn proxy(options: StubOptions) -> Pushward {
    let stub = StubUpstream::start(options).await;
    let address = stub.address;
    // The stub serves its connections itself. It must live as long as the test.
    tokio::spawn(async move {
        let (_stub, never) = (stub, std::future::pending::<()>());
        never.await;
    });
    Pushward::start(Setup::new(address).with_metrics()).await
}

async fn live(pushward: &Pushward) -> u64 {
    pushward.metric("pushward_sessions{host=\"localhost\",state=\"live\"}").await
}

fn enable(n: usize) -> String {
    format!("<iq type='set' id='push-{n}'>{}</iq>", push_enable(&format!("node-{n}")))
}

/// Returns clients of one account that have authenticated and then bound all at once.
async fn fleet(pushward: &Pushward, count: usize) -> Vec<Client> {
    let mut authenticated = Vec::new();
    for _ in 0..count {
        authenticated.push(pushward.authenticated("alice").await);
    }
    let mut binding = JoinSet::new();
    for (n, mut client) in authenticated.into_iter().enumerate() {
        binding.spawn(async move {
            client.bind(&format!("bot-{n}")).await;
            // A session that answers has begun.
            client.roundtrip().await;
            client
        });
    }
    timeout(Duration::from_secs(10), binding.join_all()).await.expect("all of the fleet bind within ten seconds")
}

#[tokio::test]
async fn sixty_clients_of_one_account_bind_at_once_and_all_end_cleanly() {
    let pushward = proxy(StubOptions::default()).await;
    let fleet = fleet(&pushward, FLEET).await;
    assert_eq!(live(&pushward).await, FLEET as u64);
    drop(fleet);
    let until = Instant::now() + PATIENCE;
    while live(&pushward).await + pushward.metric("pushward_connections").await > 0 {
        assert!(Instant::now() < until, "{} sessions are left", live(&pushward).await);
    }
}

/// Regression test: each session ended with changes of the account open, and waited until the other took the notice of
/// them.
#[tokio::test]
async fn two_sessions_that_end_with_open_changes_let_others_log_in() {
    let pushward = proxy(StubOptions::default()).await;
    let mut clients = fleet(&pushward, 2).await;
    for client in &mut clients {
        let enables: String = (0..32).map(enable).collect();
        client.send(format!("{enables}</stream:stream>")).await;
    }
    let fresh = async {
        let mut fresh = pushward.login("alice", "fresh").await;
        fresh.roundtrip().await;
    };
    timeout(PATIENCE, fresh).await.expect("a login of the same account");
    let until = Instant::now() + PATIENCE;
    while live(&pushward).await > 0 {
        assert!(Instant::now() < until, "sessions are left");
    }
}

#[tokio::test]
async fn a_drain_reaches_all_sessions_while_many_clients_bind() {
    let mut pushward = proxy(StubOptions::default()).await;
    let mut others = Vec::new();
    for n in 0..12 {
        let mut client = pushward.login(&format!("user-{n}"), "phone").await;
        client.roundtrip().await;
        others.push(client);
    }
    let _fleet = fleet(&pushward, FLEET).await;
    let mut drained = JoinSet::new();
    for mut client in others {
        drained.spawn(async move { client.expect("system-shutdown").await });
    }
    let drained = async { timeout(PATIENCE, drained.join_all()).await.expect("every session hears of the shutdown") };
    let (_, (status, _)) = tokio::join!(drained, pushward.terminate(2 * PATIENCE));
    assert!(status.success());
}

/// Regression test: the client got `<failed/>` without a count, or with a count that was not final, and sent again what
/// the server had.
#[tokio::test]
async fn a_resumption_of_an_ending_session_gets_its_final_count() {
    let options = StubOptions { footers: false, ..StubOptions::slow_to_ack() };
    let mut scene = Scene::with(options, |setup| setup).await;
    scene.client.say("bob@localhost", "one").await;
    scene.server.expect("one").await;
    scene.client.reset();
    // Another login of the same resource ends the session, which asks the server for its count.
    let other = scene.pushward.login("alice", "phone");
    let resuming = async {
        scene.server.footer(PATIENCE).await;
        let mut client = scene.pushward.authenticated("alice").await;
        client.resume(&scene.enabled.id, 0).await
    };
    let confirming = async {
        let logins = [scene.stub.connection().await, scene.stub.connection().await];
        for login in &logins {
            let authenticated = || (login.seen().users.len() == 1).then_some(());
            eventually(PATIENCE, || "a login".to_owned(), authenticated).await;
        }
        scene.server.send("<a xmlns='urn:xmpp:sm:3' h='1'/></stream:stream>");
        logins
    };
    let (failed, _logins, _) = tokio::join!(resuming, confirming, other);
    assert_eq!((failed.name.as_str(), failed.attribute("h")), ("failed", Some("1")), "{failed:?}");
}
