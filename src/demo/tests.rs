//! Tests of the embedded server with the client, without Pushward in between.

use std::time::Duration;

use super::client::{ANSWER, ClientError, ClientSecurity, DemoClient, ServerAddress};
use super::server::{DemoAccount, DemoServer, ServerSettings};
use crate::xml::{Element, Kind, ns};

const SHORT: Duration = Duration::from_millis(100);

fn account(name: &str) -> DemoAccount {
    let contact = if name == "juliet" { "romeo" } else { "juliet" };
    DemoAccount { name: name.to_owned(), password: format!("{name}'s"), contacts: vec![contact.to_owned()] }
}

async fn server() -> DemoServer {
    let accounts = vec![account("juliet"), account("romeo")];
    DemoServer::start(ServerSettings { domain: "localhost".to_owned(), accounts, observer: None }).await.unwrap()
}

fn place(server: &DemoServer, name: &str) -> ServerAddress {
    ServerAddress {
        address: server.address(),
        security: ClientSecurity::Plain,
        domain: "localhost".to_owned(),
        name: name.to_owned(),
        peer: "server".to_owned(),
        observer: None,
    }
}

/// Returns a client that is logged in and bound.
async fn bound(server: &DemoServer, name: &str, resource: &str) -> DemoClient {
    let mut client = DemoClient::log_in(&place(server, name), &account(name)).await.unwrap();
    client.bind(resource).await.unwrap();
    client
}

/// Returns a client that is logged in, bound and available.
async fn online(server: &DemoServer, name: &str, resource: &str) -> DemoClient {
    let mut client = bound(server, name, resource).await;
    client.appear().await.unwrap();
    client.ping().await.unwrap();
    client
}

fn attr(element: &Element, name: &str) -> Option<String> {
    element.node().attr(name).map(|value| value.into_owned())
}

async fn presence(client: &mut DemoClient, from: &str, kind: Option<&str>) {
    let fits = |element: &Element| {
        element.kind() == Kind::Presence
            && attr(element, "from").as_deref() == Some(from)
            && attr(element, "type").as_deref() == kind
    };
    client.expect("presence", ANSWER, fits).await.unwrap();
}

async fn bodies(client: &mut DemoClient) -> Vec<String> {
    client.ping().await.unwrap();
    let text = |message: Element| message.node().child("body", ns::CLIENT).unwrap().text().into_owned();
    client.messages().into_iter().map(text).collect()
}

#[tokio::test]
async fn a_message_to_an_account_reaches_all_its_available_resources_and_one_to_a_resource_only_that() {
    let server = server().await;
    let mut phone = online(&server, "juliet", "phone").await;
    let mut tablet = online(&server, "juliet", "tablet").await;
    let mut hidden = bound(&server, "juliet", "hidden").await;
    hidden.send(b"<presence><priority>-1</priority></presence>").await.unwrap();
    hidden.ping().await.unwrap();
    let mut romeo = online(&server, "romeo", "orchard").await;
    romeo.say("juliet@localhost", "1", "to all").await.unwrap();
    romeo.say("juliet@localhost/tablet", "2", "to one").await.unwrap();
    romeo.say("juliet@localhost/gone", "3", "to one that is gone").await.unwrap();
    romeo.ping().await.unwrap();
    assert_eq!(bodies(&mut phone).await, ["to all", "to one that is gone"]);
    assert_eq!(bodies(&mut tablet).await, ["to all", "to one", "to one that is gone"]);
    assert_eq!(bodies(&mut hidden).await, [""; 0]);
}

#[tokio::test]
async fn messages_wait_for_an_offline_account_with_their_time_of_arrival() {
    let server = server().await;
    let mut romeo = online(&server, "romeo", "orchard").await;
    for (id, body) in [("1", "first"), ("2", "second")] {
        romeo.say("juliet@localhost", id, body).await.unwrap();
    }
    romeo.ping().await.unwrap();
    let mut juliet = online(&server, "juliet", "phone").await;
    let waited = juliet.message(ANSWER).await.unwrap();
    assert!(waited.node().child("delay", ns::DELAY).is_some());
    assert_eq!(attr(&waited, "from").as_deref(), Some("romeo@localhost/orchard"));
    assert_eq!(bodies(&mut juliet).await, ["second"]);
    let mut again = online(&server, "juliet", "tablet").await;
    assert_eq!(bodies(&mut again).await, [""; 0]);
}

