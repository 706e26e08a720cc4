//! jabberd2, a server without stream management, carbons and push, which addresses every message to a full JID.

use crate::support::{
    Authority, Client, Element, Jabberd2, PATIENCE, PushService, Pushward, Setup, bodies, enable_push, fresh, lost,
    numbered, request, resumed,
};

/// Returns the addresses in alice's roster.
async fn contacts(alice: &mut Client, id: &str) -> Vec<String> {
    alice.send(format!("<iq type='get' id='{id}'><query xmlns='jabber:iq:roster'/></iq>")).await;
    let roster = Element::parse(&alice.answer(&format!("id='{id}'")).await);
    assert_eq!(roster.attribute("type"), Some("result"), "{roster:?}");
    roster.all("item").iter().filter_map(|item| item.attribute("jid")).map(str::to_owned).collect()
}

/// bob connects to the server without proxy and TLS.
async fn a_dark_phone_is_notified_and_finds_everything(server: Jabberd2, setup: Setup) {
    let setup = setup.set("push.batch_delay", "'50ms'").set("push.with_sender", "true");
    let mut service = PushService::at(server.components).await;
    let pushward = Pushward::start(setup).await;
    let mut bob = Client::plain(server.address).await;
    bob.login("bob", "desk").await;
    bob.available().await;

    let mut alice = pushward.login("alice", "phone").await;
    let enabled = alice.enable().await;
    alice.available().await;
    let item = "<query xmlns='jabber:iq:roster'><item jid='bob@localhost' name='Bob'/></query>";
    assert_eq!(request(&mut alice, "roster-set", item).await.attribute("type"), Some("result"));
    assert_eq!(contacts(&mut alice, "roster-1").await, ["bob@localhost"]);
    enable_push(&mut alice, "n").await;
    alice.say("bob@localhost", "to bob").await;
    assert_eq!(bodies(&bob.messages(1).await), ["to bob"]);
    bob.say("alice@localhost", "live").await;
    let live = alice.messages(1).await;
    assert_eq!(bodies(&live), ["live"]);
    assert_eq!(Element::parse(&live[0]).attribute("to"), Some("alice@localhost/phone"), "{live:?}");

    let handled = alice.handled;
    lost(&pushward, alice, "alice@localhost/phone").await;
    let dark = numbered("dark", 1..=3);
    for body in &dark {
        bob.say("alice@localhost", body).await;
    }
    let publish = service.publish(PATIENCE).await;
    assert_eq!((publish.node.as_deref(), publish.sender()), (Some("n"), Some("bob@localhost/desk")));
    let (mut alice, _) = resumed(&pushward, &enabled, handled).await;
    let waited = alice.messages(3).await;
    assert_eq!(bodies(&waited), dark);
    assert!(waited.iter().all(|message| Element::parse(message).child("delay").is_some()), "{waited:?}");
    assert_eq!(contacts(&mut alice, "roster-2").await, ["bob@localhost"]);
    let large = "0123456789 é".repeat(8 * 1024);
    for body in [large.as_str(), "last"] {
        bob.say("alice@localhost", body).await;
    }
    assert!(bodies(&alice.messages(2).await) == [&large, "last"], "a large message changed on its way");
}

#[tokio::test]
async fn a_dark_phone_is_notified_on_jabberd2() {
    let server = Jabberd2::start().await;
    let setup = Setup::new(server.address);
    a_dark_phone_is_notified_and_finds_everything(server, setup).await;
}

#[tokio::test]
async fn a_dark_phone_is_notified_over_starttls_and_direct_tls_to_jabberd2() {
    for tls in ["starttls", "direct"] {
        let authority = Authority::new("ours");
        let server = Jabberd2::over_tls(&authority.issue("localhost")).await;
        let address = if tls == "direct" { server.direct } else { server.address };
        let setup = Setup::new(address).set("host.upstream_tls", &format!("'{tls}'"));
        let setup = setup.set("host.upstream_ca", &authority.toml());
        a_dark_phone_is_notified_and_finds_everything(server, setup).await;
    }
}

/// jabberd2's `<ack/>` is of a draft of XEP-0198, and its `<unbind/>` would end a session that the proxy holds.
#[tokio::test]
async fn clients_are_offered_stream_management_instead_of_jabberd2s_own_features() {
    let server = Jabberd2::start().await;
    let pushward = Pushward::start(Setup::new(server.address)).await;
    let offered = server.features().await;
    let features = Element::parse(&pushward.connect().await.authenticated("alice").await);
    // The prefix of `<ack/>` is declared in the header.
    for (own, tag) in [("ack", "<ack:ack/>"), ("unbind", "<unbind ")] {
        assert!(offered.contains(tag), "jabberd2 does not offer <{own}/>: {offered}");
        assert!(features.child(own).is_none(), "<{own}/> is passed on: {features:?}");
    }
    for passed in ["bind", "ver"] {
        assert!(features.child(passed).is_some(), "<{passed}/> is not passed on: {features:?}");
    }
    assert_eq!(features.child("sm").map(|sm| sm.ns.as_str()), Some("urn:xmpp:sm:3"), "{features:?}");
}

/// jabberd2 addresses everything for the account to a full JID, and this client never has the same one again.
#[tokio::test]
async fn stanzas_that_jabberd2_sent_to_an_ended_session_go_to_the_accounts_next_client() {
    let server = Jabberd2::start().await;
    let setup = Setup::new(server.address).set("stream_management.orphan_grace", "'200ms'");
    let pushward = Pushward::start(setup.set("stream_management.resume_timeout", "'1s'")).await;
    let mut bob = Client::plain(server.address).await;
    bob.login("bob", "desk").await;
    let mut alice = pushward.login("alice", "phone-1").await;
    alice.enable().await;
    alice.available().await;
    lost(&pushward, alice, "alice@localhost/phone-1").await;
    bob.say("alice@localhost", "for whoever comes").await;
    server.ended("alice@localhost/phone-1").await;
    bob.say("alice@localhost", "kept by the server").await;
    // Nothing identifies this as the same device.
    let mut alice = pushward.authenticated("alice").await;
    fresh(&mut alice, "phone-2").await;
    let all = ["for whoever comes", "kept by the server"].map(str::to_owned);
    let mut seen = alice.bodies_until(&all).await;
    seen.sort();
    assert_eq!(seen, all);
}
