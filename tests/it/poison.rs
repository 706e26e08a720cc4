//! Clients that break on a stanza: that stanza is withheld, and no other.

use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use crate::admin::ask;
use crate::support::{
    Client, Enabled, PATIENCE, Pushward, Scene, Server, Setup, StubOptions, World, bodies, enable_push, eventually,
    fresh, message, numbered, quick, resumed,
};

/// The time for which nothing may come where nothing is expected.
const QUIET: Duration = Duration::from_millis(500);

/// The ways in which the client ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The client crashes.
    Reset,
    /// The client crashes, but its system closes the connection in order.
    Fin,
    /// The client's XML parser reports an error.
    StreamError,
    /// The client closes its stream.
    Footer,
}

impl End {
    /// Ends the client in this way.
    async fn of(self, mut client: Client) {
        match self {
            Self::Reset => client.reset(),
            Self::Fin => drop(client.fin()),
            Self::StreamError => {
                let condition = "<not-well-formed xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>";
                client.try_send(format!("<stream:error>{condition}</stream:error></stream:stream>")).await;
            }
            Self::Footer => client.try_send("</stream:stream>").await,
        }
    }
}

/// Waits until this many log lines contain `needle`.
async fn logged_times(pushward: &Pushward, needle: &str, times: usize) {
    let count = || pushward.log().iter().filter(|line| line.contains(needle)).count();
    let what = || format!("{times} times {needle:?} in\n{}", pushward.log().join("\n"));
    eventually(PATIENCE, what, || (count() >= times).then_some(())).await;
}

/// Reads until this body and then breaks the client. Waits until Pushward has noticed, and returns what came before.
async fn breaks_on(pushward: &Pushward, mut client: Client, body: &str, ends: usize) -> Vec<String> {
    client.acks = false;
    let before = client.bodies_until(&[body.to_owned()]).await;
    client.reset();
    logged_times(pushward, "session hibernated (dark)", ends).await;
    before
}

async fn set_aside(pushward: &Pushward) -> Vec<Value> {
    let sessions = ask(pushward, &["sessions", "--json"]).await.objects();
    sessions.into_iter().map(|session| session["set_aside"].clone()).collect()
}

