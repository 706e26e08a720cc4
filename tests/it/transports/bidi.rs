//! Stanzas of a push service on a bidirectional stream (XEP-0288): it may send answers, and nothing else. Users choose
//! push services, so any host of the internet may be one.

use std::time::Duration;

use serde_json::Value;

use super::{bob, quick, routed, writes};
use crate::admin::ask;
use crate::support::{
    AppClient, AppServer, AppStream, Authority, Client, Element, Enabled, Prosody, Pushward, lost, request,
};

/// alice's phone, registered at a scripted push service, and the stream on which it was notified.
struct Scene {
    app: AppServer,
    stream: AppStream,
    pushward: Pushward,
    phone: Enabled,
    bob: Client,
    // Declared last, so that the others end before it.
    _prosody: Prosody,
}

impl Scene {
    async fn new() -> Self {
        Self::before(Prosody::start().await, &Authority::new("an authority")).await
    }

    /// Starts everything up to the point where the phone is dark and was notified.
    async fn before(prosody: Prosody, authority: &Authority) -> Self {
        let mut app = AppServer::start("push.test", authority).await;
        let setup = quick(routed(&prosody, authority, &app.route())).set("push.transports", "['s2s']");
        let pushward = Pushward::start(setup.with_metrics()).await;
        let mut bob = bob(&prosody).await;
        let (alice, phone) = super::phone(&pushward, "push.test").await;
        lost(&pushward, alice, "alice@localhost/phone").await;
        writes(&mut bob, "one").await;
        let mut stream = app.stream().await;
        assert!(stream.bidi);
        stream.publish().await;
        pushward.logged(&["push notification outcome", "\"outcome\":\"accepted\""]).await;
        Self { app, stream, pushward, phone, bob, _prosody: prosody }
    }

    /// Opens a live session of alice.
    async fn desk(&self) -> Client {
        let mut desk = self.pushward.login("alice", "desk").await;
        desk.enable().await;
        desk.available().await;
        desk
    }

    /// Returns the number of push-service stanzas with this fate.
    async fn counted(&self, fate: &str) -> u64 {
        self.pushward.metric(&format!("pushward_push_service_stanzas_total{{fate=\"{fate}\"}}")).await
    }
}

fn is_busy(error: &Element) -> bool {
    let it = error.child("error");
    error.attribute("type") == Some("error")
        && it.is_some_and(|it| it.attribute("type") == Some("wait") && it.child("resource-constraint").is_some())
}

#[tokio::test]
async fn answers_to_requests_of_a_session_reach_it_over_the_stream() {
    let mut scene = Scene::new().await;
    let mut desk = scene.desk().await;
    for (resource, kind) in [("desk", "result"), ("desk", "error"), ("nobody", "result")] {
        scene
            .stream
            .send(format!("<iq type='{kind}' id='{kind}' from='push.test' to='alice@localhost/{resource}'/>"))
            .await;
    }
    // A late answer, and answers to requests that nobody can have sent.
    for to in ["alice@localhost", "localhost", "carol@localhost/x"] {
        scene.stream.send(format!("<iq type='result' id='late' from='push.test' to='{to}'/>")).await;
    }
    for kind in ["result", "error"] {
        let answer = Element::parse(&desk.expect(&format!("id=\"{kind}\"")).await);
        assert_eq!((answer.ns.as_str(), answer.attribute("from")), ("jabber:client", Some("push.test")));
    }
    // A dark session gets it at its resumption.
    scene.stream.send("<iq type='result' id='dark' from='push.test' to='alice@localhost/phone'/>").await;
    writes(&mut scene.bob, "two").await;
    scene.stream.publish().await;
    let mut alice = scene.pushward.authenticated("alice").await;
    assert_eq!(alice.resume(&scene.phone.id, 0).await.name, "resumed");
    alice.expect("\"dark\"").await;
    assert_eq!(scene.counted("refused").await, 0);
    assert!(scene.counted("ignored").await >= 3);
}

