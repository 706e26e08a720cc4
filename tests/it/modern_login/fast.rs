//! Returning to a held session by a token of Pushward's own (FAST, XEP-0484): one round trip, and the server is not connected.

use rustls::version::{TLS12, TLS13};

use super::scripted::{leaving, phone, phone_of, started};
use super::{FEATURES, Legacy, PHONE, SASL2, Stage, TABLET, assert_refused, chat, device};
use crate::admin::ask;
use crate::support::{
    Client, Device, EXPR, Element, FAST, NONE, PASSWORD, PATIENCE, Pushward, SM, Scram, Setup, StubConnection,
    StubUpstream, Success, Token, asks, authenticate, bodies, header_from, logged_in, lost, message, numbered, opened,
    plain, resume, wish, with_password,
};

const CONNECTS: &str = "pushward_upstream_connects_total{host=\"localhost\",outcome=\"connected\"}";

/// alice's phone with a token, on a scripted server.
pub(super) struct Enrolled {
    pub(super) stub: StubUpstream,
    pub(super) pushward: Pushward,
    pub(super) client: Client,
    pub(super) server: StubConnection,
    pub(super) device: Device,
}

impl Enrolled {
    pub(super) async fn new() -> Self {
        Self::with(NONE, |setup| setup).await
    }

    pub(super) async fn with(mechanism: &'static str, settings: impl FnOnce(Setup) -> Setup) -> Self {
        let mut stub = StubUpstream::start(leaving(&[])).await;
        let setup = settings(Setup::new(stub.address).with_metrics()).env("RUST_LOG", "trace");
        let pushward = Pushward::start(setup).await;
        let (client, server, device) = enrolled(&mut stub, &pushward, ("alice", PHONE), mechanism).await;
        Self { stub, pushward, client, server, device }
    }

    /// Loses the client's connection.
    pub(super) async fn dark(&mut self) {
        let client = std::mem::replace(&mut self.client, self.pushward.connect().await);
        lost(&self.pushward, client, &self.device.jid).await;
    }

    /// Logs the phone in again by its password, without a request for a token. Its token stays, and gets the new session.
    pub(super) async fn log_in_again(&mut self) {
        let (client, server, success) = phone(&mut self.stub, &self.pushward, &asks(PHONE)).await;
        (self.client, self.server) = (client, server);
        (self.device.id, self.device.jid, self.device.handled) = (success.id(), success.jid().to_owned(), 0);
    }

    /// Checks that a client with these data is refused, that it costs no connection to the server, and that the password works
    /// on the same stream.
    pub(super) async fn refuses(&mut self, device: &Device, more: &str) {
        let (client, _) = opened(&self.pushward, device.user).await;
        let login = device.authenticate(&client, more);
        self.refuses_login(client, &login, "not-authorized").await;
    }

    /// The same for any login on an opened stream, with the condition of the refusal.
    pub(super) async fn refuses_login(&mut self, mut client: Client, login: &str, condition: &str) {
        client.send(login).await;
        assert_refused(&client.next().await, SASL2, Some(condition));
        client.send(with_password("alice", "")).await;
        assert_eq!(Success::of(client.next().await).jid(), "alice@localhost");
        assert_eq!(self.stub.connection().await.seen().users, ["alice"]);
        self.stub.assert_not_connected();
    }

    /// Checks that the token opens the session, and that the server is not connected.
    pub(super) async fn accepts(&mut self, more: &str) -> Success {
        let success;
        (self.client, success) = self.device.returns(&self.pushward, more).await;
        self.stub.assert_not_connected();
        success
    }

    /// Returns the number of logins by token with this outcome.
    pub(super) async fn outcomes(&self, outcome: &str) -> u64 {
        self.pushward.metric(&format!("pushward_fast_logins_total{{outcome=\"{outcome}\"}}")).await
    }

    pub(super) fn assert_secrets_stay(&self, device: &Device) {
        self.pushward.assert_log_never_contains(&device.token.text);
        self.pushward.assert_log_never_contains(&device.token.initial(device.user, &[]));
    }
}

