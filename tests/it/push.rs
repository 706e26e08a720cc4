//! XEP-0357 on a server that has no push: which devices are notified, when, and with what content.

use std::time::Duration;

use crate::support::{
    Answer, Client, Element, PATIENCE, PUSH_OPTIONS as OPTIONS, Publish, Pushward, QUIET, Setup, StubOptions,
    StubUpstream, World, bodies, push_enable as enable, quick,
};

/// Sends an iq-set with `to` (an attribute, or nothing) and returns the answer.
async fn request(client: &mut Client, to: &str, payload: &str) -> Element {
    client.send(format!("<iq type='set' id='request'{to}>{payload}</iq>")).await;
    Element::parse(&client.expect("id='request'").await)
}

fn assert_summary(publish: &Publish) {
    assert_eq!(publish.form.attribute("type"), Some("submit"), "{}", publish.xml);
    assert_eq!(publish.form.field("FORM_TYPE"), ["urn:xmpp:push:summary"], "{}", publish.xml);
    let kind = publish.form.children.iter().find(|field| field.attribute("var") == Some("FORM_TYPE")).unwrap();
    assert_eq!(kind.attribute("type"), Some("hidden"), "{}", publish.xml);
}

#[tokio::test]
async fn the_account_has_push_among_its_features() {
    let world = World::with(quick).await;
    let (mut alice, _) = world.session("phone").await;
    for to in ["", " to='alice@localhost'"] {
        alice
            .send(format!("<iq type='get' id='info'{to}><query xmlns='http://jabber.org/protocol/disco#info'/></iq>"))
            .await;
        let info = Element::parse(&alice.expect("id='info'").await);
        assert_eq!(info.attribute("type"), Some("result"));
        let features: Vec<_> = info.all("feature").iter().filter_map(|feature| feature.attribute("var")).collect();
        assert_eq!(features.iter().filter(|feature| **feature == "urn:xmpp:push:0").count(), 1, "{features:?}");
        assert!(
            info.all("identity").iter().any(|identity| identity.attribute("category") == Some("account")),
            "{info:?}"
        );
    }
}

#[tokio::test]
async fn the_servers_own_features_stay_as_they_are() {
    let world = World::with(quick).await;
    let query = "<iq type='get' id='info' to='localhost'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>";
    let (mut alice, _) = world.session("phone").await;
    alice.send(query).await;
    let seen = alice.expect("id='info'").await;
    assert!(!seen.contains("urn:xmpp:push:0"), "clients cache this by its hash: {seen}");
}

#[tokio::test]
async fn enable_and_disable_are_answered_without_an_address_and_to_the_account() {
    let world = World::with(quick).await;
    let (mut alice, _) = world.session("phone").await;
    for to in ["", " to='alice@localhost'"] {
        for payload in [enable("n"), "<disable xmlns='urn:xmpp:push:0' jid='push.localhost' node='n'/>".into()] {
            let answer = request(&mut alice, to, &payload).await;
            assert_eq!(answer.attribute("type"), Some("result"), "{answer:?}");
            assert!(matches!(answer.attribute("from"), None | Some("alice@localhost")), "{answer:?}");
            assert!(matches!(answer.attribute("to"), None | Some("alice@localhost/phone")), "{answer:?}");
        }
    }
    // Presence, ping and four requests. Stanzas that the proxy answers itself count like all others.
    alice.acked_up_to(2 + 4).await;
}

#[tokio::test]
async fn enable_needs_a_jid_other_than_the_own_account() {
    let world = World::with(quick).await;
    let (mut alice, _) = world.session("phone").await;
    for payload in [
        "<enable xmlns='urn:xmpp:push:0' node='n'/>",
        "<enable xmlns='urn:xmpp:push:0' jid='' node='n'/>",
        "<enable xmlns='urn:xmpp:push:0' jid='alice@localhost' node='n'/>",
    ] {
        let answer = request(&mut alice, "", payload).await;
        assert_eq!(answer.attribute("type"), Some("error"), "{payload}: {answer:?}");
        let error = answer.child("error").unwrap();
        assert_eq!(error.attribute("type"), Some("modify"), "{payload}");
        assert!(error.child("bad-request").is_some(), "{payload}: {error:?}");
    }
}

