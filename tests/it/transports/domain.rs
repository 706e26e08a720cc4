//! Notifications from the domain itself, over a stream of its own to the push service.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::{QUIET, bob, domain, goes_dark, writes};
use crate::support::{Answer, Authority, PATIENCE, Prosody, PushServer, PushServerOptions, Pushward, lost, request};

#[tokio::test]
async fn the_domain_publishes_over_its_own_stream_on_the_first_try_and_receives_the_answer() {
    let authority = Authority::new("an authority");
    for tls in ["starttls", "direct"] {
        let (prosody, peer) =
            (Prosody::start().await, PushServer::start(PushServerOptions::new("push.test", &authority)).await);
        let mut service = peer.push_service().await;
        service.answer_with(Answer::DomainsOnly);
        let pushward = Pushward::start(domain(&prosody, &authority, (&peer, tls))).await;
        let mut bob = bob(&prosody).await;
        goes_dark(&pushward, "push.test", &mut bob).await;
        assert_eq!(service.publish(PATIENCE).await.from, "localhost", "{tls}");
        pushward.logged(&["push notification outcome", "\"outcome\":\"accepted\""]).await;
        writes(&mut bob, "two").await;
        assert_eq!(service.publish(PATIENCE).await.count(), Some(2));
        assert_eq!(peer.streams(), 1, "{tls}");
    }
}

#[tokio::test]
async fn without_bidi_the_domain_publishes_once_without_an_answer() {
    let authority = Authority::new("an authority");
    for (offered, wanted) in [(false, true), (true, false)] {
        let prosody = Prosody::start().await;
        let options = PushServerOptions { bidi: offered, ..PushServerOptions::new("push.test", &authority) };
        let peer = PushServer::start(options).await;
        let mut service = peer.push_service().await;
        service.answer_with(Answer::Error("auth", "forbidden"));
        let setup = domain(&prosody, &authority, (&peer, "direct")).set("push.s2s_bidi", &wanted.to_string());
        let pushward = Pushward::start(setup).await;
        let mut bob = bob(&prosody).await;
        goes_dark(&pushward, "push.test", &mut bob).await;
        assert_eq!(service.publish(PATIENCE).await.from, "localhost");
        pushward.logged(&["push notification outcome", "\"outcome\":\"unknown\""]).await;
        service.assert_quiet(QUIET).await;
    }
}

#[tokio::test]
async fn after_a_restart_devices_without_a_session_are_woken_by_the_domain() {
    let authority = Authority::new("an authority");
    let (prosody, peer) =
        (Prosody::start().await, PushServer::start(PushServerOptions::new("push.test", &authority)).await);
    let mut service = peer.push_service().await;
    let mut pushward = Pushward::start(domain(&prosody, &authority, (&peer, "direct"))).await;
    let mut bob = bob(&prosody).await;
    goes_dark(&pushward, "push.test", &mut bob).await;
    service.publish(PATIENCE).await;
    pushward.stored("<body>one<").await;
    pushward.restart().await;
    assert_eq!(service.publish(2 * PATIENCE).await.from, "localhost");
    pushward.logged(&["wake push sent", "s2s", "\"reason\":\"restart\""]).await;
}

/// Regression test: such a push was logged as sent.
#[tokio::test]
async fn a_wake_push_that_the_push_service_refuses_is_logged_as_refused() {
    let authority = Authority::new("an authority");
    let (prosody, peer) =
        (Prosody::start().await, PushServer::start(PushServerOptions::new("push.test", &authority)).await);
    let mut service = peer.push_service().await;
    let setup = domain(&prosody, &authority, (&peer, "direct")).set("push.transports", "['s2s']");
    let mut pushward = Pushward::start(setup).await;
    let mut bob = bob(&prosody).await;
    goes_dark(&pushward, "push.test", &mut bob).await;
    service.publish(PATIENCE).await;
    pushward.stored("<body>one<").await;
    service.answer_with(Answer::Error("cancel", "not-acceptable"));
    pushward.restart().await;
    service.publish(2 * PATIENCE).await;
    let line = pushward.logged(&["wake push refused", "s2s", "\"reason\":\"restart\""]).await;
    assert!(line.contains("\"condition\":\"not-acceptable\""), "{line}");
    assert!(!pushward.log().iter().any(|line| line.contains("wake push sent")));
}

#[tokio::test]
async fn a_thousand_registrations_of_one_service_share_one_stream() {
    const ACCOUNTS: usize = 10;
    const EACH: usize = 100;
    let authority = Authority::new("an authority");
    let accounts: Vec<_> = (0..ACCOUNTS).map(|n| format!("user{n}")).collect();
    let prosody = Prosody::for_accounts(&accounts).await;
    let peer = PushServer::start(PushServerOptions::new("push.test", &authority)).await;
    let mut service = peer.push_service().await;
    let setup = domain(&prosody, &authority, (&peer, "direct")).set("push.max_devices", &EACH.to_string());
    let pushward = Arc::new(Pushward::start(setup).await);
    let mut phones = JoinSet::new();
    for account in accounts.clone() {
        phones.spawn(register(Arc::clone(&pushward), account, EACH));
    }
    phones.join_all().await;
    let mut bob = bob(&prosody).await;
    for account in &accounts {
        bob.say(&format!("{account}@localhost"), "one").await;
    }
    let mut nodes = HashSet::new();
    while nodes.len() < ACCOUNTS * EACH {
        let publish = service.publish(2 * PATIENCE).await;
        assert_eq!(publish.from, "localhost");
        assert!(nodes.insert(publish.node.clone()), "twice: {publish:?}");
    }
    assert_eq!(peer.streams(), 1);
}

/// Registers this many nodes from a phone, which then goes dark.
async fn register(pushward: Arc<Pushward>, account: String, nodes: usize) {
    let mut phone = pushward.login(&account, "phone").await;
    phone.enable().await;
    phone.available().await;
    for n in 0..nodes {
        let payload = format!("<enable xmlns='urn:xmpp:push:0' jid='push.test' node='{account}-{n}'/>");
        let answer = request(&mut phone, &format!("enable-{n}"), &payload).await;
        assert_eq!(answer.attribute("type"), Some("result"), "{answer:?}");
    }
    lost(&pushward, phone, &format!("{account}@localhost/phone")).await;
}
