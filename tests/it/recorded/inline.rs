//! Conversations, Dino, Monal and nbxmpp by SASL2 on a server that lacks it: what each sends inside its login, and what it checks
//! in the answer.

use std::time::Duration;

use super::{Phone, Stage, assert_delayed};
use crate::support::{
    CARBONS, Client, Device, EXPR, Element, PASSWORD, PATIENCE, SM, STARTTLS, Scram, Success, bodies, hashed_token,
    lost, resume,
};

const CONVERSATIONS: &str = concat!(
    r#"<stream:stream xmlns="jabber:client" from="alice@localhost" version="1.0" xml:lang="en" to="localhost" "#,
    r#"xmlns:stream="http://etherx.jabber.org/streams">"#
);
const CONVERSATIONS_DEVICE: &str = concat!(
    r#"<user-agent id="d4565fa7-4d72-4749-b3d3-740edbf87770"><software>Conversations 2.19.5</software>"#,
    r#"<device>Pixel</device></user-agent><bind xmlns="urn:xmpp:bind:0"><tag>Conversations</tag>"#,
    r#"<enable xmlns="urn:xmpp:carbons:2"/><enable xmlns="urn:xmpp:sm:3" resume="true"/></bind>"#
);
const CONVERSATIONS_ENABLE: &str = concat!(
    r#"<iq id="push" type="set"><enable jid="push.localhost" node="0a1b2c" xmlns="urn:xmpp:push:0">"#,
    r#"<x type="submit" xmlns="jabber:x:data"><field type="hidden" var="FORM_TYPE">"#,
    r#"<value>http://jabber.org/protocol/pubsub#publish-options</value></field>"#,
    r#"<field var="secret"><value>s3cr3t</value></field></x></enable></iq>"#
);
const DINO: &str = "<?xml version='1.0' encoding='UTF-8'?>\
    <stream:stream to='localhost' from='alice@localhost' version='1.0' xml:lang='en' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
const DINO_DEVICE: &str = "<user-agent id='d4565fa7-4d72-4749-b3d3-740edbf87770'><software>Dino</software><device>laptop</device>\
    </user-agent><bind xmlns='urn:xmpp:bind:0'><tag>Dino</tag><enable xmlns='urn:xmpp:carbons:2'/>\
    <enable xmlns='urn:xmpp:sm:3' resume='true'/></bind>";
const MONAL_CLEAR: &str = "<?xml version='1.0'?><stream:stream to='localhost' version='1.0' xml:lang='en' \
    xmlns:stream='http://etherx.jabber.org/streams' xmlns='jabber:client'>";
const MONAL: &str = "<?xml version='1.0'?>\
    <stream:stream from='alice@localhost' to='localhost' version='1.0' xml:lang='en' \
    xmlns:stream='http://etherx.jabber.org/streams' xmlns='jabber:client'>";
const MONAL_DEVICE: &str = "<user-agent id='8A5B0A5E-7B7F-4B39-9C11-0B3F7B8D4D9C'><software>Monal</software><device>iPhone</device>\
    </user-agent>";
const MONAL_ENABLE: &str = "<iq id='push' type='set'><enable xmlns='urn:xmpp:push:0' jid='push.localhost' node='apns-token'>\
    <x xmlns='jabber:x:data' type='submit'><field type='hidden' var='FORM_TYPE'>\
    <value>http://jabber.org/protocol/pubsub#publish-options</value></field>\
    <field var='pushModule'><value>monalProdiOS</value></field></x></enable></iq>";
const NBXMPP: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' to='localhost' version='1.0' xml:lang='en' \
    xmlns:stream='http://etherx.jabber.org/streams' from='alice@localhost'>";
/// The timeout for the answer to an `<r/>`.
const PING: Duration = Duration::from_secs(10);