/// Logs a user agent in by its password. It gets a token.
pub(super) async fn enrolled(
    stub: &mut StubUpstream,
    pushward: &Pushward,
    (user, agent): (&'static str, &'static str),
    mechanism: &'static str,
) -> (Client, StubConnection, Device) {
    let inline = format!("{}{}", asks(agent), wish(mechanism));
    let (client, server, success) = phone_of(user, stub, pushward, &inline).await;
    (client, server, Device::of(&success, user, agent, mechanism))
}

#[tokio::test]
async fn a_token_returns_what_waited_in_one_flight_and_no_server_is_connected() {
    for mechanism in [NONE, EXPR] {
        let mut phone = Enrolled::with(mechanism, |setup| setup).await;
        let connects = phone.pushward.metric(CONNECTS).await;
        let mut received = Vec::new();
        for round in 0..3 {
            phone.dark().await;
            let waiting = numbered(&format!("dark {round}"), 1..=3);
            waiting.iter().for_each(|body| phone.server.send(message(body)));
            let success = phone.accepts("").await;
            assert!(success.root.child("token").is_none(), "none was asked for: {}", success.xml);
            phone.client.send(chat(&format!("up {round}"))).await;
            assert_eq!(bodies(&[phone.server.expect("<body>").await]), [format!("up {round}")]);
            phone.server.send(message(&format!("live {round}")));
            let mut expected = waiting.clone();
            expected.push(format!("live {round}"));
            let seen = phone.client.bodies_until(&expected).await;
            assert_eq!(seen, expected, "everything once, and in order");
            received.extend(seen);
            phone.device.handled = phone.client.handled;
            assert!(!phone.client.transcript().contains("<bound"), "{}", phone.client.transcript());
        }
        assert_eq!(received.len(), 12);
        phone.client.acked_up_to(3).await;
        assert_eq!(phone.pushward.metric(CONNECTS).await, connects);
        assert_eq!(phone.outcomes("accepted").await, 3);
        phone.stub.assert_not_connected();
        phone.server.assert_open();
        let sessions = ask(&phone.pushward, &["sessions"]).await;
        assert!(sessions.out.contains("SASL2 FAST"), "{}", sessions.out);
        phone.assert_secrets_stay(&phone.device);
    }
}

async fn a_device_returns_by_rotating_tokens_without_loss_and_repetition(server: Legacy, mechanism: &'static str) {
    let mut stage = Stage::with(server, Setup::with_metrics).await;
    let inline = format!("{}{}", device(PHONE), wish(mechanism));
    let (mut alice, success) = stage.logged_in("SCRAM-SHA-1", &inline).await;
    let mut phone = Device::of(&success, "alice", PHONE, mechanism);
    alice.expect(FEATURES).await;
    alice.available().await;
    let connects = stage.pushward.metric(CONNECTS).await;
    // Presence and a ping.
    let (mut sent, mut received, mut down) = (2, Vec::new(), Vec::new());
    for round in 0..4 {
        let up = numbered(&format!("up {round}"), 1..=3);
        for body in &up {
            alice.send(chat(body)).await;
        }
        phone.handled = alice.handled;
        alice.reset();
        down.push(format!("down {round}"));
        stage.bob.say("alice@localhost", &down[2 * round]).await;
        let success;
        (alice, success) = phone.returns(&stage.pushward, &wish(mechanism)).await;
        phone.token = Token::of(&success, mechanism).expect("a new token");
        let taken = usize::try_from(alice.acked[0].checked_sub(sent).expect("h went back")).unwrap();
        for body in &up[taken..] {
            alice.send(chat(body)).await;
        }
        sent += 3;
        alice.acked_up_to(sent).await;
        down.push(format!("live {round}"));
        stage.bob.say(&phone.jid, &down[2 * round + 1]).await;
        received.extend(bodies(&alice.messages(2).await));
    }
    assert_eq!(received, down);
    let all: Vec<String> = (0..4).flat_map(|round| numbered(&format!("up {round}"), 1..=3)).collect();
    assert_eq!(stage.bob.bodies_until(&all).await, all);
    assert_eq!(stage.pushward.metric(CONNECTS).await, connects);
    assert_eq!(stage.pushward.metric("pushward_fast_logins_total{outcome=\"accepted\"}").await, 4);
}

