//! A scripted server behind the login: the order of what it sends, what it refuses, and what it leaves open.

use std::time::{Duration, Instant};

use super::{FEATURES, PHONE, TABLET, device};
use crate::support::{
    CARBONS, Client, Element, PASSWORD, PATIENCE, Pushward, SM, Scram, Setup, StubConnection, StubOptions,
    StubUpstream, Success, authenticate, bodies, header_from, logged_in, lost, message, opened, plain, resume,
    with_password,
};

/// The deadline for the answers to carbons and metadata requests.
const EXTRAS: Duration = Duration::from_secs(5);

/// Returns the options of a server with PLAIN and SCRAM-SHA-1 that leaves what begins with one of `leaves` to the test.
pub(super) fn leaving(leaves: &'static [&'static str]) -> StubOptions {
    let before = "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>SCRAM-SHA-1</mechanism>\
                  <mechanism>PLAIN</mechanism></mechanisms>";
    StubOptions { before: before.into(), leaves, ..StubOptions::default() }
}

pub(super) async fn started(leaves: &'static [&'static str]) -> (StubUpstream, Pushward) {
    let stub = StubUpstream::start(leaving(leaves)).await;
    let pushward = Pushward::start(Setup::new(stub.address)).await;
    (stub, pushward)
}

/// Returns the id of the server's next request that contains `needle`.
pub(super) async fn asked(server: &mut StubConnection, needle: &str) -> String {
    Element::parse(&server.expect(needle).await).attribute("id").unwrap().to_owned()
}

pub(super) fn result(id: &str, content: &str) -> String {
    format!("<iq type='result' id='{id}'>{content}</iq>")
}

pub(super) fn error(id: &str) -> String {
    format!(
        "<iq type='error' id='{id}'><error type='cancel'>\
         <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
    )
}

pub(super) fn bound(id: &str, jid: &str) -> String {
    result(id, &format!("<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>{jid}</jid></bind>"))
}

/// Logs alice in on this device. The server enables carbons, and its archive is empty.
pub(super) async fn phone(
    stub: &mut StubUpstream,
    pushward: &Pushward,
    inline: &str,
) -> (Client, StubConnection, Success) {
    phone_of("alice", stub, pushward, inline).await
}

/// The same for another user.
pub(super) async fn phone_of(
    user: &str,
    stub: &mut StubUpstream,
    pushward: &Pushward,
    inline: &str,
) -> (Client, StubConnection, Success) {
    let (mut alice, _) = opened(pushward, user).await;
    alice.send(with_password(user, inline)).await;
    let mut server = stub.session().await;
    let (carbons, metadata) = (asked(&mut server, CARBONS).await, asked(&mut server, "metadata").await);
    server.send(result(&carbons, ""));
    // The archive is empty. A server without one would not be asked again.
    server.send(result(&metadata, ""));
    let success = Success::of(alice.next().await);
    alice.expect(FEATURES).await;
    (alice, server, success)
}

#[tokio::test]
async fn early_stanzas_follow_the_features_and_are_counted() {
    let (mut stub, pushward) = started(&["<iq"]).await;
    let (mut alice, _) = opened(&pushward, "alice").await;
    alice.send(with_password("alice", &device(PHONE))).await;
    let mut server = stub.connection().await;
    let bind = server.expect("xmpp-bind").await;
    let resource = Element::parse(&bind).all("resource")[0].text.clone();
    let jid = format!("alice@localhost/{resource}");
    server.send(bound(Element::parse(&bind).attribute("id").unwrap(), &jid));
    server.send(message("after the bind"));
    let (carbons, metadata) = (asked(&mut server, CARBONS).await, asked(&mut server, "metadata").await);
    server.send(result(&carbons, ""));
    server.send(message("after the carbons"));
    let archive = "<metadata xmlns='urn:xmpp:mam:2'><start id='a' timestamp='2024-01-01T00:00:00Z'/></metadata>";
    server.send(result(&metadata, archive));
    let success = Success::of(alice.next_item().await);
    assert_eq!(success.jid(), jid);
    assert!(success.carbons() && success.xml.contains(archive), "{}", success.xml);
    assert!(alice.next_item().await.starts_with(FEATURES));
    assert_eq!(bodies(&alice.messages(2).await), ["after the bind", "after the carbons"]);
    assert_eq!(alice.handled, 2, "the counters are zero at the success");
    alice.ack().await;
    lost(&pushward, alice, &jid).await;
    server.send(message("dark"));
    let inline = format!("{}{}", device(PHONE), resume(&success.id(), 2));
    let (mut alice, again) = logged_in(&pushward, "alice", &with_password("alice", &inline)).await;
    assert_eq!(again.resumed(&success.id(), &jid), 0);
    assert_eq!(bodies(&alice.messages(1).await), ["dark"]);
}

