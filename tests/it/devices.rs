//! Delivery of what a device left behind: to the device itself, under any resource, and sometimes to another device.

use std::time::{Duration, Instant};

use crate::support::{
    Client, Enabled, PASSWORD, PATIENCE, Prosody, PushService, Pushward, Scene, Setup, StubConnection, StubOptions,
    StubUpstream, another, bodies, enable_push, failed, fresh, message, numbered, plain, request,
};

/// The time for which nothing may come where nothing is expected.
const QUIET: Duration = Duration::from_millis(700);

fn quick(setup: Setup) -> Setup {
    setup.set("push.batch_delay", "'50ms'").set("push.min_interval", "'50ms'")
}

#[tokio::test]
async fn a_device_that_brings_its_old_id_gets_its_queue_under_a_new_resource() {
    let mut scene = Scene::new().await;
    scene.client.reset();
    let all = numbered("dark", 1..=3);
    scene.server.send(all.iter().map(|body| message(body)).collect::<String>());
    scene.pushward.stored("dark 3").await;
    scene.pushward.kill();
    scene.pushward.start_again().await;
    let (mut client, _) = failed(&scene.pushward, &scene.enabled, 0).await;
    fresh(&mut client, "phone-2").await;
    let server = scene.stub.fresh().await;
    server.send(message("new"));
    let seen = client.bodies_until(&["new".to_owned()]).await;
    let later = client.until_quiet(QUIET).await;
    assert_eq!(seen, [all, vec!["new".into()]].concat(), "what waited comes first: {later:?}");
}

#[tokio::test]
async fn a_device_that_registers_the_same_node_replaces_its_old_session_and_gets_its_queue() {
    let mut scene = Scene::with(StubOptions::default(), quick).await;
    enable_push(&mut scene.client, "n").await;
    scene.client.send("<presence/>").await;
    scene.server.expect("<presence").await;
    scene.client.reset();
    let all = numbered("dark", 1..=3);
    scene.server.send(all.iter().map(|body| message(body)).collect::<String>());
    scene.server.expect("<pubsub").await;
    let (mut client, mut server) = another(&scene.pushward, &mut scene.stub, "phone-2").await;
    enable_push(&mut client, "n").await;
    client.send("<presence/>").await;
    // The superseded session has ended before the presence of its successor is forwarded.
    server.expect("<presence").await;
    assert!(scene.server.seen().footer, "the ghost is still there: {:?}", scene.server.seen());
    server.send(message("new"));
    let seen = client.bodies_until(&["new".to_owned()]).await;
    assert_eq!(seen, [all, vec!["new".into()]].concat(), "what waited comes first");
}

#[tokio::test]
async fn an_old_session_does_not_push_while_the_phone_is_live() {
    let prosody = Prosody::start().await;
    let mut service = PushService::connect(&prosody).await;
    let pushward = Pushward::start(quick(Setup::new(prosody.address))).await;
    let mut bob = Client::plain(prosody.address).await;
    bob.login("bob", "desk").await;
    let mut ghost = pushward.login("alice", "phone").await;
    ghost.enable().await;
    ghost.available().await;
    enable_push(&mut ghost, "n").await;
    ghost.reset();
    let mut alice = pushward.login("alice", "phone-2").await;
    alice.enable().await;
    enable_push(&mut alice, "n").await;
    alice.available().await;
    bob.say("alice@localhost", "hello").await;
    let ((), seen) = tokio::join!(service.assert_quiet(QUIET), alice.live_for(QUIET));
    assert_eq!(bodies(&seen), ["hello"], "{}", alice.transcript());
}

