//! Forged answers, requests without an id, and errors about the route to a push service.

use std::time::Duration;

use crate::admin::ask;
use crate::support::{
    Client, Element, HEADER, PATIENCE, Prosody, Pushward, QUIET, Scene, Server, Setup, StubOptions, StubUpstream,
    World, another, bodies, enable_push, failed, fresh, lost, message, plain, quick, resumed,
};

const REMOVE: &str = "<query xmlns='jabber:iq:register'><remove/></query>";
const INFO: &str = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
const PHONE: &str = "alice@localhost/phone";

fn stream_error(condition: &str) -> String {
    format!("<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>")
}

// Answers are matched by id and sender

#[tokio::test]
async fn a_result_from_another_sender_does_not_replace_the_servers() {
    let mut scene = Scene::new().await;
    scene.client.send(format!("<iq type='get' id='info'>{INFO}</iq>")).await;
    scene.server.expect("disco#info").await;
    for stranger in ["mallory@localhost/x", "alice@localhost/desk", "push.example"] {
        let answer = format!("<iq type='result' id='info' from='{stranger}' to='{PHONE}'>{INFO}</iq>");
        scene.server.send(answer.clone());
        assert_eq!(scene.client.next().await, answer);
    }
    scene.server.send(format!("<iq type='result' id='info' from='alice@localhost' to='{PHONE}'>{INFO}</iq>"));
    assert!(scene.client.next().await.contains("urn:xmpp:push:0"));
}

/// Regression test: bob knew the id. His result counted, the server then refused the removal, and alice was never
/// notified again.
#[tokio::test]
async fn a_removal_confirmed_by_another_sender_removes_nothing() {
    let mut scene = Scene::with(StubOptions::default(), quick).await;
    enable_push(&mut scene.client, "n").await;
    let (mut desk, mut server) = another(&scene.pushward, &mut scene.stub, "desk").await;
    desk.send(format!("<iq type='set' id='gone'>{REMOVE}</iq>")).await;
    server.expect("jabber:iq:register").await;
    server.send("<iq type='result' id='gone' from='bob@localhost/x' to='alice@localhost/desk'/>");
    server.send("<iq type='error' id='gone' to='alice@localhost/desk'><error type='cancel'><not-allowed xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>");
    desk.expect("type='error'").await;
    lost(&scene.pushward, scene.client, PHONE).await;
    scene.server.send(message("hello"));
    scene.server.expect("<pubsub").await;
}

#[tokio::test]
async fn a_removal_without_an_id_counts_once_the_server_ends_the_stream() {
    for (condition, counts) in [("not-authorized", true), ("conflict", true), ("system-shutdown", false)] {
        let mut scene = Scene::with(StubOptions::default(), quick).await;
        enable_push(&mut scene.client, "n").await;
        lost(&scene.pushward, scene.client, PHONE).await;
        scene.server.send(message("secret"));
        scene.pushward.stored("<body>secret<").await;
        let (mut desk, mut server) = another(&scene.pushward, &mut scene.stub, "desk").await;
        desk.send(format!("<iq type='set'>{REMOVE}</iq>")).await;
        server.expect("jabber:iq:register").await;
        server.send(format!("<iq type='result'/>{}", stream_error(condition)));
        scene.server.try_send(stream_error(condition));
        desk.closed(PATIENCE).await;
        scene.server.closed(PATIENCE).await;
        let (mut client, _) = failed(&scene.pushward, &scene.enabled, 0).await;
        fresh(&mut client, "phone").await;
        let seen = bodies(&client.until_quiet(QUIET).await);
        assert_eq!(seen.is_empty(), counts, "{condition}: {seen:?}");
    }
}

/// Regression test: such a login hung until a timeout.
#[tokio::test]
async fn a_client_that_binds_without_an_id_gets_a_session() {
    let prosody = Prosody::start().await;
    let pushward = Pushward::start(Setup::new(prosody.address)).await;
    let mut client = pushward.authenticated("alice").await;
    client
        .send("<iq type='set'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>phone</resource></bind></iq>")
        .await;
    assert!(client.expect("xmpp-bind").await.contains(PHONE));
    client.enable().await;
    client.available().await;
    let mut bob = Client::plain(prosody.address).await;
    bob.login("bob", "desk").await;
    bob.say(PHONE, "hello").await;
    assert_eq!(bodies(&client.messages(1).await), ["hello"]);
}

// Errors about the route

