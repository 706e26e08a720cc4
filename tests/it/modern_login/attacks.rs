//! Attacks on the login that Pushward offers in front of a server. What it composes itself must prove nothing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::scripted::{asked, bound, phone, result, started};
use super::{FEATURES, PHONE, SASL, SASL2, TABLET, assert_refused, device};
use crate::support::{
    CARBONS, Client, Element, HEADER, PASSWORD, PATIENCE, Pushward, Scram, StubConnection, StubUpstream, Success,
    authenticate, bodies, header_from, lost, message, opened, plain, resume, with_password,
};

const CHALLENGE: &str = "<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>";

fn plain_for(authzid: &str, authcid: &str, inline: &str) -> String {
    authenticate("PLAIN", &BASE64.encode(format!("{authzid}\0{authcid}\0{PASSWORD}")), inline)
}

#[tokio::test]
async fn another_accounts_authorization_identity_is_refused_and_the_server_is_not_asked() {
    let (mut stub, pushward) = started(&["<auth ", "<response ", "<abort "]).await;
    let (mut alice, _) = opened(&pushward, "alice").await;
    let mut server = stub.connection().await;
    let scram = |authzid: &str| authenticate("SCRAM-SHA-1", &BASE64.encode(format!("n,{authzid},n=alice,r=x")), "");
    for attack in [
        plain_for("bob", "alice", &device(PHONE)),
        plain_for("bob@localhost", "alice", &device(PHONE)),
        plain_for("alice@localhost/phone", "alice", ""),
        plain_for("localhost", "alice", ""),
        plain_for("alice@localhost.evil.example", "alice", ""),
        scram("a=bob"),
        scram("a=bob@localhost"),
    ] {
        alice.send(&attack).await;
        assert_refused(&alice.next().await, SASL2, Some("invalid-authzid"));
    }
    for malformed in [
        plain_for("", "", ""),
        plain_for("", "alice@elsewhere.example", ""),
        authenticate("PLAIN", &BASE64.encode("alice"), ""),
        authenticate("PLAIN", "%%%", ""),
        scram("bob"),
    ] {
        alice.send(&malformed).await;
        assert_refused(&alice.next().await, SASL2, Some("malformed-request"));
    }
    assert_eq!((server.rest(), server.seen().users), (vec![], vec![]), "the server was asked");

    // The name may come later, in the first response.
    alice.send("<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'/>").await;
    server.expect("<auth ").await;
    server.send(CHALLENGE);
    alice.expect("<challenge").await;
    let late = BASE64.encode(format!("bob\0alice\0{PASSWORD}"));
    alice.send(format!("<response xmlns='{SASL2}'>{late}</response>")).await;
    let sent = server.next().await;
    assert!(sent.starts_with("<abort "), "{sent}");
    server.send("<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><aborted/></failure>");
    assert_refused(&alice.next().await, SASL2, Some("invalid-authzid"));

    // The same stream takes an honest login.
    alice.send(with_password("alice", "")).await;
    server.expect("<auth ").await;
    server.let_in("alice", "");
    assert_eq!(Success::of(alice.next().await).jid(), "alice@localhost");
}

#[tokio::test]
async fn the_profiles_do_not_mix_in_one_exchange() {
    let elements = |ns: &str| {
        ["response", "abort", "auth", "authenticate", "success", "next"]
            .map(|name| format!("<{name} xmlns='{ns}' mechanism='PLAIN'>AGFsaWNlAA==</{name}>"))
    };
    for (open, others) in [(SASL2, elements(SASL)), (SASL, elements(SASL2))] {
        for foreign in others {
            let (mut stub, pushward) = started(&["<auth ", "<response ", "<abort "]).await;
            let (mut alice, _) = opened(&pushward, "alice").await;
            let name = if open == SASL2 { "authenticate" } else { "auth" };
            alice.send(format!("<{name} xmlns='{open}' mechanism='SCRAM-SHA-1'/>")).await;
            let mut server = stub.connection().await;
            server.expect("<auth ").await;
            server.send(CHALLENGE);
            alice.expect("<challenge").await;
            alice.send(&foreign).await;
            let seen = alice.closed(PATIENCE).await;
            assert!(seen[0].starts_with("<stream:error>"), "{foreign}: {seen:?}");
            server.footer(PATIENCE).await;
            assert_eq!(server.rest(), [""; 0], "{foreign} reached the server");
        }
    }
}

#[tokio::test]
async fn after_the_success_no_profile_goes_on() {
    for after in [
        with_password("alice", ""),
        plain("alice", PASSWORD),
        format!("<response xmlns='{SASL2}'/>"),
        format!("<abort xmlns='{SASL2}'/>"),
        format!("<response xmlns='{SASL}'/>"),
    ] {
        for inline in [String::new(), device(PHONE)] {
            let (mut stub, pushward) = started(&[]).await;
            let mut alice = if inline.is_empty() {
                let (mut alice, _) = opened(&pushward, "alice").await;
                alice.send(with_password("alice", "")).await;
                Success::of(alice.next().await);
                alice.expect(FEATURES).await;
                alice
            } else {
                phone(&mut stub, &pushward, &inline).await.0
            };
            alice.send(&after).await;
            let seen = alice.closed(PATIENCE).await;
            assert!(seen[0].starts_with("<stream:error>"), "{after}: {seen:?}");
        }
    }
}