#[tokio::test]
async fn the_old_session_of_a_resource_ends_before_the_server_gets_the_new_bind() {
    for options in [StubOptions::default(), StubOptions::managed()] {
        let mut scene = Scene::with(options, |setup| setup).await;
        scene.client.reset();
        let all = numbered("dark", 1..=3);
        scene.server.send(all.iter().map(|body| message(body)).collect::<String>());
        scene.pushward.stored("dark 3").await;
        let mut client = scene.pushward.authenticated("alice").await;
        let mut bound = tokio::spawn(async move {
            fresh(&mut client, "phone").await;
            client
        });
        let new = scene.stub.session().await;
        assert!(scene.server.seen().footer, "two sessions of one resource: {:?}", scene.server.seen());
        let mut client = (&mut bound).await.unwrap();
        new.send(message("new"));
        let seen = client.bodies_until(&["new".to_owned()]).await;
        let later = client.until_quiet(QUIET).await;
        assert_eq!(seen, [all, vec!["new".into()]].concat(), "what waited comes first: {later:?}");
    }
}

#[tokio::test]
async fn on_prosody_binding_the_same_resource_again_meets_no_conflict() {
    for modules in [&[][..], &["smacks"]] {
        let prosody = Prosody::with(modules).await;
        let pushward = Pushward::start(Setup::new(prosody.address)).await;
        let mut bob = Client::plain(prosody.address).await;
        bob.login("bob", "desk").await;
        let mut alice = pushward.login("alice", "phone").await;
        alice.enable().await;
        alice.available().await;
        alice.reset();
        let all = numbered("dark", 1..=3);
        for body in &all {
            bob.say("alice@localhost/phone", body).await;
        }
        let mut alice = pushward.authenticated("alice").await;
        fresh(&mut alice, "phone").await;
        assert_eq!(alice.bodies_until(&all).await, all);
        let rest = alice.until_quiet(QUIET).await;
        assert!(bodies(&rest).is_empty(), "{rest:?}");
        assert!(!alice.transcript().contains("conflict"), "{}", alice.transcript());
        bob.say("alice@localhost/phone", "new").await;
        assert_eq!(bodies(&alice.messages(1).await), ["new"]);
    }
}

/// The stanzas that a phone left behind when the proxy crashed.
struct Orphan {
    stub: StubUpstream,
    pushward: Pushward,
    phone: Enabled,
}

/// A chat message to a full JID that is gone belongs to the account.
const TO_THE_ACCOUNT: [&str; 3] = ["chat", "full", "normal"];
const TO_THE_PHONE: [&str; 4] = ["no-copy", "private", "groupchat", "headline"];

fn to(jid: &str, kind: &str, body: &str, hint: &str) -> String {
    format!(
        "<message type='{kind}' from='bob@localhost/desk' to='{jid}' id='{body}'><body>{body}</body>{hint}</message>"
    )
}

impl Orphan {
    async fn new(settings: impl FnOnce(Setup) -> Setup) -> Self {
        Self::registered(settings, false).await
    }

    async fn registered(settings: impl FnOnce(Setup) -> Setup, registration: bool) -> Self {
        let settings = |setup: Setup| settings(setup.set("stream_management.orphan_grace", "'400ms'"));
        let mut scene = Scene::with(StubOptions::default(), settings).await;
        if registration {
            enable_push(&mut scene.client, "n").await;
        }
        scene.client.reset();
        let (account, phone) = ("alice@localhost", "alice@localhost/phone");
        let private = "<private xmlns='urn:xmpp:carbons:2'/>";
        for stanza in [
            to(account, "chat", "chat", ""),
            to(phone, "chat", "full", ""),
            to(account, "chat", "no-copy", "<no-copy xmlns='urn:xmpp:hints'/>"),
            to(account, "chat", "private", private),
            to(account, "groupchat", "groupchat", ""),
            to(account, "headline", "headline", ""),
            to(account, "normal", "normal", ""),
        ] {
            scene.server.send(stanza);
        }
        scene.pushward.stored("<body>normal<").await;
        let Scene { stub, mut pushward, enabled, .. } = scene;
        pushward.kill();
        pushward.start_again().await;
        Self { stub, pushward, phone: enabled }
    }

    /// Logs another device in without presence.
    async fn desk(&mut self, resource: &str) -> (Client, StubConnection) {
        let mut desk = self.pushward.login("alice", resource).await;
        desk.enable().await;
        (desk, self.stub.fresh().await)
    }
}

