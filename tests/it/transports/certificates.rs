//! Unsuitable certificates of push services and of the host: nothing is sent, and the operator gets the reason.

use super::{QUIET, bob, domain, goes_dark, shown};
use crate::support::{Authority, Issued, Prosody, PushServer, PushServerOptions, Pushward};

/// Tests a push service with this certificate, which gets nothing for the reason `why`.
async fn gets_nothing(authority: &Authority, identity: Issued, why: &str) {
    let prosody = Prosody::start().await;
    let peer =
        PushServer::start(PushServerOptions { identity, ..PushServerOptions::new("push.test", authority) }).await;
    let mut service = peer.push_service().await;
    let setup = domain(&prosody, authority, (&peer, "starttls")).set("push.transports", "['s2s']");
    let pushward = Pushward::start(setup).await;
    let mut bob = bob(&prosody).await;
    goes_dark(&pushward, "push.test", &mut bob).await;
    pushward.logged(&["push transport skipped", "s2s", why, "the push service needs another certificate"]).await;
    pushward.logged(&["push notification outcome", "\"outcome\":\"not_sent\""]).await;
    service.assert_quiet(QUIET).await;
}

#[tokio::test]
async fn a_push_service_with_the_certificate_of_another_domain_gets_nothing() {
    let authority = Authority::new("an authority");
    let identity = authority.issue("other.test");
    gets_nothing(&authority, identity, "not valid for name").await;
}

#[tokio::test]
async fn a_push_service_with_an_expired_certificate_gets_nothing() {
    let authority = Authority::new("an authority");
    let identity = authority.issue_for("push.test", 2020..=2021);
    gets_nothing(&authority, identity, "expired").await;
}

#[tokio::test]
async fn a_push_service_with_an_untrusted_certificate_gets_nothing() {
    let (authority, stranger) = (Authority::new("an authority"), Authority::new("a stranger"));
    let identity = stranger.issue("push.test");
    gets_nothing(&authority, identity, "UnknownIssuer").await;
}

/// Tests a host with this certificate, which the push service refuses.
async fn is_refused(authority: &Authority, issued: &Issued, remedy: &str) {
    let prosody = Prosody::start().await;
    let peer = PushServer::start(PushServerOptions::new("push.test", authority)).await;
    let mut service = peer.push_service().await;
    let route = format!("domain = 'push.test'\naddress = '{}'\nca = 'ca.pem'", peer.direct);
    let setup = shown(&prosody, (authority, issued), &route).set("push.transports", "['s2s']");
    let pushward = Pushward::start(setup).await;
    let mut bob = bob(&prosody).await;
    goes_dark(&pushward, "push.test", &mut bob).await;
    pushward.logged(&["push transport skipped", "not-authorized", remedy]).await;
    pushward.logged(&["push notification outcome", "\"outcome\":\"not_sent\""]).await;
    service.assert_quiet(QUIET).await;
}

#[tokio::test]
async fn an_expired_certificate_of_the_host_is_logged() {
    let authority = Authority::new("an authority");
    let remedy = "the host's certificate has expired: renew it";
    is_refused(&authority, &authority.issue_for("localhost", 2020..=2021), remedy).await;
}

#[tokio::test]
async fn a_certificate_for_another_domain_than_the_host_is_logged() {
    let authority = Authority::new("an authority");
    is_refused(&authority, &authority.issue("other.test"), "the host's certificate does not name the host").await;
}

#[tokio::test]
async fn a_push_service_that_refuses_the_certificate_is_logged_with_the_remedy() {
    let authority = Authority::new("an authority");
    let prosody = Prosody::start().await;
    let stranger = Authority::new("a stranger");
    let trusts = stranger.file();
    let peer = PushServer::start(PushServerOptions { trusts, ..PushServerOptions::new("push.test", &authority) }).await;
    let setup = domain(&prosody, &authority, (&peer, "direct")).set("push.transports", "['s2s']");
    let pushward = Pushward::start(setup).await;
    let mut bob = bob(&prosody).await;
    goes_dark(&pushward, "push.test", &mut bob).await;
    pushward.logged(&["push transport skipped", "certificate", "for servers only"]).await;
}
