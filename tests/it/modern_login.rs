//! SASL2 and Bind 2 in front of real servers that have neither: the login, and that the session behind it is whole.

mod attacks;
mod fast;
mod revocations;
mod scripted;
mod tokens;

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::version::TLS12;
use serde_json::json;

use crate::support::{
    Authority, CARBONS, Client, Ejabberd, Element, Jabberd2, Library, PASSWORD, PATIENCE, Peer, Prosody, Pushward, SM,
    Scram, Security, Setup, Success, Wire, asks, authenticate, bodies, eventually, header_from, logged_in, numbered,
    opened, plain, resume, with_password,
};

const FEATURES: &str = "<stream:features";
const PHONE: &str = "d4565fa7-4d72-4749-b3d3-740edbf87770";
const TABLET: &str = "8a5b0a5e-7b7f-4b39-9c11-0b3f7b8d4d9c";
const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
const SASL2: &str = "urn:xmpp:sasl:2";
const ABORT: &str = "<abort xmlns='urn:xmpp:sasl:2'/>";

/// Returns what a device asks for inside its login: a resource, message carbons and stream management.
fn device(agent: &str) -> String {
    asks(agent)
}

/// A server without SASL2.
enum Legacy {
    Prosody(Prosody),
    Ejabberd(Ejabberd),
    Jabberd2(Jabberd2),
}

impl Legacy {
    async fn prosody() -> Self {
        Self::Prosody(Prosody::start().await)
    }

    /// With its own stream management.
    async fn managed_prosody() -> Self {
        Self::Prosody(Prosody::with(&["smacks"]).await)
    }

    async fn ejabberd() -> Self {
        Self::Ejabberd(Ejabberd::start().await)
    }

    /// With its own stream management.
    async fn managed_ejabberd() -> Self {
        Self::Ejabberd(Ejabberd::managed().await)
    }

    async fn jabberd2() -> Self {
        Self::Jabberd2(Jabberd2::start().await)
    }

    fn address(&self) -> SocketAddr {
        match self {
            Self::Prosody(server) => server.address,
            Self::Ejabberd(server) => server.address,
            Self::Jabberd2(server) => server.address,
        }
    }

    fn has_carbons(&self) -> bool {
        !matches!(self, Self::Jabberd2(_))
    }
}

/// The proxy in front of a server, and bob, who is connected to the server without it.
struct Stage {
    pushward: Pushward,
    bob: Client,
    server: Legacy,
}

impl Stage {
    async fn of(server: Legacy) -> Self {
        Self::with(server, |setup| setup).await
    }

    async fn with(server: Legacy, settings: impl FnOnce(Setup) -> Setup) -> Self {
        let pushward = Pushward::start(settings(Setup::new(server.address()))).await;
        let mut bob = Client::plain(server.address()).await;
        bob.login("bob", "desk").await;
        bob.available().await;
        Self { pushward, bob, server }
    }

    /// Logs alice in with this mechanism, in the way of a client that waits for the features first.
    async fn logged_in(&self, mechanism: &str, inline: &str) -> (Client, Success) {
        let (mut alice, features) = opened(&self.pushward, "alice").await;
        let features = Element::parse(&features);
        let offer = features.child("authentication").expect("SASL2");
        assert!(offer.all("mechanism").iter().any(|offered| offered.text == mechanism), "{offer:?}");
        let success = if mechanism == "PLAIN" {
            alice.send(with_password("alice", inline)).await;
            Success::of(alice.next().await)
        } else {
            Scram::new("alice", PASSWORD).log_in(&mut alice, inline).await
        };
        (alice, success)
    }

    /// Opens an available session of alice on this device. Returns its resumption id and its JID too.
    async fn session(&self, agent: &str) -> (Client, String, String) {
        let (mut alice, success) = self.logged_in("PLAIN", &device(agent)).await;
        alice.expect(FEATURES).await;
        alice.available().await;
        (alice, success.id(), success.jid().to_owned())
    }
}