#[tokio::test]
async fn undeliverable_stanzas_are_returned_as_errors() {
    let server = server().await;
    let mut romeo = online(&server, "romeo", "orchard").await;
    for (to, condition) in [
        ("nobody@localhost", "service-unavailable"),
        ("localhost", "service-unavailable"),
        ("juliet@elsewhere.example", "remote-server-not-found"),
    ] {
        romeo.say(to, "1", "?").await.unwrap();
        let error = romeo.message(ANSWER).await.unwrap();
        assert_eq!((attr(&error, "type").as_deref(), attr(&error, "from").as_deref()), (Some("error"), Some(to)));
        let reason = error.node().child("error", ns::CLIENT).unwrap();
        assert!(reason.child(condition, ns::STANZA_ERRORS).is_some(), "{to}");
    }
    // An offline account stores 100 messages.
    for _ in 0..100 {
        romeo.say("juliet@localhost", "1", "kept").await.unwrap();
    }
    assert_eq!(bodies(&mut romeo).await, [""; 0]);
    romeo.say("juliet@localhost", "1", "one too many").await.unwrap();
    assert_eq!(attr(&romeo.message(ANSWER).await.unwrap(), "type").as_deref(), Some("error"));
}

#[tokio::test]
async fn contacts_see_each_other_come_and_go() {
    let server = server().await;
    let mut juliet = online(&server, "juliet", "phone").await;
    let romeo = online(&server, "romeo", "orchard").await;
    presence(&mut juliet, "romeo@localhost/orchard", None).await;
    romeo.close().await.unwrap();
    presence(&mut juliet, "romeo@localhost/orchard", Some("unavailable")).await;
    let mut romeo = online(&server, "romeo", "orchard").await;
    presence(&mut romeo, "juliet@localhost/phone", None).await;
    juliet.send(b"<presence type='unavailable'/>").await.unwrap();
    presence(&mut romeo, "juliet@localhost/phone", Some("unavailable")).await;
    juliet.send(b"<presence to='romeo@localhost/orchard'><show>dnd</show></presence>").await.unwrap();
    presence(&mut romeo, "juliet@localhost/phone", None).await;
    // The same without a footer, but only if the presence was available.
    drop(juliet);
    romeo.listen(SHORT).await.unwrap();
    let mut balcony = online(&server, "juliet", "balcony").await;
    presence(&mut balcony, "romeo@localhost/orchard", None).await;
    drop(balcony);
    presence(&mut romeo, "juliet@localhost/balcony", Some("unavailable")).await;
}

#[tokio::test]
async fn requests_are_answered_by_who_they_are_for() {
    let server = server().await;
    let mut juliet = online(&server, "juliet", "phone").await;
    let identity = |answer: &Element| {
        let query = answer.node().child("query", ns::DISCO_INFO).unwrap();
        let kind = query.child("identity", ns::DISCO_INFO).unwrap().attr("category").unwrap().into_owned();
        (kind, query.children().any(|feature| feature.attr("var").as_deref() == Some(ns::PUSH)))
    };
    let info = format!("<query xmlns='{}'/>", ns::DISCO_INFO);
    for (to, category, push) in [
        (Some("localhost"), "server", false),
        (Some("juliet@localhost"), "account", false),
        (None, "account", false),
        (Some("push.localhost"), "pubsub", true),
    ] {
        let answer = juliet.request("get", to, info.as_bytes()).await.unwrap();
        assert_eq!(identity(&answer), (category.to_owned(), push), "{to:?}");
        assert_eq!(attr(&answer, "from").as_deref(), to);
    }
    let roster = juliet.request("get", None, b"<query xmlns='jabber:iq:roster'/>").await.unwrap();
    let item = roster.node().child("query", ns::ROSTER).unwrap().child("item", ns::ROSTER).unwrap();
    assert_eq!(item.attr("jid").as_deref(), Some("romeo@localhost"));
    juliet.request("set", None, format!("<session xmlns='{}'/>", ns::SESSION).as_bytes()).await.unwrap();
    juliet.request("get", None, format!("<query xmlns='{}'/>", ns::DISCO_ITEMS).as_bytes()).await.unwrap();
    for (kind, to, payload) in [
        ("get", None, "<vCard xmlns='vcard-temp'/>"),
        ("set", None, "<enable xmlns='urn:xmpp:push:0' jid='push.localhost' node='x'/>"),
        ("get", Some("romeo@localhost"), "<ping xmlns='urn:xmpp:ping'/>"),
        ("get", Some("romeo@localhost/gone"), "<ping xmlns='urn:xmpp:ping'/>"),
        ("get", Some("elsewhere.example"), "<ping xmlns='urn:xmpp:ping'/>"),
    ] {
        let error = juliet.request(kind, to, payload.as_bytes()).await.unwrap_err();
        assert!(matches!(error, ClientError::Refused { .. }), "{payload}: {error}");
    }
}