#[tokio::test]
async fn prosody_a_device_returns_by_rotating_tokens_without_loss_and_repetition() {
    a_device_returns_by_rotating_tokens_without_loss_and_repetition(Legacy::prosody().await, NONE).await;
}

#[tokio::test]
async fn managed_prosody_a_device_returns_by_rotating_tokens_without_loss_and_repetition() {
    a_device_returns_by_rotating_tokens_without_loss_and_repetition(Legacy::managed_prosody().await, EXPR).await;
}

#[tokio::test]
async fn ejabberd_a_device_returns_by_rotating_tokens_without_loss_and_repetition() {
    a_device_returns_by_rotating_tokens_without_loss_and_repetition(Legacy::ejabberd().await, NONE).await;
}

#[tokio::test]
async fn a_token_takes_over_a_session_with_a_half_open_connection() {
    let mut phone = Enrolled::new().await;
    phone.client.acks = false;
    phone.server.send(message("unread"));
    assert_eq!(bodies(&phone.client.messages(1).await), ["unread"]);
    // The client has not stored it, and comes over another network.
    let (mut again, _) = phone.device.returns(&phone.pushward, "").await;
    assert_eq!(bodies(&again.messages(1).await), ["unread"]);
    phone.client.closed(PATIENCE).await;
    phone.server.send(message("live"));
    assert_eq!(bodies(&again.messages(1).await), ["live"]);
    phone.stub.assert_not_connected();
}

#[tokio::test]
async fn a_new_token_is_given_on_request_and_the_old_one_works_until_the_new_one_is_used() {
    let mut phone = Enrolled::new().await;
    let first = phone.device.clone();
    let new = |success: &Success| Token::of(success, NONE).unwrap_or_else(|| panic!("no token: {}", success.xml));
    let second = new(&phone.accepts(&wish(NONE)).await);
    assert_ne!(second.text, first.token.text);
    phone.accepts("").await;
    // The answer is lost: the client asks again with the token that it has.
    let third = new(&phone.accepts(&wish(NONE)).await);
    phone.refuses(&Device { token: second, ..first.clone() }, FAST).await;
    phone.accepts("").await;
    phone.device.token = third;
    phone.accepts("").await;
    phone.refuses(&first, FAST).await;
    phone.accepts("").await;
    // A password gives a token as well, also where it resumes, and each mechanism has its own.
    let request = format!("{}{}{}", asks(PHONE), resume(&first.id, 0), wish(EXPR));
    let (_client, success) = logged_in(&phone.pushward, "alice", &with_password("alice", &request)).await;
    success.resumed(&first.id, &first.jid);
    drop(phone.stub.connection().await);
    // It does not end the token of the other mechanism before it is used. Then it may (XEP-0484 §3.5).
    phone.accepts("").await;
    phone.device.token = Token::of(&success, EXPR).expect("a token");
    phone.accepts("").await;
    phone.assert_secrets_stay(&first);
}

