//! Behaviour of the servers and the scripted peers without the proxy, so that no test credits the proxy with it.

use std::time::Duration;

use serde_json::json;

use crate::support::{
    Answer, Client, Element, Library, PATIENCE, Peer, Prosody, PushService, Security, Server, StubOptions,
    StubUpstream, bodies,
};

#[tokio::test]
async fn the_server_alone_has_neither_stream_management_nor_push() {
    let prosody = Prosody::start().await;
    let mut alice = Client::plain(prosody.address).await;
    let features = alice.authenticated("alice").await;
    assert!(!features.contains("urn:xmpp:sm:"), "{features}");
    alice.bind("phone").await;
    alice
        .send(
            "<iq type='get' id='info' to='alice@localhost'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>",
        )
        .await;
    let info = Element::parse(&alice.expect("id='info'").await);
    assert_eq!(info.attribute("type"), Some("result"));
    assert!(info.all("feature").iter().all(|feature| feature.attribute("var") != Some("urn:xmpp:push:0")));
}

#[tokio::test]
async fn two_clients_of_the_server_talk_to_each_other() {
    let prosody = Prosody::start().await;
    let mut alice = Client::plain(prosody.address).await;
    assert_eq!(alice.login("alice", "phone").await, "alice@localhost/phone");
    alice.available().await;
    let mut bob = Client::plain(prosody.address).await;
    bob.login("bob", "desk").await;
    bob.say("alice@localhost", "one").await;
    bob.say("alice@localhost/phone", "two").await;
    assert_eq!(bodies(&alice.messages(2).await), ["one", "two"]);
    assert!(alice.live_for(Duration::from_millis(50)).await.is_empty());
}

#[tokio::test]
async fn the_test_push_service_parses_a_publish_and_sends_the_configured_answer() {
    let prosody = Prosody::start().await;
    let mut service = PushService::connect(&prosody).await;
    let mut alice = Client::plain(prosody.address).await;
    alice.login("alice", "phone").await;
    let publish = "<iq type='set' to='push.localhost' id='ID'><pubsub xmlns='http://jabber.org/protocol/pubsub'>\
        <publish node='n&amp;1'><item><notification xmlns='urn:xmpp:push:0'><x xmlns='jabber:x:data' type='submit'>\
        <field var='FORM_TYPE' type='hidden'><value>urn:xmpp:push:summary</value></field>\
        <field var='message-count'><value>3</value></field>\
        <field var='last-message-body'><value>&lt;<![CDATA[x]]></value></field></x></notification></item></publish>\
        <publish-options><x xmlns='jabber:x:data' type='submit'><field var='secret'><value>s</value></field></x>\
        </publish-options></pubsub></iq>";
    alice.send(publish.replace("ID", "a")).await;
    assert_eq!(Element::parse(&alice.expect("id='a'").await).attribute("type"), Some("result"));
    let seen = service.publish(PATIENCE).await;
    assert_eq!(
        (seen.node.as_deref(), seen.count(), seen.body(), seen.sender()),
        (Some("n&1"), Some(3), Some("<x"), None)
    );
    assert_eq!(seen.options.unwrap().field("secret"), ["s"]);
    assert_eq!(seen.from, "alice@localhost/phone");
    service.answer_with(Answer::Error("cancel", "item-not-found"));
    alice.send(publish.replace("ID", "b")).await;
    assert!(alice.expect("id='b'").await.contains("item-not-found"));
    service.publish(PATIENCE).await;
    service.answer_with(Answer::Nothing);
    alice.send(publish.replace("ID", "c")).await;
    service.publish(PATIENCE).await;
    alice.roundtrip().await;
    assert!(!alice.transcript().contains("id='c'"));
    service.assert_quiet(Duration::from_millis(50)).await;
}

#[tokio::test]
async fn the_stub_server_accepts_any_login_and_keeps_bytes_unchanged() {
    let mut stub = StubUpstream::start(StubOptions::managed()).await;
    let mut client = Client::plain(stub.address).await;
    assert_eq!(client.login("anybody", "phone").await, "anybody@localhost/phone");
    let mut session = stub.session().await;
    client.enable().await;
    let odd = "<message  to='x@y' ><body\n>a &gt; <![CDATA[</body>]]>\u{1F600}</body></message >";
    client.send(odd).await;
    assert_eq!(session.next().await, odd);
    client.acked_up_to(1).await;
    session.send(odd);
    assert_eq!(client.next().await, odd);
    let (h, _) = tokio::join!(session.request_ack(), client.live_for(Duration::from_millis(100)));
    assert_eq!(h, 1);
    session.assert_open();
    client.send("</stream:stream>").await;
    session.footer(PATIENCE).await;
    assert_eq!(client.next().await, "</stream:stream>");
}

