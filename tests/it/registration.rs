//! In-band registration through the proxy: an account before authentication, a new password, removal (XEP-0077).

use std::time::Duration;

use crate::support::{Client, PATIENCE, Prosody, PushService, Pushward, Setup, bodies, enable_push, plain, request};

/// Requests an account before authentication, as Conversations and Monal do.
async fn register(pushward: &Pushward, user: &str, password: &str) -> Client {
    let mut client = Client::starttls(pushward.starttls, &pushward.tls()).await;
    let features = client.open().await;
    assert!(features.contains("http://jabber.org/features/iq-register"), "{features}");
    client.send("<iq type='get' to='localhost' id='fields'><query xmlns='jabber:iq:register'/></iq>").await;
    let fields = client.expect("id='fields'").await;
    assert!(fields.contains("<username") && fields.contains("<password"), "{fields}");
    let account =
        format!("<query xmlns='jabber:iq:register'><username>{user}</username><password>{password}</password></query>");
    let answer = request(&mut client, "account", &account).await;
    assert_eq!(answer.attribute("type"), Some("result"), "{answer:?}");
    client
}

/// Authenticates on an open stream.
async fn authenticate(client: &mut Client, user: &str, password: &str) {
    client.send(plain(user, password)).await;
    client.expect("<success").await;
    client.open().await;
}

async fn login(pushward: &Pushward, password: &str, resource: &str) -> Client {
    let mut client = pushward.connect().await;
    client.open().await;
    authenticate(&mut client, "dora", password).await;
    assert_eq!(client.bind(resource).await, format!("dora@localhost/{resource}"));
    client.enable().await;
    client.available().await;
    client
}

async fn refused(pushward: &Pushward, password: &str) {
    let mut client = pushward.connect().await;
    client.open().await;
    client.send(plain("dora", password)).await;
    client.expect("<failure").await;
}

/// Sets the account's password, from a session of its own.
async fn change(client: &mut Client, password: &str) {
    let payload =
        format!("<query xmlns='jabber:iq:register'><username>dora</username><password>{password}</password></query>");
    let answer = request(client, "change", &payload).await;
    assert_eq!(answer.attribute("type"), Some("result"), "{answer:?}");
}

#[tokio::test]
async fn an_account_is_registered_changes_its_password_is_removed_and_is_registered_by_another_user() {
    let prosody = Prosody::open().await;
    let mut service = PushService::connect(&prosody).await;
    let setup = Setup::new(prosody.address).set("push.batch_delay", "'50ms'");
    let pushward = Pushward::start(setup).await;
    let mut bob = Client::plain(prosody.address).await;
    bob.login("bob", "desk").await;

    // Registered, and logged in on the same stream.
    let mut phone = register(&pushward, "dora", "first").await;
    authenticate(&mut phone, "dora", "first").await;
    assert_eq!(phone.bind("phone").await, "dora@localhost/phone");
    phone.enable().await;
    phone.available().await;
    enable_push(&mut phone, "n").await;
    phone.reset();
    bob.say("dora@localhost", "waits").await;
    assert_eq!(service.publish(PATIENCE).await.node.as_deref(), Some("n"));
    pushward.stored("<body>waits<").await;

    // The server ends the sessions that used the old password. Messages for the phone keep waiting.
    let mut desk = login(&pushward, "first", "desk").await;
    change(&mut desk, "second").await;
    refused(&pushward, "first").await;
    let mut phone = login(&pushward, "second", "phone").await;
    assert_eq!(bodies(&phone.messages(1).await), ["waits"]);
    desk.send("</stream:stream>").await;
    desk.closed(PATIENCE).await;

    // The registration stays until the account is removed.
    phone.reset();
    bob.say("dora@localhost", "secret").await;
    assert_eq!(service.publish(PATIENCE).await.node.as_deref(), Some("n"));
    pushward.stored("<body>secret<").await;
    let mut desk = login(&pushward, "second", "desk").await;
    let answer = request(&mut desk, "gone", "<query xmlns='jabber:iq:register'><remove/></query>").await;
    assert_eq!(answer.attribute("type"), Some("result"), "{answer:?}");
    desk.closed(PATIENCE).await;
    refused(&pushward, "second").await;

    // A new account of that name gets neither messages nor pushes of the old one.
    drop(register(&pushward, "dora", "third").await);
    let mut phone = login(&pushward, "third", "phone").await;
    bob.say("dora@localhost/phone", "hello").await;
    assert_eq!(bodies(&phone.messages(1).await), ["hello"]);
    phone.reset();
    bob.say("dora@localhost", "nobody is told").await;
    service.assert_quiet(Duration::from_millis(500)).await;
}