#[tokio::test]
async fn channel_binding_needs_tls_1_3_and_the_connection_of_the_client() {
    let mut phone = Enrolled::with(EXPR, |setup| setup).await;
    let connect = async |pushward: &Pushward, version| {
        let mut client = Client::direct(pushward.direct, &pushward.tls().only(version)).await;
        client.send(header_from("alice")).await;
        let features = Element::parse(&client.expect(FEATURES).await);
        let [fast] = features.all("fast")[..] else { panic!("{features:?}") };
        assert_eq!(fast.attribute("tls-0rtt"), None);
        (client, fast.all("mechanism").iter().map(|mechanism| mechanism.text.clone()).collect::<Vec<_>>())
    };
    let (old, offered) = connect(&phone.pushward, &TLS12).await;
    assert_eq!(offered, [NONE]);
    for binding in [old.exporter(), vec![0; 32], Vec::new()] {
        let (old, _) = connect(&phone.pushward, &TLS12).await;
        let login = phone.device.bound_to(&binding, FAST);
        phone.refuses_login(old, &login, "not-authorized").await;
    }
    let (mut new, offered) = connect(&phone.pushward, &TLS13).await;
    assert_eq!(offered, [EXPR, NONE]);
    // Someone in the middle has a connection of each side.
    let (other, _) = connect(&phone.pushward, &TLS13).await;
    for binding in [other.exporter(), vec![0; 32], Vec::new()] {
        let login = phone.device.bound_to(&binding, FAST);
        new.send(login).await;
        assert_refused(&new.next().await, SASL2, Some("not-authorized"));
    }
    new.send(phone.device.authenticate(&new, FAST)).await;
    phone.device.accepted(&mut new).await;
    // A token for one mechanism is none for another.
    let unbound = Device { token: Token { mechanism: NONE, ..phone.device.token.clone() }, ..phone.device.clone() };
    phone.refuses(&unbound, FAST).await;
    phone.stub.assert_not_connected();
}

#[tokio::test]
async fn without_a_ttl_no_token_is_offered_given_or_accepted() {
    let mut phone = Enrolled::new().await;
    phone.dark().await;
    phone.pushward.configure(|setup| setup.set("fast.ttl", "'0s'"));
    assert!(phone.pushward.reload().await);
    let (mut client, features) = opened(&phone.pushward, "alice").await;
    assert!(!features.contains("urn:xmpp:fast:0") && features.contains(SM), "{features}");
    client.send(phone.device.authenticate(&client, FAST)).await;
    assert_refused(&client.next().await, SASL2, Some("invalid-mechanism"));
    client.send(with_password("alice", &wish(NONE))).await;
    let success = Success::of(client.next().await);
    assert!(success.root.child("token").is_none(), "{}", success.xml);
    drop(phone.stub.connection().await);

    // Tokens are not lost by it. After a reload, the server is not known until its next connection.
    phone.pushward.configure(|setup| setup.set("fast.ttl", "'1d'"));
    assert!(phone.pushward.reload().await);
    let (_client, _) = opened(&phone.pushward, "alice").await;
    drop(phone.stub.connection().await);
    phone.accepts("").await;
}

#[tokio::test]
async fn the_server_is_connected_at_the_header_until_it_is_known_and_later_only_if_it_has_to_answer() {
    let (mut stub, pushward) = started(&[]).await;
    let (_first, features) = opened(&pushward, "alice").await;
    let known = stub.connection().await;
    assert!(known.seen().header.contains("from='alice@localhost'"), "{:?}", known.seen());
    for name in ["alice", "bob"] {
        let (_client, from_memory) = opened(&pushward, name).await;
        assert_eq!(from_memory, features);
        stub.assert_not_connected();
    }
    // A client that does not name its account has no token.
    let mut nameless = pushward.connect().await;
    assert_eq!(nameless.open().await, features);
    drop(stub.connection().await);

    // Both profiles, and an iq, need the server.
    let (mut client, _) = opened(&pushward, "alice").await;
    client.send(plain("alice", PASSWORD)).await;
    client.expect("<success").await;
    client.open().await;
    assert_eq!(client.bind("old").await, "alice@localhost/old");
    drop(stub.session().await);
    let (mut client, _) = opened(&pushward, "alice").await;
    client.send("<iq type='get' id='r' to='localhost'><query xmlns='jabber:iq:register'/></iq>").await;
    let mut server = stub.connection().await;
    server.expect("jabber:iq:register").await;
    server.send("<iq type='result' id='r'><query xmlns='jabber:iq:register'/></iq>");
    client.expect("id='r'").await;
    client.send(with_password("alice", "")).await;
    Success::of(client.next().await);
    stub.assert_not_connected();
}

