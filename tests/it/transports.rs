//! How notifications travel: as a component, as the domain itself, through the user's session; and which is tried when.

use std::collections::HashSet;
use std::time::Duration;

use crate::support::{
    Answer, Authority, Client, Element, Enabled, NameServer, PATIENCE, Prosody, PushServer, PushServerOptions,
    PushService, Pushward, Setup, bodies, free_address, fresh, lost,
};

/// How long nothing must happen where nothing is to happen.
const QUIET: Duration = Duration::from_millis(700);

/// Delays short enough for tests.
fn quick(setup: Setup) -> Setup {
    setup.set("push.batch_delay", "'50ms'").set("push.min_interval", "'50ms'")
}

/// alice's phone, available and registered at `service`, behind a proxy.
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

/// bob, at the server itself.
async fn bob(prosody: &Prosody) -> Client {
    let mut bob = Client::plain(prosody.address).await;
    bob.login("bob", "desk").await;
    bob
}

async fn writes(bob: &mut Client, body: &str) {
    bob.send(format!("<message type='chat' to='alice@localhost/phone' id='{body}'><body>{body}</body></message>"))
        .await;
}

fn component(prosody: &Prosody, from: &str) -> Setup {
    Setup::new(prosody.address).table(&format!(
        "[host.component]\naddress = '{}'\ndomain = 'pushward.localhost'\nsecret = 'shared'\nfrom = '{from}'",
        prosody.components
    ))
}

#[tokio::test]
async fn a_component_publishes_from_its_own_domain_and_hears_the_answer() {
    let prosody = Prosody::with_hosts("Component \"pushward.localhost\"\n  component_secret = \"shared\"").await;
    let mut service = PushService::connect(&prosody).await;
    let pushward = Pushward::start(quick(component(&prosody, "component"))).await;
    pushward.logged(&["stream is up"]).await;
    let mut bob = bob(&prosody).await;
    let (alice, _) = phone(&pushward, "push.localhost").await;
    lost(&pushward, alice, "alice@localhost/phone").await;
    writes(&mut bob, "one").await;
    let publish = service.publish(PATIENCE).await;
    assert_eq!((publish.from.as_str(), publish.count()), ("pushward.localhost", Some(1)));
    pushward.logged(&["publish outcome", "Accepted"]).await;
    // What anybody asks of the component is answered.
    bob.send("<iq type='get' id='version' to='pushward.localhost'><query xmlns='jabber:iq:version'/></iq>").await;
    let answer = Element::parse(&bob.expect("id='version'").await);
    assert_eq!(answer.attribute("type"), Some("error"), "{answer:?}");
    assert!(!answer.all("service-unavailable").is_empty(), "{answer:?}");
}

#[tokio::test]
async fn a_component_that_speaks_as_the_host_is_blind_and_publishes_once() {
    let hosts = "Component \"pushward.localhost\"\n  component_secret = \"shared\"\n  validate_from_addresses = false";
    let prosody = Prosody::with_hosts(hosts).await;
    let mut service = PushService::connect(&prosody).await;
    // An answer that is seen would count; and a refusal would bring another transport in.
    service.answer_with(Answer::Error("auth", "forbidden"));
    let pushward = Pushward::start(quick(component(&prosody, "host"))).await;
    pushward.logged(&["stream is up"]).await;
    let mut bob = bob(&prosody).await;
    let (alice, _) = phone(&pushward, "push.localhost").await;
    lost(&pushward, alice, "alice@localhost/phone").await;
    writes(&mut bob, "one").await;
    assert_eq!(service.publish(PATIENCE).await.from, "localhost");
    pushward.logged(&["publish outcome", "Unknown"]).await;
    service.assert_quiet(QUIET).await;
}

#[tokio::test]
async fn a_component_that_is_refused_gives_way_to_the_session_and_says_why_once() {
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
    pushward.logged(&["transport passed over", "not-authorized", "[host.component]"]).await;
    let told = pushward.log().iter().filter(|line| line.contains("transport passed over")).count();
    assert_eq!(told, 1);
}

