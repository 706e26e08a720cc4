//! Limits of the proxy: the answer at each limit, its metric, and its log line.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::support::{
    Client, HEADER, PASSWORD, PATIENCE, Prosody, Pushward, Scene, Setup, StubOptions, StubUpstream, another, bodies,
    enable_push, eventually, fresh, lost, message, numbered, plain, resumed,
};

async fn served(settings: impl FnOnce(Setup) -> Setup) -> (StubUpstream, Pushward) {
    let stub = StubUpstream::start(StubOptions::default()).await;
    let pushward = Pushward::start(settings(Setup::new(stub.address).with_metrics())).await;
    (stub, pushward)
}

/// Reads up to the end of a connection and checks the stream error.
async fn refused(client: &mut Client, condition: &str) -> String {
    let ending = client.closed(PATIENCE).await.concat();
    assert!(ending.contains(&format!("<{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>")), "{ending}");
    assert!(ending.ends_with("</stream:stream>"), "{ending}");
    ending
}

async fn logged(pushward: &Pushward, limit: &str) {
    pushward.logged(&["limit reached", &format!("\"{limit}\"")]).await;
}

#[tokio::test]
async fn connections_per_address_are_limited_and_other_addresses_are_not_affected() {
    let bounds = |setup: Setup| setup.set("limits.connections_per_address", "2");
    let (_stub, pushward) = served(bounds).await;
    let first = pushward.login("alice", "phone").await;
    let mut second = Client::plain(pushward.starttls).await;
    second.open().await;
    let mut third = Client::plain(pushward.starttls).await;
    third.try_send(HEADER).await;
    refused(&mut third, "policy-violation").await;
    assert_eq!(pushward.reached("connections_per_address").await, 1);
    logged(&pushward, "connections_per_address").await;
    Client::plain_from(Ipv4Addr::new(127, 0, 0, 2), pushward.starttls).await.open().await;
    // A client that has disconnected no longer counts, even while its session is held.
    first.reset();
    eventually(
        PATIENCE,
        || "the end of a connection".into(),
        || pushward.log().iter().any(|l| l.contains("session ended")).then_some(()),
    )
    .await;
    Client::plain(pushward.starttls).await.open().await;
}

#[tokio::test]
async fn a_held_session_does_not_count_as_a_connection_of_its_address() {
    let Scene { stub: _stub, pushward, client, server: _server, enabled } =
        Scene::with(StubOptions::default(), |setup| {
            setup
                .set("limits.connections_per_address", "1")
                .set("limits.connections", "1")
                .set("limits.unauthenticated", "1")
        })
        .await;
    lost(&pushward, client, "alice@localhost/phone").await;
    resumed(&pushward, &enabled, 0).await;
}

#[tokio::test]
async fn at_the_connection_limit_the_next_client_gets_an_error() {
    let bounds = |setup: Setup| setup.set("limits.connections", "2").set("limits.connections_per_address", "2");
    let (_stub, pushward) = served(bounds).await;
    let _first = pushward.login("alice", "phone").await;
    let _second = pushward.login("bob", "desk").await;
    let mut third = Client::plain_from(Ipv4Addr::new(127, 0, 0, 2), pushward.starttls).await;
    third.try_send(HEADER).await;
    refused(&mut third, "resource-constraint").await;
    assert_eq!(pushward.reached("connections").await, 1);
    logged(&pushward, "connections").await;
}

#[tokio::test]
async fn a_connection_that_does_not_log_in_makes_room_for_a_newer_one() {
    let (_stub, pushward) = served(|setup| setup.set("limits.unauthenticated", "2")).await;
    let mut opened = pushward.connect().await;
    opened.open().await;
    let mut silent = Client::plain(pushward.starttls).await;
    // The connection that has made the least progress is closed, without a stream error since it has opened no stream.
    let mut newer = Client::plain(pushward.starttls).await;
    assert_eq!(silent.closed(PATIENCE).await, [] as [&str; 0]);
    newer.open().await;
    let mut newest = pushward.connect().await;
    newest.open().await;
    assert_eq!(newer.closed(PATIENCE).await, [] as [&str; 0]);
    let _more = pushward.connect().await.open().await;
    refused(&mut opened, "resource-constraint").await;
    newest.authenticate("alice").await;
    // Authenticated clients do not count.
    let _crowd = [Client::plain(pushward.starttls).await, Client::plain(pushward.starttls).await];
    newest.open().await;
    assert_eq!(newest.bind("phone").await, "alice@localhost/phone");
    assert!(pushward.reached("unauthenticated").await >= 3);
    logged(&pushward, "unauthenticated").await;
}

