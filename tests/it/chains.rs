//! Chains of proxies: real proxies in front, all kinds of PROXY headers, and the headers that upstream servers receive.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener};
use tokio::time::timeout;

use crate::person::run;
use crate::support::{
    Authority, Client, Ejabberd, Front, HEADER, PATIENCE, Pushward, Setup, StubOptions, StubUpstream, documented,
    eventually, free_address,
};

/// A header from 203.0.113.9:4660 to 198.51.100.1:5222, in version 1.
const NAMED: &str = "PROXY TCP4 203.0.113.9 198.51.100.1 4660 5222\r\n";
/// The same in version 2, with a TLV.
const NAMED_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x11\xcb\0\x71\x09\xc6\x33\x64\x01\x12\x34\x14\x66\x04\0\x02ab";
/// The signature at the start of version 2.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Starts Pushward with two more listeners, which require a PROXY header. `more` holds further keys for them.
async fn behind_proxies(setup: Setup, more: &str) -> (Pushward, SocketAddr, SocketAddr) {
    let table = |tls| format!("[[listen]]\naddress = '127.0.0.1:0'\ntls = '{tls}'\nproxy_protocol = true\n{more}\n");
    let setup = setup.table(&table("starttls")).table(&table("direct")).env("RUST_LOG", "debug");
    let pushward = Pushward::start(setup).await;
    let listening = || {
        let events: Vec<Value> = pushward.log().iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let listening = events.iter().filter(|event| event["message"] == "listening");
        let addresses: Vec<SocketAddr> =
            listening.map(|event| event["address"].as_str().unwrap().parse().unwrap()).collect();
        <[SocketAddr; 4]>::try_from(addresses).ok()
    };
    let [_, _, starttls, direct] = eventually(PATIENCE, || format!("{:?}", pushward.log()), listening).await;
    (pushward, starttls, direct)
}

/// Starts a server that accepts every login.
async fn stub() -> StubUpstream {
    StubUpstream::start(StubOptions::default()).await
}

/// Connects from this loopback address.
async fn from(source: &str, to: SocketAddr) -> Client {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(source.parse().unwrap(), 0)).unwrap();
    Client::over(socket.connect(to).await.unwrap())
}

/// Opens a connection that starts with these bytes.
async fn with_header(to: SocketAddr, header: impl AsRef<[u8]>) -> Client {
    let mut client = Client::plain(to).await;
    client.send(header).await;
    client
}

/// Returns the fields of the session span in which this line was logged.
async fn span_of(pushward: &Pushward, needles: &[&str]) -> Value {
    let line = pushward.logged(needles).await;
    let event: Value = serde_json::from_str(&line).unwrap();
    event["span"].clone()
}

/// Checks that the connection is closed without a byte, since it sent no header.
async fn check_closed(mut client: Client) {
    client.closed(PATIENCE).await;
    assert_eq!(client.transcript(), "");
}