/// Returns the names of the mechanisms in a list of the features, without those that do not name the account.
fn mechanisms(features: &Element, list: &str) -> Vec<String> {
    let mechanisms = features.child(list).unwrap_or_else(|| panic!("no {list} in {features:?}")).all("mechanism");
    let names = mechanisms.iter().map(|mechanism| mechanism.text.clone());
    names.filter(|name| name == "PLAIN" || name.starts_with("SCRAM-")).collect()
}

async fn plain_and_scram_log_in_and_everything_that_was_asked_for_works(server: Legacy) {
    let mut stage = Stage::of(server).await;
    let carbons = stage.server.has_carbons();
    for (round, (mechanism, agent)) in [("PLAIN", PHONE), ("SCRAM-SHA-1", TABLET)].into_iter().enumerate() {
        let (_, features) = opened(&stage.pushward, "alice").await;
        let features = Element::parse(&features);
        assert_eq!(mechanisms(&features, "authentication"), mechanisms(&features, "mechanisms"));
        let inline = features.child("authentication").unwrap().child("inline").unwrap();
        assert_eq!(inline.all("sm").len(), 1, "{inline:?}");
        let vars: Vec<_> = inline.all("feature").iter().filter_map(|feature| feature.attribute("var")).collect();
        // A server that has refused carbons once is not expected to have them.
        let expected =
            if carbons || round == 0 { &[CARBONS, SM, "urn:xmpp:csi:0"][..] } else { &[SM, "urn:xmpp:csi:0"] };
        assert_eq!(vars, expected);

        let (mut alice, success) = stage.logged_in(mechanism, &device(agent)).await;
        let jid = success.jid().to_owned();
        assert!(jid.starts_with("alice@localhost/Phone/") && !jid.contains(&agent[..8]), "{jid}");
        assert!(!success.id().is_empty());
        assert_eq!(success.carbons(), carbons, "{}", success.xml);
        let features = Element::parse(&alice.next_item().await);
        assert_eq!(features.name, "features", "it follows the success at once");
        assert_eq!((features.all("csi").len(), features.all("bind").len(), features.all("sm").len()), (1, 0, 0));

        alice.available().await;
        alice.say("bob@localhost", "to bob").await;
        assert_eq!(bodies(&stage.bob.messages(1).await), ["to bob"]);
        stage.bob.say(&jid, "to alice").await;
        assert_eq!(bodies(&alice.messages(1).await), ["to alice"]);
        // Presence, a message, and a ping after each.
        alice.acked_up_to(4).await;
        if carbons {
            copies_reach(&mut alice, &mut stage).await;
        }
        alice.send("<iq type='set' id='again'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>").await;
        let again = Element::parse(&alice.answer("again").await);
        assert_eq!(again.attribute("type"), Some("error"), "{again:?}");
        assert_eq!(alice.whitespace(), 0);
        alice.send("</stream:stream>").await;
        alice.closed(PATIENCE).await;
    }
    stage.pushward.assert_log_never_contains(PASSWORD);
}

/// Another client of alice, connected to the server without the proxy, has a conversation that this one has to see.
async fn copies_reach(alice: &mut Client, stage: &mut Stage) {
    let mut desk = Client::plain(stage.server.address()).await;
    desk.login("alice", "desk").await;
    desk.available().await;
    stage.bob.say("alice@localhost/desk", "to the desk").await;
    desk.say("bob@localhost", "from the desk").await;
    for (direction, body) in [("received", "to the desk"), ("sent", "from the desk")] {
        let copy = Element::parse(&alice.expect("<forwarded").await);
        let wrapped = copy.child(direction).unwrap_or_else(|| panic!("not {direction}: {copy:?}"));
        assert_eq!((wrapped.ns.as_str(), wrapped.all("body")[0].text.as_str()), (CARBONS, body));
    }
    assert_eq!(bodies(&stage.bob.messages(1).await), ["from the desk"]);
    desk.send("</stream:stream>").await;
    desk.closed(PATIENCE).await;
}

