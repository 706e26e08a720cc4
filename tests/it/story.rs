//! The whole story with a real client: log in, enable push, lose the connection, be woken, come back, miss nothing.

use std::time::Duration;

use serde_json::json;

use crate::support::{Client, PATIENCE, Prosody, PushService, Pushward, Setup, Slixmpp};

#[tokio::test]
async fn slixmpp_loses_its_socket_is_pushed_for_once_and_gets_every_message_once_and_in_order() {
    let prosody = Prosody::start().await;
    let mut service = PushService::connect(&prosody).await;
    let pushward = Pushward::start(Setup::new(prosody.address)).await;
    let mut alice =
        Slixmpp::start("alice@localhost/phone", pushward.starttls, Some(&pushward.file("certs/localhost.pem")));
    alice.order(&json!({"do": "connect"}));
    alice.event("tls_success").await;
    assert_eq!(alice.event("session_start").await["jid"], "alice@localhost/phone");
    alice.event("sm_enabled").await;
    alice.order(&json!({"do": "send", "xml":
        "<iq xmlns='jabber:client' type='set' id='push'><enable xmlns='urn:xmpp:push:0' jid='push.localhost' node='n'/></iq>"}));
    let answer = loop {
        let answer = alice.event("iq").await;
        if answer["id"] == "push" {
            break answer;
        }
    };
    assert_eq!(answer["type"], "result", "{answer}");

    alice.order(&json!({"do": "abort"}));
    alice.event("disconnected").await;
    let mut bob = Client::plain(prosody.address).await;
    bob.login("bob", "desk").await;
    for body in ["one", "two", "three"] {
        bob.say("alice@localhost", body).await;
    }
    let publish = service.publish(PATIENCE).await;
    assert_eq!((publish.node.as_deref(), publish.count()), (Some("n"), Some(3)));

    alice.order(&json!({"do": "connect"}));
    alice.event("session_resumed").await;
    for _ in 0..3 {
        alice.event("message").await;
    }
    alice.order(&json!({"do": "send", "xml":
        "<iq xmlns='jabber:client' type='get' id='last' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>"}));
    while alice.event("iq").await["id"] != "last" {}
    assert_eq!(alice.bodies(), ["one", "two", "three"]);
    service.assert_quiet(Duration::from_millis(300)).await;
}
