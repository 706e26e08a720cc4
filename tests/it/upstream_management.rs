//! XEP-0198 between proxy and server, if the server has it: who enables it, and which stanzas are acknowledged when.

use std::time::{Duration, Instant};

use crate::support::{
    Client, Element, PATIENCE, Pushward, Scene, Server, Setup, StubOptions, StubUpstream, bodies, eventually, lost,
    message, numbered, resumed,
};

/// So long that the spool takes over nothing by itself during a test.
fn patient(setup: Setup) -> Setup {
    setup.set("stream_management.spool_after", "'20s'")
}

#[tokio::test]
async fn it_is_enabled_after_the_bind_and_the_client_does_not_see_it() {
    let mut stub = StubUpstream::start(StubOptions::managed()).await;
    let pushward = Pushward::start(Setup::new(stub.address)).await;
    let mut client = pushward.connect().await;
    let features = Element::parse(&client.authenticated("alice").await);
    let offered: Vec<_> = features.all("sm").iter().map(|sm| sm.ns.as_str()).collect();
    assert_eq!(offered, ["urn:xmpp:sm:3"], "{features:?}");
    client.bind("phone").await;
    let server = stub.session().await;
    server.managed().await;
    let asked = Instant::now();
    server.request_ack().await;
    assert!(asked.elapsed() < Duration::from_secs(1), "<r/> was answered after {:?}", asked.elapsed());
    client.roundtrip().await;
    let seen = client.transcript();
    assert!(!seen.contains("<enabled") && !seen.contains("<r ") && !seen.contains("<a "), "{seen}");
}

#[tokio::test]
async fn the_servers_own_id_and_counts_are_not_the_clients() {
    let mut scene = Scene::with(StubOptions::managed(), patient).await;
    assert_eq!(scene.enabled.resume.as_deref(), Some("true"));
    scene.client.send(message("counted")).await;
    // The proxy's own requests and the bind are not counted as the client's stanzas.
    scene.client.acked_up_to(1).await;
    scene.server.send(message("back"));
    scene.client.messages(1).await;
    scene.client.ack().await;
    scene.server.acked(1, PATIENCE).await;
}

#[tokio::test]
async fn while_the_client_is_live_the_servers_count_follows_its_acks() {
    let mut scene = Scene::with(StubOptions::managed(), patient).await;
    scene.client.acks = false;
    for round in 0..3 {
        for number in 1..=3 {
            scene.server.send(message(&format!("{round}.{number}")));
        }
        scene.client.messages(3).await;
        assert_eq!(scene.server.request_ack().await, 3 * round, "the client has acknowledged no more");
        scene.client.ack().await;
        assert_eq!(scene.server.acked(3 * (round + 1), PATIENCE).await, 3 * (round + 1));
    }
}

/// A client's first stanzas are answers and presence. Its count of those is no evidence about the messages after them.
#[tokio::test]
async fn a_partial_ack_of_the_client_is_passed_to_the_server() {
    for count in 1..=5 {
        let mut scene = Scene::with(StubOptions::managed(), patient).await;
        scene.client.send("<presence/>").await;
        scene.server.expect("<presence").await;
        scene.server.send("<presence from='alice@localhost/phone' to='alice@localhost/phone'/>");
        scene.client.roundtrip().await;
        scene.client.acks = false;
        scene.server.send(numbered("live", 1..=3).iter().map(|body| message(body)).collect::<String>());
        scene.client.messages(3).await;
        scene.client.send(format!("<a xmlns='urn:xmpp:sm:3' h='{count}'/>")).await;
        // Sent after the acknowledgement, so the acknowledgement has been read when this arrives.
        scene.client.send(message("behind")).await;
        scene.server.expect("behind").await;
        // The echo and the answer to the ping need no acknowledgement of the client.
        assert_eq!(scene.server.request_ack().await, count.max(2));
    }
}

#[tokio::test]
async fn beyond_250_unacked_stanzas_the_spool_takes_over() {
    let mut scene = Scene::with(StubOptions::managed(), patient).await;
    scene.client.acks = false;
    let all = numbered("message", 1..=300);
    scene.server.send(all.iter().map(|body| message(body)).collect::<String>());
    assert_eq!(bodies(&scene.client.messages(300).await), all);
    let acked = scene.server.acked(250, PATIENCE).await;
    assert!(acked <= 300, "{acked} of 300");
    // Stanzas that were acknowledged to the server are on disk and still wait for the client.
    scene.client.reset();
    let (mut client, _) = resumed(&scene.pushward, &scene.enabled, 0).await;
    assert_eq!(client.bodies_until(&all).await, all);
}

#[tokio::test]
async fn after_a_second_without_an_ack_the_spool_takes_over() {
    let mut scene = Scene::with(StubOptions::managed(), |setup| setup).await;
    scene.client.acks = false;
    scene.server.send(message("unacked"));
    scene.client.messages(1).await;
    // Without a request, the proxy acknowledges by itself.
    let last_ack = || scene.server.seen().acks.last().copied();
    eventually(PATIENCE, || format!("an <a/>: {:?}", scene.server.seen()), last_ack).await;
    assert_eq!(last_ack(), Some(1));
    scene.server.assert_open();
}

#[tokio::test]
async fn while_dark_the_servers_count_follows_the_spool_at_once() {
    let scene = Scene::with(StubOptions::managed(), |setup| setup).await;
    scene.client.reset();
    for number in 1..=5 {
        scene.server.send(message(&format!("dark {number}")));
        scene.server.acked(number, Duration::from_secs(5)).await;
    }
    scene.pushward.stored("dark 5").await;
    let (mut client, _) = resumed(&scene.pushward, &scene.enabled, 0).await;
    let all = numbered("dark", 1..=5);
    assert_eq!(client.bodies_until(&all).await, all);
}