async fn cut_connections_resume_inside_the_login_without_loss_and_repetition(server: Legacy) {
    let mut stage = Stage::of(server).await;
    let (mut alice, previd, jid) = stage.session(PHONE).await;
    // Presence and a ping.
    let (mut sent, mut received, mut down) = (2, Vec::new(), Vec::new());
    for round in 0..4 {
        let up = numbered(&format!("up {round}"), 1..=3);
        for body in &up {
            alice.send(chat(body)).await;
        }
        let handled = alice.handled;
        alice.reset();
        down.push(format!("down {round}"));
        stage.bob.say("alice@localhost", &down[2 * round]).await;
        let inline = format!("{}{}", device(PHONE), resume(&previd, handled));
        let mechanism = ["PLAIN", "SCRAM-SHA-1"][round % 2];
        let success;
        (alice, success) = stage.logged_in(mechanism, &inline).await;
        let h = success.resumed(&previd, &jid);
        (alice.handled, alice.acked) = (handled, vec![h]);
        let taken = usize::try_from(h.checked_sub(sent).expect("h went back")).unwrap();
        for body in &up[taken..] {
            alice.send(chat(body)).await;
        }
        sent += 3;
        alice.acked_up_to(sent).await;
        down.push(format!("live {round}"));
        stage.bob.say(&jid, &down[2 * round + 1]).await;
        received.extend(bodies(&alice.messages(2).await));
    }
    assert_eq!(received, down);
    let all: Vec<String> = (0..4).flat_map(|round| numbered(&format!("up {round}"), 1..=3)).collect();
    assert_eq!(stage.bob.bodies_until(&all).await, all);
}

fn chat(body: &str) -> String {
    format!("<message type='chat' to='bob@localhost' id='{body}'><body>{body}</body></message>")
}

async fn refused_and_aborted_attempts_may_be_followed_by_either_profile(server: Legacy) {
    let stage = Stage::of(server).await;
    let wrong = || Scram::new("alice", "wrong");
    let sasl2_fails = async |client: &mut Client| {
        let mut scram = wrong();
        client.send(authenticate("SCRAM-SHA-1", &scram.first(), &device(PHONE))).await;
        let challenge = Element::parse(&client.next().await);
        let response = scram.last(&challenge.text);
        client.send(format!("<response xmlns='urn:xmpp:sasl:2'>{response}</response>")).await;
        assert_refused(&client.next().await, SASL2, None);
    };
    let sasl_fails = async |client: &mut Client| {
        client.send(plain("alice", "wrong")).await;
        assert_refused(&client.next().await, SASL, None);
    };
    let (mut alice, _) = opened(&stage.pushward, "alice").await;
    sasl2_fails(&mut alice).await;
    let success = Scram::new("alice", PASSWORD).log_in(&mut alice, &device(PHONE)).await;
    assert!(success.jid().starts_with("alice@localhost/Phone/"), "{}", success.xml);
    alice.expect(FEATURES).await;
    alice.roundtrip().await;

    let (mut alice, _) = opened(&stage.pushward, "alice").await;
    sasl2_fails(&mut alice).await;
    alice.authenticate("alice").await;
    alice.open().await;
    assert_eq!(alice.bind("old").await, "alice@localhost/old");
    alice.roundtrip().await;

    let (mut alice, _) = opened(&stage.pushward, "alice").await;
    sasl_fails(&mut alice).await;
    alice.send(with_password("alice", &device(TABLET))).await;
    Success::of(alice.next().await).id();
    alice.expect(FEATURES).await;
    alice.roundtrip().await;

    for next in ["PLAIN", "SCRAM-SHA-1", ""] {
        let (mut alice, _) = opened(&stage.pushward, "alice").await;
        alice.send(authenticate("SCRAM-SHA-1", &wrong().first(), &device(TABLET))).await;
        alice.expect("<challenge").await;
        alice.send(ABORT).await;
        assert_refused(&alice.next().await, SASL2, Some("aborted"));
        match next {
            "PLAIN" => {
                alice.send(with_password("alice", &device(TABLET))).await;
                Success::of(alice.next().await).id();
                alice.expect(FEATURES).await;
            }
            "" => {
                alice.authenticate("alice").await;
                alice.open().await;
                alice.bind("after-abort").await;
            }
            _ => {
                Scram::new("alice", PASSWORD).log_in(&mut alice, &device(TABLET)).await.id();
                alice.expect(FEATURES).await;
            }
        }
        alice.roundtrip().await;
    }
}

