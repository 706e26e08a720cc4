//! Messages that a client has not acknowledged when its session ends, its server is killed, or its connection to the
//! server breaks.

use std::time::Duration;

use crate::support::{
    Client, PATIENCE, Prosody, Pushward, Scene, Server, Setup, StubConnection, StubOptions, another, bodies,
    enable_push, failed, fresh, message, numbered,
};

/// The time for which nothing may come where nothing is expected.
const QUIET: Duration = Duration::from_millis(700);

const ENOUGH: Duration = Duration::from_secs(20);

/// Returns the same message as a server sends it later, with a delay stamp.
fn late(body: &str) -> String {
    let delay = "<delay xmlns='urn:xmpp:delay' from='localhost' stamp='2026-01-01T00:00:00Z'/></message>";
    message(body).replace("</message>", delay)
}

/// This must hold for every configured time: a message that comes just as the server is killed has not waited at all.
async fn nothing_is_lost_when_the_server_is_killed(mut server: Server, settings: impl Fn(Setup) -> Setup) {
    let pushward = Pushward::start(settings(Setup::new(server.address()))).await;
    let mut bob = server.bob().await;
    let mut alice = pushward.login("alice", "phone").await;
    let enabled = alice.enable().await;
    alice.available().await;
    alice.acks = false;
    let all = numbered("unacked", 1..=29);
    for body in &all {
        bob.say("alice@localhost/phone", body).await;
    }
    assert_eq!(bodies(&alice.messages(29).await), all);
    server.kill();
    alice.closed(PATIENCE).await;
    server.start_again().await;
    let (mut alice, _) = failed(&pushward, &enabled, 0).await;
    fresh(&mut alice, "phone").await;
    assert_eq!(alice.bodies_until(&all).await, all);
    let rest = alice.until_quiet(QUIET).await;
    assert!(bodies(&rest).is_empty(), "{rest:?}");
}

#[tokio::test]
async fn on_a_managed_prosody_that_is_killed_nothing_is_lost() {
    for after in ["'1s'", "'60s'"] {
        let settings = |setup: Setup| setup.set("stream_management.spool_after", after);
        nothing_is_lost_when_the_server_is_killed(Server::managed_prosody().await, settings).await;
    }
}

#[tokio::test]
async fn on_a_prosody_without_stream_management_that_is_killed_nothing_is_lost() {
    nothing_is_lost_when_the_server_is_killed(Server::prosody().await, |setup| setup).await;
}

#[tokio::test]
async fn on_a_managed_ejabberd_that_is_killed_nothing_is_lost() {
    nothing_is_lost_when_the_server_is_killed(Server::managed_ejabberd().await, |setup| setup).await;
}

/// Regression test: a client reads nothing, and 30 ms later the same device binds again. Messages that came in between
/// were never delivered.
#[tokio::test]
async fn a_device_that_binds_again_while_its_session_counts_as_live_gets_all_stanzas() {
    for options in [StubOptions::default(), StubOptions::managed()] {
        let mut scene = Scene::with(options, |setup| setup).await;
        let mut server = scene.server;
        // Connections of clients that send nothing more.
        let mut silent = vec![scene.client];
        for round in 1..=5 {
            let body = format!("round {round}");
            server.send(message(&body));
            let mut client = scene.pushward.authenticated("alice").await;
            fresh(&mut client, "phone").await;
            let next = scene.stub.fresh().await;
            assert_eq!(client.bodies_until(std::slice::from_ref(&body)).await, [body]);
            client.ack().await;
            let rest = client.until_quiet(Duration::from_millis(200)).await;
            assert!(bodies(&rest).is_empty(), "{rest:?}");
            server = next;
            silent.push(client);
        }
        drop(silent);
    }
}

