//! Sessions whose client is away: which stanzas are answered, which are kept, and for how long.

use std::time::{Duration, Instant};

use crate::support::{
    Client, Element, Enabled, PATIENCE, Prosody, PushService, Pushward, Scene, Server, Setup, StubOptions, bodies,
    enable_push, failed, fresh, lost, message, request, resumed,
};

/// The time for which nothing may happen where nothing is expected.
const QUIET: Duration = Duration::from_millis(700);

fn quick(setup: Setup) -> Setup {
    setup.set("push.batch_delay", "'50ms'").set("push.min_interval", "'50ms'")
}

/// Returns a presence stanza of a contact.
fn presence(from: &str, kind: &str, content: &str) -> String {
    format!("<presence from='{from}' to='alice@localhost/phone'{kind}>{content}</presence>")
}

const GONE: &str = " type='unavailable'";

/// Returns the `from` and the `<status/>` of each presence, in order.
fn presences(elements: &[String]) -> Vec<(String, String)> {
    let stanzas = elements.iter().filter(|element| element.starts_with("<presence")).map(|xml| Element::parse(xml));
    let described = stanzas.map(|stanza| {
        let status = stanza.attribute("type").or(stanza.child("status").map(|status| status.text.as_str()));
        (stanza.attribute("from").unwrap_or_default().to_owned(), status.unwrap_or_default().to_owned())
    });
    described.collect()
}

#[tokio::test]
async fn pings_are_answered_for_a_client_that_is_away() {
    for options in [StubOptions::default(), StubOptions::managed()] {
        let Scene { stub: _stub, pushward, client, mut server, enabled } = Scene::with(options, |setup| setup).await;
        lost(&pushward, client, "alice@localhost/phone").await;
        let senders = ["localhost", "alice@localhost", "bob@localhost/desk", "room@rooms.localhost/alice"];
        for (number, from) in senders.iter().enumerate() {
            server.send(format!(
                "<iq type='get' id='p{number}' from='{from}' to='alice@localhost/phone'><ping xmlns='urn:xmpp:ping'/></iq>"
            ));
            let answer = Element::parse(&server.expect(&format!("p{number}")).await);
            assert_eq!(answer.attribute("type"), Some("result"), "{answer:?}");
            assert_eq!(answer.attribute("to"), Some(*from), "{answer:?}");
            assert!(matches!(answer.attribute("from"), None | Some("alice@localhost/phone")), "{answer:?}");
        }
        server.send("<iq type='get' id='p9'><ping xmlns='urn:xmpp:ping'/></iq>");
        let answer = Element::parse(&server.expect("p9").await);
        assert_eq!((answer.attribute("type"), answer.attribute("to")), (Some("result"), None), "{answer:?}");
        let (mut client, _) = resumed(&pushward, &enabled, 0).await;
        client.live_for(Duration::from_millis(200)).await;
        assert!(!client.transcript().contains("urn:xmpp:ping"), "{}", client.transcript());
    }
}

/// A server that pings, and ends a session whose client does not answer, may ping before the loss is noticed.
#[tokio::test]
async fn a_ping_that_was_written_to_a_lost_client_is_answered_once_it_is_dark() {
    let Scene { stub: _stub, pushward, mut client, mut server, enabled: _ } = Scene::new().await;
    client.acks = false;
    server.send("<iq type='get' id='p' from='localhost' to='alice@localhost/phone'><ping xmlns='urn:xmpp:ping'/></iq>");
    client.expect("urn:xmpp:ping").await;
    lost(&pushward, client, "alice@localhost/phone").await;
    let answer = Element::parse(&server.expect("id='p'").await);
    assert_eq!(answer.attribute("type"), Some("result"), "{answer:?}");
}

#[tokio::test]
async fn a_live_client_answers_pings_itself() {
    let mut scene = Scene::new().await;
    scene.server.send("<iq type='get' id='p' from='localhost'><ping xmlns='urn:xmpp:ping'/></iq>");
    scene.client.expect("urn:xmpp:ping").await;
    assert!(scene.server.rest().is_empty());
}