#[tokio::test]
async fn slixmpp_logs_in_and_receives_a_message() {
    let prosody = Prosody::start().await;
    let place = (Security::Plain, prosody.address);
    let mut alice = Peer::start(Library::Slixmpp, "alice@localhost/phone", place, None);
    alice.order(&json!({"do": "connect"}));
    assert_eq!(alice.event("online").await["jid"], "alice@localhost/phone");
    alice.request(("p", "get", None), "<ping xmlns='urn:xmpp:ping'/>").await;
    let mut bob = Client::plain(prosody.address).await;
    bob.login("bob", "desk").await;
    bob.say("alice@localhost/phone", "hello").await;
    assert_eq!(alice.event("message").await["body"], "hello");
    alice.order(&json!({"do": "abort"}));
    alice.event("disconnected").await;
    alice.order(&json!({"do": "connect"}));
    alice.event("online").await;
    assert_eq!(alice.bodies(), ["hello"]);
}

/// Prosody's own stream management is the reference for the scripted client in the tests of the proxy's stream
/// management.
#[tokio::test]
async fn the_scripted_client_and_prosody_agree_on_stream_management() {
    let prosody = Prosody::with(&["smacks"]).await;
    let mut alice = Client::plain(prosody.address).await;
    alice.login("alice", "phone").await;
    let enabled = alice.enable().await;
    assert_eq!((enabled.resume.as_deref(), enabled.max), (Some("true"), Some(600)));
    alice.available().await;
    alice.acked_up_to(2).await;
    let mut bob = Client::plain(prosody.address).await;
    bob.login("bob", "desk").await;
    bob.say("alice@localhost/phone", "one").await;
    assert_eq!(bodies(&alice.messages(1).await), ["one"]);
    let handled = alice.handled;
    alice.reset();
    bob.say("alice@localhost/phone", "two").await;
    bob.say("alice@localhost/phone", "three").await;
    let mut alice = Client::plain(prosody.address).await;
    alice.authenticated("alice").await;
    let resumed = alice.resume(&enabled.id, handled).await;
    assert_eq!((resumed.name.as_str(), resumed.attribute("h")), ("resumed", Some("2")));
    assert_eq!(bodies(&alice.messages(2).await), ["two", "three"]);
    alice.send(format!("<a xmlns='urn:xmpp:sm:3' h='{}'/>", alice.handled + 9)).await;
    alice.expect("<undefined-condition").await;
}

/// Tests of the proxy with stream management on the server rely on this: unacknowledged stanzas go elsewhere.
async fn a_server_keeps_what_a_lost_client_did_not_ack(server: Server) {
    let mut bob = server.bob().await;
    let mut alice = Client::plain(server.address()).await;
    alice.login("alice", "phone").await;
    alice.send("<enable xmlns='urn:xmpp:sm:3'/>").await;
    alice.expect("<enabled").await;
    alice.available().await;
    alice.acks = false;
    for body in ["one", "two"] {
        bob.say("alice@localhost/phone", body).await;
    }
    alice.messages(2).await;
    alice.reset();
    let mut alice = Client::plain(server.address()).await;
    alice.login("alice", "phone").await;
    alice.available().await;
    assert_eq!(bodies(&alice.messages(2).await), ["one", "two"]);
}

#[tokio::test]
async fn managed_prosody_keeps_what_a_lost_client_did_not_ack() {
    a_server_keeps_what_a_lost_client_did_not_ack(Server::managed_prosody().await).await;
}

#[tokio::test]
async fn managed_ejabberd_keeps_what_a_lost_client_did_not_ack() {
    a_server_keeps_what_a_lost_client_did_not_ack(Server::managed_ejabberd().await).await;
}

#[tokio::test]
async fn ejabberd_alone_has_neither_stream_management_nor_push() {
    let server = Server::ejabberd().await;
    let _service = server.push_service().await;
    let mut bob = server.bob().await;
    let mut alice = Client::plain(server.address()).await;
    let features = alice.authenticated("alice").await;
    assert!(!features.contains("urn:xmpp:sm:"), "{features}");
    alice.bind("phone").await;
    alice.available().await;
    bob.say("alice@localhost", "one").await;
    bob.ping("push.localhost").await;
    assert_eq!(bodies(&alice.messages(1).await), ["one"]);
}

#[tokio::test]
async fn the_servers_come_back_with_their_accounts_after_a_kill() {
    for mut server in [Server::prosody().await, Server::ejabberd().await] {
        server.bob().await;
        server.kill();
        server.start_again().await;
        server.bob().await;
    }
}