#[tokio::test]
async fn a_service_that_refuses_full_jids_is_told_by_the_next_transport_which_is_remembered() {
    let hosts = "Component \"pushward.localhost\"\n  component_secret = \"shared\"";
    let prosody = Prosody::with_hosts(hosts).await;
    let mut service = PushService::connect(&prosody).await;
    service.answer_with(Answer::DomainsOnly);
    let order = |setup: Setup| setup.set("push.transports", "['session', 'component']");
    let pushward = Pushward::start(order(quick(component(&prosody, "component")))).await;
    pushward.logged(&["stream is up"]).await;
    let mut bob = bob(&prosody).await;
    let (alice, _) = phone(&pushward, "push.localhost").await;
    lost(&pushward, alice, "alice@localhost/phone").await;
    writes(&mut bob, "one").await;
    let mut from = Vec::new();
    from.push(service.publish(PATIENCE).await.from);
    from.push(service.publish(PATIENCE).await.from);
    pushward.logged(&["publish outcome", "Accepted"]).await;
    writes(&mut bob, "two").await;
    from.push(service.publish(PATIENCE).await.from);
    assert_eq!(from, ["alice@localhost/phone", "pushward.localhost", "pushward.localhost"]);
    service.assert_quiet(QUIET).await;
}

#[tokio::test]
async fn nothing_is_sent_in_the_servers_name_to_its_own_users() {
    let prosody = Prosody::with_hosts("Component \"pushward.localhost\"\n  component_secret = \"shared\"").await;
    let pushward = Pushward::start(quick(component(&prosody, "component"))).await;
    pushward.logged(&["stream is up"]).await;
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

// As the domain itself

/// A proxy whose host has a certificate of `authority`, with a route to `peer`'s push service.
fn domain(prosody: &Prosody, authority: &Authority, (peer, tls): (&PushServer, &str)) -> Setup {
    let address = if tls == "direct" { peer.direct } else { peer.starttls };
    routed(
        prosody,
        authority,
        &format!("domain = '{}'\naddress = '{address}'\ntls = '{tls}'\nca = 'ca.pem'", peer.domain),
    )
}

fn routed(prosody: &Prosody, authority: &Authority, route: &str) -> Setup {
    let issued = authority.issue("localhost");
    let read = |file| std::fs::read_to_string(file).unwrap();
    quick(Setup::new(prosody.address))
        .file("certs/localhost.pem", read(issued.certificate))
        .file("certs/localhost.key", read(issued.key))
        .file("ca.pem", read(authority.file()))
        .table(&format!("[[push.route]]\n{route}"))
}

/// alice's phone goes away, and bob writes.
async fn goes_dark(pushward: &Pushward, service: &str, bob: &mut Client) {
    let (alice, _) = phone(pushward, service).await;
    lost(pushward, alice, "alice@localhost/phone").await;
    writes(bob, "one").await;
}

#[tokio::test]
async fn the_domain_publishes_over_a_stream_of_its_own_on_the_first_try_and_hears_the_answer() {
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
        pushward.logged(&["publish outcome", "Accepted"]).await;
        writes(&mut bob, "two").await;
        assert_eq!(service.publish(PATIENCE).await.count(), Some(2));
        assert_eq!(peer.streams(), 1, "{tls}");
    }
}

#[tokio::test]
async fn without_bidi_the_domain_publishes_blindly_and_once() {
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
        pushward.logged(&["publish outcome", "Unknown"]).await;
        service.assert_quiet(QUIET).await;
    }
}

