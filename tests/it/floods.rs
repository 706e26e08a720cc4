//! Peers that send without limit and read nothing, or read slowly. Their cost is bounded, and they delay nobody else.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::hostile::memory;
use crate::support::{Client, PATIENCE, Pushward, Scene, Setup, StubOptions, StubUpstream, bodies, message};

/// The maximum growth of memory in a flood, in KiB.
const GROWTH: u64 = 32 << 10;

const MB: usize = 1_000_000;

const ASK: &str = "<r xmlns='urn:xmpp:sm:3'/>";

/// Floods the proxy, and fails if its memory grows by more than [`GROWTH`]. Returns the number of bytes that were
/// accepted.
async fn flood(pushward: &Pushward, client: &mut Client, stanza: &str, total: usize) -> usize {
    let (process, begun) = (pushward.process(), Instant::now());
    let before = memory(process);
    let mut most = before;
    let stanzas = stanza.repeat(60_000 / stanza.len() + 1);
    let sent = client.pour(&stanzas, total, || most = most.max(memory(process))).await;
    println!("{sent} bytes in {:?}, {before} KiB before, {most} KiB at most", begun.elapsed());
    assert!(most - before < GROWTH, "{} KiB more for {sent} bytes", most - before);
    sent
}

async fn opened(pushward: &Pushward) -> Client {
    let mut client = pushward.connect().await;
    client.open().await;
    client
}

fn iq_auth(id: usize) -> String {
    format!("<iq type='set' id='{id}'><query xmlns='jabber:iq:auth'><username>a</username></query></iq>")
}

#[tokio::test]
async fn an_endless_iq_auth_before_login_is_bounded() {
    let stub = StubUpstream::start(StubOptions::default()).await;
    let pushward = Pushward::start(Setup::new(stub.address)).await;
    let mut client = opened(&pushward).await;
    flood(&pushward, &mut client, &iq_auth(1), 150 * MB).await;
    pushward.login("bob", "desk").await.roundtrip().await;
}

#[tokio::test]
async fn endless_registrations_to_a_slow_server_are_bounded() {
    let stub = StubUpstream::start(StubOptions { reads: 10_000, ..StubOptions::default() }).await;
    let pushward = Pushward::start(Setup::new(stub.address)).await;
    let mut client = opened(&pushward).await;
    let register = format!(
        "<iq type='set' id='r'><query xmlns='jabber:iq:register'><username>{}</username></query></iq>",
        "x".repeat(1000)
    );
    flood(&pushward, &mut client, &register, 150 * MB).await;
}

#[tokio::test]
async fn a_connection_may_send_at_most_64_elements_before_login() {
    let stub = StubUpstream::start(StubOptions::default()).await;
    let pushward = Pushward::start(Setup::new(stub.address)).await;
    let mut direct = opened(&pushward).await;
    // `<starttls/>` is one of the stanzas.
    let mut upgraded = Client::starttls(pushward.starttls, &pushward.tls()).await;
    upgraded.open().await;
    for (client, left) in [(&mut direct, 64), (&mut upgraded, 63)] {
        for id in 1..=left {
            client.send(iq_auth(id)).await;
            client.send(" \n").await;
            client.expect(&format!("id='{id}'")).await;
        }
        client.send(iq_auth(100)).await;
        let ending = client.closed(PATIENCE).await.concat();
        assert!(ending.contains("<policy-violation "), "{ending}");
    }
}

#[tokio::test]
async fn endless_refused_nonzas_are_bounded() {
    let Scene { stub: _stub, pushward, mut client, server: _server, .. } = Scene::new().await;
    let sent = flood(&pushward, &mut client, "<x xmlns='urn:xmpp:sm:3'/>", 60 * MB).await;
    assert!(sent < 60 * MB, "a client that reads nothing is not read for ever");
}

#[tokio::test]
async fn endless_requests_that_pushward_answers_are_bounded() {
    let Scene { stub: _stub, pushward, mut client, server: _server, .. } = Scene::new().await;
    let request = "<iq type='set' id='1'><enable xmlns='urn:xmpp:push:0'/></iq>";
    let sent = flood(&pushward, &mut client, request, 60 * MB).await;
    assert!(sent < 60 * MB, "a client that reads nothing is not read for ever");
}

#[tokio::test]
async fn endless_ack_requests_are_bounded_and_share_one_answer() {
    let Scene { stub: _stub, pushward, mut client, server: _server, .. } = Scene::new().await;
    let sent = flood(&pushward, &mut client, ASK, 10 * MB).await;
    assert!(sent >= 10 * MB, "they cost nothing, so they are read");
    client.send("<message to='bob@localhost'/>").await;
    client.acked_up_to(1).await;
    // The kernel buffers some megabytes of them before they wait in the proxy.
    assert!(client.acked.len() < sent / ASK.len() / 3, "{} answers", client.acked.len());
}

#[tokio::test]
async fn stanzas_of_a_client_with_a_slow_line_and_a_long_backlog_are_relayed_at_once() {
    let patient = |setup: Setup| setup.set("stream_management.write_timeout", "'10m'");
    let Scene { stub: _stub, pushward: _pushward, mut client, mut server, .. } =
        Scene::with(StubOptions::default(), patient).await;
    let body = "x".repeat(100_000);
    // More than the kernel buffers.
    for n in 1..=200 {
        server.send(message(&format!("{n} {body}")));
    }
    for n in 1..=3 {
        let begun = Instant::now();
        client.send(format!("<a xmlns='urn:xmpp:sm:3' h='0'/><message to='bob@localhost' id='up{n}'/>")).await;
        server.expect(&format!("'up{n}'")).await;
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    }
    let bodies = bodies(&client.messages(200).await);
    assert!(bodies.iter().enumerate().all(|(n, body)| body.starts_with(&format!("{} ", n + 1))));
}