#[tokio::test]
async fn answers_after_the_deadline_never_reach_the_client() {
    let (mut stub, pushward) = started(&[]).await;
    let (mut alice, _) = opened(&pushward, "alice").await;
    let began = Instant::now();
    alice.send(with_password("alice", &device(PHONE))).await;
    let mut server = stub.session().await;
    let (carbons, metadata) = (asked(&mut server, CARBONS).await, asked(&mut server, "metadata").await);
    // The client waits for the answers, and not for longer than the deadline.
    let success = Success::of(alice.next().await);
    let waited = began.elapsed();
    assert!(waited >= EXTRAS && waited < EXTRAS * 2, "{waited:?}");
    assert!(!success.carbons() && !success.id().is_empty(), "{}", success.xml);
    alice.expect(FEATURES).await;
    for id in [&carbons, &metadata] {
        server.send(result(id, ""));
        server.send(error(id));
    }
    server.send(message("after"));
    let next = alice.next().await;
    assert_eq!(bodies(std::slice::from_ref(&next)), ["after"], "{next}");
    assert_eq!(alice.handled, 1);
    alice.roundtrip().await;
    for id in [carbons, metadata] {
        assert!(!alice.transcript().contains(&id), "{}", alice.transcript());
    }
    // Silence is no refusal.
    let (_, features) = opened(&pushward, "alice").await;
    assert!(features.contains(CARBONS), "{features}");
}

#[tokio::test]
async fn a_server_that_refuses_carbons_is_not_asked_again_and_the_login_succeeds() {
    let (mut stub, pushward) = started(&[]).await;
    let (mut alice, _) = opened(&pushward, "alice").await;
    alice.send(with_password("alice", &device(PHONE))).await;
    let mut server = stub.session().await;
    for needle in [CARBONS, "metadata"] {
        let id = asked(&mut server, needle).await;
        server.send(error(&id));
    }
    let success = Success::of(alice.next().await);
    assert!(!success.carbons() && !success.id().is_empty(), "{}", success.xml);
    alice.send("</stream:stream>").await;
    alice.closed(PATIENCE).await;

    let (mut alice, features) = opened(&pushward, "alice").await;
    assert!(!features.contains(CARBONS) && features.contains("urn:xmpp:bind:0"), "{features}");
    alice.send(with_password("alice", &device(PHONE))).await;
    assert!(!Success::of(alice.next().await).carbons());
    let mut server = stub.fresh().await;
    alice.roundtrip().await;
    assert_eq!(server.rest(), [""; 0], "nothing was asked for");
}

#[tokio::test]
async fn a_server_that_refuses_the_bind_leaves_it_to_the_client() {
    let (mut stub, pushward) = started(&["<iq"]).await;
    let (mut alice, _) = opened(&pushward, "alice").await;
    alice.send(with_password("alice", &device(PHONE))).await;
    let mut server = stub.connection().await;
    let bind = asked(&mut server, "xmpp-bind").await;
    server.send(error(&bind));
    let success = Success::of(alice.next().await);
    assert_eq!(success.jid(), "alice@localhost");
    assert!(success.root.child("bound").is_none(), "{}", success.xml);
    let features = Element::parse(&alice.next_item().await);
    assert!(features.child("bind").is_some() && features.child("sm").is_some(), "{features:?}");
    alice.send("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>").await;
    assert_eq!(asked(&mut server, "xmpp-bind").await, "b");
    server.send(bound("b", "alice@localhost/other"));
    assert!(alice.next().await.contains("alice@localhost/other"));
    alice.enable().await;
}

#[tokio::test]
async fn a_client_that_logs_in_inactive_is_inactive() {
    let (mut stub, pushward) = started(&[]).await;
    let inline = device(PHONE).replace("</bind>", "<inactive xmlns='urn:xmpp:csi:0'/></bind>");
    let (mut alice, server, _) = phone(&mut stub, &pushward, &inline).await;
    let typing = "<message from='bob@localhost/desk' to='alice@localhost/phone' id='typing'>\
                  <composing xmlns='http://jabber.org/protocol/chatstates'/></message>";
    server.send(format!("{typing}{}", message("important")));
    // The first was held until the second came.
    let held = Element::parse(&alice.expect("composing").await);
    assert!(held.child("delay").is_some(), "{held:?}");
    assert_eq!(bodies(&alice.messages(1).await), ["important"]);
    alice.send("<active xmlns='urn:xmpp:csi:0'/>").await;
    alice.roundtrip().await;
    server.send(typing);
    let live = Element::parse(&alice.expect("composing").await);
    assert!(live.child("delay").is_none(), "{live:?}");
}

