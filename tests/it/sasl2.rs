//! SASL2, Bind 2, inline resumption and FAST, as real clients use them: each exchange is copied from a client, and each
//! assertion is a check of that client.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::support::{
    Client, Element, HEADER, PASSWORD, PATIENCE, Prosody, Pushward, SM, STARTTLS, Setup, StubConnection, StubOptions,
    StubUpstream, Success, authenticate, bodies, hashed_token, header_from, logged_in, lost, message, numbered, opened,
    plain, resume, token, with_password,
};

const AGENT: &str = "d4565fa7-4d72-4749-b3d3-740edbf87770";
const SCRAM_RESPONSE: &str = "<response xmlns='urn:xmpp:sasl:2'>Yz1iaXdzLHI9Y2xpZW50c2VydmVyLHA9cHJvb2Y=</response>";

fn user_agent(agent: &str) -> String {
    format!("<user-agent id='{agent}'><software>Conversations 2.19.5</software><device>Pixel</device></user-agent>")
}

/// Returns the bind request of Conversations.
fn conversations_bind() -> String {
    format!(
        "<bind xmlns='urn:xmpp:bind:0'><tag>Conversations</tag><enable xmlns='urn:xmpp:carbons:2'/>\
         <enable xmlns='{SM}' resume='true'/></bind>"
    )
}

fn with_scram(user: &str, inline: &str) -> String {
    authenticate("SCRAM-SHA-1", &BASE64.encode(format!("n,,n={user},r=client")), inline)
}

fn with_token(user: &str, agent: &str, inline: &str) -> String {
    authenticate(
        "HT-SHA-256-NONE",
        &hashed_token(user, &token(user, agent)),
        &format!("{inline}<fast xmlns='urn:xmpp:fast:0'/>"),
    )
}

/// A session of alice as Conversations begins it, on a scripted server.
struct Scene {
    stub: StubUpstream,
    pushward: Pushward,
    client: Client,
    server: StubConnection,
    previd: String,
    jid: String,
}

impl Scene {
    async fn new() -> Self {
        Self::with(StubOptions::sasl2(), |setup| setup).await
    }

    async fn with(options: StubOptions, settings: impl FnOnce(Setup) -> Setup) -> Self {
        let mut stub = StubUpstream::start(options).await;
        let pushward = Pushward::start(settings(Setup::new(stub.address))).await;
        let request = format!("{}{}", user_agent(AGENT), conversations_bind());
        let (mut client, success) = logged_in(&pushward, "alice", &with_password("alice", &request)).await;
        client.expect("<stream:features").await;
        let server = stub.session().await;
        let (previd, jid) = (success.id(), success.jid().to_owned());
        Self { stub, pushward, client, server, previd, jid }
    }

    /// Returns the request of a phone that resumes with this `h`, as Conversations, Dino and xmpp.js send it.
    fn request(&self, h: u32) -> String {
        format!("{}{}{}", user_agent(AGENT), conversations_bind(), resume(&self.previd, h))
    }
}

