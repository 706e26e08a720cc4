//! A disk that stalls or fails: memory stays bounded, clients that are there go on, and nothing is lost or comes twice.

use std::time::{Duration, Instant};

use crate::hostile::memory;
use crate::support::{Fault, Scene, Setup, StubOptions, bodies, lost, message, numbered, resumed};

/// What a stall may cost, in KiB.
const GROWTH: u64 = 32 << 10;

/// Only the amount counts: no clock of the session runs while the store is late, so the stall lasts as long as the delivery takes.
#[tokio::test]
async fn a_stalled_disk_neither_fills_memory_nor_stops_a_client_that_acknowledges() {
    const ROUNDS: usize = 64;
    const EACH: usize = 250;
    // Each stanza is handed to the store as soon as it comes.
    let settings = |setup: Setup| setup.with_faults().set("stream_management.spool_after", "'0s'");
    let Scene { stub: _stub, pushward, mut client, server, .. } = Scene::with(StubOptions::default(), settings).await;
    pushward.begin(Fault::Stall);
    server.send(message("first"));
    assert_eq!(bodies(&client.messages(1).await), ["first"]);
    pushward.stalled().await;
    let (padding, begun) = ("x".repeat(4000), Instant::now());
    let before = memory(pushward.process());
    let mut most = before;
    for round in 0..ROUNDS {
        let wanted: Vec<_> = (0..EACH).map(|n| format!("{round}-{n} {padding}")).collect();
        let stanza = |body: &String| format!("<message from='bob@localhost/desk'><body>{body}</body></message>");
        server.send(wanted.iter().map(stanza).collect::<String>());
        assert!(bodies(&client.messages(EACH).await) == wanted, "round {round}: all in order, each once");
        client.ack().await;
        most = most.max(memory(pushward.process()));
    }
    println!("stalled for {:?}: {before} KiB before, {most} KiB at most", begun.elapsed());
    assert!(most - before < GROWTH, "{} KiB more", most - before);
    pushward.end(Fault::Stall);
    server.send(message("last"));
    assert_eq!(bodies(&client.messages(1).await), ["last"]);
    client.roundtrip().await;
    server.assert_open();
}

#[tokio::test]
async fn what_a_stalled_disk_was_to_take_comes_once_when_the_client_is_back() {
    let settings = |setup: Setup| setup.with_faults().set("stream_management.spool_after", "'0s'");
    let Scene { stub: _stub, pushward, mut client, server, enabled } =
        Scene::with(StubOptions::default(), settings).await;
    client.acks = false;
    pushward.begin(Fault::Stall);
    let all = numbered("stalled", 1..=300);
    server.send(all[..200].iter().map(|body| message(body)).collect::<String>());
    client.messages(200).await;
    pushward.stalled().await;
    lost(&pushward, client, "alice@localhost/phone").await;
    server.send(all[200..].iter().map(|body| message(body)).collect::<String>());
    let (mut client, _) = resumed(&pushward, &enabled, 50).await;
    assert_eq!(bodies(&client.messages(250).await), all[50..]);
    client.ack().await;
    pushward.end(Fault::Stall);
    server.send(message("behind"));
    assert_eq!(bodies(&client.messages(1).await), ["behind"]);
    client.roundtrip().await;
}

/// The deadlines of a login are those of its peers: the store has its own, of a minute.
#[tokio::test]
async fn a_login_waits_for_a_stalled_disk_and_succeeds_once_it_works() {
    let settings = |setup: Setup| {
        setup
            .with_faults()
            .set("stream_management.spool_after", "'0s'")
            .set("limits.server_timeout", "'1s'")
            .set("limits.authentication_timeout", "'1s'")
    };
    let mut scene = Scene::with(StubOptions::default(), settings).await;
    scene.client.acks = false;
    let mut desk = scene.pushward.authenticated("alice").await;
    let desk_server = scene.stub.connection().await;
    scene.pushward.begin(Fault::Stall);
    scene.server.send(message("to be stored"));
    scene.pushward.stalled().await;
    // The answer is the server's; the session begins behind it.
    assert_eq!(desk.bind("desk").await, "alice@localhost/desk");
    desk.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>").await;
    // Longer than both deadlines.
    let (early, open) = desk.until_quiet_or_closed(Duration::from_millis(2500)).await;
    assert!(open && early.is_empty(), "{early:?}");
    scene.pushward.end(Fault::Stall);
    assert!(desk.next().await.starts_with("<enabled "));
    desk.roundtrip().await;
    desk_server.send(message("for the desk").replace("/phone", "/desk"));
    assert_eq!(bodies(&desk.messages(1).await), ["for the desk"]);
}