#[tokio::test]
async fn a_server_that_is_lost_before_the_success_is_a_stream_error() {
    for (leaves, before) in [(&["<iq"][..], "xmpp-bind"), (&[][..], CARBONS)] {
        let (mut stub, pushward) = started(leaves).await;
        let (mut alice, _) = opened(&pushward, "alice").await;
        alice.send(with_password("alice", &device(PHONE))).await;
        let mut server = stub.connection().await;
        server.expect(before).await;
        server.close();
        let seen = alice.closed(PATIENCE).await;
        assert!(seen[0].contains("<remote-connection-failed "), "{seen:?}");
        assert!(!seen.iter().any(|element| element.starts_with("<success")), "{seen:?}");
    }
}

#[tokio::test]
async fn a_session_whose_server_was_lost_is_failed_beside_a_new_one_that_has_its_messages() {
    let (mut stub, pushward) = started(&[]).await;
    let (mut alice, server, success) = phone(&mut stub, &pushward, &device(PHONE)).await;
    let (jid, id) = (success.jid().to_owned(), success.id());
    alice.send(format!("{}{}", message("1"), message("2"))).await;
    alice.acked_up_to(2).await;
    lost(&pushward, alice, &jid).await;
    server.send(message("waits"));
    pushward.stored("waits").await;
    server.close();
    pushward.logged(&["session ended", &jid]).await;
    let (mut alice, mut server, success) =
        phone(&mut stub, &pushward, &format!("{}{}", device(PHONE), resume(&id, 0))).await;
    assert_eq!((success.failed(), success.jid()), (Some(2), jid.as_str()));
    assert_ne!(success.id(), id);
    assert_eq!(bodies(&alice.messages(1).await), ["waits"]);
    alice.send(message("3")).await;
    server.expect("<body>3<").await;
    alice.acked_up_to(1).await;
}

#[tokio::test]
async fn a_stream_error_of_the_server_is_the_only_one() {
    let (mut stub, pushward) = started(&["<iq"]).await;
    let (mut alice, _) = opened(&pushward, "alice").await;
    alice.send(with_password("alice", &device(PHONE))).await;
    let mut server = stub.connection().await;
    server.expect("xmpp-bind").await;
    let theirs = "<stream:error><policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>";
    server.send(format!("{theirs}</stream:stream>"));
    assert_eq!(alice.closed(PATIENCE).await, [theirs, "</stream:stream>"]);
}

/// While the login waits for the server, the client is not read: its loss is noticed with the next write.
#[tokio::test]
async fn a_client_that_is_lost_during_its_login_leaves_a_session_only_if_it_could_resume() {
    for resumable in [false, true] {
        let (mut stub, pushward) = started(&["<iq"]).await;
        let (mut alice, _) = opened(&pushward, "alice").await;
        let inline = if resumable { device(PHONE) } else { device(PHONE).replace(" resume='true'", "") };
        alice.send(with_password("alice", &inline)).await;
        let mut server = stub.connection().await;
        let id = asked(&mut server, "xmpp-bind").await;
        alice.reset();
        server.send(bound(&id, "alice@localhost/phone"));
        for needle in [CARBONS, "metadata"] {
            let id = asked(&mut server, needle).await;
            server.send(result(&id, ""));
        }
        if resumable {
            pushward.logged(&["dark", "alice@localhost/phone"]).await;
            server.assert_open();
        } else {
            server.closed(PATIENCE).await;
        }
    }
}

#[tokio::test]
async fn everything_in_one_write_reaches_the_server_in_its_order() {
    let (mut stub, pushward) = started(&[]).await;
    let mut alice = pushward.connect().await;
    let login = with_password("alice", &device(PHONE));
    let first = "<presence/><message to='bob@localhost' id='1'><body>1</body></message>";
    alice.send(format!("{}{login}{first}<r xmlns='{SM}'/>", header_from("alice"))).await;
    let mut server = stub.session().await;
    for needle in [CARBONS, "metadata"] {
        let id = asked(&mut server, needle).await;
        server.send(result(&id, ""));
    }
    assert_eq!([server.next().await, server.next().await].concat(), first);
    alice.expect(FEATURES).await;
    Success::of(alice.next().await).id();
    assert!(alice.next_item().await.starts_with(FEATURES));
    alice.ack_reaches(2).await;
}