#[tokio::test]
async fn conversations_logs_in_for_the_first_time_with_pipelined_elements() {
    let mut stub = StubUpstream::start(StubOptions::sasl2()).await;
    let pushward = Pushward::start(Setup::new(stub.address)).await;
    let mut client = pushward.connect().await;
    let token_wish = "<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/>";
    let login = with_scram("alice", &format!("{}{}{token_wish}", user_agent(AGENT), conversations_bind()));
    // Quick start: the client waits for nothing.
    client.send(format!("{}{login}", header_from("alice"))).await;

    let features = Element::parse(&client.expect("<stream:features").await);
    let offer = features.child("authentication").expect("SASL2");
    let inline = offer.child("inline").expect("inline features");
    assert_eq!(inline.all("sm").len(), 1);
    let bind2: Vec<_> =
        inline.child("bind").unwrap().all("feature").iter().filter_map(|f| f.attribute("var")).collect();
    for var in ["urn:xmpp:carbons:2", SM] {
        assert_eq!(bind2.iter().filter(|feature| **feature == var).count(), 1, "{bind2:?}");
    }
    assert_eq!(inline.child("fast").unwrap().attribute("tls-0rtt"), None);

    assert!(client.next().await.starts_with("<challenge xmlns='urn:xmpp:sasl:2'>"));
    client.send(SCRAM_RESPONSE).await;
    let success = Success::of(client.next().await);
    assert_eq!(success.jid(), "alice@localhost/Conversations~d456");
    assert_eq!(success.root.child("additional-data").unwrap().text, "dj1zZXJ2ZXI=");
    assert_eq!(success.root.child("token").unwrap().attribute("token"), Some(token("alice", AGENT).as_str()));
    let id = success.id();
    assert!(id.len() >= 22, "{id}");
    // These are the very next bytes, from which the client reads CSI for the whole session. It knows already that
    // stream management is on.
    let features = Element::parse(&client.next_item().await);
    assert_eq!(features.name, "features");
    assert_eq!((features.all("sm").len(), features.all("csi").len()), (0, 1));
    assert_eq!(client.whitespace(), 0);

    let mut server = stub.session().await;
    assert_eq!(server.seen().authenticates, [login.replace(&format!("<enable xmlns='{SM}' resume='true'/>"), "")]);
    assert!(server.seen().header.contains("from='alice@localhost'"), "{}", server.seen().header);
    client.send(format!("<presence/>{}", message("one"))).await;
    server.expect("<message").await;
    client.acked_up_to(2).await;
    client.acks = false;
    server.send(message("two"));
    client.messages(1).await;
    client.send(format!("<a xmlns='{SM}' h='1'/>")).await;
    client.roundtrip().await;
    for secret in [PASSWORD, &token("alice", AGENT), &id] {
        pushward.assert_log_never_contains(secret);
    }
}

#[tokio::test]
async fn conversations_resumes_with_its_token_and_gets_everything() {
    let mut scene = Scene::new().await;
    scene.client.send(message("sent")).await;
    scene.server.expect("<message").await;
    lost(&scene.pushward, scene.client, &scene.jid).await;
    let all = numbered("dark", 1..=3);
    scene.server.send(all.iter().map(|body| message(body)).collect::<String>());

    let request = format!("{}{}{}", user_agent(AGENT), conversations_bind(), resume(&scene.previd, 0));
    let mut client = scene.pushward.connect().await;
    client.send(format!("{}{}", header_from("alice"), with_token("alice", AGENT, &request))).await;
    client.expect("<stream:features").await;
    let success = Success::of(client.next().await);
    assert_eq!(success.resumed(&scene.previd, &scene.jid), 1);
    assert_eq!(success.root.child("token").unwrap().attribute("token"), Some(token("alice", AGENT).as_str()));
    // No features: the replay comes next, and then the ack request.
    let replayed: Vec<_> = [client.next_item().await, client.next_item().await, client.next_item().await].into();
    assert_eq!(bodies(&replayed), all);
    assert!(client.next_item().await.starts_with("<r "));
    assert_eq!(client.whitespace(), 0);

    let login = scene.stub.connection().await;
    login.closed(PATIENCE).await;
    let seen = login.seen();
    assert_eq!(seen.bound, None, "a bind would end the session that is held");
    assert_eq!(seen.authenticates, [with_token("alice", AGENT, &user_agent(AGENT))]);
    client.send(message("back")).await;
    assert_eq!(scene.server.expect("back").await, message("back"));
    client.acked_up_to(2).await;
    scene.server.assert_open();
    scene.pushward.assert_log_never_contains(&token("alice", AGENT));
}

#[tokio::test]
async fn conversations_falls_back_to_its_password_on_the_same_stream() {
    let scene = Scene::new().await;
    lost(&scene.pushward, scene.client, &scene.jid).await;
    scene.server.send(message("dark"));
    let request = format!("{}{}{}", user_agent(AGENT), conversations_bind(), resume(&scene.previd, 0));
    let (mut client, _) = opened(&scene.pushward, "alice").await;
    client.send(with_token("alice", "another-agent", &request)).await;
    let failure = client.next().await;
    assert!(failure.starts_with("<failure xmlns='urn:xmpp:sasl:2'><not-authorized "), "{failure}");
    client.send(with_password("alice", &request)).await;
    let success = Success::of(client.next().await);
    success.resumed(&scene.previd, &scene.jid);
    assert_eq!(bodies(&client.messages(1).await), ["dark"]);
}