#[tokio::test]
async fn connections_without_tls_or_login_in_time_are_closed() {
    let bounds =
        |setup: Setup| setup.set("limits.handshake_timeout", "'400ms'").set("limits.authentication_timeout", "'400ms'");
    let (_stub, pushward) = served(bounds).await;
    let mut silent = Client::plain(pushward.starttls).await;
    let mut opened = Client::plain(pushward.starttls).await;
    opened.open().await;
    silent.closed(PATIENCE).await;
    opened.closed(PATIENCE).await;
    let mut secure = pushward.connect().await;
    refused(&mut secure, "connection-timeout").await;
    assert_eq!(pushward.reached("handshake_timeout").await, 2);
    assert_eq!(pushward.reached("authentication_timeout").await, 1);
    logged(&pushward, "handshake_timeout").await;
    logged(&pushward, "authentication_timeout").await;
}

#[tokio::test]
async fn a_stanza_beyond_its_limit_is_too_big_before_and_after_the_login() {
    let bounds = |setup: Setup| setup.set("limits.stanza", "'32 KiB'").set("limits.depth", "20");
    let (_stub, pushward) = served(bounds).await;
    let too_big = "<stanza-too-big xmlns='urn:xmpp:errors'/>";
    let endless = |bytes: usize| format!("<message><body>{}", "x".repeat(bytes));
    let mut clear = Client::plain(pushward.starttls).await;
    clear.send(format!("{HEADER}{}", endless(17 << 10))).await;
    assert!(refused(&mut clear, "policy-violation").await.contains(too_big));
    let mut secure = pushward.connect().await;
    secure.open().await;
    secure.send(endless(17 << 10)).await;
    assert!(refused(&mut secure, "policy-violation").await.contains(too_big));
    let mut bound = pushward.login("alice", "phone").await;
    bound.send(endless(17 << 10)).await;
    bound.send("</body></message>").await;
    bound.roundtrip().await;
    bound.send(endless(33 << 10)).await;
    assert!(refused(&mut bound, "policy-violation").await.contains(too_big));
    let mut deep = pushward.login("alice", "desk").await;
    deep.send("<message>".to_owned() + &"<x>".repeat(21)).await;
    assert!(!refused(&mut deep, "policy-violation").await.contains("stanza-too-big"));
    let reached = [("unauthenticated_stanza", 2), ("stanza", 1), ("depth", 1)];
    for (limit, times) in reached {
        assert_eq!(pushward.reached(limit).await, times, "{limit}");
        logged(&pushward, limit).await;
    }
}

/// Tries to log in on an open stream and returns the answer.
async fn tries(client: &mut Client, password: &str) -> String {
    client.send(plain("alice", password)).await;
    client.next().await
}

#[tokio::test]
async fn failed_logins_lock_the_address_out() {
    let prosody = Prosody::start().await;
    let setup = Setup::new(prosody.address).with_metrics().set("limits.failed_logins_per_address", "2");
    let pushward = Pushward::start(setup).await;
    for _ in 0..2 {
        let mut guesser = pushward.connect().await;
        guesser.open().await;
        let answer = tries(&mut guesser, "wrong").await;
        assert!(answer.contains("<not-authorized"), "{answer}");
    }
    let fields = ["host\":\"localhost", "mechanism\":\"PLAIN", "condition\":\"not-authorized", "peer\":\"127.0.0.1:"];
    let line = pushward.logged(&[&["login failed: upstream server refused it"], &fields[..]].concat()).await;
    assert!(line.contains("\"level\":\"INFO\"") && !line.contains("alice"), "{line}");
    let mut guesser = pushward.connect().await;
    guesser.open().await;
    for _ in 0..3 {
        // The right password is refused like any other.
        let answer = tries(&mut guesser, PASSWORD).await;
        assert!(answer.contains("<temporary-auth-failure"), "{answer}");
    }
    guesser.send(plain("alice", PASSWORD)).await;
    refused(&mut guesser, "policy-violation").await;
    assert_eq!(pushward.reached("failed_logins_per_address").await, 4);
    logged(&pushward, "failed_logins_per_address").await;
    let elsewhere = Client::plain_from(Ipv4Addr::new(127, 0, 0, 2), pushward.direct).await;
    let mut elsewhere = elsewhere.handshake(&pushward.tls()).await;
    elsewhere.open().await;
    let answer = tries(&mut elsewhere, PASSWORD).await;
    assert!(answer.starts_with("<success"), "{answer}");
}