#[tokio::test]
async fn what_the_push_service_says_to_users_over_our_stream_reaches_them() {
    let authority = Authority::new("an authority");
    let (prosody, peer) =
        (Prosody::start().await, PushServer::start(PushServerOptions::new("push.test", &authority)).await);
    let mut service = peer.push_service().await;
    let pushward = Pushward::start(domain(&prosody, &authority, (&peer, "direct"))).await;
    let mut bob = bob(&prosody).await;
    let (alice, phone) = phone(&pushward, "push.test").await;
    let mut desk = pushward.login("alice", "desk").await;
    desk.enable().await;
    desk.available().await;
    lost(&pushward, alice, "alice@localhost/phone").await;
    writes(&mut bob, "one").await;
    service.publish(PATIENCE).await;
    pushward.logged(&["publish outcome", "Accepted"]).await;
    let message = |to: &str, body: &str| {
        format!("<message type='chat' from='bot@push.test/x' to='{to}' id='{body}'><body>{body}</body></message>")
    };
    service.send(message("alice@localhost/desk", "to the desk"));
    service.send(message("alice@localhost", "to all"));
    assert_eq!(bodies(&desk.messages(2).await), ["to the desk", "to all"]);
    service.send(message("alice@localhost/phone", "to the phone"));
    // What was said to a phone that is away waits for it, and notifies.
    assert_eq!(service.publish(PATIENCE).await.count(), Some(2));
    let mut alice = pushward.authenticated("alice").await;
    let answer = alice.resume(&phone.id, 0).await;
    assert_eq!(answer.name, "resumed", "{answer:?}");
    let all = ["one", "to all", "to the phone"].map(str::to_owned);
    assert_eq!(alice.bodies_until(&all).await, all);
    // The rest is for the server, which is not here.
    for to in ["localhost", "nobody@localhost", "alice@localhost"] {
        service
            .send(format!("<iq type='get' id='q' from='push.test' to='{to}'><query xmlns='jabber:iq:version'/></iq>"));
        let answer = service.hears().await;
        assert_eq!((answer.attribute("type"), answer.attribute("from")), (Some("error"), Some(to)), "{answer:?}");
        assert!(!answer.all("service-unavailable").is_empty(), "{answer:?}");
    }
}

#[tokio::test]
async fn a_push_service_that_cannot_prove_itself_gets_nothing() {
    let authority = Authority::new("an authority");
    let stranger = Authority::new("a stranger");
    for (identity, why) in [
        (authority.issue("other.test"), "not valid for name"),
        (authority.issue_for("push.test", 2020..=2021), "expired"),
        (stranger.issue("push.test"), "UnknownIssuer"),
    ] {
        let prosody = Prosody::start().await;
        let peer =
            PushServer::start(PushServerOptions { identity, ..PushServerOptions::new("push.test", &authority) }).await;
        let mut service = peer.push_service().await;
        let setup = domain(&prosody, &authority, (&peer, "starttls")).set("push.transports", "['s2s']");
        let pushward = Pushward::start(setup).await;
        let mut bob = bob(&prosody).await;
        goes_dark(&pushward, "push.test", &mut bob).await;
        pushward.logged(&["transport passed over", "s2s", why]).await;
        pushward.logged(&["publish outcome", "NotSent"]).await;
        service.assert_quiet(QUIET).await;
    }
}

#[tokio::test]
async fn a_push_service_that_does_not_take_the_certificate_is_told_with_the_remedy() {
    let authority = Authority::new("an authority");
    let prosody = Prosody::start().await;
    let stranger = Authority::new("a stranger");
    let trusts = stranger.file();
    let peer = PushServer::start(PushServerOptions { trusts, ..PushServerOptions::new("push.test", &authority) }).await;
    let setup = domain(&prosody, &authority, (&peer, "direct")).set("push.transports", "['s2s']");
    let pushward = Pushward::start(setup).await;
    let mut bob = bob(&prosody).await;
    goes_dark(&pushward, "push.test", &mut bob).await;
    pushward.logged(&["transport passed over", "certificate", "for servers only"]).await;
}