#[tokio::test]
async fn dino_resumes_by_password_and_keeps_its_full_jid() {
    let scene = Scene::new().await;
    scene.client.reset();
    let dino = format!(
        "<user-agent id='{AGENT}'><software>Dino</software></user-agent>\
         <bind xmlns='urn:xmpp:bind:0'><tag>Dino</tag><enable xmlns='urn:xmpp:carbons:2'/><enable xmlns='{SM}' resume='true'/>\
         </bind>{}",
        resume(&scene.previd, 0)
    );
    // Dino sends no `from`.
    let mut client = scene.pushward.connect().await;
    client.open().await;
    client.send(with_scram("alice", &dino)).await;
    client.expect("<challenge").await;
    client.send(SCRAM_RESPONSE).await;
    let success = Success::of(client.next().await);
    success.resumed(&scene.previd, &scene.jid);
    scene.server.send(message("back"));
    assert_eq!(bodies(&client.messages(1).await), ["back"]);
    assert_eq!(client.next_item().await.split(' ').next(), Some("<r"), "no features anywhere");
}

#[tokio::test]
async fn xmpp_js_binds_a_new_session_when_its_old_one_is_unknown() {
    let mut stub = StubUpstream::start(StubOptions::sasl2()).await;
    let pushward = Pushward::start(Setup::new(stub.address)).await;
    let request = format!(
        "<user-agent id='{AGENT}'/><bind xmlns='urn:xmpp:bind:0'><tag>xmpp.js</tag><enable xmlns='{SM}' resume='true'/></bind>{}",
        resume("never-heard-of", 5)
    );
    let (mut client, success) = logged_in(&pushward, "alice", &with_token("alice", AGENT, &request)).await;
    assert_eq!(success.failed(), None);
    assert_eq!(success.jid(), "alice@localhost/xmpp.js~d456");
    success.id();
    client.expect("<stream:features").await;
    let mut server = stub.session().await;
    client.send(message("one")).await;
    server.expect("<message").await;
    client.acked_up_to(1).await;
}

#[tokio::test]
async fn a_failed_resumption_of_a_session_that_ended_cleanly_has_its_count() {
    let settings = |setup: Setup| setup.set("stream_management.resume_timeout", "'300ms'");
    let mut scene = Scene::with(StubOptions::sasl2(), settings).await;
    let request = scene.request(0);
    scene.client.send(format!("{}{}", message("1"), message("2"))).await;
    scene.server.expect("<body>2<").await;
    scene.client.acked_up_to(2).await;
    scene.client.reset();
    scene.server.closed(PATIENCE).await;
    let (_client, success) = logged_in(&scene.pushward, "alice", &with_password("alice", &request)).await;
    assert_eq!(success.failed(), Some(2));
    success.id();
    let (_client, success) = logged_in(&scene.pushward, "mallory", &with_password("mallory", &request)).await;
    assert_eq!(success.failed(), None, "it was not his");
}

#[tokio::test]
async fn another_account_cannot_resume_a_session() {
    for says_who in [true, false] {
        let mut scene = Scene::new().await;
        let request = scene.request(0);
        lost(&scene.pushward, scene.client, &scene.jid).await;
        scene.server.send(message("for alice only"));
        let mut mallory = scene.pushward.connect().await;
        mallory.send(if says_who { header_from("mallory") } else { HEADER.to_owned() }).await;
        mallory.expect("<stream:features").await;
        mallory.send(with_password("mallory", &request)).await;
        let success = Success::of(mallory.next().await);
        assert_eq!(success.failed(), None);
        assert!(success.jid().starts_with("mallory@localhost"), "{}", success.xml);
        let features = mallory.expect("<stream:features").await;
        assert_eq!(features.contains("xmpp-bind"), !says_who, "{features}");
        // The client that sent no address was not bound, because it could have been alice. It binds in the old way.
        assert_eq!(success.root.child("bound").is_some(), says_who, "{}", success.xml);
        if !says_who {
            assert_eq!(mallory.bind("desk").await, "mallory@localhost/desk");
        }
        mallory.live_for(Duration::from_millis(200)).await;
        assert!(!mallory.transcript().contains("alice only"), "{}", mallory.transcript());
        scene.server.assert_open();
        assert!(scene.server.rest().iter().all(|element| !element.contains("mallory")));
    }
}

