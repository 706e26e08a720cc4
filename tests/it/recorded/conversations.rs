//! Conversations 2.19, the build with Google's push: SASL1, resumption, p2.

use std::time::{Duration, Instant};

use super::{Phone, Stage, assert_delayed};
use crate::support::{Client, Element, Enabled, PATIENCE, bodies, lost};

const HEADER: &str = concat!(
    r#"<stream:stream xmlns="jabber:client" from="alice@localhost" version="1.0" xml:lang="en" to="localhost" "#,
    r#"xmlns:stream="http://etherx.jabber.org/streams">"#
);
const BIND: &str = concat!(
    r#"<iq id="vEnb2xK2qHyZ" type="set"><bind xmlns="urn:ietf:params:xml:ns:xmpp-bind">"#,
    r#"<resource>Conversations.aB3_</resource></bind></iq>"#
);
const INFO: &str = r#"<query xmlns="http://jabber.org/protocol/disco#info"/>"#;
const ITEMS: &str = r#"<query xmlns="http://jabber.org/protocol/disco#items"/>"#;
/// The ad-hoc command that requests node and secret from the app server, through the user's own server.
const COMMAND: &str = concat!(
    r#"<iq to="push.localhost" id="p2" type="set"><command action="execute" node="register-push-fcm" "#,
    r#"xmlns="http://jabber.org/protocol/commands"><x type="submit" xmlns="jabber:x:data"><field var="token">"#,
    r#"<value>fcm-token</value></field><field var="android-id"><value>0123456789abcdef</value></field></x></command></iq>"#
);
const ENABLE: &str = concat!(
    r#"<iq id="push" type="set"><enable jid="push.localhost" node="0a1b2c" xmlns="urn:xmpp:push:0">"#,
    r#"<x type="submit" xmlns="jabber:x:data"><field type="hidden" var="FORM_TYPE">"#,
    r#"<value>http://jabber.org/protocol/pubsub#publish-options</value></field>"#,
    r#"<field var="secret"><value>s3cr3t</value></field></x></enable></iq>"#
);
const PRESENCE: &str = concat!(
    r#"<presence><c hash="sha-1" node="https://conversations.im" ver="y5J05vvJHs4IS9lMvSGAuZ8zGAg=" "#,
    r#"xmlns="http://jabber.org/protocol/caps"/></presence>"#
);
const ASK: &str = r#"<r xmlns="urn:xmpp:sm:3"/>"#;
/// The timeouts for an `<a/>`: normally, and once a push has woken the client.
const PING_TIMEOUT: Duration = Duration::from_secs(15);
const LOW_PING_TIMEOUT: Duration = Duration::from_secs(1);

async fn connected(stage: &Stage) -> Phone {
    let client = Client::starttls(stage.pushward.starttls, &stage.pushward.tls()).await;
    let mut phone = Phone::authenticated(client, HEADER).await;
    phone.restarted("").await;
    phone
}

