//! XEP-0198 between client and proxy: counting, losing a connection, and resuming, on a server without stream
//! management.

use std::time::Duration;

use crate::support::{
    Client, Element, Enabled, PATIENCE, Prosody, Pushward, Setup, StubConnection, StubOptions, StubUpstream, bodies,
    eventually, message,
};

/// A session of alice with stream management, on a scripted server.
struct World {
    stub: StubUpstream,
    pushward: Pushward,
    client: Client,
    server: StubConnection,
    enabled: Enabled,
}

impl World {
    async fn new() -> Self {
        Self::with(StubOptions::default(), |setup| setup).await
    }

    async fn with(options: StubOptions, settings: impl FnOnce(Setup) -> Setup) -> Self {
        let mut stub = StubUpstream::start(options).await;
        let pushward = Pushward::start(settings(Setup::new(stub.address))).await;
        let mut client = pushward.login("alice", "phone").await;
        let server = stub.session().await;
        let enabled = client.enable().await;
        Self { stub, pushward, client, server, enabled }
    }
}

/// Resumes alice's session on a new connection, having handled `h` stanzas.
async fn resumed(pushward: &Pushward, enabled: &Enabled, h: u32) -> (Client, Element) {
    let mut client = pushward.authenticated("alice").await;
    let answer = client.resume(&enabled.id, h).await;
    assert_eq!(answer.name, "resumed", "{answer:?}");
    assert_eq!(answer.attribute("previd"), Some(enabled.id.as_str()));
    (client, answer)
}

/// Sets timeouts so short that a test can see the end of a silent connection.
fn impatient(setup: Setup) -> Setup {
    setup.set("stream_management.max_ack_delay", "'300ms'").set("stream_management.ack_timeout", "'300ms'")
}

fn assert_failed(answer: &Element, condition: &str) {
    assert_eq!(answer.name, "failed", "{answer:?}");
    let error = answer.child(condition).unwrap_or_else(|| panic!("no {condition} in {answer:?}"));
    assert_eq!(error.ns, "urn:ietf:params:xml:ns:xmpp-stanzas");
}

#[tokio::test]
async fn enabling_gives_an_unguessable_id_and_how_long_the_session_is_held() {
    let first = World::new().await;
    assert_eq!(first.enabled.resume.as_deref(), Some("true"));
    assert_eq!(first.enabled.max, Some(72 * 60 * 60));
    let mut second = first.pushward.login("alice", "desk").await;
    let other = second.enable().await;
    assert_ne!(first.enabled.id, other.id);
    // 128 bits are 22 characters of base64 or 32 of hexadecimal.
    assert!(first.enabled.id.len() >= 22, "{}", first.enabled.id);
}

#[tokio::test]
async fn enabling_without_resume_gives_no_id() {
    let mut world = World::new().await;
    let mut client = world.pushward.login("alice", "desk").await;
    let _server = world.stub.session().await;
    client.send("<enable xmlns='urn:xmpp:sm:3'/>").await;
    let enabled = Element::parse(&client.expect("urn:xmpp:sm:3").await);
    assert_eq!(enabled.name, "enabled");
    assert!(!matches!(enabled.attribute("resume"), Some("true" | "1")), "{enabled:?}");
    client.send(message("counted")).await;
    client.acked_up_to(1).await;
}

#[tokio::test]
async fn enabling_at_the_wrong_time_is_an_unexpected_request() {
    let mut world = World::new().await;
    world.client.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>").await;
    assert_failed(&Element::parse(&world.client.next().await), "unexpected-request");
    let mut early = world.pushward.authenticated("alice").await;
    early.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>").await;
    assert_failed(&Element::parse(&early.next().await), "unexpected-request");
}

#[tokio::test]
async fn resuming_a_stream_that_is_bound_is_an_unexpected_request() {
    let mut world = World::new().await;
    let answer = world.client.resume("some-other", 0).await;
    assert_failed(&answer, "unexpected-request");
    world.client.roundtrip().await;
}

