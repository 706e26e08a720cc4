//! The process is replaced by another one: dark sessions go on, and clients that were connected resume.

mod changed;
mod dark;
mod faults;
mod manager;
mod program;
mod refused;
mod signals;
mod traffic;
mod watchdog;

use std::time::Duration;

use dark::{Dark, at_once};

use crate::support::{
    Client, Element, PATIENCE, Prosody, PushService, Pushward, Scene, Setup, StubOptions, StubUpstream, bodies,
    enable_push, lost, message, numbered, resumed,
};

/// The time for which nothing may happen where nothing is expected.
const QUIET: Duration = Duration::from_millis(700);

async fn scene(options: StubOptions) -> Scene {
    Scene::with(options, Setup::copied).await
}

#[tokio::test]
async fn a_dark_session_goes_on_and_the_server_notices_nothing() {
    at_once([false, true], |managed| async move {
        let options = if managed { StubOptions::managed() } else { StubOptions::default() };
        let Scene { stub, pushward, mut client, server, enabled } = scene(options).await;
        server.send(message("live"));
        client.expect("live").await;
        client.ack().await;
        lost(&pushward, client, "alice@localhost/phone").await;
        let mut dark = Dark { stub, pushward, server, enabled };
        dark.store("before").await;
        for round in 1..=3 {
            dark.pushward.replaced().await;
            dark.server.send(message(&format!("after {round}")));
            dark.assert_answers(&format!("p{round}")).await;
            if managed {
                dark.server.acked(1 + 1 + 2 * round, PATIENCE).await;
            }
        }
        dark.assert_undisturbed();
        let (mut client, answer) = resumed(&dark.pushward, &dark.enabled, 1).await;
        assert_eq!(answer.attribute("h"), Some("0"));
        let expect = [vec!["before".to_owned()], numbered("after", 1..=3)].concat();
        assert_eq!(bodies(&client.messages(4).await), expect);
        assert!(bodies(&client.until_quiet(QUIET).await).is_empty(), "{}", client.transcript());
    })
    .await;
}

#[tokio::test]
async fn a_connected_client_resumes_at_once_and_loses_nothing() {
    let Scene { stub: _stub, pushward, mut client, mut server, enabled } = scene(StubOptions::default()).await;
    client.acks = false;
    server.send(message("unacknowledged"));
    client.expect("unacknowledged").await;
    client.send("<message to='bob@localhost' id='sent'><body>sent</body></message>").await;
    server.expect("id='sent'").await;
    pushward.replaced().await;
    let rest = client.closed(PATIENCE).await;
    assert!(!rest.concat().contains("stream:error") && !client.transcript().contains("</stream:stream>"), "{rest:?}");
    server.send(message("meanwhile"));
    let (mut client, answer) = resumed(&pushward, &enabled, 0).await;
    assert_eq!(answer.attribute("h"), Some("1"));
    assert_eq!(bodies(&client.messages(2).await), ["unacknowledged", "meanwhile"]);
    client.send("<message to='bob@localhost' id='again'><body>again</body></message>").await;
    server.expect("id='again'").await;
}

/// The stanza of the server is cut at the handover: the first part is in the memory of the old process.
#[tokio::test]
async fn a_stanza_that_is_half_received_arrives_whole() {
    let dark = Dark::new().await;
    let stanza = message("whole");
    let (first, second) = stanza.split_at(stanza.len() / 2);
    dark.server.send(message("first"));
    dark.server.send(first);
    dark.pushward.stored("first").await;
    dark.pushward.replaced().await;
    dark.server.send(second);
    dark.pushward.stored("whole").await;
    dark.assert_goes_on(&["first", "whole"]).await;
}