#[tokio::test]
async fn a_server_that_offers_something_else_meanwhile_ends_the_login_and_is_known_from_then_on() {
    for sasl2 in [true, false] {
        let (mut stub, pushward) = started(&[]).await;
        let (first, _) = opened(&pushward, "alice").await;
        drop((first, stub.connection().await));
        stub.change(|options| options.before = options.before.replace("<mechanism>PLAIN</mechanism>", ""));
        let (mut client, features) = opened(&pushward, "alice").await;
        assert!(features.contains("<mechanism>PLAIN</mechanism>"), "{features}");
        client.send(if sasl2 { with_password("alice", &asks(PHONE)) } else { plain("alice", PASSWORD) }).await;
        let server = stub.connection().await;
        let seen = client.closed(PATIENCE).await;
        let namespace = if sasl2 { SASL2 } else { super::SASL };
        assert_refused(&seen[0], namespace, Some("temporary-auth-failure"));
        assert_eq!(seen[1..], ["</stream:stream>"]);
        server.footer(PATIENCE).await;
        assert!(server.seen().users.is_empty(), "{:?}", server.seen());

        let (_client, features) = opened(&pushward, "alice").await;
        assert!(!features.contains("<mechanism>PLAIN</mechanism>"), "{features}");
        stub.assert_not_connected();
    }
}

#[tokio::test]
async fn tokens_outlive_a_restart_although_their_sessions_do_not() {
    let mut stage = Stage::with(Legacy::prosody().await, |setup| {
        setup.with_metrics().set("limits.failed_logins_per_address", "1").env("RUST_LOG", "trace")
    })
    .await;
    let inline = format!("{}{}", asks(PHONE), wish(NONE));
    let (alice, success) = stage.logged_in("PLAIN", &inline).await;
    let mut phone = Device::of(&success, "alice", PHONE, NONE);
    lost(&stage.pushward, alice, &phone.jid).await;
    stage.bob.say(&phone.jid, "dark").await;
    // The record on disk opens nothing: it has only the key of the HMAC.
    stage.pushward.stored("HT-SHA-256-NONE").await;
    stage.pushward.restart().await;
    for round in 0..3 {
        let (mut alice, _) = opened(&stage.pushward, "alice").await;
        alice.send(phone.authenticate(&alice, FAST)).await;
        assert_refused(&alice.next().await, SASL2, Some("not-authorized"));
        if round < 2 {
            continue;
        }
        // The password works on the same stream. The new session of the user agent is open to the old token.
        let request = format!("{}{}", asks(PHONE), resume(&phone.id, 0));
        let success = Scram::new("alice", PASSWORD).log_in(&mut alice, &request).await;
        assert!(success.failed().is_some());
        (phone.id, phone.jid) = (success.id(), success.jid().to_owned());
        alice.expect(FEATURES).await;
        alice.send("<presence/>").await;
        assert_eq!(bodies(&alice.messages(1).await), ["dark"]);
        alice.roundtrip().await;
        phone.handled = alice.handled;
        lost(&stage.pushward, alice, &phone.jid).await;
    }
    let connects = stage.pushward.metric(CONNECTS).await;
    stage.bob.say(&phone.jid, "dark again").await;
    let (mut alice, _) = phone.returns(&stage.pushward, "").await;
    assert_eq!(bodies(&alice.messages(1).await), ["dark again"]);
    assert_eq!(stage.pushward.metric(CONNECTS).await, connects);
    stage.pushward.assert_log_never_contains(&phone.token.text);
    stage.pushward.assert_log_never_contains(&phone.token.initial("alice", &[]));
    stage.pushward.assert_log_never_contains(PASSWORD);
}

