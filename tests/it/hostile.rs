//! Hostile peers. They must not affect other clients.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::support::{
    PATIENCE, Pushward, QUIET, Scene, Setup, StubOptions, StubUpstream, bodies, enable_push, lost, message,
    raise_descriptors,
};

/// Returns the CPU time that a process has used, in ticks of 10 ms.
fn ticks(process: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Returns the memory of a process, in KiB.
pub(crate) fn memory(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Opens a connection from an address of this machine, and sends at most one byte.
async fn half_open(source: Ipv4Addr, address: SocketAddr, first: Option<u8>) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind((source, 0).into()).unwrap();
    let mut connection = socket.connect(address).await.unwrap();
    if let Some(byte) = first {
        connection.write_all(&[byte]).await.unwrap();
    }
    connection
}

/// Opens this many idle connections, 900 per address: a third has sent nothing, a third the beginning of a stream, a
/// third the beginning of a TLS handshake.
async fn flood(pushward: &Pushward, count: u32, from: u8) -> Vec<TcpStream> {
    let mut connections = Vec::new();
    for first in (0..count).step_by(100) {
        let mut some = JoinSet::new();
        for number in first..(first + 100).min(count) {
            let source = Ipv4Addr::new(127, 0, from, u8::try_from(2 + number / 900).unwrap());
            let (address, byte) = match number % 3 {
                0 => (pushward.starttls, None),
                1 => (pushward.starttls, Some(b'<')),
                _ => (pushward.direct, Some(0x16)),
            };
            some.spawn(half_open(source, address, byte));
        }
        connections.extend(some.join_all().await);
    }
    connections
}

#[tokio::test]
async fn ten_thousand_half_open_connections_stop_no_login_and_cost_no_cpu() {
    const FLOOD: u32 = 10_000;
    let stub = StubUpstream::start(StubOptions::default()).await;
    let setup = Setup::new(stub.address).with_metrics().set("limits.handshake_timeout", "'30m'");
    let pushward = Pushward::start(setup).await;
    let process = pushward.process();
    for process in [process, std::process::id()] {
        let descriptors = raise_descriptors(process);
        assert!(descriptors > 15_000, "{descriptors} descriptors; run the tests with: ulimit -Hn 20000");
    }
    let before = memory(process);
    let connections = flood(&pushward, FLOOD, 1).await;
    let here = async || pushward.metric("pushward_connections").await;
    let until = Instant::now() + 4 * PATIENCE;
    while here().await < u64::from(FLOOD) {
        assert!(Instant::now() < until, "only {} connections", here().await);
    }
    let each = (memory(process) - before) * 1024 / u64::from(FLOOD);
    println!("{each} bytes for each half-open connection");
    assert!(each < 16 * 1024, "{each} bytes for each half-open connection");

    let begun = Instant::now();
    let mut client = pushward.login("alice", "phone").await;
    client.roundtrip().await;
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());

    // Once the flood itself is processed, two seconds cost less than 2 % of a processor.
    let quiet = async |period| {
        let before = ticks(process);
        tokio::time::sleep(period).await;
        ticks(process) - before
    };
    let until = Instant::now() + PATIENCE;
    while quiet(Duration::from_millis(300)).await > 0 {
        assert!(Instant::now() < until, "never quiet");
    }
    let used = quiet(Duration::from_secs(2)).await;
    println!("{used} ticks of CPU in two seconds");
    assert!(used <= 4, "{used} ticks of CPU in two seconds");

    // Further connections of the same kind only displace each other.
    let more = flood(&pushward, 500, 2).await;
    pushward.login("bob", "desk").await.roundtrip().await;
    client.roundtrip().await;
    assert!(pushward.reached("unauthenticated").await >= 400);
    drop((connections, more));
    let until = Instant::now() + 2 * PATIENCE;
    while here().await > 1 {
        assert!(Instant::now() < until, "{} are still there", here().await);
    }
    client.roundtrip().await;
}

#[tokio::test]
async fn a_close_notify_right_after_the_handshake_does_not_affect_others() {
    let stub = StubUpstream::start(StubOptions::default()).await;
    let pushward = Pushward::start(Setup::new(stub.address).with_metrics()).await;
    let mut other = pushward.login("bob", "desk").await;
    let mut leaving = Vec::new();
    for _ in 0..50 {
        let mut client = pushward.connect().await;
        client.close_notify().await;
        leaving.push(client);
    }
    for client in &mut leaving {
        assert_eq!(client.closed(PATIENCE).await, [] as [&str; 0]);
    }
    let mut middle = pushward.connect().await;
    middle.open().await;
    middle.close_notify().await;
    middle.closed(PATIENCE).await;
    other.roundtrip().await;
    pushward.login("alice", "phone").await.roundtrip().await;
    assert!(pushward.log().iter().all(|line| !line.contains("panicked")));
}

