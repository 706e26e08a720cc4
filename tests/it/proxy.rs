//! Relaying between client and server: stanzas that pass, stanzas that are rewritten, and the beginning and end of
//! streams.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustls::{ProtocolVersion, version};
use socket2::{Domain, Socket, Type};

use crate::support::{
    Client, Element, HEADER, PATIENCE, Pushward, STARTTLS, Setup, StubConnection, StubOptions, StubUpstream,
    free_address, message, plain,
};

/// Stanzas that stay identical only if they are not parsed and serialised again.
const ODD: [(&str, &str); 9] = [
    ("spacing and quotes", "<message\n\tto = \"bob@localhost\"  ><body  />\r\n</message  >"),
    ("declared prefixes", "<message to='b@localhost' xmlns:p='urn:p'><p:x p:a='1'/><q:y xmlns:q=\"urn:q\"/></message>"),
    ("CDATA", "<message to='b@localhost'><body><![CDATA[ </body></message> & <r/> ]]></body></message>"),
    ("references", "<message to='b@localhost'><body>&lt;&amp;&gt;&apos;&quot;&#x1F600;&#10;</body></message>"),
    ("xml:lang", "<message xml:lang='de-CH-1901' to='b@localhost'><body xml:lang='gsw'>Grüezi</body></message>"),
    ("four bytes a character", "<message to='b@localhost' id='𝕏'><body>😀👩‍👩‍👧‍👦𝄞</body></message>"),
    ("a bracket in an attribute", "<message to='b@localhost' id='a>b/>'><x xmlns='urn:x' y='/message>'/></message>"),
    ("a declared default", "<message xmlns='jabber:client' to='b@localhost'><body/></message>"),
    ("an empty stanza", "<presence/>"),
];

/// Returns a client that is logged in as alice, through the proxy, on a scripted server.
async fn connected(options: StubOptions) -> (Pushward, Client, StubConnection) {
    let mut stub = StubUpstream::start(options).await;
    let pushward = Pushward::start(Setup::new(stub.address)).await;
    let client = pushward.login("alice", "phone").await;
    let session = stub.session().await;
    (pushward, client, session)
}

#[tokio::test]
async fn odd_stanzas_pass_byte_for_byte_both_ways() {
    let (_pushward, mut client, mut server) = connected(StubOptions::default()).await;
    for (what, stanza) in ODD {
        client.send(stanza).await;
        assert_eq!(server.next().await, stanza, "{what}, to the server");
        server.send(stanza);
        assert_eq!(client.next().await, stanza, "{what}, to the client");
    }
}

#[tokio::test]
async fn a_stanza_of_200_kib_passes_both_ways() {
    let (_pushward, mut client, mut server) = connected(StubOptions::default()).await;
    let text = "0123456789 <b/>é".repeat(200 * 1024 / 17);
    let stanza = format!("<message to='bob@localhost'><body>{text}</body></message>");
    client.send(&stanza).await;
    assert!(server.next().await == stanza, "changed on the way to the server");
    server.send(stanza.clone());
    assert!(client.next().await == stanza, "changed on the way to the client");
}

#[tokio::test]
async fn a_thousand_stanzas_in_one_segment_pass_in_order() {
    let (_pushward, mut client, mut server) = connected(StubOptions::default()).await;
    let stanzas: Vec<_> = (0..1000).map(|number| message(&number.to_string())).collect();
    client.send(stanzas.concat()).await;
    for stanza in &stanzas {
        assert_eq!(&server.next().await, stanza);
    }
    server.send(stanzas.concat());
    for stanza in &stanzas {
        assert_eq!(&client.next().await, stanza);
    }
}

#[tokio::test]
async fn a_stanza_that_arrives_byte_by_byte_passes_whole() {
    let (_pushward, mut client, mut server) = connected(StubOptions::default()).await;
    let stanza = message("é😀&amp;");
    for byte in stanza.bytes() {
        client.send([byte]).await;
    }
    assert_eq!(server.next().await, stanza);
    for byte in stanza.bytes() {
        server.send([byte]);
    }
    assert_eq!(client.next().await, stanza);
}

#[tokio::test]
async fn whitespace_keepalives_of_the_server_do_not_reach_the_client() {
    let (_pushward, mut client, server) = connected(StubOptions::default()).await;
    let before = client.whitespace();
    server.send(format!(" \n{} ", message("one")));
    server.send(format!(" {}", message("two")));
    client.messages(2).await;
    assert_eq!(client.whitespace(), before);
}

