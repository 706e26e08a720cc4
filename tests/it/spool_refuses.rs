//! The limits of the spool: which sessions a full spool affects, what happens to stanzas that fit neither on disk nor
//! in memory, and how the session resumes writing to the spool.

use std::time::{Duration, Instant};

use crate::support::{
    Element, PATIENCE, Pushward, Scene, Setup, StubConnection, StubOptions, another, bodies, fresh, lost, message,
    numbered, resumed,
};

const UNSAVED: &str = "pushward_unsaved_stanzas";
const RETURNED: &str = "pushward_stanzas_returned_total";
const LOST: &str = "pushward_stanzas_lost_total";
const SPOOLED: &str = "pushward_spool_stanzas";

/// Enables metrics, and hands stanzas that the server does not keep to the spool without delay.
fn eager(setup: Setup) -> Setup {
    setup.with_metrics().set("stream_management.spool_after", "'0s'")
}

/// The same with little memory for a session, and a small spool.
fn narrow(setup: Setup) -> Setup {
    let keys = ["unauthenticated_stanza", "stanza", "session_queue", "spool_per_session"];
    keys.into_iter().fold(eager(setup), |setup, key| setup.set(&format!("limits.{key}"), "'16 KiB'"))
}

/// Returns numbered bodies of about this many bytes.
fn padded(name: &str, count: usize, bytes: usize) -> Vec<String> {
    numbered(name, 1..=count).into_iter().map(|body| format!("{body} {}", "x".repeat(bytes))).collect()
}

/// Returns a message for a session of that user.
fn to(user: &str, resource: &str, body: &str) -> String {
    format!(
        "<message type='chat' from='eve@localhost/desk' to='{user}@localhost/{resource}'><body>{body}</body></message>"
    )
}

fn send(server: &StubConnection, user: &str, resource: &str, bodies: &[String]) {
    server.send(bodies.iter().map(|body| to(user, resource, body)).collect::<String>());
}

/// Waits until a dark session has processed everything that its server has sent so far. Returns what the server
/// received meanwhile.
async fn looked_at(server: &mut StubConnection) -> Vec<String> {
    server.send("<iq type='get' id='behind'><ping xmlns='urn:xmpp:ping'/></iq>");
    let mut seen = vec![server.next().await];
    while seen.last().is_none_or(|xml| !xml.contains("'behind'")) {
        seen.push(server.next().await);
    }
    seen
}

#[tokio::test]
async fn an_account_that_fills_its_spool_is_refused_and_another_one_is_not() {
    let settings = |setup: Setup| eager(setup).set("limits.spool_per_account", "'64 KiB'");
    let mut scene = Scene::with(StubOptions::default(), settings).await;
    let mut bob = scene.pushward.login("bob", "phone").await;
    let bob_server = scene.stub.fresh().await;
    bob.enable().await;
    lost(&scene.pushward, scene.client, "alice@localhost/phone").await;
    lost(&scene.pushward, bob, "bob@localhost/phone").await;
    let of_alice = padded("alice", 20, 8000);
    // First almost full, then refused.
    send(&scene.server, "alice", "phone", &of_alice[..7]);
    scene.pushward.metric_is(SPOOLED, |stanzas| stanzas == 7).await;
    send(&scene.server, "alice", "phone", &of_alice[7..]);
    scene.pushward.logged(&["spool failed", "alice@localhost/phone"]).await;
    let answers = looked_at(&mut scene.server).await;
    assert_eq!(answers.len(), 1, "memory has room for what the spool refuses: {answers:?}");
    assert!(scene.pushward.metric(UNSAVED).await > 0);
    assert!(scene.pushward.metric("pushward_unsaved_bytes").await > 64 << 10);
    assert!(scene.pushward.reached("spool_per_account").await > 0);

    let before = scene.pushward.metric(SPOOLED).await;
    let of_bob = padded("bob", 5, 8000);
    send(&bob_server, "bob", "phone", &of_bob);
    scene.pushward.metric_is(SPOOLED, |stanzas| stanzas == before + 5).await;
    let refused = |line: &String| line.contains("spool failed") && line.contains("bob@localhost");
    assert!(!scene.pushward.log().iter().any(refused), "{:?}", scene.pushward.log());

    let (mut client, _) = resumed(&scene.pushward, &scene.enabled, 0).await;
    assert_eq!(bodies(&client.messages(20).await), of_alice);
    // Stanzas on disk outlive the process.
    scene.pushward.kill();
    scene.pushward.start_again().await;
    let mut bob = scene.pushward.authenticated("bob").await;
    bob.bind("phone").await;
    bob.enable().await;
    bob.send("<presence/>").await;
    assert_eq!(bodies(&bob.messages(5).await), of_bob);
}

async fn nothing_was_given_up(pushward: &Pushward) {
    for name in [RETURNED, LOST] {
        assert_eq!(pushward.metric(name).await, 0, "{name}");
    }
}