/// Regression test: the session that ended deleted messages, long acknowledged to the server, while the next session
/// took them over.
#[tokio::test]
async fn a_session_that_ends_slowly_does_not_take_stanzas_from_its_successor() {
    for footers in [true, false] {
        let options = StubOptions { footers, ..StubOptions::managed() };
        let mut scene = Scene::with(options, |setup| setup).await;
        scene.client.acks = false;
        let all = numbered("message", 1..=70);
        scene.server.send(all.iter().map(|body| message(body)).collect::<String>());
        scene.client.messages(70).await;
        scene.server.acked(70, PATIENCE).await;
        let mut client = scene.pushward.authenticated("alice").await;
        fresh(&mut client, "phone").await;
        let mut next = scene.stub.fresh().await;
        // All waiting messages are written before it.
        next.expect("<presence").await;
        next.send(message("new"));
        let seen = client.bodies_until(&["new".to_owned()]).await;
        let waited: Vec<_> = seen.iter().filter(|body| body.starts_with("message")).cloned().collect();
        assert_eq!(waited, all, "{footers}");
        let rest = client.until_quiet(Duration::from_secs(3)).await;
        assert!(!bodies(&rest).iter().any(|body| body.starts_with("message")), "{rest:?}");
    }
}

/// The older session's client is silent, so it is probed for two seconds. The newer session's presence waits for that;
/// its bind does not.
#[tokio::test]
async fn the_presence_of_a_device_waits_until_its_silent_session_has_handed_over() {
    let mut scene = Scene::with(StubOptions::managed(), |setup| setup).await;
    enable_push(&mut scene.client, "n").await;
    scene.client.acks = false;
    scene.server.send(message("unacked"));
    scene.client.messages(1).await;
    let mut client = scene.pushward.login("alice", "phone-2").await;
    let mut server: StubConnection = scene.stub.fresh().await;
    client.enable().await;
    enable_push(&mut client, "n").await;
    client.send("<presence/>").await;
    assert_eq!(client.bodies_until(&["unacked".to_owned()]).await, ["unacked"]);
    server.expect("<presence").await;
    assert!(scene.server.seen().footer, "the older session is still there: {:?}", scene.server.seen());
}

#[tokio::test]
async fn a_message_that_a_server_sends_again_after_its_connection_broke_is_delivered_once() {
    let mut scene = Scene::with(StubOptions::managed(), Setup::with_metrics).await;
    scene.client.acks = false;
    let all = numbered("unacked", 1..=3);
    scene.server.send(all.iter().map(|body| message(body)).collect::<String>());
    scene.client.messages(3).await;
    scene.server.close();
    scene.client.closed(PATIENCE).await;
    let (mut client, _) = failed(&scene.pushward, &scene.enabled, 0).await;
    fresh(&mut client, "phone").await;
    let server = scene.stub.fresh().await;
    server.send(format!("{}{}{}", late("unacked 1"), late("unacked 2"), message("new")));
    let seen = client.bodies_until(&["new".to_owned()]).await;
    assert_eq!(seen, [all, vec!["new".into()]].concat());
    client.ack().await;
    // The proxy still expects the last one again, also in the device's next session.
    client.send("</stream:stream>").await;
    client.closed(PATIENCE).await;
    let mut client = scene.pushward.authenticated("alice").await;
    fresh(&mut client, "phone").await;
    let server = scene.stub.fresh().await;
    server.send(format!("{}{}", late("unacked 3"), late("unacked 1")));
    assert_eq!(bodies(&client.messages(1).await), ["unacked 1"], "each kept copy stands for one delivery");
    assert_eq!(scene.pushward.metric("pushward_redelivered_messages_total").await, 3);
}

/// Regression test: the memory belonged to the session that had come first, and the device had two.
#[tokio::test]
async fn a_message_sent_again_to_another_session_of_the_device_is_delivered_once() {
    let mut scene = Scene::with(StubOptions::managed(), Setup::with_metrics).await;
    scene.client.acks = false;
    let all = numbered("unacked", 1..=2);
    scene.server.send(all.iter().map(|body| message(body)).collect::<String>());
    scene.client.messages(2).await;
    scene.server.close();
    scene.client.closed(PATIENCE).await;
    let (mut first, _) = failed(&scene.pushward, &scene.enabled, 0).await;
    fresh(&mut first, "phone").await;
    let _first = scene.stub.fresh().await;
    assert_eq!(first.bodies_until(&all).await, all);
    first.ack().await;
    enable_push(&mut first, "n").await;
    let (mut second, server) = another(&scene.pushward, &mut scene.stub, "phone-2").await;
    // The push target shows that the two are one device.
    enable_push(&mut second, "n").await;
    server.send(format!("{}{}", late("unacked 2"), message("new")));
    assert_eq!(second.bodies_until(&["new".to_owned()]).await, ["new"]);
    assert_eq!(scene.pushward.metric("pushward_redelivered_messages_total").await, 1);
}