#[tokio::test]
async fn a_server_that_answers_in_the_other_profile_ends_the_login() {
    for forged in [
        "<success xmlns='urn:xmpp:sasl:2'><authorization-identifier>bob@localhost</authorization-identifier></success>",
        "<challenge xmlns='urn:xmpp:sasl:2'/>",
        "<failure xmlns='urn:xmpp:sasl:2'/>",
    ] {
        let (mut stub, pushward) = started(&["<auth "]).await;
        let (mut alice, _) = opened(&pushward, "alice").await;
        alice.send(with_password("alice", &device(PHONE))).await;
        let mut server = stub.connection().await;
        server.expect("<auth ").await;
        server.send(forged);
        let seen = alice.closed(PATIENCE).await;
        assert!(seen[0].starts_with("<stream:error>") && !seen.concat().contains("bob"), "{seen:?}");
    }
}

#[tokio::test]
async fn a_server_that_binds_another_account_than_the_client_was_told_ends_both_streams() {
    let (mut stub, pushward) = started(&["<iq"]).await;
    let (mut alice, _) = opened(&pushward, "alice").await;
    alice.send(with_password("alice", "")).await;
    assert_eq!(Success::of(alice.next().await).jid(), "alice@localhost");
    alice.expect(FEATURES).await;
    alice.send("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>").await;
    let mut server = stub.connection().await;
    let id = asked(&mut server, "xmpp-bind").await;
    server.send(bound(&id, "bob@localhost/phone"));
    let seen = alice.closed(PATIENCE).await;
    assert!(seen[0].starts_with("<stream:error>"), "{seen:?}");
    assert!(!alice.transcript().contains("<jid>bob@localhost"), "{}", alice.transcript());
    server.footer(PATIENCE).await;
    pushward.logged(&["\"level\":\"WARN\"", "localhost", "another account"]).await;
}

/// A dark session of alice with a message.
struct Held {
    stub: StubUpstream,
    pushward: Pushward,
    server: StubConnection,
    previd: String,
    jid: String,
    /// The server's ends of further sessions.
    others: Vec<StubConnection>,
}

impl Held {
    async fn new() -> Self {
        let (mut stub, pushward) = started(&["<iq type='set'"]).await;
        let (mut alice, _) = opened(&pushward, "alice").await;
        alice.send(with_password("alice", &device(PHONE))).await;
        let mut server = stub.connection().await;
        bind_as(&mut server, "alice@localhost").await;
        let success = Success::of(alice.next().await);
        let (previd, jid) = (success.id(), success.jid().to_owned());
        lost(&pushward, alice, &jid).await;
        server.send(message("for alice only"));
        Self { stub, pushward, server, previd, jid, others: Vec::new() }
    }

    /// Returns the inline requests of a login on this device that wants alice's session.
    fn request(&self, agent: &str) -> String {
        format!("{}{}", device(agent), resume(&self.previd, 0))
    }

    /// Logs in. The server accepts everything, and maps the login to this account.
    async fn log_in(&mut self, header: &str, login: &str, account: &str) -> (Client, Success) {
        let mut client = self.pushward.connect().await;
        client.send(header).await;
        client.expect(FEATURES).await;
        client.send(login).await;
        let mut server = self.stub.connection().await;
        bind_as(&mut server, account).await;
        self.others.push(server);
        let success = Success::of(client.next().await);
        assert!(success.jid().starts_with(&format!("{account}/Phone/")), "{}", success.xml);
        client.expect(FEATURES).await;
        (client, success)
    }

    /// Checks that the attacker has nothing of alice's, and that her session is as it was.
    async fn assert_untouched(mut self, mut mallory: Client) {
        mallory.send("<presence/>").await;
        mallory.roundtrip().await;
        assert!(!mallory.transcript().contains("alice only"), "{}", mallory.transcript());
        self.server.assert_open();
        assert_eq!(self.server.rest(), [""; 0]);
        let (mut alice, _) = opened(&self.pushward, "alice").await;
        alice.send(with_password("alice", &self.request(PHONE))).await;
        Success::of(alice.next().await).resumed(&self.previd, &self.jid);
        assert_eq!(bodies(&alice.messages(1).await), ["for alice only"]);
    }

    /// Checks that the login got a new session of alice's account, which the old one has handed its messages over to.
    async fn assert_handed_over(self, mut alice: Client, success: &Success) {
        assert!(success.managed("failed").is_some() && success.managed("resumed").is_none(), "{}", success.xml);
        assert_ne!(success.id(), self.previd);
        alice.send("<presence/>").await;
        assert_eq!(bodies(&alice.messages(1).await), ["for alice only"]);
        self.server.footer(PATIENCE).await;
    }
}

