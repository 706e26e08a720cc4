//! Siskin: Tigase's extensions, a stream that is closed in order at every suspension, and one registration for the
//! whole lifetime.

use std::time::Duration;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::{Phone, Stage};
use crate::support::{Enabled, PATIENCE, Publish, bodies};

const HEADER: &str = "<stream:stream from='alice@localhost' to='localhost' version='1.0' xmlns='jabber:client' \
    xmlns:stream='http://etherx.jabber.org/streams'>";
const PRESENCE: &str = "<presence><c hash='sha-1' node='http://tigase.org/siskin' ver='y5J05vvJHs4IS9lMvSGAuZ8zGAg=' \
    xmlns='http://jabber.org/protocol/caps'/></presence>";
const KEY: [u8; 16] = *b"sixteen bytes k.";
/// With `tigase:push:jingle:0` Siskin relies on push alone for calls, so that feature must be absent by default. It
/// asks for pushes while merely away only if the server offers that.
const EXTENSIONS: [&str; 7] = [
    "tigase:push:encrypt:0",
    "tigase:push:encrypt:aes-128-gcm",
    "tigase:push:filter:groupchat:0",
    "tigase:push:filter:ignore-unknown:0",
    "tigase:push:filter:muted:0",
    "tigase:push:priority:0",
    "urn:xmpp:push:0",
];

/// Connects: direct TLS, PLAIN, bind with the name of the device, a session (RFC 3921), stream management for 90
/// seconds.
async fn bound(stage: &Stage) -> (Phone, Enabled) {
    let mut phone = Phone::authenticated(stage.pushward.connect().await, HEADER).await;
    phone.restarted("").await;
    phone.bind("iPhone").await;
    let session = "<iq id='session' type='set'><session xmlns='urn:ietf:params:xml:ns:xmpp-session'/></iq>";
    phone.request("id='session'", session).await;
    let enabled = phone.enable("<enable max='90' resume='true' xmlns='urn:xmpp:sm:3'/>").await;
    (phone, enabled)
}

/// Does what Siskin does at every login: discovery of the server and the account, roster, presence, carbons.
async fn begun(phone: &mut Phone) {
    let info = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
    phone.request("id='info'", &format!("<iq id='info' to='localhost' type='get'>{info}</iq>")).await;
    let features = phone.account_features().await;
    let mut known: Vec<_> = features.iter().map(String::as_str).filter(|feature| feature.contains("push")).collect();
    known.sort_unstable();
    assert_eq!(known, EXTENSIONS, "where the feature is missing, it takes its registration back");
    phone.request("id='roster'", "<iq id='roster' type='get'><query xmlns='jabber:iq:roster'/></iq>").await;
    phone.stanza(PRESENCE).await;
    phone.request("id='carbons'", "<iq id='carbons' type='set'><enable xmlns='urn:xmpp:carbons:2'/></iq>").await;
    // It acknowledges a tenth of a second after the last stanza, without a request.
    phone.client.ack().await;
    phone.acked(PATIENCE).await;
}

/// Returns the decrypted content as the app reads it.
fn decrypted(publish: &Publish) -> Value {
    let encrypted = publish.encrypted.as_ref().unwrap_or_else(|| panic!("in the clear: {}", publish.xml));
    assert_eq!(encrypted.ns, "tigase:push:encrypt:0");
    let iv = BASE64.decode(encrypted.attribute("iv").unwrap()).unwrap();
    let mut sealed = BASE64.decode(&encrypted.text).unwrap();
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &KEY).unwrap());
    let opened = key.open_in_place(Nonce::try_assume_unique_for_key(&iv).unwrap(), Aad::empty(), &mut sealed);
    serde_json::from_slice(opened.unwrap()).unwrap()
}

#[tokio::test]
async fn it_closes_its_stream_and_is_pushed_for_until_it_is_back_without_registering_again() {
    let mut stage = Stage::new().await;
    let (mut phone, enabled) = bound(&stage).await;
    begun(&mut phone).await;
    // The push component is one of the server's items or Tigase's own. The device is registered there beforehand.
    phone
        .request(
            "id='items'",
            "<iq id='items' to='localhost' type='get'><query xmlns='http://jabber.org/protocol/disco#items'/></iq>",
        )
        .await;
    let enable = format!(
        "<iq id='push' type='set'><enable jid='push.localhost' node='siskin-node' xmlns='urn:xmpp:push:0'>\
         <encrypt alg='aes-128-gcm' max-size='3000' xmlns='tigase:push:encrypt:0'>{}</encrypt>\
         <groupchat xmlns='tigase:push:filter:groupchat:0'/><priority xmlns='tigase:push:priority:0'/></enable></iq>",
        BASE64.encode(KEY)
    );
    phone.request("id='push'", &enable).await;

    for (round, body) in ["first words", "second words"].into_iter().enumerate() {
        phone.check_stream();
        phone.client.ack().await;
        phone.client.send("</stream:stream>").await;
        assert_eq!(phone.client.closed(PATIENCE).await.last().unwrap(), "</stream:stream>");
        stage.say(&[body]).await;
        let publish = stage.service.publish(PATIENCE).await;
        assert_eq!(publish.node.as_deref(), Some("siskin-node"));
        assert!(publish.xml.contains("<priority xmlns='tigase:push:priority:0'>high</priority>"), "{}", publish.xml);
        assert!(!publish.xml.contains(body), "only the device can read it: {}", publish.xml);
        let expect = json!({"unread": 1, "sender": "bob@localhost", "type": "chat", "message": body});
        assert_eq!(decrypted(&publish), expect, "round {round}");

        // A stream that was closed is not resumed: Siskin binds the same resource again.
        (phone, _) = bound(&stage).await;
        begun(&mut phone).await;
        assert_eq!(bodies(&phone.client.messages(1).await), [body]);
    }
    // The network fails once, before Siskin could close its stream.
    let handled = phone.client.handled;
    phone.client.reset();
    stage.say(&["three"]).await;
    assert_eq!(decrypted(&stage.service.publish(PATIENCE).await)["message"], "three");
    let mut phone = Phone::authenticated(stage.pushward.connect().await, HEADER).await;
    phone.restarted("").await;
    // The session of the first login has long ended, with a count of its own.
    phone.check_failed(&enabled, handled).await;
    phone.bind("iPhone").await;
    phone.enable("<enable max='90' resume='true' xmlns='urn:xmpp:sm:3'/>").await;
    phone.stanza("<presence/>").await;
    assert_eq!(bodies(&phone.client.messages(1).await), ["three"]);
    stage.service.assert_quiet(Duration::from_millis(300)).await;
}