#[tokio::test]
async fn a_burst_for_a_dark_device_is_one_push_with_the_count_and_the_clients_options() {
    // The delays are the defaults here: all five messages come within the first second.
    let mut world = World::with(|setup| setup).await;
    let (alice, _) = world.phone("phone", "n&amp;1").await;
    alice.reset();
    for number in 1..=5 {
        world.bob.say("alice@localhost", &format!("message {number}")).await;
    }
    let publish = world.service.publish(PATIENCE).await;
    assert_summary(&publish);
    assert_eq!(publish.node.as_deref(), Some("n&1"));
    assert_eq!((publish.count(), publish.body(), publish.sender()), (Some(5), Some("New Message!"), None));
    let options = publish.options.as_ref().expect("publish-options");
    let sent = Element::parse(&format!("<x xmlns='jabber:x:data' type='submit'>{OPTIONS}</x>"));
    assert_eq!(options, &sent, "the client's form, as it was");
    world.service.assert_quiet(QUIET).await;
}

#[tokio::test]
async fn the_form_of_the_options_has_type_submit_whatever_the_client_wrote() {
    let mut world = World::with(quick).await;
    let (mut alice, _) = world.session("phone").await;
    for kind in ["type='form'", ""] {
        let payload = enable("n").replace("type='submit'", kind);
        assert_eq!(request(&mut alice, "", &payload).await.attribute("type"), Some("result"));
    }
    alice.reset();
    world.bob.say("alice@localhost", "hello").await;
    let publish = world.service.publish(PATIENCE).await;
    assert_eq!(publish.options.unwrap().attribute("type"), Some("submit"));
}

#[tokio::test]
async fn without_a_form_there_are_no_options_and_without_a_node_there_is_none() {
    let mut world = World::with(quick).await;
    let (mut alice, _) = world.session("phone").await;
    let answer = request(&mut alice, "", "<enable xmlns='urn:xmpp:push:0' jid='push.localhost'/>").await;
    assert_eq!(answer.attribute("type"), Some("result"));
    alice.reset();
    world.bob.say("alice@localhost", "hello").await;
    let publish = world.service.publish(PATIENCE).await;
    assert_summary(&publish);
    assert_eq!((publish.node, publish.options), (None, None));
}

#[tokio::test]
async fn body_and_sender_are_published_only_where_configured() {
    let mut world =
        World::with(|setup| quick(setup).set("push.with_body", "true").set("push.with_sender", "true")).await;
    let (alice, _) = world.phone("phone", "n").await;
    alice.reset();
    world.bob.say("alice@localhost", "hello").await;
    let publish = world.service.publish(PATIENCE).await;
    assert_eq!(publish.body(), Some("hello"));
    assert!(publish.sender().is_some_and(|sender| sender.starts_with("bob@localhost")), "{}", publish.xml);
}

#[tokio::test]
async fn chat_states_do_not_push_and_do_not_count() {
    let mut world = World::with(quick).await;
    let (alice, _) = world.phone("phone", "n").await;
    alice.reset();
    let state = "<message type='chat' to='alice@localhost'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>";
    world.bob.send(state.repeat(3)).await;
    world.bob.roundtrip().await;
    world.service.assert_quiet(QUIET).await;
    world.bob.say("alice@localhost", "hello").await;
    assert_eq!(world.service.publish(PATIENCE).await.count(), Some(1));
}

#[tokio::test]
async fn a_client_that_falls_silent_is_pushed_for_while_its_connection_stays() {
    let mut world = World::with(|setup| quick(setup).set("stream_management.max_ack_delay", "'300ms'")).await;
    let (mut alice, _) = world.phone("phone", "n").await;
    alice.acks = false;
    world.bob.say("alice@localhost", "hello").await;
    assert_eq!(world.service.publish(PATIENCE).await.count(), Some(1));
    alice.messages(1).await;
    alice.acks = true;
    alice.ack().await;
    alice.roundtrip().await;
    world.service.assert_quiet(QUIET).await;
}

#[tokio::test]
async fn nothing_is_published_for_a_live_client_that_acks() {
    let mut world = World::with(|setup| quick(setup).set("stream_management.max_ack_delay", "'200ms'")).await;
    let (mut alice, _) = world.phone("phone", "n").await;
    for number in 1..=3 {
        world.bob.say("alice@localhost", &format!("message {number}")).await;
    }
    let ((), seen) = tokio::join!(world.service.assert_quiet(QUIET), alice.live_for(QUIET));
    assert_eq!(bodies(&seen), ["message 1", "message 2", "message 3"]);
}