#[tokio::test]
async fn another_device_gets_once_what_was_sent_to_the_account_itself() {
    let mut orphan = Orphan::new(|setup| setup).await;
    let (mut desk, _server) = orphan.desk("desk").await;
    let early = desk.until_quiet(QUIET).await;
    assert!(bodies(&early).is_empty(), "without presence: {early:?}");
    desk.send("<presence/>").await;
    assert_eq!(desk.bodies_until(&TO_THE_ACCOUNT.map(str::to_owned)).await, TO_THE_ACCOUNT);
    desk.ack().await;
    let rest = desk.until_quiet(QUIET).await;
    assert!(bodies(&rest).is_empty(), "{rest:?}");
    let (mut tablet, _server) = orphan.desk("tablet").await;
    tablet.send("<presence/>").await;
    let seen = tablet.until_quiet(QUIET).await;
    assert!(bodies(&seen).is_empty(), "once: {seen:?}");
    let (mut phone, _) = failed(&orphan.pushward, &orphan.phone, 0).await;
    fresh(&mut phone, "phone").await;
    assert_eq!(phone.bodies_until(&TO_THE_PHONE.map(str::to_owned)).await, TO_THE_PHONE);
}

#[tokio::test]
async fn the_intended_device_gets_everything_if_it_comes_first() {
    let mut orphan = Orphan::new(|setup| setup.set("stream_management.orphan_grace", "'3s'")).await;
    let (mut desk, _server) = orphan.desk("desk").await;
    desk.send("<presence/>").await;
    let (mut phone, _) = failed(&orphan.pushward, &orphan.phone, 0).await;
    fresh(&mut phone, "phone").await;
    let all = ["chat", "full", "no-copy", "private", "groupchat", "headline", "normal"].map(str::to_owned);
    assert_eq!(phone.bodies_until(&all).await, all);
    let seen = desk.until_quiet(Duration::from_secs(4)).await;
    assert!(bodies(&seen).is_empty(), "{seen:?}");
}

#[tokio::test]
async fn a_device_that_is_being_woken_has_more_time_to_fetch_its_messages() {
    let settings = |setup: Setup| setup.set("stream_management.resume_timeout", "'3s'");
    let mut orphan = Orphan::registered(settings, true).await;
    let (mut desk, _server) = orphan.desk("desk").await;
    let present = Instant::now();
    desk.send("<presence/>").await;
    assert_eq!(desk.bodies_until(&TO_THE_ACCOUNT.map(str::to_owned)).await, TO_THE_ACCOUNT);
    assert!(present.elapsed() >= Duration::from_millis(2500), "after {:?}", present.elapsed());
}

#[tokio::test]
async fn messages_that_a_live_session_of_the_account_received_are_not_orphans() {
    let settings = |setup: Setup| setup.set("stream_management.orphan_grace", "'200ms'");
    let mut scene = Scene::with(StubOptions::default(), settings).await;
    let (mut desk, desk_server) = another(&scene.pushward, &mut scene.stub, "desk").await;
    desk.send("<presence/>").await;
    scene.client.reset();
    for server in [&scene.server, &desk_server] {
        server.send(to("alice@localhost", "chat", "both", ""));
    }
    assert_eq!(bodies(&desk.messages(1).await), ["both"]);
    desk.ack().await;
    scene.pushward.stored("<body>both<").await;
    scene.pushward.kill();
    scene.pushward.start_again().await;
    let mut desk = scene.pushward.authenticated("alice").await;
    fresh(&mut desk, "desk").await;
    let seen = desk.until_quiet(QUIET).await;
    assert!(bodies(&seen).is_empty(), "{seen:?}");
    let (mut phone, _) = failed(&scene.pushward, &scene.enabled, 0).await;
    fresh(&mut phone, "phone").await;
    assert_eq!(bodies(&phone.messages(1).await), ["both"]);
}

#[tokio::test]
async fn another_account_gets_nothing() {
    let mut orphan = Orphan::new(|setup| setup).await;
    let mut mallory = orphan.pushward.login("mallory", "phone").await;
    mallory.enable().await;
    mallory.send("<presence/>").await;
    let _server = orphan.stub.fresh().await;
    let seen = mallory.until_quiet(QUIET).await;
    assert!(bodies(&seen).is_empty(), "{seen:?}");
}