#[tokio::test]
async fn a_roster_push_waits_for_the_client() {
    let Scene { stub: _stub, pushward, client, mut server, enabled } = Scene::new().await;
    client.reset();
    let push = "<iq type='set' id='push' to='alice@localhost/phone'><query xmlns='jabber:iq:roster'>\
                <item jid='bob@localhost' subscription='both'/></query></iq>";
    server.send(push);
    pushward.stored("subscription='both'").await;
    let (mut client, _) = resumed(&pushward, &enabled, 0).await;
    assert_eq!(client.expect("jabber:iq:roster").await, push);
    assert!(!client.until_quiet(QUIET).await.concat().contains("jabber:iq:roster"));
    client.send("<iq type='result' id='push'/>").await;
    server.expect("id='push'").await;
}

#[tokio::test]
async fn only_the_newest_presence_of_each_contact_waits() {
    let Scene { stub: _stub, pushward, client, server, enabled } = Scene::new().await;
    lost(&pushward, client, "alice@localhost/phone").await;
    for status in ["one", "two", "three"] {
        server.send(presence("bob@localhost/desk", "", &format!("<status>{status}</status>")));
        server.send(presence("bob@localhost/phone", "", &format!("<status>{status}</status>")));
    }
    server.send(message("last"));
    let (mut client, _) = resumed(&pushward, &enabled, 0).await;
    let seen = client.until_quiet(QUIET).await;
    let newest = |jid: &str| (jid.to_owned(), "three".to_owned());
    let mut came = presences(&seen);
    came.sort();
    assert_eq!(came, [newest("bob@localhost/desk"), newest("bob@localhost/phone")]);
    assert_eq!(bodies(&seen), ["last"]);
}

#[tokio::test]
async fn presence_of_a_contact_that_came_and_went_while_dark_is_not_delivered() {
    let Scene { stub: _stub, pushward, mut client, server, enabled } = Scene::new().await;
    server.send(presence("carol@localhost/desk", "", ""));
    client.expect("<presence").await;
    client.ack().await;
    client.roundtrip().await;
    let handled = client.handled;
    lost(&pushward, client, "alice@localhost/phone").await;
    server.send(presence("bob@localhost/desk", "", ""));
    server.send(presence("bob@localhost/desk", GONE, ""));
    // The client has seen this contact, so it must receive the unavailable presence.
    server.send(presence("carol@localhost/desk", GONE, ""));
    server.send(message("last"));
    let (mut client, _) = resumed(&pushward, &enabled, handled).await;
    let seen = client.until_quiet(QUIET).await;
    assert_eq!(presences(&seen), [("carol@localhost/desk".into(), "unavailable".into())]);
}

#[tokio::test]
async fn subscriptions_are_kept_like_messages() {
    let Scene { stub: _stub, pushward, client, server, enabled } = Scene::new().await;
    lost(&pushward, client, "alice@localhost/phone").await;
    let account = " to='alice@localhost'";
    server.send(format!("<presence type='subscribe' from='bob@localhost'{account}/>"));
    server.send(presence("bob@localhost/desk", "", ""));
    server.send(presence("bob@localhost/desk", GONE, ""));
    server.send(format!("<presence type='subscribed' from='carol@localhost'{account}/>"));
    server.send(message("last"));
    pushward.stored("type='subscribed'").await;
    let (mut client, _) = resumed(&pushward, &enabled, 0).await;
    let seen = presences(&client.until_quiet(QUIET).await);
    assert_eq!(seen, [("bob@localhost".into(), "subscribe".into()), ("carol@localhost".into(), "subscribed".into())]);
}