#[tokio::test]
async fn a_count_that_is_too_high_ends_the_stream_and_not_the_session() {
    let (mut stub, pushward) = started(&[]).await;
    let (alice, server, success) = phone(&mut stub, &pushward, &device(PHONE)).await;
    let (jid, id) = (success.jid().to_owned(), success.id());
    lost(&pushward, alice, &jid).await;
    server.send(message("waits"));
    let (mut alice, _) = opened(&pushward, "alice").await;
    alice.send(with_password("alice", &format!("{}{}", device(PHONE), resume(&id, 99)))).await;
    let seen = alice.closed(PATIENCE).await;
    assert!(seen[0].contains("handled-count-too-high"), "{seen:?}");
    let inline = format!("{}{}", device(PHONE), resume(&id, 0));
    let (mut alice, again) = logged_in(&pushward, "alice", &with_password("alice", &inline)).await;
    again.resumed(&id, &jid);
    assert_eq!(bodies(&alice.messages(1).await), ["waits"]);
    server.assert_open();
}

#[tokio::test]
async fn stream_management_is_optional_and_can_begin_later() {
    let (mut stub, pushward) = started(&[]).await;
    let none = device(PHONE).replace(&format!("<enable xmlns='{SM}' resume='true'/>"), "");
    let (mut alice, _server, success) = phone(&mut stub, &pushward, &none).await;
    assert!(success.managed("enabled").is_none(), "{}", success.xml);
    let enabled = alice.enable().await;
    alice.send(message("1")).await;
    alice.acked_up_to(1).await;
    assert!(!enabled.id.is_empty());

    let acks_only = device(TABLET).replace(" resume='true'", "");
    let (mut alice, _server, success) = phone(&mut stub, &pushward, &acks_only).await;
    let enabled = success.managed("enabled").unwrap();
    assert_eq!((enabled.attribute("id"), enabled.attribute("resume")), (None, None), "{}", success.xml);
    alice.send(message("1")).await;
    alice.acked_up_to(1).await;
}

/// A challenge with a hash of the server's offers (XEP-0474). `h=` has no meaning to the client of this test.
#[tokio::test]
async fn a_server_that_hashes_its_offers_is_not_fronted_from_then_on() {
    for sasl2 in [true, false] {
        let (mut stub, pushward) = started(&["<auth ", "<response "]).await;
        let (mut alice, features) = opened(&pushward, "alice").await;
        assert!(features.contains("urn:xmpp:sasl:2"), "{features}");
        let mut scram = Scram::new("alice", PASSWORD);
        let first = scram.first();
        alice
            .send(if sasl2 {
                authenticate("SCRAM-SHA-1", &first, &device(PHONE))
            } else {
                format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-1'>{first}</auth>")
            })
            .await;
        let mut server = stub.connection().await;
        server.expect("<auth ").await;
        // r=fyko+d2lbbFgONRv9qkxdawL3rfc,s=QSXCR+Q6sek8bf92,i=4096,h=aGFzaA==
        let challenge = "cj1meWtvK2QybGJiRmdPTlJ2OXFreGRhd0wzcmZjLHM9UVNYQ1IrUTZzZWs4YmY5MixpPTQwOTYsaD1hR0Z6YUE9PQ==";
        server.send(format!("<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{challenge}</challenge>"));
        let asked = Element::parse(&alice.expect("<challenge").await);
        assert_eq!(asked.text, challenge, "the exchange itself is not touched");
        scram.last(&asked.text);
        let line = pushward.logged(&["\"level\":\"WARN\"", "does not offer SASL2 for this host any more"]).await;
        assert!(line.contains("XEP-0474") && line.contains("localhost"), "{line}");

        let (mut alice, features) = opened(&pushward, "alice").await;
        assert!(!features.contains("urn:xmpp:sasl:2"), "{features}");
        let mut server = stub.connection().await;
        alice.send(plain("alice", PASSWORD)).await;
        server.expect("<auth ").await;
        server.let_in("alice", "");
        alice.expect("<success").await;
        alice.open().await;
        assert_eq!(alice.bind("phone").await, "alice@localhost/phone");
        let warnings = pushward.log().iter().filter(|line| line.contains("offer SASL2")).count();
        assert_eq!(warnings, 1, "it is logged once");
    }
}

#[tokio::test]
async fn data_of_zero_length_and_no_data_stay_apart() {
    for (data, element) in [("", None), ("=", Some("")), ("dj1x", Some("dj1x"))] {
        let (mut stub, pushward) = started(&["<auth "]).await;
        let (mut alice, _) = opened(&pushward, "alice").await;
        alice.send(with_password("alice", "")).await;
        let mut server = stub.connection().await;
        server.expect("<auth ").await;
        server.let_in("alice", data);
        let success = Success::of(alice.next().await);
        let given = success.root.child("additional-data").map(|data| data.text.as_str());
        assert_eq!(given, element, "{}", success.xml);
        assert_eq!(success.jid(), "alice@localhost");
        assert!(success.managed("failed").is_none());
        let features = alice.next_item().await;
        assert!(features.starts_with(FEATURES) && features.contains(SM), "{features}");
    }
}