#[tokio::test]
async fn what_the_client_sends_is_counted_exactly() {
    for options in [StubOptions::default(), StubOptions::managed()] {
        let mut world = World::with(options, |setup| setup).await;
        world.client.acked_up_to(0).await;
        world.client.send(format!("{}<presence/>{}", message("1"), message("3"))).await;
        world.client.acked_up_to(3).await;
        world.client.send("<iq type='get' id='q' to='bob@localhost/desk'><query xmlns='urn:q'/></iq>").await;
        world.client.acked_up_to(4).await;
        assert!(world.client.acked.iter().all(|&h| h <= 4));
    }
}

#[tokio::test]
async fn what_the_server_sends_is_counted_exactly() {
    let mut world = World::new().await;
    world.client.acks = false;
    world.server.send(format!("{}<presence from='bob@localhost'/>", message("1")));
    world.client.expect("<presence").await;
    world.client.send("<a xmlns='urn:xmpp:sm:3' h='2'/>").await;
    world.client.roundtrip().await;
    // The answer to the ping was the third stanza.
    world.client.send("<a xmlns='urn:xmpp:sm:3' h='4'/>").await;
    let ending = world.client.closed(PATIENCE).await;
    let error = Element::parse(ending.iter().find(|element| element.starts_with("<stream:error")).expect("an error"));
    assert!(error.child("undefined-condition").is_some(), "{error:?}");
    let detail = error.child("handled-count-too-high").unwrap_or_else(|| panic!("{error:?}"));
    assert_eq!(detail.ns, "urn:xmpp:sm:3");
    assert_eq!((detail.attribute("h"), detail.attribute("send-count")), (Some("4"), Some("3")));
    assert_eq!(ending.last().map(String::as_str), Some("</stream:stream>"));
}

#[tokio::test]
async fn important_stanzas_are_followed_by_a_request_for_an_ack() {
    let mut world = World::new().await;
    world.server.send(message("important"));
    world.client.messages(1).await;
    let client = &mut world.client;
    while client.requests == 0 {
        client.live_for(Duration::from_millis(20)).await;
    }
}

/// The ways in which a connection may be lost.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Fin,
    Reset,
    Silence,
}

async fn the_session_outlives(loss: Loss) {
    let World { stub: _stub, pushward, mut client, server, enabled } =
        World::with(StubOptions::default(), impatient).await;
    client.acks = false;
    server.send(message("1"));
    let _half = match loss {
        Loss::Fin => {
            client.messages(1).await;
            Some(client.fin())
        }
        Loss::Reset => {
            client.messages(1).await;
            client.reset();
            None
        }
        Loss::Silence => {
            let last = client.closed(PATIENCE).await.concat();
            assert!(last.contains("<body>1</body>"), "{last}");
            None
        }
    };
    server.send(message("2"));
    let (mut client, _) = resumed(&pushward, &enabled, 0).await;
    assert_eq!(bodies(&client.messages(2).await), ["1", "2"], "{loss:?}");
    client.send(message("back")).await;
    client.acked_up_to(1).await;
    server.assert_open();
}

#[tokio::test]
async fn the_upstream_leg_survives_a_fin_without_a_footer() {
    the_session_outlives(Loss::Fin).await;
}

#[tokio::test]
async fn the_upstream_leg_survives_a_reset() {
    the_session_outlives(Loss::Reset).await;
}

#[tokio::test]
async fn the_upstream_leg_survives_a_client_that_falls_silent() {
    the_session_outlives(Loss::Silence).await;
}

#[tokio::test]
async fn a_session_is_resumed_while_its_old_connection_is_still_open() {
    let World { mut stub, pushward, client: mut old, mut server, enabled } = World::new().await;
    old.acks = false;
    server.send(message("1"));
    old.messages(1).await;
    let (mut client, _) = resumed(&pushward, &enabled, 0).await;
    let last = old.closed(PATIENCE).await.concat();
    // A client that gets a conflict error changes its resource.
    assert!(!last.contains("conflict"), "{last}");
    server.send(message("2"));
    assert_eq!(bodies(&client.messages(2).await), ["1", "2"]);
    old.try_send(message("late")).await;
    client.send(message("back")).await;
    assert_eq!(server.expect("<message").await, message("back"));
    let login = stub.connection().await;
    login.closed(PATIENCE).await;
    assert_eq!(login.seen().bound, None, "a login that resumes must not bind: the server would end the held session");
    server.assert_open();
}

