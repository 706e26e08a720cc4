//! Two simultaneous sessions of one device: an app that restarts while its old connection is half open, or two running
//! copies of it.

use std::time::Duration;

use crate::support::{
    Client, PATIENCE, Scene, StubConnection, StubOptions, another, bodies, distinct, enable_push, message, numbered,
    quick,
};

/// The time for which nothing may come where nothing is expected.
const QUIET: Duration = Duration::from_millis(700);
/// The time for which a client may leave an ack request unanswered, with some margin.
const SILENCE: Duration = Duration::from_secs(4);

const CONFLICT: &str = "<conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>";

/// Opens alice's phone with a registration, and another session that registers the same node.
async fn two_sessions(options: StubOptions) -> (Scene, Client, StubConnection) {
    let mut scene = Scene::with(options, quick).await;
    enable_push(&mut scene.client, "n").await;
    let (client, server) = another(&scene.pushward, &mut scene.stub, "phone-2").await;
    (scene, client, server)
}

fn both() -> [StubOptions; 2] {
    [StubOptions::default(), StubOptions::managed()]
}

/// Regression test: on a healthy disk the older session was ended because the sequence number of its next stanza was
/// taken, and the stanza was lost.
#[tokio::test]
async fn stanzas_of_a_silent_older_session_go_to_the_newer_one() {
    for options in both() {
        let (scene, mut client, server) = two_sessions(options).await;
        // The first connection is no longer read.
        let all = numbered("old", 1..=4);
        scene.server.send(all[..2].iter().map(|body| message(body)).collect::<String>());
        enable_push(&mut client, "n").await;
        scene.server.send(all[2..].iter().map(|body| message(body)).collect::<String>());
        client.send("<presence/>").await;
        let seen = client.bodies_until(&all).await;
        assert_eq!(distinct(seen), all);
        scene.server.footer(SILENCE).await;
        server.send(message("new"));
        assert_eq!(client.bodies_until(&["new".to_owned()]).await.last().unwrap(), "new");
    }
}

#[tokio::test]
async fn a_silent_older_client_gets_a_conflict_error() {
    let (mut scene, mut client, _server) = two_sessions(StubOptions::default()).await;
    scene.client.acks = false;
    enable_push(&mut client, "n").await;
    let received = scene.client.closed(SILENCE).await.concat();
    assert!(received.contains(CONFLICT), "{received}");
}

#[tokio::test]
async fn a_session_of_the_same_full_jid_ends_the_older_one_at_once() {
    let mut scene = Scene::new().await;
    let (_client, _server) = another(&scene.pushward, &mut scene.stub, "phone").await;
    let received = scene.client.closed(Duration::from_millis(1500)).await.concat();
    assert!(received.contains(CONFLICT), "{received}");
    scene.server.footer(PATIENCE).await;
}

#[tokio::test]
async fn two_live_sessions_of_a_device_both_stay_until_the_older_one_loses_its_client() {
    for options in both() {
        let (mut scene, mut client, server) = two_sessions(options).await;
        let (answered, _) = tokio::join!(enable_push(&mut client, "n"), scene.client.live_for(SILENCE));
        let () = answered;
        client.send("<presence/>").await;
        client.roundtrip().await;
        scene.client.roundtrip().await;
        scene.server.send(message("to the older"));
        server.send(message("to the newer"));
        let (older, newer) = tokio::join!(scene.client.until_quiet(QUIET), client.until_quiet(QUIET));
        assert_eq!((bodies(&older), bodies(&newer)), (vec!["to the older".into()], vec!["to the newer".into()]));
        scene.server.assert_open();
        scene.client.acks = false;
        scene.server.send(message("left behind"));
        scene.client.expect("left behind").await;
        scene.client.reset();
        let seen = client.bodies_until(&["left behind".to_owned()]).await;
        assert_eq!(seen, ["left behind"]);
        scene.server.footer(PATIENCE).await;
    }
}

#[tokio::test]
async fn a_newer_session_without_its_client_is_not_pushed_for_while_the_older_one_acknowledges() {
    let (mut scene, mut client, mut server) = two_sessions(StubOptions::default()).await;
    tokio::join!(enable_push(&mut client, "n"), scene.client.live_for(SILENCE));
    client.send("<presence/>").await;
    server.expect("<presence").await;
    client.reset();
    server.send(message("hello"));
    let pushed = async {
        tokio::time::sleep(2 * QUIET).await;
        let seen = [server.rest(), scene.server.rest()].concat();
        seen.into_iter().filter(|xml| xml.contains("<publish ")).collect::<Vec<_>>()
    };
    let (pushed, _) = tokio::join!(pushed, scene.client.live_for(2 * QUIET));
    assert!(pushed.is_empty(), "{pushed:?}");
    // The older session ends: the newer one is now the device's only session.
    scene.client.reset();
    server.expect("<publish ").await;
}