#[tokio::test]
async fn what_was_unacked_when_the_client_was_lost_is_acknowledged_from_the_spool() {
    let mut scene = Scene::with(StubOptions::managed(), patient).await;
    scene.client.acks = false;
    scene.server.send(message("live"));
    scene.client.messages(1).await;
    assert_eq!(scene.server.request_ack().await, 0);
    scene.client.reset();
    scene.server.acked(1, PATIENCE).await;
}

const NEEDS_NO_DISK: &str = "<presence from='bob@localhost/desk' to='alice@localhost/phone'/>\
    <iq type='result' id='gone' from='localhost' to='alice@localhost/phone'/>";

#[tokio::test]
async fn stanzas_that_need_no_disk_count_as_handled() {
    let scene = Scene::with(StubOptions::managed(), |setup| setup).await;
    lost(&scene.pushward, scene.client, "alice@localhost/phone").await;
    scene.server.send(format!("{NEEDS_NO_DISK}{}", message("last")));
    assert_eq!(scene.server.acked(3, Duration::from_secs(5)).await, 3);
}

#[tokio::test]
async fn written_stanzas_that_need_no_disk_count_as_handled_once_the_client_is_lost() {
    let mut scene = Scene::with(StubOptions::managed(), |setup| setup).await;
    scene.client.acks = false;
    scene.server.send(format!("{NEEDS_NO_DISK}{}", message("last")));
    scene.client.messages(1).await;
    lost(&scene.pushward, scene.client, "alice@localhost/phone").await;
    assert_eq!(scene.server.acked(3, Duration::from_secs(5)).await, 3);
}

async fn nothing_is_lost_or_doubled_over_three_losses(server: Server) {
    let pushward = Pushward::start(Setup::new(server.address())).await;
    let mut bob = server.bob().await;
    let mut alice = Client::starttls(pushward.starttls, &pushward.tls()).await;
    alice.login("alice", "phone").await;
    let enabled = alice.enable().await;
    alice.available().await;
    let mut seen = Vec::new();
    for round in 0..3 {
        bob.say("alice@localhost/phone", &format!("live {round}")).await;
        seen.extend(bodies(&alice.messages(1).await));
        alice.acks = false;
        bob.say("alice@localhost/phone", &format!("unacked {round}")).await;
        alice.messages(1).await;
        let handled = alice.handled - 1;
        alice.reset();
        bob.say("alice@localhost/phone", &format!("dark {round}")).await;
        bob.say("alice@localhost", &format!("bare {round}")).await;
        (alice, _) = resumed(&pushward, &enabled, handled).await;
        seen.extend(bodies(&alice.messages(3).await));
    }
    seen.extend(bodies(&alice.live_for(Duration::from_millis(200)).await));
    let of_a_round = |n| ["live", "unacked", "dark", "bare"].map(|what| format!("{what} {n}"));
    assert_eq!(seen, (0..3).flat_map(of_a_round).collect::<Vec<_>>());
}

#[tokio::test]
async fn on_managed_prosody_nothing_is_lost_or_doubled_over_three_losses() {
    nothing_is_lost_or_doubled_over_three_losses(Server::managed_prosody().await).await;
}

#[tokio::test]
async fn on_ejabberd_nothing_is_lost_or_doubled_over_three_losses() {
    nothing_is_lost_or_doubled_over_three_losses(Server::ejabberd().await).await;
}

#[tokio::test]
async fn on_managed_ejabberd_nothing_is_lost_or_doubled_over_three_losses() {
    nothing_is_lost_or_doubled_over_three_losses(Server::managed_ejabberd().await).await;
}

/// A client leaves with a last acknowledgement. The server must not assume that the client received nothing.
#[tokio::test]
async fn stanzas_acked_just_before_the_close_are_not_sent_again() {
    for server in [Server::managed_prosody().await, Server::managed_ejabberd().await] {
        let pushward = Pushward::start(patient(Setup::new(server.address()))).await;
        let mut bob = server.bob().await;
        let mut alice = pushward.login("alice", "phone").await;
        alice.enable().await;
        alice.available().await;
        alice.acks = false;
        bob.say("alice@localhost/phone", "hello").await;
        alice.messages(1).await;
        let h = alice.handled;
        alice.send(format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/></stream:stream>")).await;
        alice.closed(PATIENCE).await;
        let mut alice = pushward.login("alice", "phone").await;
        alice.available().await;
        let seen = alice.until_quiet(Duration::from_millis(500)).await;
        assert!(bodies(&seen).is_empty(), "{seen:?}");
    }
}

/// With its own stream management, Prosody keeps 500 unacknowledged stanzas and then ends a session.
#[tokio::test]
async fn a_dark_session_can_hold_more_stanzas_than_its_server_would_queue() {
    let server = Server::managed_prosody().await;
    let pushward = Pushward::start(Setup::new(server.address())).await;
    let mut bob = server.bob().await;
    let mut alice = pushward.login("alice", "phone").await;
    let enabled = alice.enable().await;
    alice.available().await;
    let handled = alice.handled;
    alice.reset();
    let all = numbered("dark", 1..=700);
    for body in &all {
        bob.send(format!("<message type='chat' to='alice@localhost/phone'><body>{body}</body></message>")).await;
    }
    bob.roundtrip().await;
    let (mut alice, _) = resumed(&pushward, &enabled, handled).await;
    assert_eq!(alice.bodies_until(&all).await, all);
}
