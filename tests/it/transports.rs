//! Transports of notifications: as a component, as the domain itself, through the user's session; and the order in
//! which they are tried.

mod bidi;
mod bounds;
mod certificates;
mod dns;
mod domain;
mod ejabberd;
mod operator;
mod reach;

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::support::{
    Answer, Authority, Client, Element, Enabled, Issued, PATIENCE, Prosody, PushServer, PushService, Pushward, Setup,
    fresh, lost,
};

/// The time for which nothing may happen where nothing is expected.
const QUIET: Duration = Duration::from_millis(700);

/// Sets delays short enough for tests.
fn quick(setup: Setup) -> Setup {
    setup.set("push.batch_delay", "'50ms'").set("push.min_interval", "'50ms'")
}

/// Opens alice's phone behind a proxy, available and registered at `service`.
async fn phone(pushward: &Pushward, service: &str) -> (Client, Enabled) {
    let mut alice = pushward.connect().await;
    alice.authenticated("alice").await;
    let enabled = fresh(&mut alice, "phone").await;
    let answer = alice_enables(&mut alice, service).await;
    assert_eq!(answer.attribute("type"), Some("result"), "{answer:?}");
    (alice, enabled)
}

async fn alice_enables(alice: &mut Client, service: &str) -> Element {
    let payload = format!("<enable xmlns='urn:xmpp:push:0' jid='{service}' node='n'/>");
    crate::support::request(alice, "enable", &payload).await
}

/// Connects bob to the server itself.
async fn bob(prosody: &Prosody) -> Client {
    let mut bob = Client::plain(prosody.address).await;
    bob.login("bob", "desk").await;
    bob
}

async fn writes(bob: &mut Client, body: &str) {
    bob.send(format!("<message type='chat' to='alice@localhost/phone' id='{body}'><body>{body}</body></message>"))
        .await;
}

/// Returns a setup whose host has a certificate of `authority`, with a route to `peer`'s push service.
fn domain(prosody: &Prosody, authority: &Authority, (peer, tls): (&PushServer, &str)) -> Setup {
    let address = if tls == "direct" { peer.direct } else { peer.starttls };
    routed(
        prosody,
        authority,
        &format!("domain = '{}'\naddress = '{address}'\ntls = '{tls}'\nca = 'ca.pem'", peer.domain),
    )
}

fn routed(prosody: &Prosody, authority: &Authority, route: &str) -> Setup {
    shown(prosody, (authority, &authority.issue("localhost")), route)
}

/// The same with another certificate of the host.
fn shown(prosody: &Prosody, (authority, issued): (&Authority, &Issued), route: &str) -> Setup {
    let read = |file: &Path| std::fs::read_to_string(file).unwrap();
    quick(Setup::new(prosody.address))
        .file("certs/localhost.pem", read(&issued.certificate))
        .file("certs/localhost.key", read(&issued.key))
        .file("ca.pem", read(&authority.file()))
        .table(&format!("[[push.route]]\n{route}"))
}

/// Lets alice's phone go dark, and sends a message from bob.
async fn goes_dark(pushward: &Pushward, service: &str, bob: &mut Client) {
    let (alice, _) = phone(pushward, service).await;
    lost(pushward, alice, "alice@localhost/phone").await;
    writes(bob, "one").await;
}

fn component(prosody: &Prosody, from: &str) -> Setup {
    Setup::new(prosody.address).table(&format!(
        "[host.component]\naddress = '{}'\ndomain = 'pushward.localhost'\nsecret = 'shared'\nfrom = '{from}'",
        prosody.components
    ))
}

#[tokio::test]
async fn a_component_publishes_from_its_own_domain_and_receives_the_answer() {
    let prosody = Prosody::with_hosts("Component \"pushward.localhost\"\n  component_secret = \"shared\"").await;
    let mut service = PushService::connect(&prosody).await;
    let pushward = Pushward::start(quick(component(&prosody, "component"))).await;
    pushward.logged(&["push stream established"]).await;
    let mut bob = bob(&prosody).await;
    let (alice, _) = phone(&pushward, "push.localhost").await;
    lost(&pushward, alice, "alice@localhost/phone").await;
    writes(&mut bob, "one").await;
    let publish = service.publish(PATIENCE).await;
    assert_eq!((publish.from.as_str(), publish.count()), ("pushward.localhost", Some(1)));
    let outcome = pushward.logged(&["push notification outcome", "\"outcome\":\"accepted\""]).await;
    let outcome: Value = serde_json::from_str(&outcome).unwrap();
    pushward.logged(&["push notification sent", &format!("\"attempt\":{}", outcome["attempt"])]).await;
    // Pushward answers requests of any user to the component.
    bob.send("<iq type='get' id='version' to='pushward.localhost'><query xmlns='jabber:iq:version'/></iq>").await;
    let answer = Element::parse(&bob.expect("id='version'").await);
    assert_eq!(answer.attribute("type"), Some("error"), "{answer:?}");
    assert!(!answer.all("service-unavailable").is_empty(), "{answer:?}");
}