#[tokio::test]
async fn what_was_not_acked_is_replayed_once_and_in_order() {
    let World { stub: _stub, pushward, mut client, mut server, enabled } = World::new().await;
    client.acks = false;
    client.send(format!("{}{}", message("a"), message("b"))).await;
    server.expect("<body>b<").await;
    server.send((1..=5).map(|number| message(&number.to_string())).collect::<String>());
    client.messages(5).await;
    client.send("<a xmlns='urn:xmpp:sm:3' h='2'/>").await;
    client.reset();
    for number in 6..=8 {
        server.send(message(&number.to_string()));
    }
    let (mut client, answer) = resumed(&pushward, &enabled, 3).await;
    assert_eq!(answer.attribute("h"), Some("2"), "two stanzas had come from the client");
    assert_eq!(bodies(&client.messages(5).await), ["4", "5", "6", "7", "8"]);
    server.send(message("9"));
    let next = client.next().await;
    assert_eq!(next, message("9"), "a live stanza after the replay, and untouched");
    client.ack().await;
    client.acked_up_to(2).await;
    client.reset();
    let (mut client, _) = resumed(&pushward, &enabled, 9).await;
    server.send(message("10"));
    assert_eq!(client.next().await, message("10"), "everything before was acked");
}

#[tokio::test]
async fn a_stanza_that_already_has_a_delay_stamp_is_not_changed() {
    let World { stub: _stub, pushward, client, server, enabled } = World::new().await;
    client.reset();
    let delay = "<delay xmlns='urn:xmpp:delay' stamp='2001-02-03T04:05:06Z'/></message>";
    let stamped = message("stamped").replace("</message>", delay);
    server.send(stamped.clone());
    let (mut client, _) = resumed(&pushward, &enabled, 0).await;
    assert_eq!(client.next().await, stamped);
}

#[tokio::test]
async fn another_account_cannot_resume_a_session() {
    let World { stub: _stub, pushward, client, mut server, enabled } = World::new().await;
    client.reset();
    let mut mallory = pushward.authenticated("mallory").await;
    assert_failed(&mallory.resume(&enabled.id, 0).await, "item-not-found");
    server.send(message("for alice only"));
    mallory.live_for(Duration::from_millis(200)).await;
    assert!(!mallory.transcript().contains("alice only"), "{}", mallory.transcript());
    let (mut client, _) = resumed(&pushward, &enabled, 0).await;
    assert_eq!(bodies(&client.messages(1).await), ["for alice only"]);
    assert!(server.rest().iter().all(|element| !element.contains("mallory")));
}

#[tokio::test]
async fn after_an_unknown_id_the_client_binds_on_the_same_stream() {
    let mut stub = StubUpstream::start(StubOptions::default()).await;
    let pushward = Pushward::start(Setup::new(stub.address)).await;
    let mut client = pushward.authenticated("alice").await;
    assert_failed(&client.resume("never-heard-of", 7).await, "item-not-found");
    assert_eq!(client.bind("phone").await, "alice@localhost/phone");
    client.enable().await;
    client.send(message("hello")).await;
    let mut server = stub.session().await;
    assert_eq!(server.expect("<message").await, message("hello"));
    client.acked_up_to(1).await;
}

#[tokio::test]
async fn resume_timeout_ends_a_session_without_a_registration() {
    let settings = |setup: Setup| setup.set("stream_management.resume_timeout", "'300ms'");
    let World { stub: _stub, pushward, client, server, enabled } = World::with(StubOptions::default(), settings).await;
    client.reset();
    server.footer(PATIENCE).await;
    server.closed(PATIENCE).await;
    let mut client = pushward.authenticated("alice").await;
    assert_failed(&client.resume(&enabled.id, 0).await, "item-not-found");
}