fn authenticate(mechanism: &str, initial: &str, inline: &str) -> String {
    format!(
        r#"<authenticate mechanism="{mechanism}" xmlns="urn:xmpp:sasl:2"><initial-response>{initial}</initial-response>{inline}</authenticate>"#
    )
}

/// Checks the offers that the clients look for, each once.
fn check_offer(features: &str) {
    let features = Element::parse(features);
    let offer = features.child("authentication").expect("SASL2");
    assert_eq!(offer.ns, "urn:xmpp:sasl:2");
    let inline = offer.child("inline").expect("inline features");
    assert_eq!(inline.all("sm").iter().map(|sm| sm.ns.as_str()).collect::<Vec<_>>(), [SM]);
    let vars: Vec<_> = inline.all("feature").iter().filter_map(|feature| feature.attribute("var")).collect();
    // Without both, Conversations does not pipeline.
    for var in [CARBONS, SM, "urn:xmpp:csi:0"] {
        assert_eq!(vars.iter().filter(|offered| **offered == var).count(), 1, "{vars:?}");
    }
    for name in ["starttls", "compression", "sasl-channel-binding"] {
        assert!(features.all(name).is_empty(), "{features:?}");
    }
}

/// Answers the challenge, verifies the server, and returns its success.
async fn proven(client: &mut Client, mut scram: Scram) -> Success {
    let challenge = Element::parse(&client.next().await);
    assert_eq!((challenge.name.as_str(), challenge.ns.as_str()), ("challenge", "urn:xmpp:sasl:2"));
    let response = scram.last(&challenge.text);
    client.send(format!("<response xmlns='urn:xmpp:sasl:2'>{response}</response>")).await;
    let success = Success::of(client.next().await);
    scram.verify(&success.root.child("additional-data").expect("the server's proof").text);
    success
}

/// Header and login in one write over direct TLS, as a client sends them that knows the features.
async fn pipelined(stage: &Stage, header: &'static str, inline: &str) -> (Phone, Success) {
    let mut client = stage.pushward.connect().await;
    let scram = Scram::new("alice", PASSWORD);
    client.send(format!("{header}{}", authenticate("SCRAM-SHA-1", &scram.first(), inline))).await;
    check_offer(&client.expect("<stream:features").await);
    let success = proven(&mut client, scram).await;
    (Phone { client, header, sent: 0 }, success)
}

