//! A disk that stalls or fails: memory stays bounded, connected clients continue, and nothing is lost or comes twice.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::admin::{ask, http, page};
use crate::hostile::memory;
use crate::support::{
    Client, Fault, PATIENCE, Pushward, Scene, Setup, StubConnection, StubOptions, StubUpstream, another, bodies, fresh,
    lost, message, numbered, resumed,
};

const UNSAVED: &str = "pushward_unsaved_stanzas";
const SPOOLED: &str = "pushward_spool_stanzas";
/// Maximum time after which the spool is used again once the disk works. It is tried every five seconds.
const HEALED: Duration = Duration::from_secs(9);

/// The maximum growth of memory in a stall, in KiB.
const GROWTH: u64 = 32 << 10;

/// Sets each stanza to be handed to the store as soon as it comes.
fn faulty(setup: Setup) -> Setup {
    setup.with_faults().with_metrics().set("stream_management.spool_after", "'0s'")
}

/// Only the amount counts: no timeout of the session runs while the store is late, so the stall lasts as long as the
/// delivery takes.
#[tokio::test]
async fn a_stalled_disk_neither_fills_memory_nor_stops_a_client_that_acknowledges() {
    const ROUNDS: usize = 64;
    const EACH: usize = 250;
    let Scene { stub: _stub, pushward, mut client, server, .. } = Scene::with(StubOptions::default(), faulty).await;
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
async fn stanzas_queued_for_a_stalled_disk_are_delivered_once_when_the_client_is_back() {
    let Scene { stub: _stub, pushward, mut client, server, enabled } =
        Scene::with(StubOptions::default(), faulty).await;
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

/// A login reads the account as its other sessions and the disk have it, and does not wait behind a write that stalls.
#[tokio::test]
async fn a_login_succeeds_while_the_disk_stalls_and_is_stored_once_it_works() {
    let settings =
        |setup: Setup| faulty(setup).set("limits.server_timeout", "'1s'").set("limits.authentication_timeout", "'1s'");
    let mut scene = Scene::with(StubOptions::default(), settings).await;
    scene.client.acks = false;
    let mut desk = scene.pushward.authenticated("alice").await;
    let desk_server = scene.stub.connection().await;
    scene.pushward.begin(Fault::Stall);
    scene.server.send(message("to be stored"));
    scene.pushward.stalled().await;
    assert_eq!(desk.bind("desk").await, "alice@localhost/desk");
    desk.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>").await;
    assert!(desk.next().await.starts_with("<enabled "));
    desk_server.send(message("while it stalls").replace("/phone", "/desk"));
    assert_eq!(bodies(&desk.messages(1).await), ["while it stalls"]);
    // Longer than both deadlines.
    let (early, open) = desk.until_quiet_or_closed(Duration::from_millis(2500)).await;
    assert!(open && early.iter().all(|element| element.starts_with("<r ")), "{early:?}");
    scene.pushward.end(Fault::Stall);
    desk.roundtrip().await;
    desk_server.send(message("for the desk").replace("/phone", "/desk"));
    assert_eq!(bodies(&desk.messages(1).await), ["for the desk"]);
}

/// Kills the process, starts it again, and returns what alice's phone receives until `count` messages have come.
async fn after_a_kill(pushward: &mut Pushward, count: usize) -> (Client, Vec<String>) {
    pushward.kill();
    pushward.start_again().await;
    let mut client = pushward.authenticated("alice").await;
    fresh(&mut client, "phone").await;
    let came = bodies(&client.messages(count).await);
    (client, came)
}

#[tokio::test]
async fn while_writes_fail_live_sessions_continue_and_dark_ones_keep_stanzas_in_memory() {
    let mut scene = Scene::with(StubOptions::default(), faulty).await;
    let (mut desk, desk_server) = another(&scene.pushward, &mut scene.stub, "desk").await;
    lost(&scene.pushward, scene.client, "alice@localhost/phone").await;
    let all = numbered("phone", 1..=23);
    scene.server.send(all[..3].iter().map(|body| message(body)).collect::<String>());
    scene.pushward.metric_is(SPOOLED, |stanzas| stanzas == 3).await;

    scene.pushward.begin(Fault::Writes);
    scene.server.send(all[3..].iter().map(|body| message(body)).collect::<String>());
    scene.pushward.logged(&["spool failed", "alice@localhost/phone"]).await;
    scene.pushward.metric_is(UNSAVED, |unsaved| unsaved == 20).await;
    for body in numbered("desk", 1..=5) {
        desk_server.send(message(&body).replace("/phone", "/desk"));
        assert_eq!(bodies(&desk.messages(1).await), [body]);
        desk.ack().await;
    }
    desk.roundtrip().await;
    // A login does not need a working store.
    let (mut tablet, tablet_server) = another(&scene.pushward, &mut scene.stub, "tablet").await;
    tablet_server.send(message("tablet").replace("/phone", "/tablet"));
    assert_eq!(bodies(&tablet.messages(1).await), ["tablet"]);

    scene.pushward.end(Fault::Writes);
    let healed = Instant::now();
    scene.pushward.logged(&["spool recovered", "alice@localhost/phone"]).await;
    scene.pushward.metric_is(UNSAVED, |unsaved| unsaved == 0).await;
    assert!(healed.elapsed() < HEALED, "{:?}", healed.elapsed());
    scene.server.assert_open();
    let (mut phone, came) = after_a_kill(&mut scene.pushward, 23).await;
    assert_eq!(came, all);
    assert_eq!(bodies(&phone.live_for(Duration::from_millis(500)).await), [] as [String; 0]);
}

#[tokio::test]
async fn a_client_that_resumes_while_the_disk_fails_gets_the_rest_once_it_works() {
    let narrow = |setup: Setup| {
        let keys = ["unauthenticated_stanza", "stanza", "session_queue"];
        keys.into_iter().fold(faulty(setup), |setup, key| setup.set(&format!("limits.{key}"), "'16 KiB'"))
    };
    let scene = Scene::with(StubOptions::managed(), narrow).await;
    lost(&scene.pushward, scene.client, "alice@localhost/phone").await;
    let padding = "x".repeat(2000);
    // Memory has room for three.
    let all: Vec<_> = (1..=43).map(|n| format!("{n} {padding}")).collect();
    scene.server.send(all[..40].iter().map(|body| message(body)).collect::<String>());
    scene.pushward.metric_is(SPOOLED, |stanzas| stanzas == 40).await;
    scene.pushward.begin(Fault::Writes);
    scene.server.send(all[40..].iter().map(|body| message(body)).collect::<String>());
    scene.pushward.logged(&["spool failed", "alice@localhost/phone"]).await;
    let (mut client, _) = resumed(&scene.pushward, &scene.enabled, 0).await;
    let mut came = bodies(&client.live_for(Duration::from_secs(1)).await);
    assert!(came.len() < 40, "the disk is still read");
    scene.pushward.end(Fault::Writes);
    came.extend(bodies(&client.messages(43 - came.len()).await));
    assert!(came == all, "all in order, each once");
    client.ack().await;
    assert_eq!(scene.server.acked(43, PATIENCE).await, 43);
    client.roundtrip().await;
    scene.server.assert_open();
}

/// After a failed sync the state of the disk is unknown, so nothing is stored until a restart. Sessions continue.
#[tokio::test]
async fn after_a_failed_sync_sessions_continue_in_memory_and_a_restart_repairs_the_store() {
    let mut scene = Scene::with(StubOptions::managed(), faulty).await;
    let (mut desk, desk_server) = another(&scene.pushward, &mut scene.stub, "desk").await;
    lost(&scene.pushward, scene.client, "alice@localhost/phone").await;
    scene.pushward.begin(Fault::Syncs);
    let all = numbered("phone", 1..=40);
    scene.server.send(all[..20].iter().map(|body| message(body)).collect::<String>());
    scene.pushward.logged(&["spool failed", "alice@localhost/phone"]).await;
    scene.pushward.logged(&["disk sync failed"]).await;
    scene.pushward.metric_is(UNSAVED, |unsaved| unsaved == 20).await;
    assert_eq!(scene.server.request_ack().await, 0, "the server keeps what no disk has");
    desk_server.send(message("desk").replace("/phone", "/desk"));
    assert_eq!(bodies(&desk.messages(1).await), ["desk"]);
    desk.roundtrip().await;

    scene.pushward.end(Fault::Syncs);
    let (mut client, _) = resumed(&scene.pushward, &scene.enabled, 0).await;
    assert_eq!(bodies(&client.messages(20).await), all[..20]);
    client.ack().await;
    assert_eq!(scene.server.acked(20, PATIENCE).await, 20);
    scene.pushward.metric_is(UNSAVED, |unsaved| unsaved == 0).await;

    // Stanzas that come for a dark session now stay with the server through the restart.
    lost(&scene.pushward, client, "alice@localhost/phone").await;
    scene.server.send(all[20..].iter().map(|body| message(body)).collect::<String>());
    scene.pushward.metric_is(UNSAVED, |unsaved| unsaved == 20).await;
    let (status, _) = scene.pushward.terminate(PATIENCE).await;
    assert!(status.success(), "{status}");
    assert_eq!(scene.server.seen().acks.last(), Some(&20), "{:?}", scene.server.seen());
    scene.pushward.start_again().await;

    // The server sends again what was not acknowledged. Now it is stored.
    let mut client = scene.pushward.authenticated("alice").await;
    fresh(&mut client, "phone").await;
    let server = scene.stub.fresh().await;
    server.managed().await;
    lost(&scene.pushward, client, "alice@localhost/phone").await;
    server.send(all[20..].iter().map(|body| message(body)).collect::<String>());
    server.acked(20, PATIENCE).await;
    // The state of the disk was unknown: if the first commit whose sync failed is that of the messages, it may be on
    // disk nevertheless, without the later acknowledgements. Then the messages come once more.
    let stored = scene.pushward.metric(SPOOLED).await;
    assert!([20, 40].contains(&stored), "{stored}");
    let came = after_a_kill(&mut scene.pushward, usize::try_from(stored).unwrap()).await.1;
    assert_eq!(came, all[40 - came.len()..]);
}

/// Returns the number of threads of the process.
fn threads(pushward: &Pushward) -> usize {
    std::fs::read_dir(format!("/proc/{}/task", pushward.process())).unwrap().count()
}

/// Leaves one stanza on disk and the next one on its way, while the disk no longer answers readers. Returns the page's
/// address.
async fn stalled_for_readers(scene: Scene) -> (SocketAddr, StubUpstream, Pushward, StubConnection) {
    let Scene { stub, pushward, client, server, .. } = scene;
    let page = page(&pushward).await;
    lost(&pushward, client, "alice@localhost/phone").await;
    server.send(message("stored"));
    pushward.metric_is(SPOOLED, |stanzas| stanzas == 1).await;
    pushward.begin(Fault::Stall);
    server.send(message("stalled"));
    pushward.stalled().await;
    let until = Instant::now() + PATIENCE;
    while http(page, "GET", "/readyz").await.0 != 503 {
        assert!(Instant::now() < until, "it stays ready");
    }
    (page, stub, pushward, server)
}

fn hasty(setup: Setup) -> Setup {
    faulty(setup).set("drain_timeout", "'2s'")
}

/// Regression test: a request took as long as the stall, and occupied a thread of its own for that time.
#[tokio::test]
async fn while_the_disk_stalls_the_operator_gets_the_last_known_numbers() {
    const WITHIN: Duration = Duration::from_secs(4);
    let scene = Scene::with(StubOptions::default(), hasty).await;
    let (page, _stub, pushward, _server) = stalled_for_readers(scene).await;
    let (before, begun) = (threads(&pushward), Instant::now());
    let mut scrapes = tokio::task::JoinSet::new();
    for path in ["/metrics", "/status.json", "/readyz", "/healthz"].repeat(25) {
        scrapes.spawn(async move { (path, http(page, "GET", path).await) });
    }
    while let Some(scrape) = scrapes.join_next().await {
        let (path, (status, _, body)) = scrape.unwrap();
        match path {
            "/readyz" => assert_eq!((status, body.trim()), (503, "database does not answer")),
            "/metrics" => assert!(body.contains(&format!("{SPOOLED} 1\n")), "{status} {body}"),
            "/status.json" => assert!(body.contains("\"spooled\":1"), "{status} {body}"),
            _ => assert_eq!(status, 200),
        }
    }
    let status = ask(&pushward, &["status", "--json"]).await.objects();
    assert_eq!(status[0]["spooled"], 1, "{status:?}");
    assert!(begun.elapsed() < WITHIN, "{:?}", begun.elapsed());
    let more = threads(&pushward).saturating_sub(before);
    assert!(more < 8, "{more} more threads");

    pushward.end(Fault::Stall);
    pushward.metric_is(SPOOLED, |stanzas| stanzas > 1).await;
    assert_eq!(http(page, "GET", "/readyz").await.0, 200);
    for line in ["database does not answer: showing its last", "database answers again"] {
        pushward.logged(&[line]).await;
    }
}

/// Regression test: the store's thread, and an operator's read that the disk did not answer, kept the process from
/// ending.
#[tokio::test]
async fn while_the_disk_stalls_the_process_ends_and_logs_what_was_not_written() {
    let scene = Scene::with(StubOptions::default(), hasty).await;
    let (_, _stub, mut pushward, _server) = stalled_for_readers(scene).await;
    let (status, took) = pushward.terminate(2 * PATIENCE).await;
    // The store has 5 s of its own.
    assert!(status.code() == Some(0) && took < Duration::from_secs(9), "{status} {took:?}");
    let line: Value = serde_json::from_str(&pushward.logged(&["some changes were not written"]).await).unwrap();
    assert!(line["changes"].as_u64().is_some_and(|changes| changes > 0), "{line}");
    // An alert on the log line of a stalled disk does not match this line.
    assert_eq!(
        (&line["message"], &line["reason"]),
        (&"stopped: some changes were not written".into(), &"database does not answer".into())
    );
    pushward.end(Fault::Stall);
    pushward.start_again().await;
}

#[tokio::test]
async fn a_process_whose_disk_stalls_at_the_start_ends_on_sigterm() {
    let mut scene = Scene::with(StubOptions::default(), faulty).await;
    scene.pushward.kill();
    scene.pushward.begin(Fault::Stall);
    let mut process = scene.pushward.starting();
    scene.pushward.stalled().await;
    let (status, took) = process.terminate(PATIENCE).await;
    assert!(status.success() && took < PATIENCE, "{status} {took:?}");
}