/// Regression test: with `max_errors = 1` the registration was lost on ejabberd.
async fn a_push_service_that_is_not_connected_for_a_while_keeps_its_registrations(server: Server) {
    let service = server.push_service().await;
    let setup = quick(Setup::new(server.address())).set("push.max_errors", "1").set("push.repush", "[]");
    let pushward = Pushward::start(setup).await;
    let mut phone = pushward.login("alice", "phone").await;
    phone.enable().await;
    phone.available().await;
    enable_push(&mut phone, "n").await;
    drop(service);
    lost(&pushward, phone, PHONE).await;
    server.bob().await.say(PHONE, "hello").await;
    pushward.logged(&["push notification outcome", "\"outcome\":\"wait\""]).await;
    let mut service = server.push_service().await;
    // The first retry comes after ten seconds.
    let publish = service.publish(Duration::from_secs(15)).await;
    assert_eq!((publish.node.as_deref(), publish.count()), (Some("n"), Some(1)));
    pushward.logged(&["push notification outcome", "\"outcome\":\"accepted\""]).await;
}

#[tokio::test]
async fn a_push_service_that_is_away_keeps_its_registrations_on_prosody() {
    a_push_service_that_is_not_connected_for_a_while_keeps_its_registrations(Server::prosody().await).await;
}

#[tokio::test]
async fn a_push_service_that_is_away_keeps_its_registrations_on_ejabberd() {
    a_push_service_that_is_not_connected_for_a_while_keeps_its_registrations(Server::ejabberd().await).await;
}

/// The sender address does not decide this: the server answers in the service's name.
#[tokio::test]
async fn errors_of_servers_in_between_do_not_count_and_errors_of_the_service_do() {
    let publish = async |condition: &str| {
        let mut scene = Scene::with(StubOptions::default(), |setup| quick(setup).set("push.max_errors", "1")).await;
        enable_push(&mut scene.client, "n").await;
        lost(&scene.pushward, scene.client, PHONE).await;
        scene.server.send(message("one"));
        let iq = Element::parse(&scene.server.expect("<pubsub").await);
        let id = iq.attribute("id").unwrap().to_owned();
        scene.server.send(format!(
            "<iq type='error' id='{id}' from='push.localhost' to='{PHONE}'><error type='cancel'>\
             <{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
        ));
        scene.pushward.logged(&["push notification outcome", condition]).await;
        scene.server.send(message("two"));
        if condition.starts_with("remote-server-") {
            scene.server.expect("<pubsub").await;
            let printed = ask(&scene.pushward, &["push", "list", "alice@localhost"]).await;
            assert!(printed.out.contains("unreachable since") && printed.out.contains("errors 0"), "{}", printed.out);
        } else {
            scene.server.assert_open_for(QUIET).await;
            assert!(!scene.server.rest().iter().any(|element| element.contains("<pubsub")), "{condition}");
        }
    };
    for condition in ["remote-server-not-found", "remote-server-timeout", "gone", "item-not-found"] {
        publish(condition).await;
    }
}

// Subscription requests

/// Regression test: the request was read and answered, and pushed as a new message once the connection broke.
#[tokio::test]
async fn a_subscription_request_that_was_read_is_not_pushed() {
    let mut world = World::with(quick).await;
    let (mut phone, _) = world.phone("phone", "n").await;
    let asked = phone.requests;
    world.bob.send("<presence type='subscribe' to='alice@localhost'/>").await;
    phone.expect("type='subscribe'").await;
    while phone.requests == asked {
        phone.next_item().await;
    }
    phone.roundtrip().await;
    lost(&world.pushward, phone, PHONE).await;
    world.service.assert_quiet(QUIET).await;
}

// MUC/Sub

/// alice has subscribed to a room that she has not joined, and her phone is dark.
#[tokio::test]
async fn a_message_in_a_room_that_is_subscribed_to_on_ejabberd_is_pushed() {
    const ROOM: &str = "tea@rooms.localhost";
    let server = Server::ejabberd().await;
    let mut service = server.push_service().await;
    let pushward = Pushward::start(quick(Setup::new(server.address()))).await;
    let mut bob = server.bob().await;
    bob.send(format!("<presence to='{ROOM}/Bob'><x xmlns='http://jabber.org/protocol/muc'/></presence>")).await;
    bob.expect("code='201'").await;
    let form = "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'>\
        <value>http://jabber.org/protocol/muc#roomconfig</value></field>\
        <field var='allow_subscription'><value>1</value></field></x>";
    bob.send(format!(
        "<iq type='set' id='config' to='{ROOM}'><query xmlns='http://jabber.org/protocol/muc#owner'>{form}</query></iq>"
    ))
    .await;
    assert!(bob.answer("id='config'").await.contains("type='result'"), "{}", bob.transcript());
    let mut alice = pushward.login("alice", "phone").await;
    let enabled = alice.enable().await;
    alice.available().await;
    enable_push(&mut alice, "n").await;
    let subscribe =
        "<subscribe xmlns='urn:xmpp:mucsub:0' nick='Alice'><event node='urn:xmpp:mucsub:nodes:messages'/></subscribe>";
    alice.send(format!("<iq type='set' id='subscribe' to='{ROOM}'>{subscribe}</iq>")).await;
    assert!(alice.answer("id='subscribe'").await.contains("type='result'"), "{}", alice.transcript());
    let handled = alice.handled;
    lost(&pushward, alice, PHONE).await;
    let mut desk = Client::plain(server.address()).await;
    desk.login("alice", "desk").await;
    let groupchat = |id: &str| format!("<message type='groupchat' to='{ROOM}' id='{id}'><body>{id}</body></message>");
    desk.send(groupchat("own")).await;
    bob.expect("<body>own</body>").await;
    service.assert_quiet(QUIET).await;
    bob.send(groupchat("hello")).await;
    assert_eq!(service.publish(PATIENCE).await.count(), Some(1));
    let (mut alice, _) = resumed(&pushward, &enabled, handled).await;
    let event = alice.expect("<body>hello</body>").await;
    assert!(event.contains("urn:xmpp:mucsub:nodes:messages"), "what reaches the client is unchanged: {event}");
}