/// Checks what Conversations reads next, and sends what it sends then.
async fn conversations_begins(phone: &mut Phone, success: &Success) {
    // It reads the features of the whole session here, and nothing may come before them.
    let features = Element::parse(&phone.client.next_item().await);
    assert_eq!((features.name.as_str(), features.ns.as_str()), ("features", "http://etherx.jabber.org/streams"));
    assert_eq!((features.all("csi").len(), features.all("ver").len(), features.all("bind").len()), (1, 1, 0));
    // It gives up if the domain is another one. It does not ask for carbons again if they are on.
    assert!(success.jid().starts_with("alice@localhost/Conversations/") && success.carbons(), "{}", success.xml);
    assert!(phone.account_features().await.iter().any(|feature| feature == "urn:xmpp:push:0"));
    phone.request("roster", r#"<iq id="roster" type="get"><query xmlns="jabber:iq:roster"/></iq>"#).await;
    phone.request("id='push'", CONVERSATIONS_ENABLE).await;
    phone.stanza("<presence/>").await;
    phone.client.send(r#"<active xmlns="urn:xmpp:csi:0"/>"#).await;
    phone.acked(PING).await;
}

#[tokio::test]
async fn conversations_needs_one_flight_to_return_and_has_everything_before_its_first_ack() {
    let mut stage = Stage::new().await;
    let mut client = Client::starttls(stage.pushward.starttls, &stage.pushward.tls()).await;
    // At its first login it waits for the features.
    client.send(CONVERSATIONS).await;
    check_offer(&client.expect("<stream:features").await);
    let scram = Scram::new("alice", PASSWORD);
    client.send(authenticate("SCRAM-SHA-1", &scram.first(), CONVERSATIONS_DEVICE)).await;
    let success = proven(&mut client, scram).await;
    let mut phone = Phone { client, header: CONVERSATIONS, sent: 0 };
    conversations_begins(&mut phone, &success).await;
    let (jid, id) = (success.jid().to_owned(), success.id());

    for round in 1..=3 {
        let sent = [format!("first {round}"), format!("second {round}")];
        phone.check_stream();
        let (before, handled) = (phone.sent, phone.client.handled);
        lost(&stage.pushward, phone.client, &jid).await;
        stage.say(&[&sent[0]]).await;
        let publish = stage.service.publish(PATIENCE).await;
        assert_eq!(publish.node.as_deref(), Some("0a1b2c"));
        stage.say(&[&sent[1]]).await;
        stage.service.publish(PATIENCE).await;

        let success;
        (phone, success) =
            pipelined(&stage, CONVERSATIONS, &format!("{CONVERSATIONS_DEVICE}{}", resume(&id, handled))).await;
        let h = success.resumed(&id, &jid);
        assert_eq!(h, before);
        (phone.sent, phone.client.handled, phone.client.acked) = (before, handled, vec![h]);
        phone.client.send(r#"<r xmlns="urn:xmpp:sm:3"/><active xmlns="urn:xmpp:csi:0"/>"#).await;
        let mut replay = Vec::new();
        loop {
            let element = phone.client.next_item().await;
            assert!(!element.starts_with("<stream:features"), "none may follow");
            if element.starts_with("<a ") {
                break;
            }
            replay.push(element);
        }
        replay.retain(|element| element.starts_with("<message"));
        assert_eq!(bodies(&replay), sent, "before the first <a/>");
        replay.iter().for_each(|message| assert_delayed(message));
        phone.stanza("<message to='bob@localhost' type='chat' id='back'><body>back</body></message>").await;
        phone.acked(PING).await;
        assert_eq!(bodies(&[stage.bob.expect("<body>").await]), ["back"]);
    }

    // After a restart the session is gone: `<failed/>` stands beside `<bound/>`, with the count.
    let (before, handled) = (phone.sent, phone.client.handled);
    lost(&stage.pushward, phone.client, &jid).await;
    stage.say(&["waits"]).await;
    stage.service.publish(PATIENCE).await;
    stage.pushward.restart().await;
    let (mut phone, success) =
        pipelined(&stage, CONVERSATIONS, &format!("{CONVERSATIONS_DEVICE}{}", resume(&id, handled))).await;
    assert_eq!((success.failed(), success.jid()), (Some(before), jid.as_str()));
    assert_ne!(success.id(), id);
    conversations_begins(&mut phone, &success).await;
    let waited = phone.client.messages(1).await;
    assert_eq!(bodies(&waited), ["waits"]);
    waited.iter().for_each(|message| assert_delayed(message));
    phone.check_stream();
}

#[tokio::test]
async fn conversations_with_a_token_of_another_server_goes_on_with_its_password() {
    let stage = Stage::new().await;
    let mut client = stage.pushward.connect().await;
    // It does not look whether the mechanism of its token is offered.
    let token = authenticate(
        "HT-SHA-256-EXPR",
        &hashed_token("alice", "from-a-direct-connection"),
        &format!(r#"{CONVERSATIONS_DEVICE}<fast xmlns="urn:xmpp:fast:0"/>"#),
    );
    client.send(format!("{CONVERSATIONS}{token}")).await;
    check_offer(&client.expect("<stream:features").await);
    let failure = Element::parse(&client.next().await);
    assert_eq!((failure.name.as_str(), failure.ns.as_str()), ("failure", "urn:xmpp:sasl:2"));
    let scram = Scram::new("alice", PASSWORD);
    client.send(authenticate("SCRAM-SHA-1", &scram.first(), CONVERSATIONS_DEVICE)).await;
    let success = proven(&mut client, scram).await;
    let mut phone = Phone { client, header: CONVERSATIONS, sent: 0 };
    conversations_begins(&mut phone, &success).await;
}

/// Header and login by token in one write, as Conversations sends them that has a token and knows the features.
async fn by_token(stage: &Stage, device: &Device, inline: &str) -> (Client, Element) {
    let mut client = stage.pushward.connect().await;
    let initial = device.token.initial("alice", &device.token.binding(&client));
    let inline = format!(r#"{CONVERSATIONS_DEVICE}{inline}<fast xmlns="urn:xmpp:fast:0"/>"#);
    client.send(format!("{CONVERSATIONS}{}", authenticate(device.token.mechanism, &initial, &inline))).await;
    check_offer(&client.expect("<stream:features").await);
    let answer = Element::parse(&client.next_item().await);
    (client, answer)
}

#[tokio::test]
async fn conversations_returns_by_token_and_by_its_password_on_the_same_stream_if_that_fails() {
    const AGENT: &str = "d4565fa7-4d72-4749-b3d3-740edbf87770";
    let mut stage = Stage::new().await;
    let mut client = Client::starttls(stage.pushward.starttls, &stage.pushward.tls()).await;
    client.send(CONVERSATIONS).await;
    let features = client.expect("<stream:features").await;
    check_offer(&features);
    // It takes the best mechanism for its TLS version, and asks for a token of that.
    let features = Element::parse(&features);
    let [fast] = features.all("fast")[..] else { panic!("{features:?}") };
    assert_eq!(fast.all("mechanism")[0].text, EXPR);
    let scram = Scram::new("alice", PASSWORD);
    let request = format!(r#"{CONVERSATIONS_DEVICE}<request-token xmlns="urn:xmpp:fast:0" mechanism="{EXPR}"/>"#);
    client.send(authenticate("SCRAM-SHA-1", &scram.first(), &request)).await;
    let success = proven(&mut client, scram).await;
    let mut phone = Phone { client, header: CONVERSATIONS, sent: 0 };
    conversations_begins(&mut phone, &success).await;
    let mut device = Device::of(&success, "alice", AGENT, EXPR);

    for round in 1..=3 {
        let body = format!("waits {round}");
        phone.check_stream();
        let before = phone.sent;
        device.handled = phone.client.handled;
        lost(&stage.pushward, phone.client, &device.jid).await;
        stage.say(&[&body]).await;
        stage.service.publish(PATIENCE).await;
        let mut client = stage.pushward.connect().await;
        let login = device.authenticate(&client, r#"<fast xmlns="urn:xmpp:fast:0"/>"#);
        client.send(format!("{CONVERSATIONS}{login}")).await;
        check_offer(&client.expect("<stream:features").await);
        // No features follow, and the next is what waited.
        device.accepted(&mut client).await;
        assert_eq!(client.acked, [before]);
        client.send(r#"<r xmlns="urn:xmpp:sm:3"/><active xmlns="urn:xmpp:csi:0"/>"#).await;
        let waited = client.next().await;
        assert_eq!(bodies(std::slice::from_ref(&waited)), [body]);
        assert_delayed(&waited);
        client.ack().await;
        phone = Phone { client, header: CONVERSATIONS, sent: before };
        phone.acked(PING).await;
    }

    // Its session is gone: it drops its token, and logs in by its password at once. What it acknowledged has arrived before.
    phone.account_features().await;
    device.handled = phone.client.handled;
    let before = phone.sent;
    lost(&stage.pushward, phone.client, &device.jid).await;
    stage.say(&["after the restart"]).await;
    stage.service.publish(PATIENCE).await;
    stage.pushward.restart().await;
    let (mut client, failure) = by_token(&stage, &device, &resume(&device.id, device.handled)).await;
    assert_eq!((failure.name.as_str(), failure.ns.as_str()), ("failure", "urn:xmpp:sasl:2"));
    assert_eq!(failure.children[0].name, "not-authorized");
    let scram = Scram::new("alice", PASSWORD);
    let request = format!("{request}{}", resume(&device.id, device.handled));
    client.send(authenticate("SCRAM-SHA-1", &scram.first(), &request)).await;
    let success = proven(&mut client, scram).await;
    assert_eq!((success.failed(), success.jid()), (Some(before), device.jid.as_str()));
    let mut phone = Phone { client, header: CONVERSATIONS, sent: 0 };
    conversations_begins(&mut phone, &success).await;
    assert_eq!(bodies(&phone.client.messages(1).await), ["after the restart"]);
    let device = Device::of(&success, "alice", AGENT, EXPR);
    phone.check_stream();
    let handled = phone.client.handled;
    lost(&stage.pushward, phone.client, &device.jid).await;
    let (_client, success) = by_token(&stage, &device, &resume(&device.id, handled)).await;
    assert!(success.all("resumed").len() == 1, "{success:?}");
}

#[tokio::test]
async fn dino_uses_the_full_jid_of_every_success() {
    let mut stage = Stage::new().await;
    let login = async |stage: &Stage, inline: &str| {
        let mut client = Client::starttls(stage.pushward.starttls, &stage.pushward.tls()).await;
        client.send(DINO).await;
        check_offer(&client.expect("<stream:features").await);
        let scram = Scram::new("alice", PASSWORD);
        client.send(authenticate("SCRAM-SHA-1", &scram.first(), inline)).await;
        let success = proven(&mut client, scram).await;
        (Phone { client, header: DINO, sent: 0 }, success)
    };
    let (mut phone, success) = login(&stage, DINO_DEVICE).await;
    let (jid, id) = (success.jid().to_owned(), success.id());
    assert!(jid.starts_with("alice@localhost/Dino/"), "{jid}");
    assert!(phone.client.next_item().await.starts_with("<stream:features"));
    phone.request("roster", "<iq id='roster' type='get'><query xmlns='jabber:iq:roster'/></iq>").await;
    phone.stanza("<presence/>").await;
    phone.acked(PING).await;
    let mut expected = Vec::new();
    for round in 0..3 {
        let body = format!("waits {round}");
        phone.check_stream();
        let (sent, handled) = (phone.sent, phone.client.handled);
        phone.client.reset();
        stage.say(&[&body]).await;
        let success;
        (phone, success) = login(&stage, &format!("{DINO_DEVICE}{}", resume(&id, handled))).await;
        // From now on it writes this JID into its stanzas.
        let h = success.resumed(&id, &jid);
        (phone.sent, phone.client.handled, phone.client.acked) = (sent, handled, vec![h]);
        phone
            .stanza(&format!("<iq id='ping' type='get' from='{jid}' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>"))
            .await;
        expected.push(body);
        assert_eq!(bodies(&phone.client.messages(1).await), expected[round..]);
        phone.answer("id='ping'").await;
        phone.acked(PING).await;
    }
}

/// Logs in by SCRAM without inline requests. Monal supports channel binding, and says that it was offered none.
async fn without_inline(client: &mut Client, header: &str, device: &str, scram: Scram) -> Success {
    client.send(format!("{header}{}", authenticate("SCRAM-SHA-1", &scram.first(), device))).await;
    check_offer(&client.expect("<stream:features").await);
    let success = proven(client, scram).await;
    assert!(success.root.child("bound").is_none() && success.managed("failed").is_none(), "{}", success.xml);
    // Monal ends its process if the bare JID is another one.
    assert_eq!(success.jid(), "alice@localhost");
    success
}

async fn monal(stage: &Stage) -> Phone {
    let mut client = Client::plain(stage.pushward.starttls).await;
    client.send(format!("{MONAL_CLEAR}{STARTTLS}")).await;
    client.expect("<proceed").await;
    let mut client = client.handshake(&stage.pushward.tls()).await;
    let scram = Scram::new("alice", PASSWORD).missing_channel_binding();
    without_inline(&mut client, MONAL, MONAL_DEVICE, scram).await;
    let features = Element::parse(&client.next_item().await);
    for name in ["bind", "sm", "csi"] {
        assert_eq!(features.all(name).len(), 1, "no restart, and what comes after the login is offered: {features:?}");
    }
    Phone { client, header: MONAL, sent: 0 }
}

#[tokio::test]
async fn monal_logs_in_by_scram_and_is_pushed_for_once_a_loss() {
    let mut stage = Stage::new().await;
    let mut phone = monal(&stage).await;
    phone.bind("Monal-iOS.0a1b2c3d").await;
    let enabled = phone.enable("<enable xmlns='urn:xmpp:sm:3' resume='true'/>").await;
    phone.stanza("<presence/>").await;
    phone.request("id='push'", MONAL_ENABLE).await;
    phone.acked(PING).await;
    for body in ["one", "two", "three"] {
        phone.client.send("<inactive xmlns='urn:xmpp:csi:0'/>").await;
        phone.client.ack().await;
        phone.check_stream();
        let (sent, handled) = (phone.sent, phone.client.handled);
        drop(phone.client.fin());
        stage.say(&[body]).await;
        let publish = stage.service.publish(PATIENCE).await;
        assert_eq!((publish.node.as_deref(), publish.count()), (Some("apns-token"), Some(1)));

        phone = monal(&stage).await;
        phone.sent = sent;
        let answer = phone.client.resume(&enabled.id, handled).await;
        phone.check_resumed(&answer, &enabled);
        assert_eq!(bodies(&[phone.client.expect("<message").await]), [body]);
        phone.request("id='push'", MONAL_ENABLE).await;
        phone.acked(PING).await;
    }
    stage.service.assert_quiet(Duration::from_millis(300)).await;

    // It finds its session ended, and binds on the same stream.
    let (sent, handled) = (phone.sent, phone.client.handled);
    lost(&stage.pushward, phone.client, "alice@localhost/Monal-iOS.0a1b2c3d").await;
    stage.pushward.restart().await;
    let mut again = monal(&stage).await;
    assert_eq!(again.check_failed(&enabled, handled).await, sent);
    again.bind("Monal-iOS.0a1b2c3d").await;
    again.enable("<enable xmlns='urn:xmpp:sm:3' resume='true'/>").await;
}

/// nbxmpp sends neither a user agent nor inline requests.
#[tokio::test]
async fn nbxmpp_binds_after_its_login_and_resumes() {
    let mut stage = Stage::new().await;
    let login = async |stage: &Stage| {
        let mut client = Client::direct(stage.pushward.direct, &stage.pushward.tls()).await;
        without_inline(&mut client, NBXMPP, "", Scram::new("alice", PASSWORD)).await;
        assert!(client.next_item().await.starts_with("<stream:features"));
        Phone { client, header: NBXMPP, sent: 0 }
    };
    let mut phone = login(&stage).await;
    phone.bind("nbxmpp.0A1B2C3D").await;
    let enabled = phone.enable("<enable xmlns='urn:xmpp:sm:3' resume='true'/>").await;
    phone.stanza("<presence/>").await;
    phone.acked(PING).await;
    phone.check_stream();
    let (sent, handled) = (phone.sent, phone.client.handled);
    lost(&stage.pushward, phone.client, "alice@localhost/nbxmpp.0A1B2C3D").await;
    stage.say(&["waits"]).await;
    let mut phone = login(&stage).await;
    phone.sent = sent;
    let answer = phone.client.resume(&enabled.id, handled).await;
    phone.check_resumed(&answer, &enabled);
    assert_eq!(bodies(&phone.client.messages(1).await), ["waits"]);
}