#[tokio::test]
async fn a_live_client_whose_spool_refuses_keeps_its_session_and_its_server_waits() {
    let mut scene = Scene::with(StubOptions::default(), narrow).await;
    scene.client.acks = false;
    let all = padded("live", 60, 2000);
    send(&scene.server, "alice", "phone", &all);
    scene.pushward.logged(&["spool failed", "alice@localhost/phone"]).await;
    let unsaved = scene.pushward.metric_is(UNSAVED, |stanzas| stanzas > 0).await;
    let bytes = scene.pushward.metric("pushward_unsaved_bytes").await;
    assert!(bytes >= unsaved * 2000, "{unsaved} stanzas, {bytes} bytes");
    let mut came = bodies(&scene.client.until_quiet(Duration::from_millis(300)).await);
    assert!(!came.is_empty() && came.len() < 60, "{} of 60 came without an acknowledgement", came.len());
    scene.server.assert_open();
    while came.len() < 60 {
        scene.client.ack().await;
        came.extend(bodies(&scene.client.messages(1).await));
    }
    assert_eq!(came, all);
    scene.client.ack().await;
    scene.pushward.logged(&["spool recovered", "alice@localhost/phone"]).await;
    scene.pushward.metric_is(UNSAVED, |stanzas| stanzas == 0).await;
    assert_eq!(scene.pushward.metric("pushward_unsaved_bytes").await, 0);
    nothing_was_given_up(&scene.pushward).await;
    scene.server.assert_open();
    scene.client.roundtrip().await;
}

#[tokio::test]
async fn a_live_client_whose_spool_refuses_is_lost_and_gets_all_of_it_again() {
    let settings = |setup: Setup| eager(setup).set("limits.spool_per_session", "'16 KiB'");
    let mut scene = Scene::with(StubOptions::default(), settings).await;
    scene.client.acks = false;
    let all = padded("live", 60, 2000);
    send(&scene.server, "alice", "phone", &all);
    assert_eq!(bodies(&scene.client.messages(60).await), all);
    scene.pushward.logged(&["spool failed", "alice@localhost/phone"]).await;
    scene.pushward.metric_is(UNSAVED, |stanzas| stanzas > 40).await;
    lost(&scene.pushward, scene.client, "alice@localhost/phone").await;
    let (mut client, _) = resumed(&scene.pushward, &scene.enabled, 10).await;
    assert_eq!(bodies(&client.messages(50).await), all[10..]);
    client.ack().await;
    scene.pushward.metric_is(UNSAVED, |stanzas| stanzas == 0).await;
    nothing_was_given_up(&scene.pushward).await;
    scene.server.assert_open();
}

/// The kinds of stanzas that are returned to their senders, and those that must not be answered.
const ANSWERED: [&str; 4] = ["chat", "plain", "bare", "iq"];
const UNANSWERED: [&str; 4] = ["error", "groupchat", "headline", "own"];

/// Returns a stanza of that kind, with its number as id.
fn of_kind(kind: &str, number: usize) -> String {
    let rest = format!("id='{kind} {number}'><body>{kind} {number}</body><p>{}</p></message>", "x".repeat(400));
    let bob = "from='bob@localhost/desk' to='alice@localhost/phone'";
    match kind {
        "plain" => format!("<message {bob} {rest}"),
        "bare" => format!("<message type='normal' from='bob@localhost/desk' to='alice@localhost' {rest}"),
        "iq" => format!("<iq type='get' {bob} id='iq {number}'><q xmlns='urn:test'>{}</q></iq>", "x".repeat(400)),
        "own" => format!("<message type='chat' from='alice@localhost/desk' to='alice@localhost/phone' {rest}"),
        other => format!("<message type='{other}' {bob} {rest}"),
    }
}

/// Returns the ids of stanzas that were returned to their senders, from what a server received.
fn ids_of_errors(elements: &[String]) -> Vec<String> {
    let errors = elements.iter().filter(|xml| xml.contains("<resource-constraint")).map(|xml| {
        let error = Element::parse(xml);
        let cause = error.child("error").unwrap();
        assert_eq!((error.attribute("type"), cause.attribute("type")), (Some("error"), Some("wait")), "{xml}");
        assert_eq!(error.attribute("to"), Some("bob@localhost/desk"), "{xml}");
        error.attribute("id").unwrap().to_owned()
    });
    errors.collect()
}

fn ids(elements: &[String]) -> Vec<String> {
    let stanzas = elements.iter().filter(|xml| xml.starts_with("<message") || xml.starts_with("<iq"));
    stanzas.map(|xml| Element::parse(xml).attribute("id").unwrap().to_owned()).collect()
}