/// Returns a message for another user, large enough that a few fill the kernel's buffers.
fn large(id: usize) -> String {
    format!("<message to='bob@localhost' id='{id}'><body>{}</body></message>", "y".repeat(50_000))
}

#[tokio::test]
async fn a_server_that_reads_slowly_delivers_at_once_and_unread_bytes_start_no_deadline() {
    let quick = |setup: Setup| {
        setup.set("stream_management.max_ack_delay", "'1s'").set("stream_management.ack_timeout", "'1s'")
    };
    let Scene { stub: _stub, pushward, mut client, server, .. } = Scene::with(StubOptions::default(), quick).await;
    server.read_slowly(10_000);
    let sent = client.pour(&large(1), 40 * MB, || {}).await;
    assert!(sent < 40 * MB, "it is not read");
    let mut waited = 0;
    for n in 1..=8 {
        let begun = Instant::now();
        server.send(message(&format!("down {n}")));
        // The client's acknowledgement waits behind everything that it has sent.
        assert_eq!(bodies(&client.messages(1).await), [format!("down {n}")]);
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        waited += client.live_for(Duration::from_millis(500)).await.len();
    }
    assert_eq!(waited, 0);
    let dark = pushward.log().into_iter().find(|line| line.contains("(dark)") || line.contains("suspect"));
    assert_eq!(dark, None);
}

#[tokio::test]
async fn a_client_that_writes_five_megabytes_before_it_reads_loses_nothing() {
    const MESSAGES: usize = 10_000;
    let Scene { stub: _stub, pushward, mut client, mut server, .. } =
        Scene::with(StubOptions::managed(), |setup| setup).await;
    let body = "z".repeat(430);
    let before = memory(pushward.process());
    for chunk in (0..MESSAGES).collect::<Vec<_>>().chunks(100) {
        let stanzas =
            chunk.iter().map(|n| format!("<message to='b@localhost' id='n{n}'><body>{body}</body></message>{ASK}"));
        client.send(stanzas.collect::<String>()).await;
    }
    for n in 0..MESSAGES {
        let element = server.next().await;
        assert!(element.contains(&format!("id='n{n}'")), "{n}: {element}");
    }
    client.ack_reaches(u32::try_from(MESSAGES).unwrap()).await;
    assert!(memory(pushward.process()) - before < GROWTH);
    assert!(client.acked.len() < MESSAGES, "most are answered together");
    client.roundtrip().await;
}

#[tokio::test]
async fn a_server_that_falls_silent_during_login_is_closed_within_its_timeout() {
    let auth = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGFsaWNlAHNlY3JldA==</auth>";
    let bind = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";
    for (ignores, authenticated, sends) in
        [(&["<?xml", "<stream"][..], false, ""), (&["<auth"], false, auth), (&["<iq"], true, bind)]
    {
        let stub = StubUpstream::start(StubOptions { ignores, ..StubOptions::default() }).await;
        let pushward = Pushward::start(Setup::new(stub.address).set("limits.server_timeout", "'700ms'")).await;
        let mut client = match authenticated {
            true => pushward.authenticated("alice").await,
            false => pushward.connect().await,
        };
        if ignores[0] == "<?xml" {
            client.send(crate::support::HEADER).await;
        } else if !authenticated {
            client.open().await;
        }
        // The server has no reason to answer while the client is silent.
        if !sends.is_empty() {
            assert!(client.until_quiet_or_closed(Duration::from_millis(1500)).await.1, "{ignores:?}: closed");
        }
        let begun = Instant::now();
        client.send(sends).await;
        let ending = client.closed(PATIENCE).await.concat();
        assert!(ending.contains("<remote-connection-failed "), "{ignores:?}: {ending}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{ignores:?}: {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn the_client_of_a_server_that_stops_reading_is_closed_in_time() {
    let quick = |setup: Setup| setup.set("stream_management.write_timeout", "'2s'");
    let Scene { stub: _stub, pushward: _pushward, mut client, server, .. } =
        Scene::with(StubOptions::default(), quick).await;
    server.read_slowly(0);
    let begun = Instant::now();
    client.pour(&large(1), 80 * MB, || {}).await;
    client.closed(PATIENCE).await;
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn probes_are_answered_while_a_thousand_connections_do_nothing() {
    let stub = StubUpstream::start(StubOptions::default()).await;
    let pushward = Pushward::start(Setup::new(stub.address).with_metrics()).await;
    let line: Value = serde_json::from_str(&pushward.logged(&["admin page and metrics served"]).await).unwrap();
    let address = line["address"].as_str().unwrap();
    let mut idle = Vec::new();
    for _ in 0..1000 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    let begun = Instant::now();
    for path in ["healthz", "readyz"] {
        let mut probe = TcpStream::connect(address).await.unwrap();
        probe.write_all(format!("GET /{path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, probe.read_to_string(&mut answer)).await.expect("an answer in time").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}
