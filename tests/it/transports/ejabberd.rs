//! ejabberd as the push service's server: it does not support bidi, and refuses certificates that are for servers only.

use super::{QUIET, bob, goes_dark, shown, writes};
use crate::support::{Authority, Ejabberd, Issued, PATIENCE, Prosody, PushService, Pushward, Setup};

fn setup(prosody: &Prosody, (authority, issued): (&Authority, &Issued), peer: &Ejabberd) -> Setup {
    let route = format!("domain = 'push.test'\naddress = '{}'\ntls = 'starttls'\nca = 'ca.pem'", peer.servers);
    shown(prosody, (authority, issued), &route).set("push.transports", "['s2s']")
}

#[tokio::test]
async fn ejabberd_accepts_the_domain_by_a_certificate_with_client_auth() {
    let authority = Authority::new("an authority");
    let (prosody, peer) = (Prosody::start().await, Ejabberd::push_server(&authority).await);
    let mut service = PushService::named(peer.components, "push.test").await;
    let issued = authority.issue_for_both("localhost");
    let pushward = Pushward::start(setup(&prosody, (&authority, &issued), &peer)).await;
    let mut bob = bob(&prosody).await;
    goes_dark(&pushward, "push.test", &mut bob).await;
    assert_eq!(service.publish(PATIENCE).await.from, "localhost");
    pushward.logged(&["push notification outcome", "\"outcome\":\"unknown\""]).await;
    writes(&mut bob, "two").await;
    assert_eq!(service.publish(PATIENCE).await.count(), Some(2));
}

#[tokio::test]
async fn ejabberd_refuses_a_server_only_certificate_and_the_log_has_the_remedy() {
    let authority = Authority::new("an authority");
    let (prosody, peer) = (Prosody::start().await, Ejabberd::push_server(&authority).await);
    let mut service = PushService::named(peer.components, "push.test").await;
    let issued = authority.issue("localhost");
    let pushward = Pushward::start(setup(&prosody, (&authority, &issued), &peer)).await;
    let mut bob = bob(&prosody).await;
    goes_dark(&pushward, "push.test", &mut bob).await;
    let cause = "the peer refuses EXTERNAL: not-authorized";
    pushward.logged(&["push transport skipped", cause, "for servers only (no clientAuth usage)"]).await;
    pushward.logged(&["push notification outcome", "\"outcome\":\"not_sent\""]).await;
    service.assert_quiet(QUIET).await;
}