async fn sessions_show(pushward: &Pushward, stanzas: u64) {
    let until = tokio::time::Instant::now() + PATIENCE;
    while set_aside(pushward).await != [Value::from(stanzas)] {
        assert!(tokio::time::Instant::now() < until, "{:?}", set_aside(pushward).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Without the guard the stanza would come at each resumption and each login for 14 days.
#[tokio::test]
async fn a_stanza_that_breaks_a_client_is_set_aside_until_the_operator_releases_it() {
    for options in [StubOptions::default(), StubOptions::managed()] {
        let mut scene = Scene::with(options, Setup::with_metrics).await;
        let (pushward, enabled) = (&mut scene.pushward, &scene.enabled);
        scene.server.send(message("poison") + &message("behind"));
        breaks_on(pushward, scene.client, "poison", 1).await;
        let (client, _) = resumed(pushward, enabled, 0).await;
        breaks_on(pushward, client, "poison", 2).await;
        // The suspect is written alone, with nothing after it.
        let (mut client, _) = resumed(pushward, enabled, 0).await;
        client.acks = false;
        let came = client.until_quiet(QUIET).await;
        assert_eq!((bodies(&came), client.requests), (vec!["poison".to_owned()], 1), "{}", client.transcript());
        client.reset();
        logged_times(pushward, "stanza set aside", 1).await;
        let (mut client, _) = resumed(pushward, enabled, 0).await;
        assert_eq!(bodies(&client.messages(1).await), ["behind"]);
        client.ack().await;
        sessions_show(pushward, 1).await;
        let text = ask(pushward, &["sessions"]).await.out;
        assert!(text.contains("  set aside 1"), "{text}");
        assert_eq!(pushward.metric("pushward_stanzas_set_aside_total").await, 1);
        let seen = client.live_for(Duration::from_secs(6)).await;
        assert!(bodies(&seen).is_empty(), "{seen:?}");
        // It outlives the session and the process.
        pushward.restart().await;
        let mut client = pushward.authenticated("alice").await;
        fresh(&mut client, "phone").await;
        let server = scene.stub.fresh().await;
        let seen = client.until_quiet(QUIET).await;
        assert!(bodies(&seen).is_empty(), "{seen:?}");
        server.send(message("new"));
        assert_eq!(client.bodies_until(&["new".to_owned()]).await, ["new"]);
        sessions_show(pushward, 1).await;
        let printed = ask(pushward, &["release", "alice@localhost"]).await;
        assert_eq!((printed.code, printed.out.trim()), (Some(0), "stanzas released: 1"), "{}", printed.err);
        assert_eq!(client.bodies_until(&["poison".to_owned()]).await, ["poison"]);
        client.ack().await;
        sessions_show(pushward, 0).await;
        cannot_be_released(pushward).await;
        pushward.assert_log_never_contains("<body>");
    }
}

/// Checks the command when nothing is set aside: the operator gets the reason, and nothing is logged.
async fn cannot_be_released(pushward: &Pushward) {
    let released = || pushward.log().iter().filter(|line| line.contains("stanzas released by the operator")).count();
    let before = released();
    for (account, reason) in [
        ("alice@localhost", "nothing is set aside for alice@localhost"),
        ("nobody@localhost", "nothing is known about nobody@localhost"),
        ("alice@example.com", "no [[host]] has the domain example.com"),
        ("nonsense", "no [[host]] has the domain nonsense"),
    ] {
        let printed = ask(pushward, &["release", account]).await;
        assert_eq!((printed.code, printed.out.trim(), printed.err.trim()), (Some(1), "", reason), "{account}");
    }
    assert_eq!((before, released()), (1, 1));
}

/// Reads and acknowledges each stanza until the client would break, or nothing more comes. Returns the bodies before,
/// and whether it breaks.
async fn reads(client: &mut Client) -> (Vec<String>, bool) {
    client.acks = false;
    let mut seen = Vec::new();
    while let Ok(element) = timeout(QUIET, client.next()).await {
        let body = bodies(&[element]);
        if body == ["poison"] {
            return (seen, true);
        }
        seen.extend(body);
        client.ack().await;
    }
    (seen, false)
}

/// Tests a client that breaks after every login, on real servers, in whatever way its sessions end.
async fn every_login_breaks(server: Server, end: End, registered: bool) {
    let pushward = Pushward::start(Setup::new(server.address())).await;
    let mut bob = server.bob().await;
    let service = server.push_service().await;
    let mut alice = pushward.authenticated("alice").await;
    fresh(&mut alice, "phone").await;
    if registered {
        enable_push(&mut alice, "n").await;
    }
    alice.roundtrip().await;
    alice.ack().await;
    bob.say("alice@localhost/phone", "poison").await;
    bob.say("alice@localhost/phone", "behind").await;
    let mut logins = 0;
    let seen = loop {
        let (seen, breaks) = reads(&mut alice).await;
        if !breaks {
            break seen;
        }
        end.of(alice).await;
        logins += 1;
        assert!(logins <= 3, "{end:?} {registered}: {seen:?}\n{}", pushward.log().join("\n"));
        alice = pushward.authenticated("alice").await;
        fresh(&mut alice, "phone").await;
    };
    assert_eq!((logins, seen), (3, vec!["behind".to_owned()]), "{end:?} {registered}");
    sessions_show(&pushward, 1).await;
    alice.live_for(Duration::from_secs(5)).await;
    ask(&pushward, &["release", "alice@localhost"]).await;
    assert_eq!(reads(&mut alice).await, (vec![], true));
    alice.ack().await;
    assert_eq!(reads(&mut alice).await, (vec![], false), "{end:?} {registered}: once");
    drop(service);
}

#[tokio::test]
async fn a_stanza_is_set_aside_for_a_client_that_never_resumes_on_prosody() {
    for (end, registered) in [(End::Reset, false), (End::Fin, true), (End::StreamError, true), (End::Footer, true)] {
        every_login_breaks(Server::prosody().await, end, registered).await;
    }
    every_login_breaks(Server::prosody().await, End::Footer, false).await;
    every_login_breaks(Server::managed_prosody().await, End::Reset, false).await;
    // The server keeps what the client has not acknowledged.
    every_login_breaks(Server::managed_prosody().await, End::Footer, false).await;
}

#[tokio::test]
async fn a_stanza_is_set_aside_for_a_client_that_never_resumes_on_ejabberd() {
    every_login_breaks(Server::ejabberd().await, End::Reset, false).await;
    every_login_breaks(Server::managed_ejabberd().await, End::StreamError, true).await;
}

/// The network path is bad and the client is not, so no stanza is suspected.
#[tokio::test]
async fn ten_connections_that_break_after_a_second_with_good_messages_set_nothing_aside() {
    let scene = Scene::with(StubOptions::managed(), Setup::with_metrics).await;
    let (pushward, enabled) = (&scene.pushward, &scene.enabled);
    let mut client = scene.client;
    let (mut seen, mut h, all) = (Vec::new(), 0, numbered("good", 1..=30));
    for (round, sent) in all.chunks(3).enumerate() {
        scene.server.send(sent.iter().map(|body| message(body)).collect::<String>());
        // The client reads and answers, but not the last request.
        let came = client.live_for(Duration::from_millis(700)).await;
        client.acks = false;
        scene.server.send(message(&format!("last {round}")));
        let last = client.live_for(Duration::from_millis(300)).await;
        seen.extend(bodies(&came).into_iter().chain(bodies(&last)));
        h = client.handled.max(h);
        client.reset();
        logged_times(pushward, "session hibernated (dark)", round + 1).await;
        client = resumed(pushward, enabled, h).await.0;
    }
    let rest = client.until_quiet(QUIET).await;
    seen.extend(bodies(&rest));
    seen.retain(|body| body.starts_with("good"));
    assert_eq!(seen, all, "each once, in order");
    assert_eq!(pushward.metric("pushward_stanzas_set_aside_total").await, 0);
    sessions_show(pushward, 0).await;
}

/// The client breaks whatever it reads, so an innocent stanza is suspected.
#[tokio::test]
async fn a_client_that_breaks_without_the_stanza_gets_it_back() {
    let scene = Scene::with(StubOptions::default(), Setup::with_metrics).await;
    let (pushward, enabled) = (&scene.pushward, &scene.enabled);
    scene.server.send(message("one") + &message("two"));
    breaks_on(pushward, scene.client, "one", 1).await;
    for ends in 2..=3 {
        let (client, _) = resumed(pushward, enabled, 0).await;
        breaks_on(pushward, client, "one", ends).await;
    }
    logged_times(pushward, "stanza set aside", 1).await;
    let (client, _) = resumed(pushward, enabled, 0).await;
    client.reset();
    logged_times(pushward, "stanzas given back", 1).await;
    for ends in 5..=9 {
        let (client, _) = resumed(pushward, enabled, 0).await;
        let seen = breaks_on(pushward, client, "two", ends).await;
        assert_eq!(seen, ["one", "two"]);
    }
    assert_eq!(pushward.metric("pushward_stanzas_set_aside_total").await, 1);
    assert_eq!(pushward.metric("pushward_stanzas_given_back_total").await, 1);
}

/// Stanzas that will not be delivered are no reason to notify.
#[tokio::test]
async fn what_is_set_aside_is_not_counted_in_pushes() {
    let mut world = World::with(quick).await;
    let (mut client, enabled) = world.phone("phone", "node").await;
    client.ack().await;
    let h = client.handled;
    world.bob.say("alice@localhost", "poison").await;
    breaks_on(&world.pushward, client, "poison", 1).await;
    assert_eq!(world.answered().await.count(), Some(1));
    for ends in 2..=3 {
        let client = world.resumed(&enabled, h).await;
        breaks_on(&world.pushward, client, "poison", ends).await;
    }
    logged_times(&world.pushward, "stanza set aside", 1).await;
    while world.service.next(QUIET).await.is_some() {}
    world.bob.say("alice@localhost", "fine").await;
    assert_eq!(world.answered().await.count(), Some(1));
}

#[tokio::test]
async fn another_device_may_have_what_is_set_aside() {
    let settings = |setup: Setup| {
        let setup = setup.set("stream_management.resume_timeout", "'2s'");
        setup.set("stream_management.orphan_grace", "'100ms'")
    };
    let mut world = World::with(settings).await;
    let (mut client, enabled) = world.session("phone").await;
    client.ack().await;
    let h = client.handled;
    world.bob.say("alice@localhost", "poison").await;
    breaks_on(&world.pushward, client, "poison", 1).await;
    for ends in 2..=3 {
        let client = world.resumed(&enabled, h).await;
        breaks_on(&world.pushward, client, "poison", ends).await;
    }
    logged_times(&world.pushward, "stanza set aside", 1).await;
    logged_times(&world.pushward, "\"reason\":\"expired\"", 1).await;
    let (mut phone, _) = world.session("phone").await;
    let seen = phone.live_for(QUIET).await;
    assert!(bodies(&seen).is_empty(), "{seen:?}");
    End::Footer.of(phone).await;
    let mut laptop = world.pushward.authenticated("alice").await;
    fresh(&mut laptop, "laptop").await;
    assert_eq!(laptop.bodies_until(&["poison".to_owned()]).await, ["poison"]);
}

/// Tests one session, in a resumption whose `h` covers the stanza.
#[tokio::test]
async fn a_client_that_has_read_the_stanza_after_all_has_it() {
    let scene = Scene::with(StubOptions::default(), |setup| setup).await;
    let (pushward, enabled): (&Pushward, &Enabled) = (&scene.pushward, &scene.enabled);
    scene.server.send(message("slow") + &message("behind"));
    breaks_on(pushward, scene.client, "slow", 1).await;
    for ends in 2..=3 {
        let (client, _) = resumed(pushward, enabled, 0).await;
        breaks_on(pushward, client, "slow", ends).await;
    }
    logged_times(pushward, "stanza set aside", 1).await;
    let (mut client, _) = resumed(pushward, enabled, 1).await;
    assert_eq!(bodies(&client.messages(1).await), ["behind"]);
    sessions_show(pushward, 0).await;
}