#[tokio::test]
async fn presence_of_a_room_with_a_status_keeps_its_place() {
    let Scene { stub: _stub, pushward, mut client, mut server, enabled } = Scene::new().await;
    let occupant = |code: &str| {
        format!(
            "<x xmlns='http://jabber.org/protocol/muc#user'><item affiliation='none' role='participant'/>{code}</x>"
        )
    };
    let room = "room@rooms.localhost";
    client.send(format!("<presence to='{room}/alice'><x xmlns='http://jabber.org/protocol/muc'/></presence>")).await;
    server.expect("<presence").await;
    server.send(presence(&format!("{room}/alice"), "", &occupant("<status code='110'/>")));
    client.expect("110").await;
    client.ack().await;
    client.roundtrip().await;
    let handled = client.handled;
    lost(&pushward, client, "alice@localhost/phone").await;
    let groupchat = |body: &str| {
        format!("<message type='groupchat' from='{room}/bob' to='alice@localhost/phone'><body>{body}</body></message>")
    };
    server.send(groupchat("before"));
    // The occupant is removed and admitted again: both presences must arrive, at their place in the order.
    server.send(presence(&format!("{room}/alice"), GONE, &occupant("<status code='307'/><status code='110'/>")));
    server.send(groupchat("between"));
    server.send(presence(&format!("{room}/alice"), "", &occupant("<status code='110'/>")));
    server.send(groupchat("after"));
    // For a room that the client has joined, an occupant who came and went is still reported.
    server.send(presence(&format!("{room}/carol"), "", &occupant("")));
    server.send(presence(&format!("{room}/carol"), GONE, &occupant("")));
    server.send(groupchat("last"));
    let (mut client, _) = resumed(&pushward, &enabled, handled).await;
    let seen = client.until_quiet(QUIET).await;
    let interesting = seen.iter().filter_map(|element| {
        if element.contains("code='307'") {
            return Some("out".to_owned());
        }
        if element.contains("code='110'") {
            return Some("in".to_owned());
        }
        bodies(std::slice::from_ref(element)).pop()
    });
    let interesting: Vec<_> = interesting.collect();
    assert_eq!(interesting, ["before", "out", "between", "in", "after", "last"]);
    assert!(presences(&seen).contains(&(format!("{room}/carol"), "unavailable".into())), "{seen:?}");
}

async fn a_room_does_not_notice_that_the_client_is_away(server: Server) {
    let room = "lounge@rooms.localhost";
    let join = |nick: &str| {
        format!(
            "<presence to='{room}/{nick}'><x xmlns='http://jabber.org/protocol/muc'><history maxstanzas='0'/></x></presence>"
        )
    };
    let pushward = Pushward::start(Setup::new(server.address())).await;
    let mut bob = server.bob().await;
    bob.send(join("bob")).await;
    bob.expect("code='110'").await;
    let configure =
        "<query xmlns='http://jabber.org/protocol/muc#owner'><x xmlns='jabber:x:data' type='submit'/></query>";
    bob.send(format!("<iq type='set' id='instant' to='{room}'>{configure}</iq>")).await;
    bob.expect("id='instant'").await;
    let mut alice = pushward.login("alice", "phone").await;
    let enabled = alice.enable().await;
    alice.available().await;
    alice.send(join("alice")).await;
    alice.expect("code='110'").await;
    alice.until_quiet(Duration::from_millis(300)).await;
    let handled = alice.handled;
    lost(&pushward, alice, "alice@localhost/phone").await;
    bob.expect("/alice").await;
    bob.send(format!("<message type='groupchat' to='{room}'><body>are you there?</body></message>")).await;
    // A ping to an occupant, as XEP-0410 sends it to oneself, goes to the client behind the occupant.
    bob.send(format!("<iq type='get' id='occupant' to='{room}/alice'><ping xmlns='urn:xmpp:ping'/></iq>")).await;
    let answer = Element::parse(&bob.expect("id='occupant'").await);
    assert_eq!(answer.attribute("type"), Some("result"), "{answer:?}");
    let (mut alice, _) = resumed(&pushward, &enabled, handled).await;
    assert_eq!(bodies(&alice.messages(1).await), ["are you there?"]);
    alice.send(format!("<message type='groupchat' to='{room}'><body>always</body></message>")).await;
    bob.expect("always").await;
    assert!(!bob.transcript().contains("unavailable"), "{}", bob.transcript());
}

#[tokio::test]
async fn a_room_of_prosody_does_not_notice_that_the_client_is_away() {
    a_room_does_not_notice_that_the_client_is_away(Server::prosody().await).await;
}

#[tokio::test]
async fn a_room_of_ejabberd_does_not_notice_that_the_client_is_away() {
    a_room_does_not_notice_that_the_client_is_away(Server::ejabberd().await).await;
}

