//! Push services that are unreachable, go down, come back, or refuse the sender of a notification.

use super::{QUIET, bob, domain, goes_dark, routed, writes};
use crate::support::{
    Answer, Authority, PATIENCE, Prosody, PushServer, PushServerOptions, PushService, Pushward, free_address,
};

#[tokio::test]
async fn an_unreachable_push_service_is_notified_through_the_session_which_is_remembered() {
    let authority = Authority::new("an authority");
    let prosody = Prosody::start().await;
    let mut service = PushService::connect(&prosody).await;
    let route = format!("domain = 'push.localhost'\naddress = '{}'\nca = 'ca.pem'", free_address());
    let pushward = Pushward::start(routed(&prosody, &authority, &route)).await;
    let mut bob = bob(&prosody).await;
    goes_dark(&pushward, "push.localhost", &mut bob).await;
    assert_eq!(service.publish(PATIENCE).await.from, "alice@localhost/phone");
    pushward.logged(&["push transport skipped", "Connection refused"]).await;
    writes(&mut bob, "two").await;
    assert_eq!(service.publish(PATIENCE).await.from, "alice@localhost/phone");
    pushward.logged(&["push transport selected", "session"]).await;
}

#[tokio::test]
async fn a_service_that_refuses_full_jids_is_notified_by_the_domain_which_is_remembered() {
    let authority = Authority::new("an authority");
    let prosody = Prosody::start().await;
    // The same service, seen from the user's server and from others.
    let mut refusing = PushService::connect(&prosody).await;
    refusing.answer_with(Answer::DomainsOnly);
    let peer = PushServer::start(PushServerOptions::new("push.localhost", &authority)).await;
    let mut service = peer.push_service().await;
    let setup = domain(&prosody, &authority, (&peer, "direct")).set("push.transports", "['session', 's2s']");
    let pushward = Pushward::start(setup).await;
    let mut bob = bob(&prosody).await;
    goes_dark(&pushward, "push.localhost", &mut bob).await;
    assert_eq!(refusing.publish(PATIENCE).await.from, "alice@localhost/phone");
    assert_eq!(service.publish(PATIENCE).await.from, "localhost");
    pushward.logged(&["push notification outcome", "\"outcome\":\"accepted\""]).await;
    writes(&mut bob, "two").await;
    assert_eq!(service.publish(PATIENCE).await.from, "localhost");
    refusing.assert_quiet(QUIET).await;
}

#[tokio::test]
async fn a_push_service_is_notified_when_it_comes_back() {
    let authority = Authority::new("an authority");
    let (prosody, mut peer) =
        (Prosody::start().await, PushServer::start(PushServerOptions::new("push.test", &authority)).await);
    peer.kill();
    let setup = domain(&prosody, &authority, (&peer, "starttls")).set("push.transports", "['s2s']");
    let pushward = Pushward::start(setup).await;
    let mut bob = bob(&prosody).await;
    goes_dark(&pushward, "push.test", &mut bob).await;
    pushward.logged(&["push notification outcome", "\"outcome\":\"not_sent\""]).await;
    peer.start_again().await;
    let mut service = peer.push_service().await;
    assert_eq!(service.publish(2 * PATIENCE).await.count(), Some(1));
}

#[tokio::test]
async fn a_push_service_that_goes_down_is_notified_when_it_is_up_again() {
    let authority = Authority::new("an authority");
    let (prosody, mut peer) =
        (Prosody::start().await, PushServer::start(PushServerOptions::new("push.test", &authority)).await);
    let mut service = peer.push_service().await;
    let setup = domain(&prosody, &authority, (&peer, "direct")).set("push.transports", "['s2s']");
    let pushward = Pushward::start(setup).await;
    let mut bob = bob(&prosody).await;
    goes_dark(&pushward, "push.test", &mut bob).await;
    service.publish(PATIENCE).await;
    pushward.logged(&["push notification outcome", "\"outcome\":\"accepted\""]).await;
    peer.kill();
    pushward.logged(&["push stream lost"]).await;
    writes(&mut bob, "two").await;
    pushward.logged(&["push transport skipped", "Connection refused", "firewall"]).await;
    pushward.logged(&["push notification outcome", "\"outcome\":\"not_sent\""]).await;
    peer.start_again().await;
    let mut service = peer.push_service().await;
    let publish = service.publish(2 * PATIENCE).await;
    assert_eq!((publish.from.as_str(), publish.count()), ("localhost", Some(2)));
    assert_eq!(peer.streams(), 1);
}
