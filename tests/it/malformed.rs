//! XML that XMPP forbids in a stream (RFC 6120 §11): it is refused with the right error, and never reaches the server.

use crate::support::{Client, HEADER, PATIENCE, Pushward, Setup, StubOptions, StubUpstream};

const CASES: [(&str, &str, &str); 12] = [
    ("a comment", "<message><!-- x --></message>", "restricted-xml"),
    ("a comment between stanzas", "<!-- x -->", "restricted-xml"),
    ("a processing instruction", "<message><?php x?></message>", "restricted-xml"),
    ("a document type", "<!DOCTYPE x [<!ENTITY a 'b'>]>", "restricted-xml"),
    ("an undefined entity", "<message><body>&nbsp;</body></message>", "restricted-xml"),
    ("a wrong end tag", "<message><body></message></body>", "not-well-formed"),
    ("an attribute twice", "<message to='a' to='b'/>", "not-well-formed"),
    ("a bracket in an attribute", "<message to='<'/>", "not-well-formed"),
    ("an ampersand", "<message><body>a & b</body></message>", "not-well-formed"),
    ("an undeclared prefix", "<message><p:x/></message>", "not-well-formed"),
    ("a control character", "<message><body>\u{1}</body></message>", "not-well-formed"),
    ("a reference to no character", "<message><body>&#0;</body></message>", "not-well-formed"),
];

async fn ends_with(client: &mut Client, what: &str, condition: &str) {
    let ending = client.closed(PATIENCE).await.concat();
    assert!(ending.contains(&format!("<{condition} xmlns=")), "{what}: {condition} expected, but {ending}");
    assert!(ending.ends_with("</stream:stream>"), "{what}: {ending}");
}

#[tokio::test]
async fn forbidden_xml_ends_a_session_with_the_right_error() {
    let mut stub = StubUpstream::start(StubOptions::default()).await;
    let pushward = Pushward::start(Setup::new(stub.address)).await;
    for (what, bytes, condition) in CASES {
        let mut client = pushward.login("alice", "phone").await;
        let mut server = stub.session().await;
        client.send(format!("<presence id='before'/>{bytes}<presence id='after'/>")).await;
        ends_with(&mut client, what, condition).await;
        server.closed(PATIENCE).await;
        assert_eq!(server.rest(), ["<presence id='before'/>"], "{what}");
    }
}

#[tokio::test]
async fn bytes_that_are_not_utf_8_end_a_session() {
    let mut stub = StubUpstream::start(StubOptions::default()).await;
    let pushward = Pushward::start(Setup::new(stub.address)).await;
    let mut client = pushward.login("alice", "phone").await;
    let mut server = stub.session().await;
    client.send(b"<message><body>\xff\xfe</body></message>").await;
    let ending = client.closed(PATIENCE).await.concat();
    // RFC 6120 §4.9.3.22 specifies unsupported-encoding for this. For XML it is not well-formed.
    assert!(ending.contains("<unsupported-encoding") || ending.contains("<not-well-formed"), "{ending}");
    server.closed(PATIENCE).await;
    assert!(server.rest().is_empty());
}

#[tokio::test]
async fn forbidden_xml_is_refused_before_tls_too() {
    let stub = StubUpstream::start(StubOptions::default()).await;
    let pushward = Pushward::start(Setup::new(stub.address)).await;
    for (what, bytes, condition) in CASES {
        let mut client = Client::plain(pushward.starttls).await;
        client.send(format!("{HEADER}{bytes}")).await;
        ends_with(&mut client, what, condition).await;
    }
}

#[tokio::test]
async fn stanzas_that_are_too_big_or_too_deep_break_the_policy() {
    let mut stub = StubUpstream::start(StubOptions::default()).await;
    let setup = Setup::new(stub.address).set("limits.stanza", "'32 KiB'").set("limits.depth", "20");
    let pushward = Pushward::start(setup).await;
    let deep = format!("<message>{}{}</message>", "<x>".repeat(30), "</x>".repeat(30));
    let big = format!("<message><body>{}</body></message>", "x".repeat(33 * 1024));
    let endless = "<message><body>".to_owned() + &"x".repeat(33 * 1024);
    for (what, bytes) in [("too deep", deep), ("too big", big), ("too big and not at its end", endless)] {
        let mut client = pushward.login("alice", "phone").await;
        let mut server = stub.session().await;
        client.send(bytes).await;
        ends_with(&mut client, what, "policy-violation").await;
        server.closed(PATIENCE).await;
        assert!(server.rest().is_empty(), "{what}");
    }
}

#[tokio::test]
async fn before_authentication_the_limit_is_smaller() {
    let stub = StubUpstream::start(StubOptions::default()).await;
    let pushward = Pushward::start(Setup::new(stub.address).set("limits.unauthenticated_stanza", "'12 KiB'")).await;
    let big = format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{}</auth>", "A".repeat(13_000));
    let mut client = pushward.connect().await;
    client.open().await;
    client.send(big).await;
    ends_with(&mut client, "a big <auth/>", "policy-violation").await;
}