#[tokio::test]
async fn a_client_beyond_its_stanza_rate_is_read_more_slowly_and_loses_nothing() {
    let rate = |setup: Setup| setup.with_metrics().set("limits.stanza_rate", "20");
    let Scene { stub: _stub, pushward, mut client, mut server, .. } = Scene::with(StubOptions::default(), rate).await;
    let begun = Instant::now();
    let burst: String = (1..=100).map(|n| format!("<message to='bob@localhost' id='m{n}'/>")).collect();
    // White space and acknowledgements are not counted as stanzas.
    client.send(" ".repeat(500) + &burst).await;
    server.expect("'m30'").await;
    // The other direction is not affected.
    server.send(message("meanwhile"));
    assert_eq!(bodies(&client.messages(1).await), ["meanwhile"]);
    assert!(server.rest().iter().all(|stanza| !stanza.contains("'m100'")), "all came at once");
    let mut count = server.rest().len();
    let _last = loop {
        let stanza = server.next().await;
        count += 1;
        if stanza.contains("'m100'") {
            break stanza;
        }
    };
    // 40 may pass at once, and 20 per second from then on.
    assert!(begun.elapsed() >= Duration::from_millis(2900), "{count} in {:?}", begun.elapsed());
    assert!(pushward.reached("stanza_rate").await >= 1);
    assert_eq!(pushward.reached("bandwidth").await, 0);
    logged(&pushward, "stanza_rate").await;
    client.roundtrip().await;
}

#[tokio::test]
async fn a_client_beyond_its_bandwidth_is_read_more_slowly_and_loses_nothing() {
    let rate = |setup: Setup| setup.with_metrics().set("limits.bandwidth", "'20 KB'");
    let Scene { stub: _stub, pushward, mut client, mut server, .. } = Scene::with(StubOptions::default(), rate).await;
    let begun = Instant::now();
    for n in 1..=10 {
        let body = "x".repeat(10_000);
        client.send(format!("<message to='bob@localhost' id='m{n}'><body>{body}</body></message>")).await;
    }
    let stanzas: Vec<_> = [server.expect("'m1'").await, server.expect("'m10'").await].into();
    // 40 kB may pass at once, and 20 kB per second from then on. The last read may exceed the allowance.
    assert!(begun.elapsed() >= Duration::from_millis(1900), "{:?}", begun.elapsed());
    assert!(stanzas.iter().all(|stanza| stanza.len() > 10_000));
    assert!(pushward.reached("bandwidth").await >= 1);
    logged(&pushward, "bandwidth").await;
}

#[tokio::test]
async fn beyond_the_limit_of_held_sessions_the_oldest_ends_cleanly_and_its_messages_wait() {
    let bound = |setup: Setup| setup.with_metrics().set("limits.held_per_account", "2");
    let Scene { mut stub, pushward, client, server, .. } = Scene::with(StubOptions::default(), bound).await;
    lost(&pushward, client, "alice@localhost/phone").await;
    server.send(message("waits"));
    server.send("<iq type='get' id='behind'><ping xmlns='urn:xmpp:ping'/></iq>");
    let mut others = Vec::new();
    for resource in ["desk", "tablet"] {
        let (client, server) = another(&pushward, &mut stub, resource).await;
        lost(&pushward, client, &format!("alice@localhost/{resource}")).await;
        others.push(server);
    }
    server.footer(PATIENCE).await;
    pushward.logged(&["session ended", "\"reason\":\"crowded\"", "alice@localhost/phone"]).await;
    others.iter().for_each(|other| other.assert_open());
    assert_eq!(pushward.reached("held_per_account").await, 1);
    logged(&pushward, "held_per_account").await;
    let mut client = pushward.authenticated("alice").await;
    fresh(&mut client, "phone").await;
    assert_eq!(bodies(&client.messages(1).await), ["waits"]);
}