fn get(to: &str, id: &str, query: &str) -> String {
    format!(r#"<iq to="{to}" id="{id}" type="get">{query}</iq>"#)
}

/// Binds, and sends what `sendPostBindInitialization` and `BindProcessor` send next.
async fn bound(phone: &mut Phone) -> Enabled {
    let answer = phone.request("vEnb2xK2qHyZ", BIND).await;
    assert_eq!(answer.all("jid").first().unwrap().text, "alice@localhost/Conversations.aB3_");
    let enabled = phone.enable(r#"<enable resume="true" xmlns="urn:xmpp:sm:3"/>"#).await;
    // All requests leave at once, with an `<r/>` after `<enabled/>`. Presence follows when each has its answer.
    phone.client.send(ASK).await;
    phone.stanza(&get("localhost", "info", INFO)).await;
    phone.stanza(&get("localhost", "items", ITEMS)).await;
    assert!(phone.account_features().await.iter().any(|feature| feature == "urn:xmpp:push:0"));
    phone.answer("id='info'").await;
    let items = phone.answer("id='items'").await;
    for (number, item) in items.all("item").into_iter().enumerate() {
        let id = format!("item-{number}");
        phone.request(&id, &get(item.attribute("jid").unwrap(), &id, INFO)).await;
    }
    phone.request("carbons", r#"<iq id="carbons" type="set"><enable xmlns="urn:xmpp:carbons:2"/></iq>"#).await;
    phone.request("roster", r#"<iq id="roster" type="get"><query xmlns="jabber:iq:roster"/></iq>"#).await;
    phone.request("id='p2'", COMMAND).await;
    phone.request("id='push'", ENABLE).await;
    phone.stanza(PRESENCE).await;
    phone.client.send(r#"<active xmlns="urn:xmpp:csi:0"/>"#).await;
    phone.acked(PING_TIMEOUT).await;
    enabled
}

/// Sends a message. The client sends `<r/>` after each one, and shows it as sent when the `<a/>` comes.
async fn say(phone: &mut Phone, id: &str) {
    let message = format!(
        r#"<message to="bob@localhost" id="{id}" type="chat"><body>{id}</body><request xmlns="urn:xmpp:receipts"/>"#
    ) + &format!(
        r#"<markable xmlns="urn:xmpp:chat-markers:0"/><origin-id id="{id}" xmlns="urn:xmpp:sid:0"/></message>"#
    );
    phone.stanza(&message).await;
    phone.acked(PING_TIMEOUT).await;
}

/// Sends `<resume/>` and, at `<resumed/>`, the `<r/>` whose answer shows that everything has come.
async fn resumed(stage: &Stage, enabled: &Enabled, (before, handled): (u32, u32)) -> (Phone, Vec<String>) {
    let mut phone = connected(stage).await;
    phone.sent = before;
    let answer = phone.client.resume(&enabled.id, handled).await;
    phone.check_resumed(&answer, enabled);
    phone.client.send(ASK).await;
    phone.client.send(r#"<active xmlns="urn:xmpp:csi:0"/>"#).await;
    let mut replay = Vec::new();
    loop {
        let element = phone.client.next_item().await;
        if element.starts_with("<a ") {
            break;
        }
        replay.push(element);
    }
    replay.retain(|element| element.starts_with("<message"));
    phone.acked(PING_TIMEOUT).await;
    (phone, replay)
}

#[tokio::test]
async fn it_is_pushed_for_each_time_it_is_lost_and_has_everything_before_its_first_ack() {
    let mut stage = Stage::new().await;
    let mut phone = connected(&stage).await;
    let enabled = bound(&mut phone).await;
    for id in ["a1", "a2", "a3"] {
        say(&mut phone, id).await;
        let received = Element::parse(&stage.bob.expect("<body>").await);
        assert_eq!(received.child("body").unwrap().text, id);
    }
    phone.client.send(r#"<inactive xmlns="urn:xmpp:csi:0"/>"#).await;

    // The client registers once per bind: the second loss is pushed for without another enable.
    for round in 1..=2 {
        let sent = [format!("first {round}"), format!("second {round}")];
        phone.check_stream();
        let counts = (phone.sent, phone.client.handled);
        lost(&stage.pushward, phone.client, "alice@localhost/Conversations.aB3_").await;
        stage.say(&[&sent[0]]).await;
        let publish = stage.service.publish(PATIENCE).await;
        assert_eq!((publish.node.as_deref(), publish.count()), (Some("0a1b2c"), Some(1)));
        assert_eq!(publish.options.as_ref().unwrap().field("secret"), ["s3cr3t"]);
        stage.say(&[&sent[1]]).await;
        stage.service.publish(PATIENCE).await;

        let replay;
        (phone, replay) = resumed(&stage, &enabled, counts).await;
        assert_eq!(bodies(&replay), sent, "before the first <a/>");
        replay.iter().for_each(|message| assert_delayed(message));

        // A push finds the client connected: it sends `<r/>`, and reconnects unless the answer comes within a second.
        let asked = Instant::now();
        phone.client.send(ASK).await;
        phone.client.next_ack().await;
        assert!(asked.elapsed() < LOW_PING_TIMEOUT, "{:?}", asked.elapsed());
    }
    stage.service.assert_quiet(Duration::from_millis(300)).await;
}

#[tokio::test]
async fn after_a_restart_it_sees_its_messages_sent_and_finds_what_waited() {
    let mut stage = Stage::new().await;
    let mut phone = connected(&stage).await;
    let enabled = bound(&mut phone).await;
    say(&mut phone, "sent").await;
    let (sent, handled) = (phone.sent, phone.client.handled);
    lost(&stage.pushward, phone.client, "alice@localhost/Conversations.aB3_").await;
    stage.say(&["waits"]).await;
    stage.service.publish(PATIENCE).await;
    stage.pushward.restart().await;

    let mut phone = connected(&stage).await;
    assert_eq!(phone.check_failed(&enabled, handled).await, sent);
    // The same resource on the same stream, and everything from the start, including the registration.
    bound(&mut phone).await;
    let waited = phone.client.messages(1).await;
    assert_eq!(bodies(&waited), ["waits"]);
    waited.iter().for_each(|message| assert_delayed(message));
    phone.check_stream();
    lost(&stage.pushward, phone.client, "alice@localhost/Conversations.aB3_").await;
    stage.say(&["later"]).await;
    assert_eq!(stage.service.publish(PATIENCE).await.count(), Some(1));
}