/// Regression test: a message for a user who is connected at the server itself, or offline, was answered
/// `service-unavailable` and never reached offline storage, archive or carbons. A message for a user behind the proxy
/// bypassed the user's block list.
#[tokio::test]
async fn stanzas_other_than_answers_end_the_stream_and_are_not_delivered() {
    let refused = "<message type='chat' from='bot@push.test' to='alice@localhost/desk' id='1'><body>x</body></message>";
    for (stanza, returned) in [
        (refused.to_owned(), true),
        (refused.replace("alice@localhost/desk", "alice@localhost"), true),
        (refused.replace("alice@localhost/desk", "carol@localhost"), true),
        (refused.replace("type='chat'", "type='headline'"), false),
        (refused.replace("type='chat'", "type='groupchat'"), false),
        (refused.replace("type='chat'", "type='error'"), false),
        (
            "<iq type='get' id='1' from='push.test' to='alice@localhost/desk'><ping xmlns='urn:xmpp:ping'/></iq>"
                .to_owned(),
            true,
        ),
        ("<presence type='subscribe' id='1' from='bot@push.test' to='alice@localhost'/>".to_owned(), true),
        ("<presence id='1' from='bot@push.test' to='alice@localhost'/>".to_owned(), false),
        // These change nothing: another sender than the registered one, or another node.
        (affiliation("bot@push.test", "n"), true),
        (affiliation("push.test", "another"), true),
    ] {
        let mut scene = Scene::new().await;
        let mut desk = scene.desk().await;
        scene.stream.send(&stanza).await;
        // Later stanzas are treated the same way. Answers are still accepted.
        scene.stream.send(refused.replace("id='1'", "id='2'")).await;
        scene.stream.send("<iq type='result' id='late' from='push.test' to='alice@localhost/desk'/>").await;
        let mut ids = Vec::new();
        for answer in scene.stream.until_footer().await {
            assert!(is_busy(&answer), "{answer:?} to {stanza}");
            ids.push(answer.attribute("id").unwrap().to_owned());
        }
        let expect: &[&str] = if returned { &["1", "2"] } else { &["2"] };
        assert_eq!(
            {
                ids.sort();
                ids
            },
            expect,
            "{stanza}"
        );
        desk.expect("\"late\"").await;
        desk.send("<iq type='get' id='last' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>").await;
        desk.expect("id='last'").await;
        assert!(!desk.transcript().contains("bot@push.test") && !desk.transcript().contains("pubsub"));
        assert_eq!(scene.counted("refused").await, 2, "{stanza}");
        // The next notification goes there without a return channel, and the operator is informed.
        writes(&mut scene.bob, "two").await;
        let mut blind = scene.app.stream().await;
        assert!(!blind.bidi);
        assert!(blind.next().await.is_some_and(|iq| !iq.all("publish").is_empty()));
        let list = ask(&scene.pushward, &["push", "list", "--json"]).await.objects();
        assert!(list[0]["bidi_off_until"].as_u64().is_some(), "{list:?}");
        let list = ask(&scene.pushward, &["push", "list"]).await;
        assert!(list.out.contains("bidi off until"), "{}", list.out);
    }
}

fn affiliation(from: &str, node: &str) -> String {
    format!(
        "<message id='1' from='{from}' to='alice@localhost'><pubsub xmlns='http://jabber.org/protocol/pubsub' node='{node}'>\
         <affiliation jid='alice@localhost' affiliation='none'/></pubsub><body>with a text</body></message>"
    )
}

#[tokio::test]
async fn a_registration_is_revoked_over_the_stream_and_nothing_of_the_message_reaches_a_client() {
    let mut scene = Scene::new().await;
    let mut desk = scene.desk().await;
    scene.stream.send(affiliation("push.test", "n")).await;
    scene.pushward.logged(&["push registration revoked"]).await;
    assert!(ask(&scene.pushward, &["push", "list", "--json"]).await.objects().is_empty());
    scene.stream.send("<iq type='result' id='behind' from='push.test' to='alice@localhost/desk'/>").await;
    desk.expect("\"behind\"").await;
    assert!(!desk.transcript().contains("with a text"));
    assert_eq!(scene.counted("refused").await, 0);
}

#[tokio::test]
async fn names_are_compared_after_normalisation_and_non_stanzas_are_not_delivered() {
    let mut scene = Scene::new().await;
    let mut desk = scene.desk().await;
    for xml in [
        "<iq xmlns='jabber:serv&#101;r' type='result' id='written' from='push.test' to='alice@localhost/desk'>\
         <x xmlns='jabber:serv&#101;r'/></iq>",
        "<s:iq xmlns:s='jabber:serv&#101;r' type='result' id='prefixed' from='push.test' to='alice@localhost/desk'/>",
        // These are no stanzas on this stream.
        "<iq xmlns='jabber:client' type='result' id='other' from='push.test' to='alice@localhost/desk'/>",
        "<error><is-no-stream-error/></error>",
    ] {
        scene.stream.send(xml).await;
    }
    for id in ["written", "prefixed"] {
        let answer = Element::parse(&desk.expect(&format!("\"{id}\"")).await);
        assert_eq!((answer.ns.as_str(), answer.name.as_str()), ("jabber:client", "iq"), "{answer:?}");
    }
    scene.stream.send("<iq type='result' id='behind' from='push.test' to='alice@localhost/desk'/>").await;
    desk.expect("behind").await;
    assert!(!desk.transcript().contains("other"));
    assert_eq!(scene.counted("delivered").await, 3);
}

#[tokio::test]
async fn stanzas_after_the_footer_are_counted_and_not_answered() {
    let mut scene = Scene::new().await;
    let message = "<message from='bot@push.test' to='alice@localhost' id='m'><body>x</body></message>";
    scene.stream.send(message).await;
    assert_eq!(scene.stream.until_footer().await.len(), 1);
    scene.stream.send(message.repeat(3)).await;
    scene.stream.send("</stream:stream>").await;
    scene.pushward.logged(&["stanzas after end of stream", "\"stanzas\":3"]).await;
    assert_eq!((scene.counted("refused").await, scene.counted("late").await), (1, 3));
}