#[tokio::test]
async fn direct_tls_offers_tls_1_2_and_1_3_and_negotiates_xmpp_client() {
    let stub = StubUpstream::start(StubOptions::default()).await;
    let pushward = Pushward::start(Setup::new(stub.address)).await;
    let alpn = Some("xmpp-client".to_owned());
    for (only, expected) in [(&version::TLS12, ProtocolVersion::TLSv1_2), (&version::TLS13, ProtocolVersion::TLSv1_3)] {
        let mut client = Client::direct(pushward.direct, &pushward.tls().only(only)).await;
        assert_eq!(client.agreed(), (expected, alpn.clone()));
        assert_eq!(client.login("alice", "phone").await, "alice@localhost/phone");
    }
    let mut client = Client::direct(pushward.direct, &pushward.tls().alpn(&[])).await;
    assert_eq!(client.agreed().1, None, "a client that asks for no protocol gets none");
    client.login("alice", "desk").await;
}

#[tokio::test]
async fn starttls_offers_tls_1_2_and_1_3() {
    let stub = StubUpstream::start(StubOptions::default()).await;
    let pushward = Pushward::start(Setup::new(stub.address)).await;
    for (only, expected) in [(&version::TLS12, ProtocolVersion::TLSv1_2), (&version::TLS13, ProtocolVersion::TLSv1_3)] {
        let mut client = Client::starttls(pushward.starttls, &pushward.tls().only(only)).await;
        assert_eq!(client.agreed().0, expected);
        assert_eq!(client.login("alice", "phone").await, "alice@localhost/phone");
    }
}

#[tokio::test]
async fn before_tls_starttls_is_the_only_feature_and_it_is_required() {
    let stub = StubUpstream::start(StubOptions::default()).await;
    let pushward = Pushward::start(Setup::new(stub.address)).await;
    let mut client = Client::plain(pushward.starttls).await;
    let features = Element::parse(&client.open().await);
    assert_eq!(features.children.len(), 1, "{features:?}");
    assert_eq!(
        (features.children[0].name.as_str(), features.children[0].ns.as_str()),
        ("starttls", "urn:ietf:params:xml:ns:xmpp-tls")
    );
    client.send(plain("alice", "secret")).await;
    let answer = client.next().await;
    assert!(answer.starts_with("<failure") || answer.starts_with("<stream:error"), "{answer}");
}

#[tokio::test]
async fn starttls_may_come_with_the_header_in_the_first_packet() {
    let stub = StubUpstream::start(StubOptions::default()).await;
    let pushward = Pushward::start(Setup::new(stub.address)).await;
    let mut client = Client::plain(pushward.starttls).await;
    client.send(format!("{HEADER}{STARTTLS}")).await;
    assert!(client.next().await.starts_with("<stream:features"));
    assert!(client.next().await.starts_with("<proceed"));
    let mut client = client.handshake(&pushward.tls()).await;
    client.login("alice", "phone").await;
}

#[tokio::test]
async fn clear_bytes_after_starttls_are_discarded() {
    let mut stub = StubUpstream::start(StubOptions::default()).await;
    let pushward = Pushward::start(Setup::new(stub.address)).await;
    let mut client = Client::plain(pushward.starttls).await;
    client.send(format!("{HEADER}{STARTTLS}{HEADER}{}", plain("mallory", "injected"))).await;
    client.expect("<proceed").await;
    let mut client = client.handshake(&pushward.tls()).await;
    client.login("alice", "phone").await;
    assert_eq!(stub.session().await.seen().users, ["alice"]);
    assert_eq!(client.transcript().matches("<success").count(), 1);
}

#[tokio::test]
async fn an_unknown_host_is_refused_on_both_ports() {
    let stub = StubUpstream::start(StubOptions::default()).await;
    let pushward = Pushward::start(Setup::new(stub.address)).await;
    for mut client in [Client::plain(pushward.starttls).await, pushward.connect().await] {
        client.send(HEADER.replace("localhost", "nowhere.example")).await;
        let ending = client.closed(PATIENCE).await.concat();
        assert!(ending.contains("<host-unknown"), "{ending}");
        assert!(ending.ends_with("</stream:stream>"), "{ending}");
        assert!(client.transcript().starts_with("Header"), "an error needs a stream: {}", client.transcript());
    }
}

async fn refused(upstream: SocketAddr) -> Duration {
    let pushward = Pushward::start(Setup::new(upstream).set("limits.connect_timeout", "'300ms'")).await;
    let mut client = pushward.connect().await;
    let asked = Instant::now();
    client.send(HEADER).await;
    let ending = client.closed(PATIENCE).await.concat();
    assert!(ending.contains("<remote-connection-failed"), "{ending}");
    assert!(ending.ends_with("</stream:stream>"), "{ending}");
    asked.elapsed()
}

#[tokio::test]
async fn an_upstream_that_is_down_fails_the_connection() {
    refused(free_address()).await;
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_fails_at_the_connect_timeout() {
    // Nothing accepts connections here, and once the backlog is full the system answers no more of them.
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let mut waiting = Vec::new();
    while let Ok(connection) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        waiting.push(connection);
    }
    let took = refused(address).await;
    assert!(took >= Duration::from_millis(300), "given up after {took:?}, before the connect timeout");
}

