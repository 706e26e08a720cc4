//! Removal of an account: no data of it reaches the next account of that name.

use std::time::Duration;

use serde_json::Value;

use crate::admin::ask;
use crate::support::{
    Client, Enabled, Fault, PATIENCE, Pushward, Scene, Setup, StubConnection, StubOptions, StubUpstream, another,
    bodies, enable_push, failed, lost, message, numbered,
};

/// The time for which a new account is observed and must get nothing.
const OBSERVED: Duration = Duration::from_millis(700);

/// Removes the account from a session of its own, up to the server's answer (XEP-0077 §3.2).
async fn remove(client: &mut Client, server: &mut StubConnection) {
    client.send("<iq type='set' id='gone'><query xmlns='jabber:iq:register'><remove/></query></iq>").await;
    server.expect("<remove/>").await;
    server.send("<iq type='result' id='gone'/>");
    client.answer("id='gone'").await;
}

/// Registers alice's account again, as another user, and logs in with this resource.
async fn newcomer(pushward: &Pushward, stub: &mut StubUpstream, resource: &str) -> (Client, StubConnection, Enabled) {
    let mut client = pushward.login("alice", resource).await;
    let server = stub.fresh().await;
    let enabled = client.enable().await;
    client.available().await;
    (client, server, enabled)
}

/// Fails if a session gets anything that was not sent to it.
async fn assert_gets_nothing(client: &mut Client) {
    let came = bodies(&client.live_for(OBSERVED).await);
    assert!(came.is_empty(), "a new account gets what was kept for the removed one: {came:?}");
}

/// Waits until no data of any account is kept.
async fn nothing_is_kept(pushward: &Pushward) {
    for name in ["pushward_accounts", "pushward_spool_stanzas", "pushward_spool_bytes", "pushward_wakes_waiting"] {
        pushward.metric_is(name, |kept| kept == 0).await;
    }
    assert_eq!(ask(pushward, &["push", "list", "--json"]).await.objects(), [] as [Value; 0]);
}

/// Leaves alice's registered phone dark with messages on disk, and her desk connected.
async fn dark_phone(
    settings: impl FnOnce(Setup) -> Setup,
) -> (StubUpstream, Pushward, [StubConnection; 2], Client, Enabled) {
    let settings = |setup: Setup| settings(setup.with_metrics().set("stream_management.spool_after", "'0s'"));
    let mut scene = Scene::with(StubOptions::default(), settings).await;
    enable_push(&mut scene.client, "n").await;
    let (desk, desk_server) = another(&scene.pushward, &mut scene.stub, "desk").await;
    lost(&scene.pushward, scene.client, "alice@localhost/phone").await;
    scene.server.send(numbered("secret", 1..=3).iter().map(|body| message(body)).collect::<String>());
    scene.pushward.metric_is("pushward_spool_stanzas", |stanzas| stanzas == 3).await;
    (scene.stub, scene.pushward, [scene.server, desk_server], desk, scene.enabled)
}

/// The server need not close the sessions of a removed account at once.
#[tokio::test]
async fn nothing_of_a_dark_session_reaches_the_next_account_of_its_name() {
    let (mut stub, mut pushward, [server, mut desk_server], mut desk, _) = dark_phone(|setup| setup).await;
    remove(&mut desk, &mut desk_server).await;
    nothing_is_kept(&pushward).await;
    server.send(message("secret after"));
    desk_server.close();
    desk.closed(PATIENCE).await;
    for resource in ["desk", "tablet"] {
        let (mut client, _server, _) = newcomer(&pushward, &mut stub, resource).await;
        assert_gets_nothing(&mut client).await;
    }
    server.send(message("secret at last"));
    // This client has the resource of the dark session, which ends.
    let (mut phone, phone_server, enabled) = newcomer(&pushward, &mut stub, "phone").await;
    assert_gets_nothing(&mut phone).await;
    pushward.logged(&["session ended", "alice@localhost/phone"]).await;
    server.closed(PATIENCE).await;
    pushward.metric_is("pushward_spool_stanzas", |stanzas| stanzas == 0).await;

    // The new account works like any other, also after a restart.
    lost(&pushward, phone, "alice@localhost/phone").await;
    phone_server.send(message("hello"));
    pushward.stored("<body>hello<").await;
    pushward.restart().await;
    let (mut phone, _) = failed(&pushward, &enabled, 0).await;
    phone.bind("phone").await;
    phone.enable().await;
    phone.send("<presence/>").await;
    assert_eq!(bodies(&phone.live_for(OBSERVED).await), ["hello"]);
}