#[tokio::test]
async fn requests_between_clients_pass_with_the_senders_address() {
    let server = server().await;
    let mut juliet = online(&server, "juliet", "phone").await;
    let mut romeo = online(&server, "romeo", "orchard").await;
    romeo
        .send(b"<iq type='get' id='v1' to='juliet@localhost/phone'><query xmlns='jabber:iq:version'/></iq>")
        .await
        .unwrap();
    let asked = juliet.expect("request", ANSWER, |element| element.kind() == Kind::Iq).await.unwrap();
    assert_eq!(attr(&asked, "from").as_deref(), Some("romeo@localhost/orchard"));
    juliet.send(b"<iq type='result' id='v1' to='romeo@localhost/orchard'/>").await.unwrap();
    let answer = romeo.expect("answer", ANSWER, |element| element.kind() == Kind::Iq).await.unwrap();
    assert_eq!((attr(&answer, "id").as_deref(), attr(&answer, "type").as_deref()), (Some("v1"), Some("result")));
}

#[tokio::test]
async fn nobody_writes_in_anothers_name() {
    let server = server().await;
    let mut romeo = online(&server, "romeo", "orchard").await;
    romeo.send(b"<message from='juliet@localhost' to='juliet@localhost'><body>x</body></message>").await.unwrap();
    let error = romeo.message(ANSWER).await.unwrap_err().to_string();
    assert!(error.contains("invalid-from"), "{error}");
}

#[tokio::test]
async fn a_resource_bound_again_ends_the_session_that_had_it() {
    let server = server().await;
    let mut old = online(&server, "juliet", "phone").await;
    let mut new = online(&server, "juliet", "phone").await;
    let error = old.message(ANSWER).await.unwrap_err().to_string();
    assert!(error.contains("conflict"), "{error}");
    let mut romeo = online(&server, "romeo", "orchard").await;
    romeo.say("juliet@localhost", "1", "still here").await.unwrap();
    romeo.ping().await.unwrap();
    assert_eq!(bodies(&mut new).await, ["still here"]);
}

#[tokio::test]
async fn a_wrong_password_lets_nobody_in() {
    let server = server().await;
    let wrong = DemoAccount { password: "guess".to_owned(), ..account("juliet") };
    let Err(error) = DemoClient::log_in(&place(&server, "juliet"), &wrong).await else { panic!("logged in") };
    assert!(error.to_string().contains("not-authorized"), "{error}");
    let elsewhere = ServerAddress { domain: "elsewhere.example".to_owned(), ..place(&server, "juliet") };
    let Err(error) = DemoClient::log_in(&elsewhere, &account("juliet")).await else { panic!("logged in") };
    assert!(error.to_string().contains("host-unknown"), "{error}");
}

#[tokio::test]
async fn the_embedded_server_has_neither_stream_management_nor_push() {
    let server = server().await;
    let mut juliet = bound(&server, "juliet", "phone").await;
    let error = juliet.enable_resumption().await.unwrap_err().to_string();
    assert!(error.contains("unsupported-stanza-type"), "{error}");
}

#[tokio::test]
async fn the_push_service_reports_publishes_to_its_receivers() {
    let server = server().await;
    let mut notifications = server.notifications();
    let mut juliet = bound(&server, "juliet", "phone").await;
    let publish = |form: &str| {
        format!(
            "<pubsub xmlns='{}'><publish node='n1'><item><notification xmlns='{}'>{form}</notification></item>\
             </publish></pubsub>",
            ns::PUBSUB,
            ns::PUSH
        )
    };
    let form = "<x xmlns='jabber:x:data'><field var='message-count'><value>2</value></field></x>";
    let answer = juliet.request("set", Some("push.localhost"), publish(form).as_bytes()).await.unwrap();
    assert_eq!(attr(&answer, "from").as_deref(), Some("push.localhost"));
    let notification = notifications.try_recv().unwrap();
    assert_eq!((notification.node.as_deref(), notification.field("message-count")), (Some("n1"), Some("2")));
    assert_eq!(notification.from, "juliet@localhost/phone");
    juliet.request("set", Some("push.localhost"), publish("").as_bytes()).await.unwrap_err();
    assert!(notifications.try_recv().is_err());
}

#[tokio::test]
async fn a_wait_ends_with_what_came_instead() {
    let server = server().await;
    let mut juliet = online(&server, "juliet", "phone").await;
    let error = juliet.message(SHORT).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, ClientError::TooLate { .. }), "{text}");
    assert!(text.contains("no message within 100ms; received last: <") && text.contains("<presence"), "{text}");
}

#[tokio::test]
async fn a_server_that_stops_says_so_to_its_clients() {
    let server = server().await;
    let mut juliet = online(&server, "juliet", "phone").await;
    let stopping = tokio::spawn(server.stop());
    let error = juliet.message(ANSWER).await.unwrap_err().to_string();
    assert!(error.contains("system-shutdown"), "{error}");
    drop(juliet);
    stopping.await.unwrap();
}