/// The server does not read: what Pushward has for it waits in its memory, and the kernel has taken an arbitrary part of it.
#[tokio::test]
async fn bytes_that_were_not_written_to_the_server_follow_without_a_gap() {
    let Scene { stub: _stub, pushward, mut client, mut server, enabled: _ } = scene(StubOptions::default()).await;
    server.read_slowly(1);
    let body = "x".repeat(20_000);
    let mut sent = 0;
    // More than the buffers of the kernel, less than stops the client.
    while sent < 200 {
        sent += 1;
        client.try_send(format!("<message to='bob@localhost' id='m{sent}'><body>{body}</body></message>")).await;
        if sent % 20 == 0 && client.live_for(Duration::from_millis(20)).await.is_empty() && sent >= 150 {
            break;
        }
    }
    pushward.replaced().await;
    server.read_slowly(usize::MAX);
    let mut expected = 1;
    let mut last = None;
    while let Ok(element) = tokio::time::timeout(Duration::from_secs(2), server.next()).await {
        let element = Element::parse(&element);
        if element.name == "message" {
            assert_eq!(element.attribute("id"), Some(format!("m{expected}").as_str()));
            expected += 1;
            last = element.child("body").map(|body| body.text.len());
        }
    }
    assert_eq!(last, Some(body.len()));
    assert!(expected > 2, "{expected} of {sent}");
    server.assert_open();
}

#[tokio::test]
async fn a_session_that_nobody_can_resume_ends_in_order() {
    let mut stub = StubUpstream::start(StubOptions::default()).await;
    let pushward = Pushward::start(Setup::new(stub.address).copied()).await;
    let mut client = pushward.login("alice", "phone").await;
    let server = stub.session().await;
    pushward.replaced().await;
    let rest = client.closed(PATIENCE).await.concat();
    assert!(rest.contains("system-shutdown") && rest.contains("</stream:stream>"), "{rest}");
    server.footer(PATIENCE).await;
    let (code, text) = pushward.ask(&["status"]).await;
    assert!(code == Some(0) && text.contains("last handover: 0 sessions kept, 1 ended (1 not resumable)"), "{text}");
}

#[tokio::test]
async fn the_command_waits_until_the_new_process_answers() {
    let dark = Dark::new().await;
    let pid = dark.pushward.process();
    let (code, text) = dark.pushward.ask(&["upgrade"]).await;
    assert!(code == Some(0) && text.contains("1 sessions kept, 0 ended"), "{code:?} {text}");
    let (code, text) = dark.pushward.ask(&["status"]).await;
    assert!(code == Some(0) && text.contains("last handover: 1 sessions kept, 0 ended"), "{text}");
    assert_eq!(dark.pushward.process(), pid);
    dark.assert_goes_on(&[]).await;
}

#[tokio::test]
async fn a_push_that_waits_keeps_its_time_and_a_client_that_is_back_gets_none() {
    let prosody = Prosody::start().await;
    let mut service = PushService::connect(&prosody).await;
    let setup =
        Setup::new(prosody.address).copied().set("push.batch_delay", "'1500ms'").set("push.min_interval", "'50ms'");
    let pushward = Pushward::start(setup).await;
    let mut bob = Client::direct(pushward.direct, &pushward.tls()).await;
    bob.login("bob", "desk").await;
    bob.enable().await;
    let mut alice = pushward.login("alice", "phone").await;
    let enabled = alice.enable().await;
    alice.available().await;
    enable_push(&mut alice, "n").await;
    // Connected at the handover, and back at once: no push.
    bob.say("alice@localhost/phone", "one").await;
    alice.acks = false;
    alice.expect("one").await;
    pushward.replaced().await;
    let (mut alice, _) = resumed(&pushward, &enabled, 0).await;
    assert_eq!(bodies(&alice.messages(1).await), ["one"]);
    alice.ack().await;
    service.assert_quiet(Duration::from_secs(2)).await;
    // Dark at the handover: one push, not sooner.
    lost(&pushward, alice, "alice@localhost/phone").await;
    let mut bob = pushward.login("bob", "desk").await;
    bob.say("alice@localhost/phone", "two").await;
    pushward.replaced().await;
    let publish = service.publish(PATIENCE).await;
    assert_eq!(publish.count(), Some(1));
    service.assert_quiet(Duration::from_secs(2)).await;
}

/// The times in the list of sessions are whole seconds.
#[tokio::test]
async fn the_operators_view_of_a_session_stays_the_same() {
    let dark = Dark::new().await;
    let (_, before) = dark.pushward.ask(&["sessions"]).await;
    // The time is the subject: a session that were created again would have a later one.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    dark.pushward.replaced().await;
    let (_, after) = dark.pushward.ask(&["sessions"]).await;
    assert!(before.contains("dark since") && before == after, "{before}{after}");
}