#[tokio::test]
async fn requests_that_expire_with_the_session_are_answered_for_it() {
    for options in [StubOptions::default(), StubOptions::managed()] {
        let settings = |setup: Setup| setup.set("stream_management.resume_timeout", "'500ms'");
        let mut scene = Scene::with(options, settings).await;
        scene.client.reset();
        let query = "<query xmlns='jabber:iq:version'/>";
        for (id, kind) in [("q1", "get"), ("q2", "set")] {
            scene.server.send(format!(
                "<iq type='{kind}' id='{id}' from='bob@localhost/desk' to='alice@localhost/phone'>{query}</iq>"
            ));
        }
        scene.server.send("<iq type='result' id='r1' from='bob@localhost/desk' to='alice@localhost/phone'/>");
        for id in ["q1", "q2"] {
            let answer = Element::parse(&scene.server.expect(id).await);
            assert_eq!(answer.attribute("type"), Some("error"), "{answer:?}");
            assert_eq!(answer.attribute("to"), Some("bob@localhost/desk"), "{answer:?}");
            let error = answer.child("error").unwrap();
            assert_eq!(error.attribute("type"), Some("cancel"), "{answer:?}");
            assert!(error.child("service-unavailable").is_some(), "{answer:?}");
        }
        scene.server.footer(PATIENCE).await;
        let rest = scene.server.rest();
        assert!(rest.iter().all(|element| !element.contains("r1")), "an answer is not answered: {rest:?}");
        let (mut client, _) = failed(&scene.pushward, &scene.enabled, 0).await;
        fresh(&mut client, "phone").await;
        let seen = client.until_quiet(QUIET).await.concat();
        assert!(!seen.contains("jabber:iq:version"), "answered twice: {seen}");
    }
}

/// The proxy and a push service on Prosody. bob is connected to Prosody directly.
struct World {
    prosody: Prosody,
    service: PushService,
    pushward: Pushward,
    bob: Client,
}

impl World {
    async fn with(settings: impl FnOnce(Setup) -> Setup) -> Self {
        let prosody = Prosody::start().await;
        let service = PushService::connect(&prosody).await;
        let pushward = Pushward::start(settings(quick(Setup::new(prosody.address)))).await;
        let mut bob = Client::plain(prosody.address).await;
        bob.login("bob", "desk").await;
        Self { prosody, service, pushward, bob }
    }

    /// Opens alice's phone: available, registered for push, with stream management.
    async fn phone(&self) -> (Client, Enabled) {
        let mut alice = self.pushward.login("alice", "phone").await;
        let enabled = alice.enable().await;
        alice.available().await;
        enable_push(&mut alice, "n").await;
        (alice, enabled)
    }
}

/// Sets sessions of devices with a registration to end after `hold`, and all others almost at once.
fn expiring(setup: Setup, hold: &str) -> Setup {
    setup.set("stream_management.resume_timeout", "'100ms'").set("push.max_hibernation_timeout", hold)
}

#[tokio::test]
async fn a_device_is_woken_before_its_session_expires() {
    let settings = |setup: Setup| expiring(setup, "'4s'").set("stream_management.wake_before_expiry", "'2s'");
    let mut world = World::with(settings).await;
    let (alice, enabled) = world.phone().await;
    let handled = alice.handled;
    alice.reset();
    let lost = Instant::now();
    let wake = world.service.publish(PATIENCE).await;
    let after = lost.elapsed();
    assert!(after > Duration::from_millis(1500) && after < Duration::from_secs(4), "woken after {after:?}");
    assert_eq!((wake.count(), wake.body()), (Some(0), None), "{}", wake.xml);
    let (mut alice, _) = resumed(&world.pushward, &enabled, handled).await;
    alice.roundtrip().await;
}

#[tokio::test]
async fn a_wake_push_has_the_count_of_what_waits() {
    let settings = |setup: Setup| expiring(setup, "'4s'").set("stream_management.wake_before_expiry", "'2s'");
    let mut world = World::with(settings).await;
    let (alice, _) = world.phone().await;
    alice.reset();
    world.bob.say("alice@localhost", "hello").await;
    let first = world.service.publish(PATIENCE).await;
    let wake = world.service.publish(PATIENCE).await;
    assert!(wake.arrived - first.arrived > Duration::from_secs(1));
    assert_eq!((wake.count(), wake.body()), (Some(1), Some("New Message!")), "{}", wake.xml);
}

