//! The main push scenario on ejabberd: a dark phone is notified, returns, and receives everything.

use crate::support::{Element, PATIENCE, Pushward, Server, Setup, bodies, enable_push, numbered, resumed};

async fn a_dark_phone_is_notified_and_finds_everything_when_it_is_back(server: Server) {
    let setup = Setup::new(server.address()).set("push.batch_delay", "'50ms'").set("push.with_sender", "true");
    let mut service = server.push_service().await;
    let pushward = Pushward::start(setup).await;
    let mut bob = server.bob().await;
    let mut alice = pushward.login("alice", "phone").await;
    let enabled = alice.enable().await;
    alice.available().await;
    enable_push(&mut alice, "n").await;
    let handled = alice.handled;
    alice.reset();
    let all = numbered("dark", 1..=3);
    for body in &all {
        bob.say("alice@localhost", body).await;
    }
    let publish = service.publish(PATIENCE).await;
    assert_eq!((publish.node.as_deref(), publish.body()), (Some("n"), Some("New Message!")));
    assert!(publish.sender().is_some_and(|sender| sender.starts_with("bob@localhost")), "{}", publish.xml);
    let (mut alice, _) = resumed(&pushward, &enabled, handled).await;
    let waited = alice.messages(3).await;
    assert_eq!(bodies(&waited), all);
    assert!(waited.iter().all(|message| Element::parse(message).child("delay").is_some()), "{waited:?}");
    bob.say("alice@localhost", "live").await;
    assert_eq!(bodies(&alice.messages(1).await), ["live"]);
    assert!(!alice.transcript().contains("push.localhost"), "{}", alice.transcript());
}

#[tokio::test]
async fn a_dark_phone_is_notified_on_ejabberd() {
    a_dark_phone_is_notified_and_finds_everything_when_it_is_back(Server::ejabberd().await).await;
}

#[tokio::test]
async fn a_dark_phone_is_notified_on_ejabberd_with_stream_management() {
    a_dark_phone_is_notified_and_finds_everything_when_it_is_back(Server::managed_ejabberd().await).await;
}

#[tokio::test]
async fn a_dark_phone_is_notified_on_prosody_with_stream_management() {
    a_dark_phone_is_notified_and_finds_everything_when_it_is_back(Server::managed_prosody().await).await;
}