#[tokio::test]
async fn text_from_a_push_service_cannot_forge_log_lines() {
    let authority = Authority::new("an authority");
    let prosody = Prosody::start().await;
    let from = format!("evil.test&#10;2026-01-01T00:00:00Z ERROR forged{}", "x".repeat(1000));
    let app = AppServer::saying("push.test", &authority, &from).await;
    let setup = routed(&prosody, &authority, &app.route()).set("push.transports", "['s2s']");
    let pushward = Pushward::start(setup).await;
    let mut bob = bob(&prosody).await;
    super::goes_dark(&pushward, "push.test", &mut bob).await;
    let line: Value = serde_json::from_str(&pushward.logged(&["push transport skipped"]).await).unwrap();
    let reason = line["reason"].as_str().unwrap();
    assert!(reason.contains("evil.test\\n2026") && !reason.contains('\n') && reason.len() < 400, "{reason:?}");
    let list = ask(&pushward, &["push", "list"]).await.out;
    assert!(list.contains("evil.test\\n2026") && list.trim_end().lines().count() == 1, "{list}");
}

/// Tests messages for users who are connected at the server itself, or offline, and for one who has blocked their
/// sender.
#[tokio::test]
async fn messages_of_a_push_service_to_users_pass_through_the_server_after_the_stream_is_closed() {
    let authority = Authority::new("an authority");
    let (prosody, between) = Prosody::between_servers(&authority.issue_for_both("localhost"), &authority.file()).await;
    let address = prosody.address;
    let mut scene = Scene::before(prosody, &authority).await;
    let mut desk = scene.desk().await;
    let block = "<block xmlns='urn:xmpp:blocking'><item jid='push.test'/></block>";
    let answer = request(&mut desk, "block", block).await;
    assert_eq!(answer.attribute("type"), Some("result"), "{answer:?}");
    let message = |to: &str, body: &str| {
        format!(
            "<message type='chat' from='bot@push.test' to='{to}@localhost' id='{body}'><body>{body}</body></message>"
        )
    };
    scene.bob.send("<presence/>").await;
    for to in ["bob", "carol", "alice"] {
        scene.stream.send(message(to, "early")).await;
    }
    let answers = scene.stream.until_footer().await;
    assert!(answers.len() == 3 && answers.iter().all(is_busy), "{answers:?}");
    // The push service connects to the server, as after the end of any stream.
    let mut peer = AppClient::dial(between, &authority).await;
    for to in ["alice", "bob", "carol"] {
        peer.send(message(to, "later")).await;
    }
    scene.bob.expect("<body>later</body>").await;
    let mut carol = Client::plain(address).await;
    carol.login("carol", "desk").await;
    carol.send("<presence/>").await;
    carol.expect("<body>later</body>").await;
    // The stream is ordered: alice's message came before this answer, and she does not get it.
    desk.send("<iq type='get' id='last' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>").await;
    desk.expect("id='last'").await;
    for client in [&desk, &scene.bob, &carol] {
        assert!(!client.transcript().contains("<body>early</body>"));
    }
    assert!(!desk.transcript().contains("bot@push.test"));
}

#[tokio::test]
async fn a_stream_that_is_closed_with_an_error_has_one_footer_and_its_cause_is_counted() {
    for (xml, condition) in [
        ("<iq type='result' id='1' from='evil.test' to='alice@localhost/desk'/>", "invalid-from"),
        ("<message id='1' from='push.test' to='alice@elsewhere.test'/>", "host-unknown"),
    ] {
        let mut scene = Scene::new().await;
        scene.stream.send(xml).await;
        let received = scene.stream.rest().await;
        assert!(received.contains(&format!("<{condition} ")), "{received}");
        assert_eq!(received.matches("</stream:stream>").count(), 1, "{received}");
        assert_eq!(scene.counted("refused").await, 1, "{xml}");
    }
}

/// Regression test: 80 MB of them were accepted, and not counted.
#[tokio::test]
async fn non_stanza_elements_are_counted_and_too_many_end_the_stream() {
    let mut scene = Scene::new().await;
    // Buffers may hold some of it.
    scene.stream.flood("<foo xmlns='bar'/>", 8_000_000, Duration::from_secs(3)).await;
    scene.pushward.logged(&["push stream lost", "unsupported-stanza-type"]).await;
    assert_eq!((scene.counted("ignored").await, scene.counted("refused").await), (16, 1));
}

/// Regression test: half a megabyte of them wrote as many log lines.
#[tokio::test]
async fn a_push_service_that_repeats_itself_does_not_fill_the_log() {
    let mut scene = Scene::new().await;
    // This is no change: the account has the registration.
    let member = affiliation("push.test", "n").replace("'none'", "'member'");
    scene.stream.flood(&member, 2_000_000, Duration::from_secs(3)).await;
    scene.pushward.metric_is("pushward_push_service_stanzas_total{fate=\"dropped\"}", |dropped| dropped > 1000).await;
    let lines = scene
        .pushward
        .log()
        .into_iter()
        .filter(|line| line.contains("push service messages about registrations dropped"))
        .count();
    assert!((1..=3).contains(&lines), "{lines} lines");
}