#[tokio::test]
async fn monal_logs_in_without_inline_features_and_pipelines() {
    let mut stub = StubUpstream::start(StubOptions::sasl2()).await;
    let pushward = Pushward::start(Setup::new(stub.address)).await;
    // STARTTLS in the first flight (RFC 7590 §3.1).
    let mut client = Client::plain(pushward.starttls).await;
    client.send(format!("{HEADER}{STARTTLS}")).await;
    client.expect("<proceed").await;
    let mut client = client.handshake(&pushward.tls()).await;
    let monal = "<user-agent id='8A5B0A5E-7B7F-4B39-9C11-0B3F7B8D4D9C'><software>Monal</software></user-agent>";
    client.send(format!("{}{}", header_from("alice"), with_scram("alice", monal))).await;
    client.expect("<stream:features").await;
    client.expect("<challenge").await;
    client.send(SCRAM_RESPONSE).await;
    let success = Success::of(client.next().await);
    assert_eq!(success.jid(), "alice@localhost", "Monal ends itself if the bare JID is another");
    assert!(success.managed("failed").is_none() && success.root.child("bound").is_none(), "{}", success.xml);
    let features = Element::parse(&client.next_item().await);
    assert!(features.child("bind").is_some() && features.all("sm").len() == 1, "{features:?}");
    assert_eq!(client.bind("Monal-iOS.1a2b").await, "alice@localhost/Monal-iOS.1a2b");
    let enabled = client.enable().await;
    let mut server = stub.session().await;
    assert_eq!(server.seen().authenticates, [with_scram("alice", monal)], "byte for byte");
    lost(&pushward, client, "alice@localhost/Monal-iOS.1a2b").await;
    server.send(message("dark"));

    let (mut client, success) = logged_in(&pushward, "alice", &with_password("alice", monal)).await;
    assert_eq!(success.jid(), "alice@localhost");
    client.expect("<stream:features").await;
    let answer = client.resume(&enabled.id, 0).await;
    assert_eq!(
        (answer.name.as_str(), answer.attribute("previd")),
        ("resumed", Some(enabled.id.as_str())),
        "{answer:?}"
    );
    assert_eq!(bodies(&client.messages(1).await), ["dark"]);
    let login = stub.connection().await;
    login.closed(PATIENCE).await;
    assert_eq!(login.seen().bound, None, "who it is was known");
    client.send(message("back")).await;
    server.expect("back").await;
}

#[tokio::test]
async fn a_sasl_session_can_be_resumed_by_sasl2_and_the_other_way_round() {
    let mut stub = StubUpstream::start(StubOptions::sasl2()).await;
    let pushward = Pushward::start(Setup::new(stub.address)).await;
    let mut client = pushward.login("alice", "phone").await;
    let enabled = client.enable().await;
    let server = stub.session().await;
    client.reset();
    let request = format!("{}{}{}", user_agent(AGENT), conversations_bind(), resume(&enabled.id, 0));
    let (client, success) = logged_in(&pushward, "alice", &with_password("alice", &request)).await;
    success.resumed(&enabled.id, "alice@localhost/phone");
    client.reset();
    let mut client = pushward.connect().await;
    // The restart and what follows it in one flight, as Monal does.
    client.open().await;
    client.send(plain("alice", PASSWORD)).await;
    client.expect("<success").await;
    client.send(format!("{HEADER}{}", resume(&enabled.id, 0))).await;
    client.expect("<resumed ").await;
    server.assert_open();
}

#[tokio::test]
async fn a_device_is_recognized_by_its_user_agent() {
    let mut scene = Scene::new().await;
    lost(&scene.pushward, scene.client, &scene.jid).await;
    let all = numbered("dark", 1..=3);
    scene.server.send(all.iter().map(|body| message(body)).collect::<String>());
    scene.pushward.stored("dark 3").await;
    scene.pushward.kill();
    scene.pushward.start_again().await;
    // Another resource, and no reference to the session before.
    let request = format!("{}{}", user_agent(AGENT), conversations_bind().replace("Conversations", "Reinstalled"));
    let (mut client, success) = logged_in(&scene.pushward, "alice", &with_password("alice", &request)).await;
    assert_eq!(success.jid(), "alice@localhost/Reinstalled~d456");
    assert_eq!(client.next_item().await.split(['>', ' ']).next(), Some("<stream:features"));
    assert_eq!(bodies(&client.messages(3).await), all);
}