/// Returns true if a connection that starts with these bytes is answered, and false if it is closed.
async fn is_served(to: SocketAddr, header: &str) -> bool {
    let mut tcp = TcpStream::connect(to).await.unwrap();
    tcp.write_all(header.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = async {
        while !answer.windows(8).any(|window| window == b"features") {
            if tcp.read_buf(&mut answer).await.is_ok_and(|count| count > 0) {
                continue;
            }
            return false;
        }
        true
    };
    timeout(PATIENCE, read).await.expect("an answer or the end")
}

async fn clients_are_known_by_their_own_address(front: Front, pushward: &Pushward) {
    let tls = pushward.tls();
    for (address, user, direct) in [(front.starttls, "alice", false), (front.direct, "bob", true)] {
        let source = if direct { "127.0.0.9" } else { "127.0.0.8" };
        let client = from(source, address).await;
        let mut client = if direct { client.handshake(&tls).await } else { client.upgrade(&tls).await };
        client.login(user, "phone").await;
        client.ping("localhost").await;
        let span = span_of(pushward, &["\"session bound\"", &format!("{user}@localhost")]).await;
        assert!(span["peer"].as_str().unwrap().starts_with(&format!("{source}:")), "{span}");
        assert!(span["proxy"].as_str().unwrap().starts_with("127.0.0.1:"), "{span}");
    }
}

async fn behind_haproxy(configuration: &str) {
    let stub = stub().await;
    let (pushward, starttls, direct) = behind_proxies(Setup::new(stub.address), "").await;
    let mut front = Front::haproxy(configuration, (starttls, direct)).await;
    front.assert_running();
    // HAProxy's health checks appear with HAProxy's own address.
    let checked = || {
        let own = |line: &&String| {
            let event: Value = serde_json::from_str(line).unwrap_or_default();
            let (peer, proxy) = (event["span"]["peer"].as_str(), event["span"]["proxy"].as_str());
            peer.is_some() && peer == proxy
        };
        (pushward.log().iter().filter(own).count() >= 3).then_some(())
    };
    eventually(PATIENCE, || format!("health checks: {:?}", pushward.log()), checked).await;
    clients_are_known_by_their_own_address(front, &pushward).await;
    let refused: Vec<_> = pushward.log().into_iter().filter(|line| line.contains("refused")).collect();
    assert_eq!(refused, Vec::<String>::new());
}

#[tokio::test]
async fn behind_haproxy_with_version_2_clients_are_known_by_their_own_address() {
    behind_haproxy(&documented("haproxy", "send-proxy-v2").replace(" check ", " check inter 50ms ")).await;
}

#[tokio::test]
async fn behind_haproxy_with_version_1_clients_are_known_by_their_own_address() {
    let configuration = documented("haproxy", "send-proxy-v2").replace(" check ", " check inter 50ms ");
    behind_haproxy(&configuration.replace("send-proxy-v2", "send-proxy")).await;
}

#[tokio::test]
async fn behind_nginx_clients_are_known_by_their_own_address() {
    let stub = stub().await;
    let (pushward, starttls, direct) = behind_proxies(Setup::new(stub.address), "").await;
    let front = Front::nginx(&documented("nginx", "proxy_protocol on"), (starttls, direct)).await;
    clients_are_known_by_their_own_address(front, &pushward).await;
}

#[tokio::test]
async fn a_header_may_be_long_or_slow_and_the_bytes_after_it_belong_to_the_client() {
    let stub = stub().await;
    let (pushward, starttls, direct) = behind_proxies(Setup::new(stub.address), "").await;
    let tls = pushward.tls();
    // With TLVs, and with the stream header in the same segment.
    let mut client = with_header(starttls, [NAMED_V2, HEADER.as_bytes()].concat()).await;
    client.expect("<stream:features").await;
    client.send(crate::support::STARTTLS).await;
    client.expect("<proceed").await;
    let mut client = client.handshake(&tls).await;
    client.login("alice", "phone").await;
    let span = span_of(&pushward, &["\"session bound\"", "alice@localhost"]).await;
    assert_eq!(span["peer"], "203.0.113.9:4660");
    // One byte at a time.
    let mut client = Client::plain(direct).await;
    for byte in NAMED.as_bytes() {
        client.send([*byte]).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let mut client = client.handshake(&tls).await;
    client.login("bob", "phone").await;
    let span = span_of(&pushward, &["\"session bound\"", "bob@localhost"]).await;
    assert_eq!(span["peer"], "203.0.113.9:4660");
}

#[tokio::test]
async fn a_local_connection_of_a_proxy_keeps_the_proxys_own_address() {
    let stub = stub().await;
    let (pushward, _, direct) = behind_proxies(Setup::new(stub.address), "").await;
    let local = [SIGNATURE, &[0x20, 0, 0, 0]].concat();
    for (user, header) in [("alice", local), ("bob", b"PROXY UNKNOWN\r\n".to_vec())] {
        let mut client = with_header(direct, header).await.handshake(&pushward.tls()).await;
        client.login(user, "phone").await;
        let span = span_of(&pushward, &["\"session bound\"", &format!("{user}@localhost")]).await;
        assert!(span["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{span}");
    }
}

#[tokio::test]
async fn a_connection_without_a_valid_header_is_closed_without_a_reply() {
    let stub = stub().await;
    let (pushward, starttls, direct) = behind_proxies(Setup::new(stub.address), "").await;
    for (at, header) in [
        (starttls, HEADER.as_bytes()),
        (direct, b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"),
        (starttls, b"PROXY TCP4 203.0.113.9\r\n"),
        (direct, b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0"),
        (direct, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff"),
        (starttls, &[b"PROXY UNKNOWN ", &[b'x'; 200][..]].concat()),
    ] {
        check_closed(with_header(at, header).await).await;
    }
    let warning = |line: &&String| line.contains("WARN") && line.contains("PROXY header");
    // All of them share one log line in ten seconds.
    let refused = || (pushward.log().iter().filter(warning).count() == 1).then_some(());
    eventually(PATIENCE, || format!("a refusal: {:?}", pushward.log()), refused).await;
    // Other listeners do not accept a header.
    let mut client = with_header(pushward.starttls, NAMED).await;
    let received = client.closed(PATIENCE).await.concat();
    assert!(received.contains("</stream:stream>") || received.contains("stream:error"), "{received}");
}

#[tokio::test]
async fn a_connection_whose_header_is_late_is_closed() {
    let stub = stub().await;
    let setup = Setup::new(stub.address).set("limits.handshake_timeout", "'300ms'");
    let (pushward, starttls, direct) = behind_proxies(setup, "").await;
    let (silent, slow) = (Client::plain(starttls).await, with_header(direct, "PROXY TCP4 ").await);
    check_closed(silent).await;
    check_closed(slow).await;
    pushward.logged(&["WARN", "no PROXY header within handshake_timeout"]).await;
    // The same timeout covers the header and the TLS handshake.
    check_closed(with_header(direct, NAMED).await).await;
}

#[tokio::test]
async fn only_trusted_proxies_may_give_the_client_address() {
    let stub = stub().await;
    let (pushward, starttls, direct) =
        behind_proxies(Setup::new(stub.address), "trusted_proxies = ['127.0.0.7', '192.0.2.0/24']").await;
    let mut stranger = Client::plain(starttls).await;
    stranger.try_send(NAMED).await;
    check_closed(stranger).await;
    pushward.logged(&["WARN", "address not in trusted_proxies", "127.0.0.1:"]).await;
    let mut trusted = from("127.0.0.7", direct).await;
    trusted.send(NAMED).await;
    trusted.handshake(&pushward.tls()).await.login("alice", "phone").await;
}

#[tokio::test]
async fn connections_count_for_their_clients_not_for_the_proxy() {
    let stub = stub().await;
    let setup = Setup::new(stub.address).set("limits.connections_per_address", "2");
    let (pushward, starttls, _) = behind_proxies(setup, "").await;
    let header = |client: &str| format!("PROXY TCP4 {client} 198.51.100.1 4660 5222\r\n{HEADER}");
    let mut there = Vec::new();
    for client in ["203.0.113.9", "203.0.113.9", "203.0.113.10", "203.0.113.11"] {
        let mut connection = with_header(starttls, header(client)).await;
        connection.expect("<stream:features").await;
        there.push(connection);
    }
    let last = with_header(starttls, header("203.0.113.9")).await.closed(PATIENCE).await;
    assert!(last.iter().any(|element| element.contains("<policy-violation")), "{last:?}");
    pushward.logged(&["WARN", "limit reached", "connections_per_address", "203.0.113.9"]).await;
    // A connection that ends makes room for another.
    there.remove(0).reset();
    let until = Instant::now() + PATIENCE;
    while !is_served(starttls, &header("203.0.113.9")).await {
        assert!(Instant::now() < until, "no room is made");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Returns the bytes before the stream header.
async fn introduction(mut socket: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut bytes = Vec::new();
    let header = |bytes: &[u8]| bytes.windows(5).position(|window| window == b"<?xml" || window == b"<stre");
    let read = async {
        loop {
            if let Some(at) = header(&bytes) {
                bytes.truncate(at);
                return bytes;
            }
            assert_ne!(socket.read_buf(&mut bytes).await.unwrap(), 0, "{}", bytes.escape_ascii());
        }
    };
    timeout(PATIENCE, read).await.expect("a stream header")
}

/// Returns the headers that the server receives for a client, and for `check`.
async fn headers_received(listener: &TcpListener, version: &str, header: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let setup = Setup::new(listener.local_addr().unwrap()).set("host.upstream_proxy_protocol", &format!("'{version}'"));
    let setup = setup.set("limits.connect_timeout", "'200ms'");
    let (pushward, _, direct) = behind_proxies(setup, "").await;
    let mut client = with_header(direct, header).await.handshake(&pushward.tls()).await;
    client.send(HEADER).await;
    let of_client = introduction(listener.accept().await.unwrap().0).await;
    let check = async { introduction(listener.accept().await.unwrap().0).await };
    let directory = pushward.file("");
    let (of_check, _) = tokio::join!(check, run(&directory, &["check"], PATIENCE));
    (of_client, of_check)
}

#[tokio::test]
async fn servers_get_the_client_address_in_a_version_1_header() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (of_client, of_check) = headers_received(&listener, "v1", NAMED_V2).await;
    assert_eq!(String::from_utf8(of_client).unwrap(), NAMED);
    let of_check = String::from_utf8(of_check).unwrap();
    assert!(of_check.starts_with("PROXY TCP4 127.0.0.1 127.0.0.1 "), "{of_check}");
    let port = listener.local_addr().unwrap().port();
    assert!(of_check.ends_with(&format!(" {port}\r\n")), "{of_check}");
    assert_eq!(headers_received(&listener, "off", NAMED_V2).await, (vec![], vec![]));
}

/// HAProxy sends the same header for a client of its own TLS, except for `verify`: it sends 0, which the specification
/// reserves for a verified certificate.
#[tokio::test]
async fn servers_get_the_client_address_and_tls_details_in_a_version_2_header() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (of_client, of_check) = headers_received(&listener, "v2", NAMED.as_bytes()).await;
    let tlv = b"\x20\0\x28\x01\0\0\0\x01\x21\0\x07TLSv1.3\x23\0\x16TLS_AES_256_GCM_SHA384";
    let addresses = b"\xcb\0\x71\x09\xc6\x33\x64\x01\x12\x34\x14\x66";
    let expect = [SIGNATURE, b"\x21\x11\0", &[12 + 43], addresses, tlv].concat();
    assert_eq!(of_client, expect, "{}", of_client.escape_ascii());
    let ourselves = [SIGNATURE, b"\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01"].concat();
    assert_eq!((&of_check[..24], of_check.len()), (&ourselves[..], 28), "{}", of_check.escape_ascii());

    let authority = Authority::new("ours");
    let issued = authority.issue("localhost");
    let server = format!("server s {} send-proxy-v2-ssl proxy-v2-options ssl-cipher", listener.local_addr().unwrap());
    let configuration = format!(
        "defaults\n    mode tcp\n    timeout connect 10s\n    timeout client 1m\n    timeout server 1m\n\
         listen a\n    bind :::5222 v4v6 ssl crt {}\n    {server}\n\
         listen b\n    bind :::5223 v4v6\n    server s 10.0.0.5:5223\n    # 10.0.0.5:5222\n",
        issued.together.display()
    );
    let front = Front::haproxy(&configuration, (free_address(), free_address())).await;
    let haproxys = async {
        loop {
            // A connection that only tested whether the port is open sent nothing.
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut bytes = Vec::new();
            while let Ok(1..) = socket.read_buf(&mut bytes).await {
                if let Some(at) = bytes.windows(5).position(|window| window == b"<?xml") {
                    return bytes[..at].to_vec();
                }
            }
        }
    };
    let client = async {
        let tls = crate::support::Tls::trusting(&issued.certificate).alpn(&[]);
        let mut client = Client::plain(front.starttls).await.handshake(&tls).await;
        client.send(HEADER).await;
        client
    };
    let (_client, haproxys) = tokio::join!(client, timeout(PATIENCE, haproxys));
    let haproxys = haproxys.expect("a header of HAProxy's");
    let without_verify = |header: &[u8]| [&header[28..32], &header[36..]].concat();
    assert_eq!(without_verify(&of_client), without_verify(&haproxys), "{}", haproxys.escape_ascii());
}

#[tokio::test]
async fn without_a_proxy_in_front_servers_get_the_address_of_the_clients_socket() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let setup = Setup::new(listener.local_addr().unwrap()).set("host.upstream_proxy_protocol", "'v1'");
    let pushward = Pushward::start(setup).await;
    let mut client = from("127.0.0.9", pushward.direct).await.handshake(&pushward.tls()).await;
    client.send(HEADER).await;
    let header = String::from_utf8(introduction(listener.accept().await.unwrap().0).await).unwrap();
    let words: Vec<_> = header.trim_end().split(' ').collect();
    assert_eq!(words[..4], ["PROXY", "TCP4", "127.0.0.9", "127.0.0.1"], "{header}");
    assert_eq!(words[5], pushward.direct.port().to_string(), "{header}");
}

#[tokio::test]
async fn ejabberd_sees_the_clients_address() {
    let (proxied, directory) = (free_address(), tempfile::tempdir().unwrap());
    let socket = directory.path().join("c2s.sock");
    let listener = |port: &str| {
        format!("  - port: {port}\n    module: ejabberd_c2s\n    use_proxy_protocol: true\n    starttls: false\n")
    };
    let listen = [listener(&format!("\"unix:{}\"", socket.display())), listener(&proxied.port().to_string())].concat();
    let ejabberd = Ejabberd::listening(&listen).await;
    let places = [format!("'{proxied}'"), format!("'unix:{}'", socket.display())];
    for (place, (version, (user, client))) in places.iter().flat_map(|place| {
        [("v1", ("alice", "203.0.113.9")), ("v2", ("bob", "203.0.113.10"))].map(|version| (place, version))
    }) {
        let setup = Setup::new(proxied).set("host.upstream", place);
        let setup = setup.set("host.upstream_proxy_protocol", &format!("'{version}'"));
        let (pushward, _, direct) = behind_proxies(setup, "").await;
        let header = format!("PROXY TCP4 {client} 198.51.100.1 4660 5222\r\n");
        let mut alice = with_header(direct, header).await.handshake(&pushward.tls()).await;
        alice.login(user, "phone").await;
        alice.ping("localhost").await;
        ejabberd.logged(&["Accepted c2s", &format!("{user}@localhost"), client]).await;
        let (code, output) = run(&pushward.file(""), &["check"], PATIENCE).await;
        assert_eq!(code, Some(0), "{output}");
    }
}

#[tokio::test]
async fn ejabberd_may_be_behind_a_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let place = format!("unix:{}", directory.path().join("c2s.sock").display());
    let listen = format!("  - port: \"{place}\"\n    module: ejabberd_c2s\n    starttls: false\n");
    let ejabberd = Ejabberd::listening(&listen).await;
    let mut bob = Client::plain(ejabberd.address).await;
    bob.login("bob", "desk").await;
    let pushward = Pushward::start(Setup::new(ejabberd.address).set("host.upstream", &format!("'{place}'"))).await;
    let mut alice = pushward.login("alice", "phone").await;
    alice.available().await;
    bob.say("alice@localhost", &"large ".repeat(20_000)).await;
    assert_eq!(crate::support::bodies(&alice.messages(1).await)[0].len(), 120_000);
    let (code, output) = run(&pushward.file(""), &["check"], PATIENCE).await;
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains(&format!("the server at {place} is ready")), "{output}");
}

#[tokio::test]
async fn an_error_about_a_unix_socket_without_a_listener_has_its_path() {
    let directory = tempfile::tempdir().unwrap();
    let place = format!("unix:{}", directory.path().join("c2s.sock").display());
    let setup = Setup::new(free_address()).set("host.upstream", &format!("'{place}'"));
    let pushward = Pushward::start(setup.set("host.upstream_proxy_protocol", "'v2'")).await;
    let mut client = pushward.connect().await;
    client.send(HEADER).await;
    let last = client.closed(PATIENCE).await.concat();
    assert!(last.contains("<remote-connection-failed"), "{last}");
    pushward.logged(&["WARN", &place, "cannot connect"]).await;
    let (code, output) = run(&pushward.file(""), &["check"], PATIENCE).await;
    assert_eq!(code, Some(69), "{output}");
    assert!(output.contains(&format!("the server at {place}: cannot connect")), "{output}");
    // Once a server listens on the socket, it receives the same header as over TCP.
    let listener = UnixListener::bind(directory.path().join("c2s.sock")).unwrap();
    let mut client = from("127.0.0.9", pushward.direct).await.handshake(&pushward.tls()).await;
    client.send(HEADER).await;
    let header = introduction(listener.accept().await.unwrap().0).await;
    assert_eq!(header[..20], [SIGNATURE, b"\x21\x11\0\x37\x7f\0\0\x09"].concat(), "{}", header.escape_ascii());
}

#[tokio::test]
async fn connections_to_the_server_come_from_its_sources_in_turn() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let sources = async |sources: &str, count: usize| {
        let pushward = Pushward::start(Setup::new(address).set("host.upstream_source", sources)).await;
        let mut seen = Vec::new();
        for _ in 0..count {
            let mut client = pushward.connect().await;
            client.send(HEADER).await;
            let (socket, peer): (TcpStream, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
            seen.push((peer.ip().to_string(), socket, client));
        }
        seen.into_iter().map(|(ip, ..)| ip).collect::<Vec<_>>()
    };
    let turn = ["127.0.0.2", "127.0.0.3", "127.0.0.2", "127.0.0.3"];
    assert_eq!(sources("['127.0.0.2', '127.0.0.3']", 4).await, turn);
    // An address that is no longer available. Here it does not belong to this machine, so the system reports that at
    // once.
    assert_eq!(sources("['192.0.2.1', '127.0.0.3']", 2).await, ["127.0.0.3", "127.0.0.3"]);
    let pushward = Pushward::start(Setup::new(address).set("host.upstream_source", "['192.0.2.1']")).await;
    let (code, output) = run(&pushward.file(""), &["check"], PATIENCE).await;
    assert_eq!(code, Some(78), "{output}");
    assert!(output.contains("[[host]] localhost upstream_source: cannot connect from 192.0.2.1"), "{output}");
}

/// The configuration in docs/proxy-chains.md is accepted.
#[tokio::test]
async fn the_documented_listeners_are_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let host = format!("[[host]]\ndomain = 'localhost'\nupstream = '{}'\n", free_address());
    std::fs::write(directory.path().join("config.toml"), documented("toml", "trusted_proxies") + &host).unwrap();
    let (_, output) = run(directory.path(), &["check"], PATIENCE).await;
    assert!(output.contains("config.toml: valid"), "{output}");
}