#[tokio::test]
async fn orphans_are_kept_no_longer_than_orphan_ttl() {
    let mut orphan = Orphan::new(|setup| setup.set("stream_management.orphan_ttl", "'100ms'")).await;
    // Their time passes while a device is connected that takes none of them.
    let (mut desk, _server) = orphan.desk("desk").await;
    desk.until_quiet(QUIET).await;
    let (mut phone, _) = failed(&orphan.pushward, &orphan.phone, 0).await;
    fresh(&mut phone, "phone").await;
    let _server = orphan.stub.fresh().await;
    let seen = phone.until_quiet(QUIET).await;
    assert!(bodies(&seen).is_empty(), "{seen:?}");
}

const REMOVE: &str = "<query xmlns='jabber:iq:register'><remove/></query>";

#[tokio::test]
async fn the_removal_of_an_account_deletes_everything_of_it() {
    let mut scene = Scene::with(StubOptions::default(), quick).await;
    enable_push(&mut scene.client, "n").await;
    scene.client.reset();
    scene.server.send(message("secret"));
    scene.pushward.stored("<body>secret<").await;
    let (mut desk, mut server) = another(&scene.pushward, &mut scene.stub, "desk").await;
    desk.send(format!("<iq type='set' id='gone'>{REMOVE}</iq>")).await;
    server.expect("jabber:iq:register").await;
    let error = "<stream:error><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>";
    server.send(format!("<iq type='result' id='gone' to='alice@localhost/desk'/>{error}</stream:stream>"));
    scene.server.try_send(format!("{error}</stream:stream>"));
    desk.closed(PATIENCE).await;
    scene.server.closed(PATIENCE).await;
    // Another user may register that name now.
    let (mut client, h) = failed(&scene.pushward, &scene.enabled, 0).await;
    assert_eq!(h, None);
    fresh(&mut client, "phone").await;
    let mut server = scene.stub.fresh().await;
    let seen = client.until_quiet(QUIET).await;
    assert!(bodies(&seen).is_empty(), "{seen:?}");
    client.reset();
    server.send(message("hello"));
    scene.pushward.stored("<body>hello<").await;
    let published: Vec<_> = server.rest().into_iter().filter(|element| element.contains("pubsub")).collect();
    assert!(published.is_empty(), "{published:?}");
}

#[tokio::test]
async fn on_prosody_the_removal_of_an_account_ends_its_pushes() {
    let prosody = Prosody::with(&["user_account_management"]).await;
    let mut service = PushService::connect(&prosody).await;
    let pushward = Pushward::start(quick(Setup::new(prosody.address))).await;
    let mut alice = pushward.login("alice", "phone").await;
    let enabled = alice.enable().await;
    alice.available().await;
    enable_push(&mut alice, "n").await;
    let mut desk = pushward.login("alice", "desk").await;
    desk.enable().await;
    alice.reset();
    let answer = request(&mut desk, "gone", REMOVE).await;
    assert_eq!(answer.attribute("type"), Some("result"), "{answer:?}");
    desk.closed(PATIENCE).await;
    service.assert_quiet(QUIET).await;
    let mut login = pushward.connect().await;
    login.open().await;
    login.send(plain("alice", PASSWORD)).await;
    assert!(login.next().await.contains("<failure"), "the account is gone, and {} with it", enabled.id);
}

#[tokio::test]
async fn an_error_in_answer_to_a_removal_removes_nothing() {
    let mut scene = Scene::with(StubOptions::default(), quick).await;
    enable_push(&mut scene.client, "n").await;
    let (mut desk, mut server) = another(&scene.pushward, &mut scene.stub, "desk").await;
    desk.send(format!("<iq type='set' id='gone'>{REMOVE}</iq>")).await;
    server.expect("jabber:iq:register").await;
    server.send("<iq type='error' id='gone' to='alice@localhost/desk'><error type='cancel'><not-allowed xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>");
    desk.expect("id='gone'").await;
    scene.client.reset();
    scene.server.send(message("hello"));
    scene.server.expect("<pubsub").await;
}
