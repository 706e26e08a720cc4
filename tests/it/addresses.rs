//! Addresses that strict libraries refuse: emoji, mixed script directions, unusual hyphens.

use crate::support::{
    Client, Element, PATIENCE, Pushward, Server, Setup, StubOptions, StubUpstream, bodies, enable_push, lost, quick,
    request, resumed,
};

const HOST: &str = "my--chat.example";
const SERVICE: &str = "ab--gw.example";

#[tokio::test]
async fn a_session_is_held_and_resumed_with_any_full_jid_that_the_server_binds() {
    for (user, other, resource) in [("alice", "mallory", "Phone 🦊"), ("ana🦊", "Ana🦊", "אb"), ("bobא", "bob", "-")]
    {
        let mut stub = StubUpstream::start(StubOptions::default()).await;
        let pushward = Pushward::start(Setup::new(stub.address)).await;
        let mut client = pushward.connect().await;
        let jid = client.login(user, resource).await;
        assert_eq!(jid, format!("{user}@localhost/{resource}"));
        let server = stub.session().await;
        let enabled = client.enable().await;
        assert_eq!(enabled.resume.as_deref(), Some("true"));
        lost(&pushward, client, &jid).await;
        server.send(format!("<message from='Bob 🦊@x.example/🦊' to='{jid}' id='1'><body>hi</body></message>"));

        let mut stranger = pushward.authenticated(other).await;
        assert_eq!(stranger.resume(&enabled.id, 0).await.name, "failed", "{other} is not {user}");
        let mut client = pushward.authenticated(user).await;
        assert_eq!(client.resume(&enabled.id, 0).await.name, "resumed", "{user}");
        assert_eq!(bodies(&client.messages(1).await), ["hi"]);
    }
}

#[tokio::test]
async fn a_host_and_a_push_service_have_any_hyphens() {
    let mut stub = StubUpstream::start(StubOptions::default()).await;
    let setup = Setup::new(stub.address)
        .set("host.domain", &format!("'{HOST}'"))
        .set("push.services", &format!("['{SERVICE}']"))
        .set("push.transports", "['session']")
        .set("push.batch_delay", "'50ms'");
    let pushward = Pushward::start(setup).await;
    let tls = pushward.tls().named(HOST);
    let mut client = Client::plain(pushward.starttls).await.towards(HOST).upgrade(&tls).await;
    let jid = client.login("alice", "phone").await;
    assert_eq!(jid, format!("alice@{HOST}/phone"));
    let mut server = stub.session().await;
    client.enable().await;
    let enable = format!("<enable xmlns='urn:xmpp:push:0' jid='{SERVICE}' node='n'/>");
    let answer = request(&mut client, "push", &enable).await;
    assert_eq!(answer.attribute("type"), Some("result"), "{answer:?}");
    let enable = "<enable xmlns='urn:xmpp:push:0' jid='a b' node='n'/>";
    let answer = request(&mut client, "wrong", enable).await;
    assert!(answer.child("error").is_some_and(|error| error.child("bad-request").is_some()), "{answer:?}");
    client.ack().await;
    lost(&pushward, client, &jid).await;
    server.send(format!("<message from='bob@{HOST}/x' to='{jid}' type='chat' id='1'><body>hi</body></message>"));
    let publish = server.expect("<publish").await;
    assert!(publish.contains(&format!("to='{SERVICE}'")), "{publish}");
}

/// Names that a real server allows for a client and its contact. ejabberd itself refuses such resources.
async fn odd_resources_are_pushed_for_and_resumed(server: Server) {
    let mut service = server.push_service().await;
    let pushward = Pushward::start(quick(Setup::new(server.address()))).await;
    let mut friend = Client::plain(server.address()).await;
    let friend_jid = friend.login("bob", "Bob 🦊").await;
    let mut client = pushward.connect().await;
    let jid = client.login("alice", "Phone 🦊").await;
    assert!(jid.starts_with("alice@localhost/"), "{jid}");
    let enabled = client.enable().await;
    assert_eq!(enabled.resume.as_deref(), Some("true"));
    client.available().await;
    enable_push(&mut client, "n").await;
    let handled = client.handled;
    lost(&pushward, client, &jid).await;
    friend.send(format!("<message to='{jid}' type='chat' id='1'><body>hi</body></message>")).await;
    service.publish(PATIENCE).await;
    let (mut client, _) = resumed(&pushward, &enabled, handled).await;
    let got = client.messages(1).await;
    assert_eq!(bodies(&got), ["hi"]);
    assert_eq!(Element::parse(&got[0]).attribute("from"), Some(&*friend_jid));
}

#[tokio::test]
async fn odd_resources_are_pushed_for_and_resumed_on_prosody() {
    odd_resources_are_pushed_for_and_resumed(Server::prosody().await).await;
    odd_resources_are_pushed_for_and_resumed(Server::managed_prosody().await).await;
}