#[tokio::test]
async fn what_waited_when_the_session_expired_comes_at_the_next_login_of_the_device() {
    let mut world = World::with(|setup| expiring(setup, "'500ms'")).await;
    let (alice, enabled) = world.phone().await;
    // This client does not connect through the proxy, so that no other session can take what the phone leaves behind.
    let mut desk = Client::plain(world.prosody.address).await;
    desk.login("alice", "desk").await;
    desk.send("<presence/>").await;
    desk.expect("alice@localhost/phone").await;
    alice.reset();
    world.bob.say("alice@localhost/phone", "hello").await;
    world.service.publish(PATIENCE).await;
    let gone = Element::parse(&desk.expect("unavailable").await);
    assert_eq!(gone.attribute("from"), Some("alice@localhost/phone"), "{gone:?}");
    let (mut alice, _) = failed(&world.pushward, &enabled, 0).await;
    fresh(&mut alice, "phone").await;
    assert_eq!(bodies(&alice.messages(1).await), ["hello"]);
    assert!(bodies(&alice.until_quiet(QUIET).await).is_empty());
}

#[tokio::test]
async fn hibernation_after_push_ends_a_session_early_after_a_push() {
    let mut scene =
        Scene::with(StubOptions::default(), |setup| quick(setup).set("push.hibernation_after_push", "'500ms'")).await;
    enable_push(&mut scene.client, "n").await;
    scene.client.reset();
    scene.server.send(message("hello"));
    scene.server.expect("<pubsub").await;
    let pushed = Instant::now();
    scene.server.footer(PATIENCE).await;
    assert!(pushed.elapsed() > Duration::from_millis(300), "after {:?}", pushed.elapsed());
    let (mut client, _) = failed(&scene.pushward, &scene.enabled, 0).await;
    fresh(&mut client, "phone").await;
    assert_eq!(bodies(&client.messages(1).await), ["hello"]);
}

#[tokio::test]
async fn without_a_push_the_session_is_held_for_the_full_time() {
    let mut scene = Scene::with(StubOptions::default(), |setup| {
        quick(setup).set("push.hibernation_after_push", "'300ms'").set("stream_management.resume_timeout", "'300ms'")
    })
    .await;
    enable_push(&mut scene.client, "n").await;
    scene.client.reset();
    scene.server.assert_open_for(QUIET).await;
    resumed(&scene.pushward, &scene.enabled, 0).await;
}

/// Opens a phone that closes its stream, as Siskin does whenever it is suspended.
async fn closing(settings: impl FnOnce(Setup) -> Setup, presence: &str, last: &str) -> Scene {
    let mut scene = Scene::with(StubOptions::default(), |setup| settings(quick(setup))).await;
    enable_push(&mut scene.client, "n").await;
    if !presence.is_empty() {
        scene.client.send(presence).await;
        assert_eq!(scene.server.expect("<presence").await, presence);
    }
    scene.client.send(format!("{last}</stream:stream>")).await;
    scene.client.expect("</stream:stream>").await;
    scene
}

const AVAILABLE: &str = "<presence><show>chat</show><status>here</status><priority>5</priority></presence>";

#[tokio::test]
async fn a_device_that_closes_its_stream_stays_available_and_is_pushed_for() {
    for last in ["", "<presence type='unavailable'/>"] {
        let mut scene = closing(|setup| setup, AVAILABLE, last).await;
        let lingering = Element::parse(&scene.server.expect("<presence").await);
        assert_eq!(lingering.attribute("type"), None, "{lingering:?}");
        let text = |name: &str| lingering.child(name).map(|child| child.text.clone());
        assert_eq!(text("show").as_deref(), Some("xa"), "{lingering:?}");
        assert_eq!(text("priority").as_deref().unwrap_or("0"), "0", "{lingering:?}");
        assert_eq!(text("status").as_deref(), Some("here"), "{lingering:?}");
        scene.server.send(message("hello"));
        scene.server.expect("<pubsub").await;
        scene.server.assert_open();
        let (mut client, _) = failed(&scene.pushward, &scene.enabled, 0).await;
        fresh(&mut client, "phone").await;
        assert_eq!(bodies(&client.messages(1).await), ["hello"]);
        scene.server.footer(PATIENCE).await;
        let rest = scene.server.rest();
        assert!(rest.iter().all(|element| !element.contains("unavailable")), "{rest:?}");
    }
}