#[tokio::test]
async fn a_component_that_sends_as_the_host_gets_no_answer_and_publishes_once() {
    let hosts = "Component \"pushward.localhost\"\n  component_secret = \"shared\"\n  validate_from_addresses = false";
    let prosody = Prosody::with_hosts(hosts).await;
    let mut service = PushService::connect(&prosody).await;
    // If the answer were processed, it would count, and a refusal would cause another transport to be used.
    service.answer_with(Answer::Error("auth", "forbidden"));
    let pushward = Pushward::start(quick(component(&prosody, "host"))).await;
    pushward.logged(&["push stream established"]).await;
    let mut bob = bob(&prosody).await;
    let (alice, _) = phone(&pushward, "push.localhost").await;
    lost(&pushward, alice, "alice@localhost/phone").await;
    writes(&mut bob, "one").await;
    assert_eq!(service.publish(PATIENCE).await.from, "localhost");
    pushward.logged(&["push notification outcome", "\"outcome\":\"unknown\""]).await;
    service.assert_quiet(QUIET).await;
}

#[tokio::test]
async fn if_the_component_is_refused_the_session_transport_is_used_and_the_reason_logged_once() {
    let prosody = Prosody::with_hosts("Component \"pushward.localhost\"\n  component_secret = \"another\"").await;
    let mut service = PushService::connect(&prosody).await;
    let pushward = Pushward::start(quick(component(&prosody, "component"))).await;
    let mut bob = bob(&prosody).await;
    let (alice, _) = phone(&pushward, "push.localhost").await;
    lost(&pushward, alice, "alice@localhost/phone").await;
    for body in ["one", "two"] {
        writes(&mut bob, body).await;
        assert_eq!(service.publish(PATIENCE).await.from, "alice@localhost/phone");
    }
    pushward.logged(&["push transport skipped", "not-authorized", "[host.component]"]).await;
    let skips_logged = pushward.log().iter().filter(|line| line.contains("push transport skipped")).count();
    assert_eq!(skips_logged, 1);
}

#[tokio::test]
async fn a_service_that_refuses_full_jids_is_notified_by_the_next_transport_which_is_remembered() {
    let hosts = "Component \"pushward.localhost\"\n  component_secret = \"shared\"";
    let prosody = Prosody::with_hosts(hosts).await;
    let mut service = PushService::connect(&prosody).await;
    service.answer_with(Answer::DomainsOnly);
    let order = |setup: Setup| setup.set("push.transports", "['session', 'component']");
    let pushward = Pushward::start(order(quick(component(&prosody, "component")))).await;
    pushward.logged(&["push stream established"]).await;
    let mut bob = bob(&prosody).await;
    let (alice, _) = phone(&pushward, "push.localhost").await;
    lost(&pushward, alice, "alice@localhost/phone").await;
    writes(&mut bob, "one").await;
    let mut from = Vec::new();
    from.push(service.publish(PATIENCE).await.from);
    from.push(service.publish(PATIENCE).await.from);
    pushward.logged(&["push notification outcome", "\"outcome\":\"accepted\""]).await;
    writes(&mut bob, "two").await;
    from.push(service.publish(PATIENCE).await.from);
    assert_eq!(from, ["alice@localhost/phone", "pushward.localhost", "pushward.localhost"]);
    service.assert_quiet(QUIET).await;
}

#[tokio::test]
async fn nothing_is_sent_as_the_server_to_its_own_users() {
    let prosody = Prosody::with_hosts("Component \"pushward.localhost\"\n  component_secret = \"shared\"").await;
    let pushward = Pushward::start(quick(component(&prosody, "component"))).await;
    pushward.logged(&["push stream established"]).await;
    let mut bob = bob(&prosody).await;
    goes_dark(&pushward, "bob@localhost/desk", &mut bob).await;
    let publish = Element::parse(&bob.expect("<publish").await);
    assert_eq!(publish.attribute("from"), Some("alice@localhost/phone"), "{publish:?}");
}

#[tokio::test]
async fn a_push_service_that_is_not_allowed_cannot_be_registered() {
    let prosody = Prosody::start().await;
    let setup = Setup::new(prosody.address).set("push.services", "['push.example.net']");
    let pushward = Pushward::start(setup).await;
    let mut alice = pushward.connect().await;
    alice.authenticated("alice").await;
    fresh(&mut alice, "phone").await;
    let answer = alice_enables(&mut alice, "push.localhost").await;
    assert_eq!(answer.attribute("type"), Some("error"), "{answer:?}");
    assert_eq!(answer.child("error").unwrap().attribute("type"), Some("cancel"));
    assert!(answer.child("error").unwrap().child("not-allowed").is_some(), "{answer:?}");
    assert_eq!(alice_enables(&mut alice, "push.example.net").await.attribute("type"), Some("result"));
}