/// Answers the requests of a login: the server binds it to this account, and enables carbons.
async fn bind_as(server: &mut StubConnection, account: &str) {
    let request = Element::parse(&server.expect("xmpp-bind").await);
    let resource = &request.all("resource")[0].text;
    server.send(bound(request.attribute("id").unwrap(), &format!("{account}/{resource}")));
    for needle in [CARBONS, "metadata"] {
        let id = asked(server, needle).await;
        server.send(result(&id, ""));
    }
}

#[tokio::test]
async fn another_account_does_not_resume_a_session_inside_its_login() {
    for header in [header_from("mallory"), header_from("alice"), HEADER.to_owned()] {
        let mut held = Held::new().await;
        let login = with_password("mallory", &held.request(PHONE));
        let (mallory, success) = held.log_in(&header, &login, "mallory@localhost").await;
        assert_eq!(success.failed(), None, "the count is alice's");
        assert_ne!(success.id(), held.previd);
        held.assert_untouched(mallory).await;
    }
}

#[tokio::test]
async fn a_name_in_another_case_does_not_resume_a_session_inside_its_login() {
    // A server may have two accounts of which the names differ in case.
    let mut held = Held::new().await;
    let login = with_password("Alice", &held.request(PHONE));
    let (mallory, success) = held.log_in(HEADER, &login, "alice-of-another-case@localhost").await;
    assert_eq!(success.failed(), None);
    held.assert_untouched(mallory).await;
    // It may also have one. The bind proves that.
    let mut held = Held::new().await;
    let login = with_password("Alice", &held.request(TABLET));
    let (alice, success) = held.log_in(HEADER, &login, "alice@localhost").await;
    held.assert_handed_over(alice, &success).await;
}

/// An authorization identity is no proof, even if it is the account's own: the server decides what it means.
#[tokio::test]
async fn a_login_with_an_authorization_identity_does_not_resume_a_session_inside_its_login() {
    let mut held = Held::new().await;
    let login = plain_for("alice@localhost", "alice", &held.request(PHONE));
    let (mallory, success) = held.log_in(HEADER, &login, "mallory@localhost").await;
    assert_eq!(success.failed(), None);
    held.assert_untouched(mallory).await;
    let mut held = Held::new().await;
    let login = plain_for("alice@localhost", "alice", &held.request(TABLET));
    let (alice, success) = held.log_in(HEADER, &login, "alice@localhost").await;
    held.assert_handed_over(alice, &success).await;
}

/// The same user agent id in another account gives neither the resource nor the waiting messages.
#[tokio::test]
async fn a_stolen_user_agent_id_is_worth_nothing() {
    let mut held = Held::new().await;
    let login = with_password("mallory", &device(PHONE));
    let (mallory, success) = held.log_in(HEADER, &login, "mallory@localhost").await;
    assert!(success.managed("failed").is_none(), "{}", success.xml);
    assert_ne!(success.jid().split_once('/').unwrap().1, held.jid.split_once('/').unwrap().1);
    held.assert_untouched(mallory).await;
}

#[tokio::test]
async fn a_failed_exchange_leaves_no_claim_to_a_session() {
    let (mut stub, pushward) = started(&["<auth ", "<response "]).await;
    let (mut mallory, _) = opened(&pushward, "alice").await;
    let mut server = stub.connection().await;
    // The name is alice's, and the server refuses it. The next exchange is mallory's own.
    mallory.send(authenticate("SCRAM-SHA-1", &Scram::new("alice", "wrong").first(), &device(PHONE))).await;
    server.expect("<auth ").await;
    server.send("<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/></failure>");
    assert_refused(&mallory.next().await, SASL2, Some("not-authorized"));
    mallory.send(with_password("mallory", "")).await;
    server.expect("<auth ").await;
    server.let_in("mallory", "");
    assert_eq!(Success::of(mallory.next().await).jid(), "mallory@localhost");
}

#[tokio::test]
async fn mechanisms_that_are_not_offered_are_refused_without_the_server() {
    let (mut stub, pushward) = started(&["<auth "]).await;
    let (mut alice, features) = opened(&pushward, "alice").await;
    let mut server = stub.connection().await;
    for mechanism in ["EXTERNAL", "ANONYMOUS", "SCRAM-SHA-1-PLUS", "HT-SHA-512-NONE", "OAUTHBEARER", "plain", ""] {
        assert!(!features.contains(&format!("<mechanism>{mechanism}</mechanism>")), "{features}");
        alice.send(authenticate(mechanism, &BASE64.encode("\0alice\0x"), &device(PHONE))).await;
        assert_refused(&alice.next().await, SASL2, Some("invalid-mechanism"));
    }
    alice.send(with_password("alice", "")).await;
    let first = server.next().await;
    assert!(first.contains("mechanism='PLAIN'"), "{first}");
}