#[tokio::test]
async fn stanzas_that_a_dark_session_cannot_keep_are_returned_if_allowed_and_counted() {
    let mut scene = Scene::with(StubOptions::default(), narrow).await;
    lost(&scene.pushward, scene.client, "alice@localhost/phone").await;
    let kinds = || ANSWERED.into_iter().chain(UNANSWERED);
    let all: Vec<_> = (1..=20).flat_map(|number| kinds().map(move |kind| (kind, number))).collect();
    scene.server.send(all.iter().map(|(kind, number)| of_kind(kind, *number)).collect::<String>());
    let names: Vec<_> = all.iter().map(|(kind, number)| format!("{kind} {number}")).collect();
    scene.pushward.logged(&["spool failed", "alice@localhost/phone"]).await;
    let answers = looked_at(&mut scene.server).await;
    let returned = ids_of_errors(&answers);
    let (mut client, _) = resumed(&scene.pushward, &scene.enabled, 0).await;
    let kept = ids(&client.until_quiet(Duration::from_secs(1)).await);

    // The oldest stanzas that are not on disk are given up. What remains is a first part that is on disk, and the
    // newest.
    let first = names.iter().zip(&kept).take_while(|(sent, kept)| sent == kept).count();
    let newest = kept.len() - first;
    assert_eq!(kept[first..], names[names.len() - newest..], "{kept:?}");
    assert!(newest > 5, "memory keeps what it has room for: {kept:?}");
    let given_up = &names[first..names.len() - newest];
    assert!(given_up.len() > 80, "{kept:?}");
    let may_return = |name: &&String| ANSWERED.contains(&name.split(' ').next().unwrap());
    let expected: Vec<_> = given_up.iter().filter(may_return).cloned().collect();
    assert_eq!(returned, expected);
    let lost = given_up.len() - returned.len();
    assert_eq!(scene.pushward.metric(RETURNED).await, returned.len() as u64);
    assert_eq!(scene.pushward.metric(LOST).await, lost as u64);
    scene.server.assert_open();

    // None of them is answered again when the session ends.
    client.send("</stream:stream>").await;
    client.closed(PATIENCE).await;
    scene.server.footer(PATIENCE).await;
    let later = ids_of_errors(&scene.server.rest());
    assert!(later.is_empty(), "{later:?}");
}

#[tokio::test]
async fn with_server_stream_management_a_dark_session_keeps_at_most_250_stanzas_in_memory_only() {
    let settings = |setup: Setup| eager(setup).set("limits.spool_per_session", "'16 KiB'");
    let mut scene = Scene::with(StubOptions::managed(), settings).await;
    lost(&scene.pushward, scene.client, "alice@localhost/phone").await;
    let all = numbered("message", 1..=600);
    scene.server.send(all.iter().map(|body| message(body)).collect::<String>());
    scene.pushward.logged(&["spool failed", "alice@localhost/phone"]).await;
    let acked = scene.server.acked(350, PATIENCE).await;
    assert_eq!(acked, 350, "the server keeps 250");
    let returned = scene.pushward.metric_is(RETURNED, |returned| returned > 0).await;
    let unsaved = scene.pushward.metric_is(UNSAVED, |stanzas| stanzas == 250).await;
    assert_eq!(scene.pushward.metric(LOST).await, 0);
    let on_disk = 600 - returned - unsaved;
    let gone = ids_of_errors(&scene.server.rest());
    assert_eq!(gone.len() as u64, returned);
    let (mut client, _) = resumed(&scene.pushward, &scene.enabled, 0).await;
    let kept = ids(&client.until_quiet(Duration::from_secs(1)).await);
    let on_disk = usize::try_from(on_disk).unwrap();
    assert_eq!(kept, [&all[..on_disk], &all[350..]].concat());
    assert_eq!(gone, all[on_disk..350]);
    scene.server.assert_open();
}

async fn spooled_again(pushward: &Pushward, stanzas: u64) {
    pushward.logged(&["spool recovered", "alice@localhost/desk"]).await;
    pushward.metric_is(UNSAVED, |unsaved| unsaved == 0).await;
    pushward.metric_is(SPOOLED, |spooled| spooled == stanzas).await;
}

#[tokio::test]
async fn a_session_writes_to_the_spool_again_soon_after_there_is_room() {
    let settings = |setup: Setup| eager(setup).set("limits.spool_per_account", "'64 KiB'");
    let mut scene = Scene::with(StubOptions::default(), settings).await;
    let (desk, desk_server) = another(&scene.pushward, &mut scene.stub, "desk").await;
    lost(&scene.pushward, scene.client, "alice@localhost/phone").await;
    lost(&scene.pushward, desk, "alice@localhost/desk").await;
    let (phones, desks) = (padded("phone", 10, 4000), padded("desk", 10, 4000));
    send(&scene.server, "alice", "phone", &phones);
    scene.pushward.metric_is(SPOOLED, |stanzas| stanzas == 10).await;
    send(&desk_server, "alice", "desk", &desks);
    scene.pushward.logged(&["spool failed", "alice@localhost/desk"]).await;
    scene.pushward.metric_is(UNSAVED, |stanzas| stanzas > 0).await;

    let (mut phone, _) = resumed(&scene.pushward, &scene.enabled, 0).await;
    assert_eq!(bodies(&phone.messages(10).await), phones);
    phone.ack().await;
    let room = Instant::now();
    spooled_again(&scene.pushward, 10).await;
    assert!(room.elapsed() < Duration::from_secs(9), "{:?}", room.elapsed());
    nothing_was_given_up(&scene.pushward).await;
    // Stanzas on disk outlive the process.
    scene.pushward.kill();
    scene.pushward.start_again().await;
    let mut desk = scene.pushward.authenticated("alice").await;
    fresh(&mut desk, "desk").await;
    assert_eq!(bodies(&desk.messages(10).await), desks);
}