// Namespace styles

/// RFC 6120 §4.8.3 allows this.
#[tokio::test]
async fn a_client_that_declares_the_content_namespace_in_each_stanza_is_served() {
    const OPEN: &str =
        "<?xml version='1.0'?><stream xmlns='http://etherx.jabber.org/streams' to='localhost' version='1.0'>";
    let prosody = Prosody::start().await;
    let pushward = Pushward::start(Setup::new(prosody.address)).await;
    let mut client = pushward.connect().await;
    client.send(OPEN).await;
    client.expect("<stream:features").await;
    client.authenticate("alice").await;
    client.send(OPEN).await;
    client.expect("<stream:features").await;
    client
        .send("<iq xmlns='jabber:client' type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>phone</resource></bind></iq>")
        .await;
    client.expect("xmpp-bind").await;
    client.enable().await;
    client.send("<presence xmlns='jabber:client'/>").await;
    let mut bob = Client::plain(prosody.address).await;
    bob.login("bob", "desk").await;
    bob.available().await;
    client
        .send("<message xmlns='jabber:client' type='chat' to='bob@localhost/desk'><body>hello</body></message>")
        .await;
    assert_eq!(bodies(&bob.messages(1).await), ["hello"]);
    client.acked_up_to(2).await;
    bob.say(PHONE, "hi").await;
    assert_eq!(bodies(&client.messages(1).await), ["hi"]);
    client.send("</stream>").await;
    client.expect("</stream:stream>").await;
}

/// The same for a server. Everything that Pushward itself writes on either leg is in the usual style.
#[tokio::test]
async fn a_server_that_declares_the_content_namespace_in_each_stanza_is_relayed() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let pushward = Pushward::start(Setup::new(listener.local_addr().unwrap())).await;
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut received = String::new();
        let header = "<?xml version='1.0'?><stream xmlns='http://etherx.jabber.org/streams' from='localhost' id='1' version='1.0'>";
        let mechanisms =
            "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>PLAIN</mechanism></mechanisms>";
        let bind = "urn:ietf:params:xml:ns:xmpp-bind";
        for (needle, answer) in [
            ("version='1.0'>", format!("{header}<features>{mechanisms}</features>")),
            ("</auth>", "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>".to_owned()),
            ("version='1.0'>", format!("{header}<features><bind xmlns='{bind}'/></features>")),
            (
                "</iq>",
                format!(
                    "<iq xmlns='jabber:client' type='result' id='bind'><bind xmlns='{bind}'><jid>{PHONE}</jid></bind></iq>\
                     <message xmlns='jabber:client' from='bob@localhost' to='{PHONE}'><body>hello</body></message>"
                ),
            ),
            ("</stream:stream>", "</stream>".to_owned()),
        ] {
            while !received.contains(needle) {
                let mut buffer = vec![0; 4096];
                let length = socket.read(&mut buffer).await.unwrap();
                assert!(length > 0, "{received}");
                received.push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
            received.clear();
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let mut client = pushward.connect().await;
    client.send(HEADER).await;
    client.expect("<mechanism>PLAIN").await;
    client.send(plain("alice", "secret")).await;
    client.expect("<success").await;
    client.send(HEADER).await;
    client.expect("xmpp-bind").await;
    client.bind("phone").await;
    assert_eq!(bodies(&client.messages(1).await), ["hello"]);
    client.send("</stream:stream>").await;
    client.expect("</stream:stream>").await;
    tokio::time::timeout(PATIENCE, server).await.unwrap().unwrap();
}

#[tokio::test]
async fn qxmpp_binds_when_its_resumption_fails() {
    let mut stub = StubUpstream::start(StubOptions::default()).await;
    let pushward = Pushward::start(Setup::new(stub.address)).await;
    let mut client = pushward.authenticated("alice").await;
    client.send("<resume h='0' previd=''/>").await;
    assert!(client.next().await.starts_with("<failed xmlns='urn:xmpp:sm:3'"), "{}", client.transcript());
    assert_eq!(client.bind("phone").await, PHONE);
    stub.session().await;
}