/// Checks a `<failure/>` of this profile. Its condition has the namespace of RFC 6120 in both profiles.
fn assert_refused(xml: &str, profile: &str, condition: Option<&str>) {
    let failure = Element::parse(xml);
    assert_eq!((failure.name.as_str(), failure.ns.as_str()), ("failure", profile), "{xml}");
    let given = &failure.children[0];
    assert_eq!(given.ns, SASL, "{xml}");
    assert!(condition.is_none_or(|condition| given.name == condition), "{xml}");
    if condition.is_none() {
        assert!(["not-authorized", "temporary-auth-failure"].contains(&given.name.as_str()), "{xml}");
    }
}

/// Logs in with the header and the login in one write, as clients do that know the features.
async fn at_once(pushward: &Pushward, inline: &str) -> (Client, Success) {
    let mut alice = pushward.connect().await;
    alice.send(format!("{}{}", header_from("alice"), with_password("alice", inline))).await;
    alice.expect(FEATURES).await;
    let success = Success::of(alice.next().await);
    (alice, success)
}

async fn a_device_gets_its_resource_again_and_its_held_session_ends_in_order(server: Legacy) {
    let mut stage = Stage::of(server).await;
    let (mut alice, success) = at_once(&stage.pushward, &device(PHONE)).await;
    let (jid, id) = (success.jid().to_owned(), success.id());
    alice.expect(FEATURES).await;
    alice.available().await;
    alice.reset();
    stage.pushward.logged(&["dark", &jid]).await;
    stage.bob.say(&jid, "dark").await;

    let (mut alice, success) = at_once(&stage.pushward, &device(PHONE)).await;
    assert_eq!(success.jid(), jid);
    assert_ne!(success.id(), id);
    alice.expect(FEATURES).await;
    alice.send("<presence/>").await;
    assert_eq!(bodies(&alice.messages(1).await), ["dark"]);
    let ended = stage.pushward.logged(&["session ended", &jid]).await;
    assert!(ended.contains("superseded"), "{ended}");
    stage.bob.say(&jid, "live").await;
    assert_eq!(bodies(&alice.messages(1).await), ["live"], "once");

    let (_tablet, success) = at_once(&stage.pushward, &device(TABLET)).await;
    assert!(success.jid().starts_with("alice@localhost/Phone/") && success.jid() != jid, "{}", success.xml);
    alice.roundtrip().await;
    stage.pushward.assert_log_never_contains("onflict");
}

/// The proxy does not know yet that the phone has lost its old connection, and the phone has lost its resumption id.
async fn a_device_that_logs_in_beside_its_half_open_connection_loses_nothing(server: Legacy) {
    let mut stage = Stage::of(server).await;
    let (mut half_open, id, jid) = stage.session(PHONE).await;
    half_open.acks = false;
    let waiting = numbered("unread", 1..=2);
    for body in &waiting {
        stage.bob.say("alice@localhost", body).await;
    }
    let (mut alice, success) = at_once(&stage.pushward, &device(PHONE)).await;
    assert_eq!(success.jid(), jid);
    assert_ne!(success.id(), id);
    alice.expect(FEATURES).await;
    alice.send("<presence/>").await;
    stage.pushward.logged(&["session ended", &jid]).await;
    stage.bob.say(&jid, "live").await;
    let all = [&waiting[..], &["live".to_owned()]].concat();
    let mut seen = alice.bodies_until(&all).await;
    seen.sort();
    assert_eq!(seen, ["live", "unread 1", "unread 2"]);
    alice.roundtrip().await;
}

/// Returns an address in lower case, with a full-width letter as the usual one. ejabberd binds the name as it was sent.
fn prepared(jid: &str) -> String {
    jid.replace('ａ', "a").to_lowercase()
}