#[tokio::test]
async fn registration_and_invitations_pass_before_login() {
    let mut stub = StubUpstream::start(StubOptions::sasl2()).await;
    let pushward = Pushward::start(Setup::new(stub.address)).await;
    let mut client = pushward.connect().await;
    let register = "<iq type='get' id='reg' to='localhost'><query xmlns='jabber:iq:register'/></iq>";
    client.send(format!("{HEADER}{register}")).await;
    let mut server = stub.connection().await;
    assert_eq!(server.next().await, register);
    let form = "<iq type='result' id='reg' from='localhost'><query xmlns='jabber:iq:register'><username/></query></iq>";
    server.send(form);
    assert_eq!(client.expect("<iq").await, form);
    let invitation = "<iq type='set' id='pars' to='localhost'><preauth xmlns='urn:xmpp:pars:0' token='t'/></iq>";
    client.send(invitation).await;
    assert_eq!(server.next().await, invitation);
    server.send("<iq type='result' id='pars' from='localhost'/>");
    client.expect("pars").await;
    client.send(with_password("alice", "")).await;
    assert_eq!(Success::of(client.next().await).jid(), "alice@localhost");
}

#[tokio::test]
async fn our_own_stream_management_begins_right_after_the_features() {
    let mut options = StubOptions::sasl2();
    options.after.push_str("<sm xmlns='urn:xmpp:sm:3'/>");
    let mut scene = Scene::with(options, |setup| setup).await;
    scene.server.managed().await;
    scene.server.send(message("one"));
    assert_eq!(bodies(&scene.client.messages(1).await), ["one"]);
    scene.client.ack().await;
    scene.server.acked(1, PATIENCE).await;
    scene.client.send(message("two")).await;
    scene.client.acked_up_to(1).await;
}

/// Prosody with its community modules: the whole life of a phone that never sends its password twice.
async fn a_phone_logs_in_by_its_token_on_prosody(modules: &[&str]) {
    let prosody = Prosody::sasl2(modules).await;
    let pushward = Pushward::start(Setup::new(prosody.address)).await;
    let mut bob = Client::plain(prosody.address).await;
    bob.login("bob", "desk").await;
    let token_wish = "<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/>";
    let request = format!("{}{}{token_wish}", user_agent(AGENT), conversations_bind());
    let (mut client, success) = logged_in(&pushward, "alice", &with_password("alice", &request)).await;
    let (previd, jid) = (success.id(), success.jid().to_owned());
    let token = success.root.child("token").unwrap().attribute("token").unwrap().to_owned();
    assert!(jid.starts_with("alice@localhost/Conversations~"), "{jid}");
    assert_eq!(Element::parse(&client.next_item().await).name, "features");
    client.available().await;
    let (mut h, mut seen) = (client.handled, Vec::new());
    for round in 0..3 {
        client.reset();
        bob.say("alice@localhost", &format!("dark {round}")).await;
        let request = format!(
            "{}{}{}<fast xmlns='urn:xmpp:fast:0'/>",
            user_agent(AGENT),
            conversations_bind(),
            resume(&previd, h)
        );
        let login = authenticate("HT-SHA-256-NONE", &hashed_token("alice", &token), &request);
        let success;
        (client, success) = logged_in(&pushward, "alice", &login).await;
        success.resumed(&previd, &jid);
        client.handled = h;
        seen.extend(bodies(&client.messages(1).await));
        bob.say(&jid, &format!("live {round}")).await;
        seen.extend(bodies(&client.messages(1).await));
        client.roundtrip().await;
        h = client.handled;
    }
    let expected: Vec<_> = (0..3).flat_map(|n| [format!("dark {n}"), format!("live {n}")]).collect();
    assert_eq!(seen, expected);
    client.send("</stream:stream>").await;
    client.closed(PATIENCE).await;
    pushward.logged(&["session ended", &jid]).await;
    let (_client, success) = logged_in(
        &pushward,
        "alice",
        &with_password("alice", &format!("{}{}{}", user_agent(AGENT), conversations_bind(), resume(&previd, h))),
    )
    .await;
    // The final count is known once it is on disk, a moment later.
    success.failed();
    assert_ne!(success.id(), previd);
}

#[tokio::test]
async fn a_phone_logs_in_by_its_token_on_prosody_with_sasl2() {
    a_phone_logs_in_by_its_token_on_prosody(&[]).await;
}

#[tokio::test]
async fn a_phone_logs_in_by_its_token_on_prosody_with_sasl2_and_stream_management() {
    a_phone_logs_in_by_its_token_on_prosody(&["smacks", "sasl2_sm"]).await;
}
