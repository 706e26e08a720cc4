//! Conversations 2.19, the build with Google's push: SASL1, resumption, p2.

use std::time::{Duration, Instant};

use super::{Phone, Stage, assert_delayed};
use crate::support::{Client, Element, Enabled, PATIENCE, bodies, lost};

const HEADER: &str = r#"<stream:stream xmlns="jabber:client" from="alice@localhost" version="1.0" xml:lang="en" to="localhost" xmlns:stream="http://etherx.jabber.org/streams">"#;
/// How long it waits for an `<a/>`, and how long once a push has woken it.
const PING_TIMEOUT: Duration = Duration::from_secs(15);
const LOW_PING_TIMEOUT: Duration = Duration::from_secs(1);

async fn connected(stage: &Stage) -> Phone {
    let client = Client::starttls(stage.pushward.starttls, &stage.pushward.tls()).await;
    Phone::authenticated(client, HEADER).await
}

/// Bind, and what `sendPostBindInitialization` and `BindProcessor` send.
async fn bound(stage: &Stage) -> (Phone, Enabled) {
    let mut phone = connected(stage).await;
    phone.restarted("").await;
    let bind = r#"<iq id="vEnb2xK2qHyZ" type="set"><bind xmlns="urn:ietf:params:xml:ns:xmpp-bind"><resource>Conversations.aB3_</resource></bind></iq>"#;
    let answer = phone.request("vEnb2xK2qHyZ", bind).await;
    assert_eq!(answer.all("jid").first().unwrap().text, "alice@localhost/Conversations.aB3_");
    let enabled = phone.enable(r#"<enable resume="true" xmlns="urn:xmpp:sm:3"/>"#).await;
    // All questions leave at once, with an `<r/>` behind `<enabled/>`; no presence until each has its answer.
    phone.client.send(r#"<r xmlns="urn:xmpp:sm:3"/>"#).await;
    phone
        .stanza(
            r#"<iq to="localhost" id="info" type="get"><query xmlns="http://jabber.org/protocol/disco#info"/></iq>"#,
        )
        .await;
    phone
        .stanza(
            r#"<iq to="localhost" id="items" type="get"><query xmlns="http://jabber.org/protocol/disco#items"/></iq>"#,
        )
        .await;
    assert!(phone.account_features().await.iter().any(|feature| feature == "urn:xmpp:push:0"));
    phone.answer("id='info'").await;
    let items = phone.answer("id='items'").await;
    for (number, item) in items.all("item").into_iter().enumerate() {
        let (to, id) = (item.attribute("jid").unwrap(), format!("item-{number}"));
        phone
            .stanza(&format!(
                r#"<iq to="{to}" id="{id}" type="get"><query xmlns="http://jabber.org/protocol/disco#info"/></iq>"#
            ))
            .await;
        phone.answer(&id).await;
    }
    phone.request("carbons", r#"<iq id="carbons" type="set"><enable xmlns="urn:xmpp:carbons:2"/></iq>"#).await;
    phone.request("roster", r#"<iq id="roster" type="get"><query xmlns="jabber:iq:roster"/></iq>"#).await;
    // The app server, asked through the server, gives node and secret.
    let command = r#"<iq to="push.localhost" id="p2" type="set"><command action="execute" node="register-push-fcm" xmlns="http://jabber.org/protocol/commands"><x type="submit" xmlns="jabber:x:data"><field var="token"><value>fcm-token</value></field><field var="android-id"><value>0123456789abcdef</value></field></x></command></iq>"#;
    phone.request("id='p2'", command).await;
    let enable = r#"<iq id="push" type="set"><enable jid="push.localhost" node="0a1b2c" xmlns="urn:xmpp:push:0"><x type="submit" xmlns="jabber:x:data"><field type="hidden" var="FORM_TYPE"><value>http://jabber.org/protocol/pubsub#publish-options</value></field><field var="secret"><value>s3cr3t</value></field></x></enable></iq>"#;
    phone.request("id='push'", enable).await;
    phone.stanza(r#"<presence><c hash="sha-1" node="https://conversations.im" ver="y5J05vvJHs4IS9lMvSGAuZ8zGAg=" xmlns="http://jabber.org/protocol/caps"/></presence>"#).await;
    phone.client.send(r#"<active xmlns="urn:xmpp:csi:0"/>"#).await;
    phone.acked(PING_TIMEOUT).await;
    (phone, enabled)
}

/// `<resume/>`, and at `<resumed/>` the `<r/>` whose answer says that everything has come.
async fn resumed(stage: &Stage, before: &Phone, handled: u32, enabled: &Enabled) -> (Phone, Vec<String>) {
    let mut phone = connected(stage).await;
    phone.sent = before.sent;
    phone.restarted("").await;
    let answer = phone.client.resume(&enabled.id, handled).await;
    phone.check_resumed(&answer, enabled);
    phone.client.send(r#"<r xmlns="urn:xmpp:sm:3"/>"#).await;
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
    let (mut phone, enabled) = bound(&stage).await;
    // Each message of its own asks for its `<a/>`, by which the user sees it sent.
    for number in 1..=3 {
        let id = format!("a{number}");
        phone.stanza(&format!(r#"<message to="bob@localhost" id="{id}" type="chat"><body>{id}</body><request xmlns="urn:xmpp:receipts"/><markable xmlns="urn:xmpp:chat-markers:0"/><origin-id id="{id}" xmlns="urn:xmpp:sid:0"/></message>"#)).await;
        phone.acked(PING_TIMEOUT).await;
        let heard = Element::parse(&stage.bob.expect("<body>").await);
        assert_eq!(heard.child("body").unwrap().text, id);
    }
    phone.client.send(r#"<inactive xmlns="urn:xmpp:csi:0"/>"#).await;

    // Registered once per bind: the second loss is pushed for without another enable.
    for round in 1..=2 {
        let said = [format!("first {round}"), format!("second {round}")];
        phone.check_stream();
        let (handled, before) = (phone.client.handled, phone.sent);
        lost(&stage.pushward, phone.client, "alice@localhost/Conversations.aB3_").await;
        stage.say(&[said[0].as_str()]).await;
        let publish = stage.service.publish(PATIENCE).await;
        assert_eq!((publish.node.as_deref(), publish.count()), (Some("0a1b2c"), Some(1)));
        assert_eq!(publish.options.as_ref().unwrap().field("secret"), ["s3cr3t"]);
        stage.say(&[said[1].as_str()]).await;
        stage.service.publish(PATIENCE).await;

        let lost = Phone { client: Client::plain(stage.pushward.starttls).await, header: HEADER, sent: before };
        let replay;
        (phone, replay) = resumed(&stage, &lost, handled, &enabled).await;
        assert_eq!(bodies(&replay), said, "before the first <a/>");
        replay.iter().for_each(|message| assert_delayed(message));

        // A push finds it connected: it asks, and reconnects unless it hears within a second.
        let asked = Instant::now();
        phone.client.send(r#"<r xmlns="urn:xmpp:sm:3"/>"#).await;
        phone.client.next_ack().await;
        assert!(asked.elapsed() < LOW_PING_TIMEOUT, "{:?}", asked.elapsed());
    }
    stage.service.assert_quiet(Duration::from_millis(300)).await;
}