#[tokio::test]
async fn the_push_services_answers_never_reach_the_client() {
    for answer in [Answer::Result, Answer::Error("cancel", "item-not-found")] {
        let mut world = World::with(quick).await;
        let (alice, enabled) = world.phone("phone", "n").await;
        world.service.answer_with(answer);
        let handled = alice.handled;
        alice.reset();
        world.bob.say("alice@localhost", "hello").await;
        world.service.publish(PATIENCE).await;
        let mut alice = world.resumed(&enabled, handled).await;
        assert_eq!(bodies(&alice.messages(1).await), ["hello"]);
        alice.live_for(Duration::from_millis(200)).await;
        assert!(!alice.transcript().contains("push.localhost"), "{}", alice.transcript());
    }
}

#[tokio::test]
async fn a_registration_survives_a_crash_of_the_proxy() {
    let mut world = World::with(quick).await;
    drop(world.phone("phone", "n").await);
    world.pushward.kill();
    world.pushward.start_again().await;
    let (alice, _) = world.session("phone").await;
    alice.reset();
    world.bob.say("alice@localhost", "hello").await;
    let publish = world.service.publish(PATIENCE).await;
    assert_eq!((publish.node.as_deref(), publish.body()), (Some("n"), Some("New Message!")));
    assert_eq!(publish.options.unwrap().field("secret"), ["s&cr<t"]);
}

#[tokio::test]
async fn a_registration_survives_a_restart_of_the_proxy() {
    let mut world = World::with(quick).await;
    let (_alice, _) = world.phone("phone", "n").await;
    world.pushward.restart().await;
    let (alice, _) = world.session("phone").await;
    alice.reset();
    world.bob.say("alice@localhost", "hello").await;
    assert_eq!(world.service.publish(PATIENCE).await.node.as_deref(), Some("n"));
}

#[tokio::test]
async fn disabling_a_node_or_all_of_them_stops_the_pushes() {
    for which in [" node='n'", ""] {
        let mut world = World::with(quick).await;
        let (mut alice, _) = world.phone("phone", "n").await;
        let payload = format!("<disable xmlns='urn:xmpp:push:0' jid='push.localhost'{which}/>");
        assert_eq!(request(&mut alice, "", &payload).await.attribute("type"), Some("result"));
        alice.reset();
        world.bob.say("alice@localhost", "hello").await;
        world.service.assert_quiet(QUIET).await;
    }
}

#[tokio::test]
async fn a_service_that_keeps_refusing_loses_the_registration() {
    let mut world = World::with(|setup| quick(setup).set("push.max_errors", "2")).await;
    let (alice, _) = world.phone("phone", "n").await;
    world.service.answer_with(Answer::Error("cancel", "item-not-found"));
    alice.reset();
    for number in 1..=2 {
        world.bob.say("alice@localhost", &format!("refused {number}")).await;
        world.answered().await;
    }
    world.service.answer_with(Answer::Result);
    world.bob.say("alice@localhost", "unheard").await;
    world.service.assert_quiet(QUIET).await;
}

#[tokio::test]
async fn a_success_resets_the_error_count() {
    let mut world = World::with(|setup| quick(setup).set("push.max_errors", "2")).await;
    let (alice, _) = world.phone("phone", "n").await;
    alice.reset();
    let refused = Answer::Error("cancel", "item-not-found");
    for (number, answer) in [refused, Answer::Result, refused, Answer::Result].into_iter().enumerate() {
        world.service.answer_with(answer);
        world.bob.say("alice@localhost", &format!("message {number}")).await;
        world.answered().await;
    }
}

#[tokio::test]
async fn beyond_max_devices_the_least_recently_seen_goes() {
    let mut world = World::with(|setup| quick(setup).set("push.max_devices", "1")).await;
    let (old, _) = world.phone("old", "old").await;
    let (new, _) = world.phone("new", "new").await;
    old.reset();
    new.reset();
    world.bob.say("alice@localhost", "hello").await;
    assert_eq!(world.service.publish(PATIENCE).await.node.as_deref(), Some("new"));
    world.service.assert_quiet(QUIET).await;
}