#[tokio::test]
async fn a_token_needs_a_user_agent_and_a_session_of_it() {
    let (mut stub, pushward) = started(&[]).await;
    let nameless = asks(PHONE).replace(&format!(" id='{PHONE}'"), "");
    let (_client, _server, success) = phone(&mut stub, &pushward, &format!("{nameless}{}", wish(NONE))).await;
    assert!(success.root.child("token").is_none(), "{}", success.xml);
    for unknown in ["HT-SHA-512-NONE", "HT-SHA-256-ENDP", "PLAIN", ""] {
        let inline = format!("{}{}", asks(TABLET), wish(unknown));
        let (_client, _server, success) = phone(&mut stub, &pushward, &inline).await;
        assert!(success.root.child("token").is_none(), "{unknown}: {}", success.xml);
    }
    // A client may ask for a token without a bind. It can only use it once it has a session.
    let (mut client, _) = opened(&pushward, "alice").await;
    let only = format!("<user-agent id='{PHONE}'/>{}", wish(NONE));
    client.send(with_password("alice", &only)).await;
    let success = Success::of(client.next().await);
    let token = Token::of(&success, NONE).expect("a token");
    client.expect(FEATURES).await;
    client.bind("late").await;
    let id = client.enable().await.id;
    let _server = stub.session().await;
    let late = Device {
        user: "alice",
        agent: PHONE,
        id,
        jid: "alice@localhost/late".into(),
        handled: 0,
        token: token.clone(),
    };
    let (mut client, _) = opened(&pushward, "alice").await;
    client.send(authenticate(NONE, &token.initial("alice", &[]), &format!("{}{FAST}", asks(PHONE)))).await;
    assert_refused(&client.next().await, SASL2, Some("not-authorized"));
    late.returns(&pushward, "").await;
    stub.assert_not_connected();
}

/// Some servers answer in the language of the client's header, some in their own, and some in none.
async fn clients_of_each_language_get_their_header_without_the_server(server: Legacy) {
    let stage = Stage::with(server, Setup::with_metrics).await;
    let headers =
        ["xml:lang='en'", "xml:lang='de'", ""].map(|lang| header_from("alice").replace("xml:lang='en'", lang));
    let first_header = async |header: &str| {
        let mut client = stage.pushward.connect().await;
        client.send(header).await;
        client.expect(FEATURES).await;
        let transcript = client.transcript();
        let seen = transcript.lines().find(|line| line.contains("<stream:stream")).unwrap();
        seen.split_once("xml:lang=").map(|(_, lang)| lang.chars().take(4).collect::<String>())
    };
    let mut languages = Vec::new();
    for header in &headers {
        languages.push(first_header(header).await);
    }
    let connects = stage.pushward.metric(CONNECTS).await;
    for (header, language) in headers.iter().zip(&languages) {
        assert_eq!(first_header(header).await, *language);
    }
    assert_eq!(stage.pushward.metric(CONNECTS).await, connects);
    for header in &headers {
        let mut client = stage.pushward.connect().await;
        client.send(format!("{header}{}", with_password("alice", ""))).await;
        client.expect(FEATURES).await;
        Success::of(client.next().await);
    }
}

#[tokio::test]
async fn prosody_clients_of_each_language_get_their_header_without_the_server() {
    clients_of_each_language_get_their_header_without_the_server(Legacy::prosody().await).await;
}

#[tokio::test]
async fn ejabberd_clients_of_each_language_get_their_header_without_the_server() {
    clients_of_each_language_get_their_header_without_the_server(Legacy::ejabberd().await).await;
}

#[tokio::test]
async fn jabberd2_clients_of_each_language_get_their_header_without_the_server() {
    clients_of_each_language_get_their_header_without_the_server(Legacy::jabberd2().await).await;
}

#[tokio::test]
async fn jabberd2_a_device_returns_by_rotating_tokens_without_loss_and_repetition() {
    a_device_returns_by_rotating_tokens_without_loss_and_repetition(Legacy::jabberd2().await, EXPR).await;
}