#[tokio::test]
async fn a_client_lost_by_a_reset_is_detected_at_once_and_the_next_message_is_pushed() {
    // Far longer than this test, so that no timeout can reveal the loss.
    let patient = |setup: Setup| {
        let setup = setup.set("stream_management.max_ack_delay", "'1h'").set("stream_management.ack_timeout", "'1h'");
        setup.set("push.batch_delay", "'0s'").set("push.transports", "['session']")
    };
    let Scene { stub: _stub, pushward, mut client, mut server, .. } =
        Scene::with(StubOptions::default(), patient).await;
    enable_push(&mut client, "node").await;
    lost(&pushward, client, "alice@localhost/phone").await;
    server.send(message("missed"));
    let push = server.expect("urn:xmpp:push:0").await;
    assert!(push.contains("push.localhost"), "{push}");
}

#[tokio::test]
async fn whitespace_keeps_a_connection_open_and_does_not_count_as_a_stanza() {
    let eager = |setup: Setup| setup.with_metrics().set("limits.stanza_rate", "5");
    let Scene { stub: _stub, pushward, mut client, mut server, .. } = Scene::with(StubOptions::default(), eager).await;
    for _ in 0..100 {
        client.send(" ").await;
        client.send("\r\n").await;
    }
    client.send("<presence id='behind'/>").await;
    server.expect("behind").await;
    server.send(" \n ".repeat(100) + &message("behind"));
    assert_eq!(bodies(&client.messages(1).await), ["behind"]);
    client.acked_up_to(1).await;
    assert_eq!(pushward.reached("stanza_rate").await, 0);
    assert!(client.until_quiet_or_closed(QUIET).await.1, "the connection is closed");
    server.assert_open();
}

#[tokio::test]
async fn one_direction_that_blocks_does_not_stop_the_other() {
    let patient = |setup: Setup| setup.set("stream_management.write_timeout", "'10m'");
    let Scene { stub: _stub, pushward: _pushward, mut client, mut server, .. } =
        Scene::with(StubOptions::default(), patient).await;
    // The client reads nothing until all buffers are full. What it sends still arrives.
    let body = "x".repeat(100_000);
    for n in 1..=80 {
        server.send(message(&format!("{n} {body}")));
    }
    for n in 1..=20 {
        client.send(format!("<message to='bob@localhost' id='up{n}'/>")).await;
        server.expect(&format!("'up{n}'")).await;
    }
    // Then everything that was held up arrives.
    let bodies = bodies(&client.messages(80).await);
    assert!(bodies.iter().enumerate().all(|(n, body)| body.starts_with(&format!("{} ", n + 1))));
    client.roundtrip().await;
}

/// Logs many clients in, drops their connections, resumes their sessions, and closes them.
async fn round(pushward: &Arc<Pushward>, count: usize) {
    const AT_ONCE: usize = 25;
    let user = |number: usize| format!("user{number}");
    let mut clients = Vec::new();
    for first in (0..count).step_by(AT_ONCE) {
        let mut some = JoinSet::new();
        for number in first..(first + AT_ONCE).min(count) {
            let pushward = Arc::clone(pushward);
            some.spawn(async move {
                let mut client = pushward.login(&user(number), "phone").await;
                let enabled = client.enable().await;
                (number, client, enabled)
            });
        }
        clients.extend(some.join_all().await);
    }
    // All clients were connected at the same time.
    let mut enabled = Vec::new();
    for (number, client, id) in clients {
        client.reset();
        enabled.push((number, id));
    }
    for some in enabled.chunks(AT_ONCE) {
        let mut resuming = JoinSet::new();
        for (number, enabled) in some.iter().cloned() {
            let pushward = Arc::clone(pushward);
            resuming.spawn(async move {
                let mut client = pushward.authenticated(&user(number)).await;
                let answer = client.resume(&enabled.id, 0).await;
                assert_eq!(answer.name, "resumed", "{answer:?}");
                client.send("</stream:stream>").await;
                client.closed(PATIENCE).await;
            });
        }
        resuming.join_all().await;
    }
    let until = Instant::now() + PATIENCE;
    while pushward.metric("pushward_connections").await > 0 {
        assert!(Instant::now() < until, "some are still there");
    }
}

#[tokio::test]
async fn memory_does_not_grow_when_all_leave_and_come_back() {
    const CLIENTS: usize = 250;
    let stub = StubUpstream::start(StubOptions::default()).await;
    let pushward = Arc::new(Pushward::start(Setup::new(stub.address).with_metrics()).await);
    for process in [pushward.process(), std::process::id()] {
        raise_descriptors(process);
    }
    let mut after = Vec::new();
    for _ in 0..3 {
        let begun = Instant::now();
        round(&pushward, CLIENTS).await;
        after.push(memory(pushward.process()));
        println!("{CLIENTS} clients in {:?}, {} KiB after it", begun.elapsed(), after[after.len() - 1]);
    }
    assert!(after[2] <= after[0] + after[0] / 10, "KiB after each round: {after:?}");
}