#[tokio::test]
async fn a_clean_close_ends_the_session_at_once() {
    let World { stub: _stub, pushward, mut client, server, enabled } = World::new().await;
    client.send("</stream:stream>").await;
    server.footer(PATIENCE).await;
    client.closed(PATIENCE).await;
    let mut client = pushward.authenticated("alice").await;
    assert_failed(&client.resume(&enabled.id, 0).await, "item-not-found");
}

#[tokio::test]
async fn a_session_whose_server_is_gone_cannot_be_resumed() {
    let World { stub: _stub, pushward, client, server, enabled } = World::new().await;
    client.reset();
    server.close();
    server.closed(PATIENCE).await;
    let answer = eventually_failed(&pushward, &enabled).await;
    assert_failed(&answer, "item-not-found");
}

/// Retries the resumption. The proxy may see the server's end a moment after the next client comes, and then the
/// resumption is cut short.
async fn eventually_failed(pushward: &Pushward, enabled: &Enabled) -> Element {
    for _ in 0..20 {
        let mut client = pushward.authenticated("alice").await;
        let answer = client.resume(&enabled.id, 0).await;
        if answer.name == "failed" {
            return answer;
        }
        client.closed(PATIENCE).await;
    }
    panic!("a session without a server is still being resumed");
}

#[tokio::test]
async fn on_prosody_nothing_is_lost_or_doubled_over_three_losses() {
    let prosody = Prosody::start().await;
    let pushward = Pushward::start(Setup::new(prosody.address)).await;
    let mut bob = Client::plain(prosody.address).await;
    bob.login("bob", "desk").await;
    let mut alice = Client::starttls(pushward.starttls, &pushward.tls()).await;
    alice.login("alice", "phone").await;
    let enabled = alice.enable().await;
    alice.available().await;
    let mut seen = Vec::new();
    for round in 0..3 {
        bob.say("alice@localhost/phone", &format!("live {round}")).await;
        seen.extend(bodies(&alice.messages(1).await));
        let handled = alice.handled;
        alice.reset();
        bob.say("alice@localhost/phone", &format!("dark {round}")).await;
        bob.say("alice@localhost", &format!("bare {round}")).await;
        (alice, _) = resumed(&pushward, &enabled, handled).await;
        seen.extend(bodies(&alice.messages(2).await));
    }
    seen.extend(bodies(&alice.live_for(Duration::from_millis(200)).await));
    let expected: Vec<_> = (0..3).flat_map(|n| ["live", "dark", "bare"].map(|what| format!("{what} {n}"))).collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn an_ack_request_is_answered_at_once_with_only_what_the_server_has_confirmed() {
    let options = StubOptions { pings: false, ..StubOptions::default() };
    let mut world = World::with(options, |setup| setup).await;
    world.client.send(format!("{}<r xmlns='urn:xmpp:sm:3'/>", message("unconfirmed"))).await;
    world.client.ack_reaches(0).await;
    world.server.expect("unconfirmed").await;
    // After the message the proxy asks whether the server has come that far. Until now it got no answer.
    let barrier = Element::parse(&world.server.expect("<iq").await);
    let from = barrier.attribute("to").map(|to| format!(" from='{to}'")).unwrap_or_default();
    let id = barrier.attribute("id").unwrap();
    world.server.send(format!("<iq type='result' id='{id}'{from}/>"));
    world.client.ack_reaches(1).await;
    assert!(!world.client.transcript().contains(id), "the proxy's own ping is none of the client's business");
}

#[tokio::test]
async fn a_server_with_stream_management_gets_acks_for_what_the_client_has_acked() {
    let World { stub: _stub, pushward: _pushward, mut client, server, .. } =
        World::with(StubOptions::managed(), |setup| setup).await;
    eventually(PATIENCE, || format!("<enable/> in {:?}", server.seen()), || server.seen().handled).await;
    client.acks = false;
    server.send(message("1"));
    client.messages(1).await;
    assert_eq!(server.request_ack().await, 0, "the client has not acked it");
    client.ack().await;
    client.roundtrip().await;
    // The message counts. The answer to the ping is a stanza too, and may or may not count yet.
    assert!((1..=2).contains(&server.request_ack().await));
}