/// Servers differ in which they accept. Pushward has told the client an account before the server names it.
async fn a_name_in_another_form_is_refused_or_is_the_same_account(server: Legacy) {
    let stage = Stage::of(server).await;
    for name in ["ALICE", "alice@localhost", "Alice@LOCALHOST", " alice", "alice ", "ａlice", "alice@elsewhere.example"]
    {
        for inline in [String::new(), device(PHONE)] {
            for mechanism in ["PLAIN", "SCRAM-SHA-1"] {
                let mut alice = stage.pushward.connect().await;
                alice.open().await;
                let mut scram = Scram::new(name, PASSWORD);
                let answer = if mechanism == "PLAIN" {
                    alice.send(with_password(name, &inline)).await;
                    alice.next().await
                } else {
                    alice.send(authenticate(mechanism, &scram.first(), &inline)).await;
                    let answer = alice.next().await;
                    if answer.starts_with("<challenge") {
                        let response = scram.last(&Element::parse(&answer).text);
                        alice.send(format!("<response xmlns='{SASL2}'>{response}</response>")).await;
                        alice.next().await
                    } else {
                        answer
                    }
                };
                if answer.starts_with("<failure") {
                    continue;
                }
                let success = Success::of(answer);
                alice.expect(FEATURES).await;
                if inline.is_empty() {
                    assert_eq!(success.jid(), "alice@localhost", "{name}");
                    assert_eq!(prepared(&alice.bind("phone").await), "alice@localhost/phone");
                } else {
                    assert!(prepared(success.jid()).starts_with("alice@localhost/phone/"), "{name}: {}", success.xml);
                }
                alice.roundtrip().await;
            }
        }
    }
}

/// Some are no part of a valid resource, and servers differ in what they do then.
async fn any_tag_ends_in_a_session(server: Legacy) {
    let stage = Stage::of(server).await;
    let long = "x".repeat(512);
    let tags = [
        "",
        "  ",
        "a/b",
        "&lt;&amp;'\"&gt;",
        "Téléphone 📱",
        "\u{202e}\u{5d0}a",
        "\u{ad}",
        "\u{e000}",
        "\u{fffd}",
        &long,
    ];
    for tag in tags {
        let (mut alice, success) =
            stage.logged_in("PLAIN", &device(PHONE).replace("<tag>Phone</tag>", &format!("<tag>{tag}</tag>"))).await;
        let features = alice.expect(FEATURES).await;
        let jid = if success.root.child("bound").is_some() {
            assert!(success.jid().starts_with("alice@localhost/"), "{}", success.xml);
            success.jid().to_owned()
        } else {
            // The server refuses it, and the client binds with another one.
            assert!(features.contains("xmpp-bind") && success.jid() == "alice@localhost", "{tag}: {}", success.xml);
            alice.bind("phone").await
        };
        alice.roundtrip().await;
        alice.send("</stream:stream>").await;
        alice.closed(PATIENCE).await;
        stage.pushward.logged(&["session ended", &jid.replace('"', "\\\"")]).await;
    }
}

async fn messages_from_before_the_login_come_after_presence_and_are_not_cleared(server: Legacy) {
    let mut stage = Stage::of(server).await;
    let waiting = numbered("offline", 1..=2);
    for body in &waiting {
        stage.bob.say("alice@localhost", body).await;
    }
    let (mut alice, success) = stage.logged_in("PLAIN", &device(PHONE)).await;
    let jid = success.jid().to_owned();
    alice.expect(FEATURES).await;
    alice.roundtrip().await;
    alice.send("</stream:stream>").await;
    let seen = alice.closed(PATIENCE).await;
    assert!(bodies(&seen).is_empty(), "{seen:?}");
    stage.pushward.logged(&["session ended", &jid]).await;

    let (mut alice, _) = stage.logged_in("SCRAM-SHA-1", &device(PHONE)).await;
    alice.expect(FEATURES).await;
    alice.send("<presence/>").await;
    let mut seen = bodies(&alice.messages(2).await);
    seen.sort();
    assert_eq!(seen, waiting);
    stage.bob.say(&jid, "live").await;
    assert_eq!(bodies(&alice.messages(1).await), ["live"], "once");
}