#[tokio::test]
async fn a_stream_error_of_the_server_reaches_the_client_and_ends_it() {
    let (_pushward, mut client, server) = connected(StubOptions::default()).await;
    let error = "<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>";
    server.send(format!("{}{error}</stream:stream>", message("last words")));
    assert_eq!(client.closed(PATIENCE).await, [message("last words").as_str(), error, "</stream:stream>"]);
    server.closed(PATIENCE).await;
}

#[tokio::test]
async fn a_server_that_vanishes_ends_the_client_too() {
    let (_pushward, mut client, server) = connected(StubOptions::default()).await;
    server.close();
    client.closed(PATIENCE).await;
}

#[tokio::test]
async fn a_close_of_the_client_reaches_the_server_and_is_answered() {
    let (_pushward, mut client, mut server) = connected(StubOptions::default()).await;
    client.send(format!("{}</stream:stream>", message("last words"))).await;
    assert_eq!(server.next().await, message("last words"));
    server.footer(PATIENCE).await;
    assert_eq!(client.closed(PATIENCE).await, ["</stream:stream>"]);
    server.closed(PATIENCE).await;
}

#[tokio::test]
async fn a_client_without_stream_management_that_vanishes_ends_on_the_server() {
    let (_pushward, client, server) = connected(StubOptions::default()).await;
    client.reset();
    server.closed(PATIENCE).await;
}

#[tokio::test]
async fn features_before_authentication_lose_what_cannot_work_through_a_proxy() {
    let options = StubOptions {
        before: "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>\
            <compression xmlns='http://jabber.org/features/compress'><method>zlib</method></compression>\
            <mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>SCRAM-SHA-256-PLUS</mechanism>\
            <mechanism>SCRAM-SHA-256</mechanism><mechanism>SCRAM-SHA-1-PLUS</mechanism><mechanism>EXTERNAL</mechanism>\
            <mechanism>PLAIN</mechanism></mechanisms>\
            <sasl-channel-binding xmlns='urn:xmpp:sasl-cb:0'><channel-binding type='tls-exporter'/></sasl-channel-binding>\
            <register xmlns='http://jabber.org/features/iq-register'/>"
            .into(),
        ..StubOptions::default()
    };
    let stub = StubUpstream::start(options).await;
    let pushward = Pushward::start(Setup::new(stub.address)).await;
    let features = Element::parse(&pushward.connect().await.open().await);
    let kept: Vec<_> = features.children.iter().map(|feature| feature.name.as_str()).collect();
    assert_eq!(kept, ["mechanisms", "register", "authentication"]);
    for list in [&features.children[0], &features.children[2]] {
        let names = list.children.iter().filter(|child| child.name == "mechanism").map(|child| child.text.clone());
        assert_eq!(names.collect::<Vec<_>>(), ["SCRAM-SHA-256", "PLAIN"]);
    }
}

#[tokio::test]
async fn features_after_authentication_have_only_our_stream_management() {
    let bind = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><required/></bind>";
    let options = StubOptions {
        after: format!(
            "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>{bind}<sm xmlns='urn:xmpp:sm:2'/>\
             <sm xmlns='urn:xmpp:sm:3'><optional/></sm>\
             <compression xmlns='http://jabber.org/features/compress'><method>zlib</method></compression>\
             <ver xmlns='urn:xmpp:features:rosterver'/>"
        ),
        ..StubOptions::default()
    };
    for options in [options, StubOptions::default()] {
        let stub = StubUpstream::start(options).await;
        let pushward = Pushward::start(Setup::new(stub.address)).await;
        let features = Element::parse(&pushward.connect().await.authenticated("alice").await);
        let managed: Vec<_> = features.all("sm").iter().map(|sm| (sm.ns.clone(), sm.children.len())).collect();
        assert_eq!(managed, [("urn:xmpp:sm:3".to_owned(), 0)]);
        let names: Vec<_> = features.children.iter().map(|feature| feature.name.as_str()).collect();
        assert!(names.contains(&"bind"), "{names:?}");
        assert!(!names.contains(&"starttls") && !names.contains(&"compression"), "{names:?}");
    }
}

#[tokio::test]
async fn the_header_the_client_gets_is_the_servers() {
    let stub = StubUpstream::start(StubOptions::default()).await;
    let pushward = Pushward::start(Setup::new(stub.address)).await;
    let mut client = pushward.connect().await;
    client.open().await;
    let seen = client.transcript();
    for attribute in ["id='stub-id'", "from='localhost'", "version='1.0'", "xml:lang='en'"] {
        assert!(seen.contains(attribute), "no {attribute} in {seen}");
    }
}