#[tokio::test]
async fn without_presence_or_with_a_negative_priority_a_closed_stream_ends_the_session() {
    let negative = "<presence><priority>-1</priority></presence>";
    for presence in ["", negative] {
        let scene = closing(|setup| setup, presence, "").await;
        scene.server.footer(PATIENCE).await;
        scene.server.closed(PATIENCE).await;
    }
}

#[tokio::test]
async fn with_linger_off_a_closed_stream_ends_the_session() {
    let scene = closing(|setup| setup.set("push.linger", "false"), AVAILABLE, "").await;
    scene.server.footer(PATIENCE).await;
}

#[tokio::test]
async fn without_a_registration_a_closed_stream_ends_the_session() {
    let mut scene = Scene::new().await;
    scene.client.send(format!("{AVAILABLE}<presence type='unavailable'/></stream:stream>")).await;
    scene.server.footer(PATIENCE).await;
    scene.server.closed(PATIENCE).await;
}

#[tokio::test]
async fn a_connected_client_that_sends_unavailable_presence_is_unavailable() {
    let mut scene = Scene::new().await;
    enable_push(&mut scene.client, "n").await;
    scene.client.send(AVAILABLE).await;
    scene.client.send("<presence type='unavailable'/>").await;
    scene.client.send(message("and one more thing")).await;
    assert_eq!(scene.server.expect("<presence").await, AVAILABLE);
    assert_eq!(scene.server.next().await, "<presence type='unavailable'/>");
    assert_eq!(scene.server.next().await, message("and one more thing"));
}

#[tokio::test]
async fn on_prosody_a_closed_phone_is_away_for_its_contacts_and_gets_its_messages_later() {
    let mut world = World::with(|setup| setup).await;
    let (mut alice, enabled) = world.phone().await;
    alice.send(AVAILABLE).await;
    let mut desk = world.pushward.login("alice", "desk").await;
    desk.send("<presence/>").await;
    desk.expect("alice@localhost/phone").await;
    alice.send("<presence type='unavailable'/></stream:stream>").await;
    alice.closed(PATIENCE).await;
    let away = Element::parse(&desk.expect("<show>xa</show>").await);
    assert_eq!(away.attribute("from"), Some("alice@localhost/phone"), "{away:?}");
    assert_eq!(away.attribute("type"), None, "{away:?}");
    world.bob.say("alice@localhost/phone", "hello").await;
    assert_eq!(world.service.publish(PATIENCE).await.count(), Some(1));
    let (mut alice, _) = failed(&world.pushward, &enabled, 0).await;
    fresh(&mut alice, "phone").await;
    assert_eq!(bodies(&alice.messages(1).await), ["hello"]);
    world.service.assert_quiet(QUIET).await;
}

#[tokio::test]
async fn a_client_without_stream_management_is_held_and_pushed_for_if_it_registered() {
    let mut world = World::with(|setup| setup).await;
    let mut alice = world.pushward.login("alice", "phone").await;
    alice.available().await;
    enable_push(&mut alice, "n").await;
    alice.reset();
    for number in 1..=3 {
        world.bob.say("alice@localhost/phone", &format!("dark {number}")).await;
    }
    world.service.publish(PATIENCE).await;
    let mut alice = world.pushward.authenticated("alice").await;
    alice.bind("phone").await;
    alice.send("<presence/>").await;
    assert_eq!(bodies(&alice.messages(3).await), ["dark 1", "dark 2", "dark 3"]);
    assert!(!alice.transcript().contains("conflict"), "{}", alice.transcript());
    world.bob.say("alice@localhost/phone", "live").await;
    assert_eq!(bodies(&alice.messages(1).await), ["live"]);
}

#[tokio::test]
async fn a_lost_client_without_stream_management_and_registration_ends_its_session() {
    let mut scene = Scene::new().await;
    let mut client = scene.pushward.login("alice", "desk").await;
    let server = scene.stub.fresh().await;
    let answer = request(&mut client, "unknown", "<disable xmlns='urn:xmpp:push:0' jid='push.localhost'/>").await;
    assert!(answer.attribute("type").is_some());
    client.reset();
    server.footer(PATIENCE).await;
    server.closed(PATIENCE).await;
}