#[tokio::test]
async fn stanzas_beyond_the_memory_limits_wait_on_disk_and_are_all_delivered() {
    let all = |setup: Setup| setup.with_metrics().set("limits.queue_memory", "'20 KB'");
    let own = |setup: Setup| {
        let keys = ["limits.unauthenticated_stanza", "limits.stanza", "limits.session_queue"];
        keys.into_iter().fold(setup.with_metrics(), |setup, key| setup.set(key, "'16 KiB'"))
    };
    for (limit, settings) in [("queue_memory", all as fn(Setup) -> Setup), ("session_queue", own)] {
        let Scene { stub: _stub, pushward, client, server, enabled } =
            Scene::with(StubOptions::default(), settings).await;
        lost(&pushward, client, "alice@localhost/phone").await;
        let wanted = numbered("message", 1..=300);
        server.send(wanted.iter().map(|body| message(body)).collect::<String>());
        server.send("<iq type='get' id='behind'><ping xmlns='urn:xmpp:ping'/></iq>");
        let mut server = server;
        server.expect("behind").await;
        assert_eq!(pushward.reached(limit).await, 1, "{limit}");
        logged(&pushward, limit).await;
        let (mut client, _) = resumed(&pushward, &enabled, 0).await;
        assert_eq!(bodies(&client.messages(300).await), wanted, "{limit}");
        server.send(message("behind"));
        assert_eq!(bodies(&client.messages(1).await), ["behind"]);
    }
}

#[tokio::test]
async fn a_full_spool_is_counted_by_the_bound_that_it_reached() {
    for limit in ["spool_per_session", "spool_per_account"] {
        let bound = |setup: Setup| setup.with_metrics().set(&format!("limits.{limit}"), "'20 KB'");
        let Scene { stub: _stub, pushward, client, server, .. } = Scene::with(StubOptions::default(), bound).await;
        lost(&pushward, client, "alice@localhost/phone").await;
        server.send((1..=200).map(|n| message(&format!("message {n}"))).collect::<String>());
        pushward.logged(&["spool failed"]).await;
        assert!(pushward.reached(limit).await >= 1, "{limit}");
        logged(&pushward, limit).await;
        server.assert_open();
    }
}

/// One account may use an eighth of the spool. The ninth account finds the spool full, and no session ends.
#[tokio::test]
async fn one_account_cannot_fill_the_spool_that_all_accounts_share() {
    let bound = |setup: Setup| setup.with_metrics().set("limits.spool", "'80 KB'");
    let mut stub = StubUpstream::start(StubOptions::default()).await;
    let pushward = Pushward::start(bound(Setup::new(stub.address))).await;
    let mut servers = Vec::new();
    for number in 0..9 {
        let mut client = pushward.login(&format!("user-{number}"), "phone").await;
        let server = stub.session().await;
        client.enable().await;
        lost(&pushward, client, &format!("user-{number}@localhost/phone")).await;
        server.send((1..=60).map(|n| message(&format!("message {n}"))).collect::<String>());
        if number < 8 {
            let refused = async || pushward.reached("spool_per_account").await;
            let until = Instant::now() + PATIENCE;
            while refused().await <= number {
                assert!(Instant::now() < until, "user-{number} fills more than its part");
            }
            assert_eq!(pushward.reached("spool").await, 0, "user-{number}");
        }
        servers.push(server);
    }
    servers.iter().for_each(|server| server.assert_open());
}

#[tokio::test]
async fn each_event_of_a_flood_is_counted_and_few_are_logged() {
    let (_stub, pushward) = served(|setup| setup.set("limits.connections_per_address", "1")).await;
    let _first = Client::plain(pushward.starttls).await;
    for _ in 0..300 {
        Client::plain(pushward.starttls).await.closed(PATIENCE).await;
    }
    assert_eq!(pushward.reached("connections_per_address").await, 300);
    let log = pushward.log();
    let lines: Vec<_> = log.iter().filter(|line| line.contains("limit reached")).collect();
    assert!((1..20).contains(&lines.len()), "{lines:?}");
    assert!(lines.iter().all(|line| line.contains("\"suppressed\":") && line.contains("\"who\":\"127.")), "{lines:?}");
}

/// Regression test: each registration wrote a line, as fast as the disk could store it.
#[tokio::test]
async fn a_client_that_registers_again_and_again_does_not_fill_the_log() {
    let mut scene = Scene::new().await;
    for n in 0..120 {
        enable_push(&mut scene.client, &format!("node-{}", n % 4)).await;
    }
    let count = |needle: &str| scene.pushward.log().iter().filter(|line| line.contains(needle)).count();
    let (lines, last) = (count("\"push enabled\""), count("log rate of this session exceeded"));
    // Some of the allowance is restored during the test.
    assert!((30..60).contains(&lines) && last == 1, "{lines} {last}");
}
