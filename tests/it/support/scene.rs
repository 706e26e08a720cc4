//! A session of alice on a scripted server ([`Scene`]), and client actions that many tests share.

use super::{Client, Element, Enabled, Pushward, Setup, StubConnection, StubOptions, StubUpstream};

/// alice's phone, with stream management, on a scripted server.
pub(crate) struct Scene {
    pub(crate) stub: StubUpstream,
    pub(crate) pushward: Pushward,
    pub(crate) client: Client,
    pub(crate) server: StubConnection,
    pub(crate) enabled: Enabled,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        Self::with(StubOptions::default(), |setup| setup).await
    }

    pub(crate) async fn with(options: StubOptions, settings: impl FnOnce(Setup) -> Setup) -> Self {
        let managed = options.after.contains("urn:xmpp:sm:3");
        let mut stub = StubUpstream::start(options).await;
        let pushward = Pushward::start(settings(Setup::new(stub.address))).await;
        let mut client = pushward.login("alice", "phone").await;
        let server = stub.session().await;
        if managed {
            // What the server sends before is not counted.
            server.managed().await;
        }
        let enabled = client.enable().await;
        Self { stub, pushward, client, server, enabled }
    }
}

/// Opens another session of alice with stream management. Returns it with the server's end.
pub(crate) async fn another(pushward: &Pushward, stub: &mut StubUpstream, resource: &str) -> (Client, StubConnection) {
    let mut client = pushward.login("alice", resource).await;
    let server = stub.fresh().await;
    client.enable().await;
    (client, server)
}

/// Resets the connection, and waits until the proxy has noticed.
///
/// Without that, the next stanzas of the server may still be written to the connection.
pub(crate) async fn lost(pushward: &Pushward, client: Client, jid: &str) {
    client.reset();
    pushward.logged(&["dark", jid]).await;
}

/// Resumes alice's session on a new connection, having handled `h` stanzas.
pub(crate) async fn resumed(pushward: &Pushward, enabled: &Enabled, h: u32) -> (Client, Element) {
    let mut client = pushward.authenticated("alice").await;
    let answer = client.resume(&enabled.id, h).await;
    assert_eq!(answer.name, "resumed", "{answer:?}");
    assert_eq!(answer.attribute("previd"), Some(enabled.id.as_str()));
    (client, answer)
}

/// Requests a resumption that fails. Returns the connection, which may bind, and the `h` of the answer.
pub(crate) async fn failed(pushward: &Pushward, enabled: &Enabled, h: u32) -> (Client, Option<u32>) {
    let mut client = pushward.authenticated("alice").await;
    let answer = client.resume(&enabled.id, h).await;
    assert_eq!(answer.name, "failed", "{answer:?}");
    assert!(answer.child("item-not-found").is_some(), "{answer:?}");
    (client, answer.attribute("h").map(|h| h.parse().unwrap()))
}

/// Continues with a new session: bind, stream management, initial presence.
///
/// It discards nothing that comes. It does not wait for the presence, because waiting stanzas may come before its echo.
pub(crate) async fn fresh(client: &mut Client, resource: &str) -> Enabled {
    assert_eq!(client.bind(resource).await, format!("alice@localhost/{resource}"));
    let enabled = client.enable().await;
    client.send("<presence/>").await;
    enabled
}

/// Registers alice's device at `push.localhost`.
pub(crate) async fn enable_push(client: &mut Client, node: &str) {
    let payload = format!("<enable xmlns='urn:xmpp:push:0' jid='push.localhost' node='{node}'/>");
    let answer = request(client, "push-enable", &payload).await;
    assert_eq!(answer.attribute("type"), Some("result"), "{answer:?}");
}

/// Sends an iq-set and returns the answer. Earlier elements can still be read.
pub(crate) async fn request(client: &mut Client, id: &str, payload: &str) -> Element {
    client.send(format!("<iq type='set' id='{id}'>{payload}</iq>")).await;
    Element::parse(&client.answer(&format!("id='{id}'")).await)
}