#[tokio::test]
async fn nothing_of_a_forgotten_account_reaches_the_next_one_of_its_name() {
    let (mut stub, pushward, [server, desk_server], desk, enabled) = dark_phone(|setup| setup).await;
    lost(&pushward, desk, "alice@localhost/desk").await;
    desk_server.send(message("secret for the desk").replace("/phone", "/desk"));
    pushward.metric_is("pushward_spool_stanzas", |stanzas| stanzas == 4).await;
    let forgotten = ask(&pushward, &["forget", "alice@localhost", "--json"]).await.objects().remove(0);
    assert_eq!((&forgotten["held"], &forgotten["live"]), (&2.into(), &0.into()), "{forgotten}");
    nothing_is_kept(&pushward).await;
    server.footer(PATIENCE).await;
    desk_server.footer(PATIENCE).await;
    failed(&pushward, &enabled, 0).await;
    for resource in ["phone", "desk"] {
        let (mut client, _server, _) = newcomer(&pushward, &mut stub, resource).await;
        assert_gets_nothing(&mut client).await;
    }
}

/// The spool refuses, so that some of the messages are in memory only.
#[tokio::test]
async fn nothing_that_only_memory_had_reaches_the_next_account() {
    let small = |setup: Setup| setup.set("limits.spool_per_session", "'16 KiB'");
    let (mut stub, pushward, [server, mut desk_server], mut desk, _) = dark_phone(small).await;
    let long = "x".repeat(6000);
    for n in 4..=8 {
        server.send(message(&format!("secret {n} {long}")));
    }
    pushward.logged(&["spool failed", "alice@localhost/phone"]).await;
    pushward.metric_is("pushward_unsaved_stanzas", |unsaved| unsaved > 0).await;
    remove(&mut desk, &mut desk_server).await;
    nothing_is_kept(&pushward).await;
    for resource in ["tablet", "phone"] {
        let (mut client, _server, _) = newcomer(&pushward, &mut stub, resource).await;
        assert_gets_nothing(&mut client).await;
    }
    server.closed(PATIENCE).await;
}

/// A session that the server has not closed yet registers again.
#[tokio::test]
async fn a_session_of_a_removed_account_leaves_no_registration_behind() {
    let (mut stub, pushward, [_server, mut desk_server], mut desk, _) = dark_phone(|setup| setup).await;
    let (mut tablet, _tablet_server) = another(&pushward, &mut stub, "tablet").await;
    remove(&mut desk, &mut desk_server).await;
    nothing_is_kept(&pushward).await;
    tablet
        .send("<iq type='set' id='late'><enable xmlns='urn:xmpp:push:0' jid='push.localhost' node='late'/></iq>")
        .await;
    tablet.answer("id='late'").await;
    nothing_is_kept(&pushward).await;
}

/// The removal waits for the disk, behind a stanza of the session that requested it. Meanwhile the next account logs
/// in.
#[tokio::test]
async fn an_account_that_logs_in_while_the_removal_waits_for_the_disk_gets_nothing_of_the_former() {
    let (mut stub, pushward, [server, mut desk_server], mut desk, _) = dark_phone(Setup::with_faults).await;
    desk.acks = false;
    pushward.begin(Fault::Stall);
    desk_server.send(message("on its way").replace("/phone", "/desk"));
    desk.messages(1).await;
    pushward.stalled().await;
    desk.send("<iq type='set' id='late'><enable xmlns='urn:xmpp:push:0' jid='push.localhost' node='late'/></iq>").await;
    remove(&mut desk, &mut desk_server).await;
    let mut phone = pushward.authenticated("alice").await;
    phone
        .send("<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>phone</resource></bind></iq>")
        .await;
    let phone_server = stub.fresh().await;
    assert_eq!(phone_server.bound().await, "alice@localhost/phone");
    pushward.end(Fault::Stall);
    phone.answer("id='bind'").await;
    phone.enable().await;
    phone.available().await;
    assert_gets_nothing(&mut phone).await;
    assert_eq!(ask(&pushward, &["push", "list", "--json"]).await.objects(), [] as [Value; 0]);
    drop(server);
    // Messages for the new account are kept for it.
    lost(&pushward, phone, "alice@localhost/phone").await;
    phone_server.send(message("hello"));
    pushward.stored("<body>hello<").await;
}