/// The connection breaks while Prosody runs on: it sends again, with a delay, what was not acknowledged to it.
#[tokio::test]
async fn a_message_that_prosody_sends_again_after_a_broken_connection_is_delivered_once() {
    let prosody = Prosody::with(&["smacks", "offline"]).await;
    let proxy = Proxy::towards(prosody.address).await;
    let setup = Setup::new(proxy.address).set("stream_management.spool_after", "'60s'");
    let pushward = Pushward::start(setup).await;
    let mut bob = Client::plain(prosody.address).await;
    bob.login("bob", "desk").await;
    let mut alice = pushward.login("alice", "phone").await;
    let enabled = alice.enable().await;
    alice.available().await;
    alice.acks = false;
    let all = numbered("unacked", 1..=5);
    for (number, body) in all.iter().enumerate() {
        let to = ["alice@localhost/phone", "alice@localhost"][number % 2];
        bob.send(format!("<message type='chat' to='{to}' id='m{number}'><body>{body}</body></message>")).await;
    }
    assert_eq!(bodies(&alice.messages(5).await), all);
    let before = prosody.disconnections();
    proxy.cut();
    alice.closed(PATIENCE).await;
    prosody.disconnected(before + 1).await;
    let (mut alice, _) = failed(&pushward, &enabled, 0).await;
    fresh(&mut alice, "phone").await;
    let mut seen = alice.bodies_until(&all).await;
    seen.extend(bodies(&alice.until_quiet(QUIET).await));
    assert_eq!(seen, all);
}

/// A client that has a new resource each time, and no id that identifies its device.
#[tokio::test]
async fn chat_to_a_full_jid_that_is_gone_goes_to_the_accounts_next_client() {
    let settings = |setup: Setup| {
        let setup = setup.set("stream_management.orphan_grace", "'200ms'");
        setup.set("stream_management.resume_timeout", "'1s'")
    };
    let mut scene = Scene::with(StubOptions::default(), settings).await;
    scene.client.reset();
    scene.server.send(message("for whoever comes"));
    scene.server.closed(ENOUGH).await;
    let mut client = scene.pushward.authenticated("alice").await;
    fresh(&mut client, "another").await;
    let _server = scene.stub.fresh().await;
    assert_eq!(bodies(&client.messages(1).await), ["for whoever comes"]);
}

#[tokio::test]
async fn stanzas_that_no_device_fetched_are_logged_when_they_are_deleted() {
    let settings = |setup: Setup| {
        let setup = setup.set("stream_management.orphan_ttl", "'1s'").set("stream_management.resume_timeout", "'1s'");
        setup.with_metrics()
    };
    let scene = Scene::with(StubOptions::default(), settings).await;
    scene.client.reset();
    scene.server.send(message("for nobody"));
    scene.server.closed(ENOUGH).await;
    let line = scene.pushward.logged(&["never fetched", "alice@localhost"]).await;
    assert!(!line.contains("for nobody"), "{line}");
}

/// A forwarder between the proxy and its server, whose connections the test can break.
struct Proxy {
    address: std::net::SocketAddr,
    cut: tokio::sync::watch::Sender<u32>,
}

impl Proxy {
    async fn towards(server: std::net::SocketAddr) -> Self {
        let listener = tokio::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cut, cuts) = tokio::sync::watch::channel(0);
        tokio::spawn(async move {
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let mut far = tokio::net::TcpStream::connect(server).await.unwrap();
                let mut cuts = cuts.clone();
                cuts.mark_unchanged();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = cuts.changed() => {}
                    }
                });
            }
        });
        Self { address, cut }
    }

    /// Breaks all current connections without notice to either side.
    fn cut(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }
}