macro_rules! stories {
    ($($server:ident: $($name:ident)*;)*) => {$(
        mod $server {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Legacy::$server().await).await;
            })*
        }
    )*};
    ($($server:ident)*) => {
        stories! {$(
            $server:
                plain_and_scram_log_in_and_everything_that_was_asked_for_works
                cut_connections_resume_inside_the_login_without_loss_and_repetition
                refused_and_aborted_attempts_may_be_followed_by_either_profile
                a_device_gets_its_resource_again_and_its_held_session_ends_in_order
                any_tag_ends_in_a_session
                a_name_in_another_form_is_refused_or_is_the_same_account
                a_device_that_logs_in_beside_its_half_open_connection_loses_nothing
                messages_from_before_the_login_come_after_presence_and_are_not_cleared;
        )*}
    };
}

stories! { prosody managed_prosody ejabberd managed_ejabberd jabberd2 }

#[tokio::test]
async fn a_session_of_one_profile_resumes_with_the_other() {
    let stage = Stage::of(Legacy::prosody().await).await;
    let mut alice = stage.pushward.login("alice", "phone").await;
    let enabled = alice.enable().await;
    alice.reset();
    let inline = format!("{}{}", device(PHONE), resume(&enabled.id, 0));
    let (alice, success) = stage.logged_in("SCRAM-SHA-1", &inline).await;
    success.resumed(&enabled.id, "alice@localhost/phone");
    alice.reset();
    let mut alice = stage.pushward.authenticated("alice").await;
    assert_eq!(alice.resume(&enabled.id, 0).await.name, "resumed");
    alice.roundtrip().await;
}

#[tokio::test]
async fn a_host_without_modern_login_and_a_stream_without_tls_offer_nothing() {
    let server = Legacy::prosody().await;
    let stage = Stage::with(server, |setup| setup.set("host.modern_login", "false")).await;
    let (mut alice, features) = opened(&stage.pushward, "alice").await;
    assert!(features.contains("<mechanism>SCRAM-SHA-1</mechanism>"), "{features}");
    assert!(!features.contains("urn:xmpp:sasl:2") && !features.contains("urn:xmpp:bind:0"), "{features}");
    alice.send(with_password("alice", &device(PHONE))).await;
    let seen = alice.closed(PATIENCE).await;
    assert!(!seen.iter().any(|element| element.starts_with("<success")), "{seen:?}");
    let mut alice = stage.pushward.login("alice", "phone").await;
    alice.roundtrip().await;

    let fronting = Pushward::start(Setup::new(stage.server.address())).await;
    let mut clear = Client::plain(fronting.starttls).await;
    let features = clear.open().await;
    assert!(!features.contains("urn:xmpp:sasl:2"), "{features}");
    let mut client = Client::starttls(fronting.starttls, &fronting.tls()).await;
    let features = client.open().await;
    assert!(features.contains("<authentication xmlns='urn:xmpp:sasl:2'>"), "{features}");
}

/// The server offers channel binding over TLS, and refuses clients that support it and do not see it (RFC 5802 §6).
#[tokio::test]
async fn over_tls_to_the_server_only_clients_that_miss_channel_binding_are_refused() {
    let authority = Authority::new("ours");
    let server = Prosody::over_tls(&authority.issue("localhost"), "").await;
    let settings =
        |setup: Setup| setup.set("host.upstream_tls", "'starttls'").set("host.upstream_ca", &authority.toml());
    let stage = Stage::with(Legacy::Prosody(server), settings).await;
    // Prosody binds to TLS 1.2 only, and the connection to it has the client's version.
    let mut alice = Client::direct(stage.pushward.direct, &stage.pushward.tls().only(&TLS12)).await;
    alice.send(header_from("alice")).await;
    let features = Element::parse(&alice.expect(FEATURES).await);
    assert_eq!(mechanisms(&features, "authentication"), mechanisms(&features, "mechanisms"));
    assert!(!mechanisms(&features, "authentication").iter().any(|name| name.ends_with("-PLUS")), "{features:?}");
    let missing = Scram::new("alice", PASSWORD).missing_channel_binding();
    alice.send(authenticate("SCRAM-SHA-1", &missing.first(), &device(PHONE))).await;
    assert_refused(&alice.next().await, SASL2, Some("malformed-request"));
    stage.pushward.logged(&["\"level\":\"WARN\"", "supports channel binding"]).await;
    let success = Scram::new("alice", PASSWORD).log_in(&mut alice, &device(PHONE)).await;
    assert!(success.jid().starts_with("alice@localhost/Phone/"), "{}", success.xml);
    alice.expect(FEATURES).await;
    alice.roundtrip().await;
}

