//! Monal with PLAIN over SASL1, which its user has to allow: it pipelines, has short timeouts, and registers at every
//! resumption.

use std::time::Duration;

use super::{Phone, Stage};
use crate::support::{Client, Element, Enabled, PATIENCE, STARTTLS, bodies, lost, numbered};

const CLEAR: &str = "<?xml version='1.0'?><stream:stream to='localhost' version='1.0' xml:lang='en' \
    xmlns:stream='http://etherx.jabber.org/streams' xmlns='jabber:client'>";
const HEADER: &str = "<?xml version='1.0'?>\
    <stream:stream from='alice@localhost' to='localhost' version='1.0' xml:lang='en' \
    xmlns:stream='http://etherx.jabber.org/streams' xmlns='jabber:client'>";
const ENABLE: &str = "<iq id='push' type='set'><enable xmlns='urn:xmpp:push:0' jid='push.localhost' node='apns-token'>\
    <x xmlns='jabber:x:data' type='submit'><field type='hidden' var='FORM_TYPE'>\
    <value>http://jabber.org/protocol/pubsub#publish-options</value></field>\
    <field var='pushModule'><value>monalProdiOS</value></field></x></enable></iq>";
const PRESENCE: &str = "<presence><c xmlns='http://jabber.org/protocol/caps' node='https://monal-im.org/' hash='sha-1' \
    ver='y5J05vvJHs4IS9lMvSGAuZ8zGAg='/></presence>";
const BIND: &str = "<iq id='bind' type='set'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
    <resource>Monal-iOS.0a1b2c3d</resource></bind></iq>";
/// The timeout for the `<a/>` to an `<r/>` in the foreground.
const SHORT_PING: Duration = Duration::from_secs(4);

/// Sends header and `<starttls/>` in one write, then TLS and PLAIN.
async fn connected(stage: &Stage) -> Phone {
    let mut client = Client::plain(stage.pushward.starttls).await;
    client.send(format!("{CLEAR}{STARTTLS}")).await;
    client.expect("<proceed").await;
    Phone::authenticated(client.handshake(&stage.pushward.tls()).await, HEADER).await
}

/// Sends what Monal sends once it is bound. By now it knows the features from its first login, so the bind came with
/// the header.
async fn begun(phone: &mut Phone) -> Enabled {
    let enabled = phone.enable("<enable xmlns='urn:xmpp:sm:3' resume='true'/>").await;
    let info = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
    phone.request("info", &format!("<iq id='info' type='get' to='localhost'>{info}</iq>")).await;
    assert!(phone.account_features().await.iter().any(|feature| feature == "urn:xmpp:push:0"), "or it warns the user");
    phone.request("roster", "<iq id='roster' type='get'><query xmlns='jabber:iq:roster'/></iq>").await;
    phone.stanza(PRESENCE).await;
    phone.client.send("<active xmlns='urn:xmpp:csi:0'/>").await;
    phone.client.ack().await;
    phone.request("id='push'", ENABLE).await;
    phone.acked(SHORT_PING).await;
    enabled
}

fn message(body: &str, delay: &str) -> String {
    format!("<message to='bob@localhost' type='chat' id='{body}'><body>{body}</body>{delay}</message>")
}

#[tokio::test]
async fn it_may_register_after_every_resumption_and_is_pushed_for_once_a_loss() {
    let mut stage = Stage::new().await;
    let mut phone = connected(&stage).await;
    phone.restarted(BIND).await;
    let bound = phone.answer("id='bind'").await;
    assert_eq!(bound.all("jid").first().unwrap().text, "alice@localhost/Monal-iOS.0a1b2c3d");
    let enabled = begun(&mut phone).await;
    let den = "<presence to='den@rooms.localhost/alice'><x xmlns='http://jabber.org/protocol/muc'/></presence>";
    phone.stanza(den).await;
    phone.client.expect("110").await;
    phone.acked(SHORT_PING).await;

    for (round, body) in ["one", "two", "three"].into_iter().enumerate() {
        // The app goes to the background and disconnects: an `<a/>`, and the socket is closed without a footer.
        phone.client.send("<inactive xmlns='urn:xmpp:csi:0'/>").await;
        phone.client.ack().await;
        phone.check_stream();
        let handled = phone.client.handled;
        drop(phone.client.fin());
        stage.say(&[body]).await;
        let publish = stage.service.publish(PATIENCE).await;
        assert_eq!((publish.node.as_deref(), publish.count()), (Some("apns-token"), Some(1)));
        assert_eq!(publish.options.as_ref().unwrap().field("pushModule"), ["monalProdiOS"]);

        let sent = phone.sent;
        phone = connected(&stage).await;
        phone.sent = sent;
        phone.client.handled = handled;
        let resume = format!("<resume xmlns='urn:xmpp:sm:3' h='{handled}' previd='{}'/>", enabled.id);
        phone.restarted(&resume).await;
        let answer = Element::parse(&phone.client.expect("urn:xmpp:sm:3").await);
        phone.check_resumed(&answer, &enabled);
        // One after the other, as Monal does: state, presence, registration, rooms.
        phone.client.send("<active xmlns='urn:xmpp:csi:0'/>").await;
        phone.stanza(PRESENCE).await;
        phone.stanza(ENABLE).await;
        let ping = format!(
            "<iq id='den-{round}' type='get' to='den@rooms.localhost/alice'><ping xmlns='urn:xmpp:ping'/></iq>"
        );
        phone.stanza(&ping).await;
        assert_eq!(bodies(&[phone.client.expect("<message").await]), [body]);
        phone.answer("id='push'").await;
        phone.answer(&format!("id='den-{round}'")).await;
        phone.acked(SHORT_PING).await;
    }
    stage.service.assert_quiet(Duration::from_millis(300)).await;
    // At logout it removes the registration.
    let disable =
        "<iq id='off' type='set'><disable xmlns='urn:xmpp:push:0' jid='push.localhost' node='apns-token'/></iq>";
    phone.request("id='off'", disable).await;
    phone.client.fin();
    stage.say(&["nobody is told"]).await;
    stage.service.assert_quiet(Duration::from_millis(300)).await;
}

#[tokio::test]
async fn after_a_restart_it_sends_again_what_was_not_counted_and_bob_gets_each_message_once() {
    let mut stage = Stage::new().await;
    let mut phone = connected(&stage).await;
    phone.restarted(BIND).await;
    phone.answer("id='bind'").await;
    let enabled = begun(&mut phone).await;
    let all = numbered("message", 1..=5);
    let before = phone.sent;
    for body in &all {
        phone.client.send(message(body, "")).await;
    }
    let handled = phone.client.handled;
    lost(&stage.pushward, phone.client, "alice@localhost/Monal-iOS.0a1b2c3d").await;
    stage.pushward.restart().await;

    let mut phone = connected(&stage).await;
    phone.restarted("").await;
    let h = phone.check_failed(&enabled, handled).await;
    let taken = usize::try_from(h.checked_sub(before).expect("h went back, which ends its session")).unwrap();
    phone.bind("Monal-iOS.0a1b2c3d").await;
    begun(&mut phone).await;
    let delay = "<delay xmlns='urn:xmpp:delay' from='alice@localhost' stamp='2026-01-01T00:00:00Z'/>";
    for body in &all[taken..] {
        phone.stanza(&message(body, delay)).await;
    }
    phone.acked(SHORT_PING).await;
    let last = ["last".to_owned()];
    phone.stanza(&message(&last[0], "")).await;
    assert_eq!(stage.bob.bodies_until(&last).await, [&all[..], &last].concat());
}