#[tokio::test]
async fn a_registration_of_the_same_node_replaces_the_one_before() {
    let mut world = World::with(quick).await;
    let (mut alice, _) = world.phone("phone", "n").await;
    let payload = enable("n").replace("s&amp;cr&lt;t", "newer");
    assert_eq!(request(&mut alice, "", &payload).await.attribute("type"), Some("result"));
    alice.reset();
    world.bob.say("alice@localhost", "hello").await;
    let publish = world.service.publish(PATIENCE).await;
    assert_eq!(publish.options.unwrap().field("secret"), ["newer"]);
    world.service.assert_quiet(QUIET).await;
}

#[tokio::test]
async fn a_later_message_pushes_again_after_min_interval_with_the_whole_count() {
    let mut world = World::with(|setup| quick(setup).set("push.min_interval", "'1s'")).await;
    let (alice, _) = world.phone("phone", "n").await;
    alice.reset();
    world.bob.say("alice@localhost", "first").await;
    let first = world.service.publish(PATIENCE).await;
    world.bob.say("alice@localhost", "second").await;
    world.bob.say("alice@localhost", "third").await;
    let second = world.service.publish(PATIENCE).await;
    assert_eq!((first.count(), second.count()), (Some(1), Some(3)));
    // The first publish may have been slow in transit. Only the wait before the second is certain.
    let apart = second.arrived.duration_since(first.arrived);
    assert!(apart >= Duration::from_millis(300), "pushed again after {apart:?}");
}

#[tokio::test]
async fn a_stanza_that_waited_has_a_delay_stamp() {
    let mut world = World::with(quick).await;
    let (alice, enabled) = world.phone("phone", "n").await;
    let handled = alice.handled;
    alice.reset();
    world.bob.say("alice@localhost", "hello").await;
    // A message that was pushed for has been waiting.
    world.service.publish(PATIENCE).await;
    let mut alice = world.resumed(&enabled, handled).await;
    let waited = Element::parse(&alice.expect("<message").await);
    let delay = waited.child("delay").unwrap_or_else(|| panic!("no delay in {waited:?}"));
    assert_eq!(delay.ns, "urn:xmpp:delay");
    assert!(delay.attribute("stamp").is_some_and(|stamp| stamp.ends_with('Z')), "{delay:?}");
}

#[tokio::test]
async fn a_client_that_has_resumed_is_not_pushed_for() {
    let mut world = World::with(quick).await;
    let (alice, enabled) = world.phone("phone", "n").await;
    let handled = alice.handled;
    alice.reset();
    world.bob.say("alice@localhost", "dark").await;
    world.service.publish(PATIENCE).await;
    let mut alice = world.resumed(&enabled, handled).await;
    world.bob.say("alice@localhost", "live").await;
    let ((), seen) = tokio::join!(world.service.assert_quiet(QUIET), alice.live_for(QUIET));
    assert_eq!(bodies(&seen), ["dark", "live"]);
}

#[tokio::test]
async fn a_registration_is_not_forwarded_to_the_server() {
    let mut stub = StubUpstream::start(StubOptions::default()).await;
    let pushward = Pushward::start(Setup::new(stub.address)).await;
    let mut alice = pushward.login("alice", "phone").await;
    let mut server = stub.session().await;
    for to in ["", " to='alice@localhost'"] {
        let answer = request(&mut alice, to, &enable("n")).await;
        assert_eq!(answer.attribute("type"), Some("result"), "{answer:?}");
    }
    alice.roundtrip().await;
    assert_eq!(server.rest(), [""; 0]);
}

#[tokio::test]
async fn if_the_server_refuses_disco_of_the_account_the_proxy_answers() {
    let mut stub = StubUpstream::start(StubOptions::default()).await;
    let pushward = Pushward::start(Setup::new(stub.address)).await;
    let mut alice = pushward.login("alice", "phone").await;
    let mut server = stub.session().await;
    let query = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
    alice.send(format!("<iq type='get' id='info' to='alice@localhost'>{query}</iq>")).await;
    server.expect("disco#info").await;
    server.send(
        "<iq type='error' id='info' from='alice@localhost'><error type='cancel'>\
         <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>",
    );
    let info = Element::parse(&alice.expect("id='info'").await);
    assert_eq!(info.attribute("type"), Some("result"), "{info:?}");
    assert!(info.all("feature").iter().any(|feature| feature.attribute("var") == Some("urn:xmpp:push:0")), "{info:?}");
    assert!(!info.all("identity").is_empty(), "{info:?}");
}