#[tokio::test]
async fn a_reload_begins_and_ends_the_offer() {
    let server = Legacy::prosody().await;
    let mut stage = Stage::of(server).await;
    let offers = async |stage: &Stage| opened(&stage.pushward, "alice").await.1.contains("urn:xmpp:sasl:2");
    assert!(offers(&stage).await);
    let (mut alice, previd, jid) = stage.session(PHONE).await;
    for modern in [false, true] {
        stage.pushward.configure(|setup| setup.set("host.modern_login", &modern.to_string()));
        assert!(stage.pushward.reload().await);
        assert_eq!(offers(&stage).await, modern);
        alice.roundtrip().await;
    }
    // The resource is the same with the new configuration, and the session can still be resumed.
    let handled = alice.handled;
    alice.reset();
    let (alice, success) = stage.logged_in("PLAIN", &format!("{}{}", device(PHONE), resume(&previd, handled))).await;
    success.resumed(&previd, &jid);
    drop(alice);
}

#[tokio::test]
async fn the_resource_is_the_same_after_a_restart() {
    let mut stage = Stage::of(Legacy::prosody().await).await;
    let (_, success) = logged_in(&stage.pushward, "alice", &with_password("alice", &device(PHONE))).await;
    let jid = success.jid().to_owned();
    stage.pushward.restart().await;
    let (_alice, success) = logged_in(&stage.pushward, "alice", &with_password("alice", &device(PHONE))).await;
    assert_eq!(success.jid(), jid);
}

#[tokio::test]
async fn failed_logins_of_both_profiles_lock_the_address_out() {
    let server = Legacy::prosody().await;
    let stage = Stage::with(server, |setup| setup.set("limits.failed_logins_per_address", "2")).await;
    let (mut guesser, _) = opened(&stage.pushward, "alice").await;
    // Its name is refused before the server is asked, so these are no guesses.
    for _ in 0..3 {
        guesser.send(authenticate("PLAIN", &BASE64.encode(format!("bob\0alice\0{PASSWORD}")), "")).await;
        assert_refused(&guesser.next().await, SASL2, Some("invalid-authzid"));
    }
    guesser.send(authenticate("PLAIN", &BASE64.encode("\0alice\0wrong"), "")).await;
    assert_refused(&guesser.next().await, SASL2, Some("not-authorized"));
    guesser.send(plain("alice", "wrong")).await;
    assert_refused(&guesser.next().await, SASL, Some("not-authorized"));
    // The right password is refused like any other.
    guesser.send(with_password("alice", &device(PHONE))).await;
    assert_refused(&guesser.next().await, SASL2, Some("temporary-auth-failure"));
    guesser.send(plain("alice", PASSWORD)).await;
    assert_refused(&guesser.next().await, SASL, Some("temporary-auth-failure"));
}

#[tokio::test]
async fn messages_of_a_killed_proxy_reach_the_user_agent_at_its_next_login() {
    let mut stage = Stage::of(Legacy::prosody().await).await;
    let (alice, _, jid) = stage.session(PHONE).await;
    alice.reset();
    stage.pushward.logged(&["dark", &jid]).await;
    let waiting = numbered("dark", 1..=3);
    for body in &waiting {
        stage.bob.say(&jid, body).await;
    }
    stage.pushward.stored("dark 3").await;
    stage.pushward.kill();
    stage.pushward.start_again().await;
    // Another resource, and no reference to the session before.
    let inline = device(PHONE).replace("<tag>Phone</tag>", "<tag>Reinstalled</tag>");
    let (mut alice, success) = stage.logged_in("SCRAM-SHA-1", &inline).await;
    assert!(success.jid().starts_with("alice@localhost/Reinstalled/"), "{}", success.xml);
    alice.expect(FEATURES).await;
    assert_eq!(alice.bodies_until(&waiting).await, waiting);
}