#[tokio::test]
async fn a_push_service_out_of_reach_is_told_through_the_session_which_is_remembered() {
    let authority = Authority::new("an authority");
    let prosody = Prosody::start().await;
    let mut service = PushService::connect(&prosody).await;
    let route = format!("domain = 'push.localhost'\naddress = '{}'\nca = 'ca.pem'", free_address());
    let pushward = Pushward::start(routed(&prosody, &authority, &route)).await;
    let mut bob = bob(&prosody).await;
    goes_dark(&pushward, "push.localhost", &mut bob).await;
    assert_eq!(service.publish(PATIENCE).await.from, "alice@localhost/phone");
    pushward.logged(&["transport passed over", "Connection refused"]).await;
    writes(&mut bob, "two").await;
    assert_eq!(service.publish(PATIENCE).await.from, "alice@localhost/phone");
    pushward.logged(&["transport chosen", "session"]).await;
}

#[tokio::test]
async fn a_service_that_refuses_full_jids_is_told_by_the_domain_which_is_remembered() {
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
    pushward.logged(&["publish outcome", "Accepted"]).await;
    writes(&mut bob, "two").await;
    assert_eq!(service.publish(PATIENCE).await.from, "localhost");
    refusing.assert_quiet(QUIET).await;
}

#[tokio::test]
async fn a_push_service_that_comes_back_is_told_then() {
    let authority = Authority::new("an authority");
    let (prosody, mut peer) =
        (Prosody::start().await, PushServer::start(PushServerOptions::new("push.test", &authority)).await);
    peer.kill();
    let setup = domain(&prosody, &authority, (&peer, "starttls")).set("push.transports", "['s2s']");
    let pushward = Pushward::start(setup).await;
    let mut bob = bob(&prosody).await;
    goes_dark(&pushward, "push.test", &mut bob).await;
    pushward.logged(&["publish outcome", "NotSent"]).await;
    peer.start_again().await;
    let mut service = peer.push_service().await;
    assert_eq!(service.publish(2 * PATIENCE).await.count(), Some(1));
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
    pushward.logged(&["wake push sent", "s2s", "Restart"]).await;
}

#[tokio::test]
async fn a_hundred_registrations_of_one_service_share_one_stream() {
    let authority = Authority::new("an authority");
    let (prosody, peer) =
        (Prosody::start().await, PushServer::start(PushServerOptions::new("push.test", &authority)).await);
    let mut service = peer.push_service().await;
    let setup = domain(&prosody, &authority, (&peer, "direct")).set("push.max_devices", "100");
    let pushward = Pushward::start(setup).await;
    let mut bob = bob(&prosody).await;
    let (mut alice, _) = phone(&pushward, "push.test").await;
    for node in 1..100 {
        let payload = format!("<enable xmlns='urn:xmpp:push:0' jid='push.test' node='{node}'/>");
        crate::support::request(&mut alice, &format!("enable-{node}"), &payload).await;
    }
    lost(&pushward, alice, "alice@localhost/phone").await;
    writes(&mut bob, "one").await;
    let mut nodes = HashSet::new();
    while nodes.len() < 100 {
        nodes.insert(service.publish(PATIENCE).await.node);
    }
    assert_eq!(peer.streams(), 1);
}

#[tokio::test]
async fn what_is_not_on_the_public_internet_is_not_connected_unless_routed() {
    let authority = Authority::new("an authority");
    let (prosody, peer) =
        (Prosody::start().await, PushServer::start(PushServerOptions::new("push.test", &authority)).await);
    let dns = NameServer::start(peer.starttls).await;
    let elsewhere = "domain = 'other.test'\naddress = '127.0.0.1:1'\nca = 'ca.pem'";
    let setup = routed(&prosody, &authority, elsewhere).set("dns.servers", &format!("['{}']", dns.address));
    let pushward = Pushward::start(setup.set("push.transports", "['s2s']")).await;
    let mut bob = bob(&prosody).await;
    goes_dark(&pushward, "push.test", &mut bob).await;
    pushward.logged(&["transport passed over", "xmpp.test has no address on the public internet (127.0.0.1)"]).await;
    let asked = dns.asked();
    for name in ["_xmpps-server._tcp.push.test", "_xmpp-server._tcp.push.test", "xmpp.test"] {
        assert!(asked.iter().any(|asked| asked == name), "{name} in {asked:?}");
    }
    assert_eq!(peer.streams(), 0);
}