#[tokio::test]
async fn the_ends_of_the_archive_are_in_the_success() {
    let mut stage = Stage::of(Legacy::Prosody(Prosody::with(&["mam"]).await)).await;
    for body in numbered("archived", 1..=2) {
        stage.bob.say("alice@localhost", &body).await;
    }
    let (_alice, success) = stage.logged_in("PLAIN", &device(PHONE)).await;
    let metadata = success.root.child("bound").unwrap().child("metadata").unwrap_or_else(|| panic!("{}", success.xml));
    assert_eq!(metadata.ns, "urn:xmpp:mam:2");
    for end in ["start", "end"] {
        let end = metadata.child(end).unwrap_or_else(|| panic!("no {end}: {}", success.xml));
        assert!(end.attribute("id").is_some() && end.attribute("timestamp").is_some(), "{}", success.xml);
    }
}

/// The profile of SASL that xmpp.js used, and whether it resumed inside.
async fn profile(alice: &mut Peer) -> (String, bool) {
    let success = alice.event("success").await;
    (success["profile"].as_str().unwrap().to_owned(), success["resumed"].as_bool().unwrap())
}

#[tokio::test]
async fn xmppjs_logs_in_by_sasl2_and_resumes_inside_its_login_at_every_return() {
    for security in [Security::StartTls, Security::DirectTls] {
        let mut stage = Stage::of(Legacy::prosody().await).await;
        let address = if security == Security::DirectTls { stage.pushward.direct } else { stage.pushward.starttls };
        let wire = Wire::to(address).await;
        let mut alice =
            Peer::trusting(&stage.pushward, Library::XmppJs, "alice@localhost/phone", (security, wire.address));
        alice.order(&json!({"do": "connect"}));
        assert_eq!(profile(&mut alice).await, (SASL2.to_owned(), false));
        let online = alice.event("online").await;
        let jid = online["jid"].as_str().unwrap().to_owned();
        // Bind 2 derives the resource from the tag. SASL of RFC 6120 would give `phone`.
        assert!(jid.starts_with("alice@localhost/phone/"), "{jid}");
        let mut expected = Vec::new();
        for round in 1..=4 {
            let [live, dark] = [format!("live {round}"), format!("dark {round}")];
            stage.bob.say(&jid, &live).await;
            alice.bodies_until(&live).await;
            wire.cut();
            let darkened = || stage.pushward.log().iter().filter(|line| line.contains("dark)")).count();
            eventually(PATIENCE, || format!("a dark session, {round}"), || (darkened() >= round).then_some(())).await;
            stage.bob.say("alice@localhost", &dark).await;
            wire.mend();
            assert_eq!(profile(&mut alice).await, (SASL2.to_owned(), true));
            alice.event("resumed").await;
            expected.extend([live, dark]);
        }
        alice
            .send("<message xmlns='jabber:client' type='chat' to='bob@localhost' id='m'><body>to bob</body></message>");
        assert_eq!(bodies(&[stage.bob.expect("<body>").await]), ["to bob"]);
        stage.bob.say(&jid, "last").await;
        expected.push("last".to_owned());
        assert_eq!(alice.bodies_until("last").await, expected);
    }
}

#[tokio::test]
async fn xmppjs_logs_in_by_sasl_to_a_host_without_modern_login() {
    let server = Legacy::prosody().await;
    let stage = Stage::with(server, |setup| setup.set("host.modern_login", "false")).await;
    let address = stage.pushward.starttls;
    let mut alice =
        Peer::trusting(&stage.pushward, Library::XmppJs, "alice@localhost/phone", (Security::StartTls, address));
    alice.order(&json!({"do": "connect"}));
    assert_eq!(profile(&mut alice).await, (SASL.to_owned(), false));
    assert_eq!(alice.event("online").await["jid"], "alice@localhost/phone");
}
