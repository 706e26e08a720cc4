//! Push rules on real servers: when a device is notified and when it is not, how long its registration lives, and what
//! the answers of a push service change.

use std::time::{Duration, Instant, SystemTime};

use crate::support::{
    Answer, Client, PATIENCE, Publish, QUIET, Setup, World, bodies, enable_push, eventually, lost, quick, request,
};

const PHONE: &str = "alice@localhost/phone";

/// Returns a call to alice, or the message that ends it.
fn call(sid: &str, what: &str) -> String {
    let media = "<description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'/>";
    let inside = if what == "propose" { media } else { "" };
    format!(
        "<message type='chat' to='alice@localhost' id='{sid}-{what}'>\
         <{what} xmlns='urn:xmpp:jingle-message:0' id='{sid}'>{inside}</{what}></message>"
    )
}

/// Sends a stanza of bob's client, and waits until the server has it.
async fn sends(client: &mut Client, stanza: impl AsRef<[u8]>) {
    client.send(stanza).await;
    client.roundtrip().await;
}

/// Enables carbons: copies of what the account's other clients send and receive (XEP-0280).
async fn carbons(client: &mut Client) {
    let answer = request(client, "carbons", "<enable xmlns='urn:xmpp:carbons:2'/>").await;
    assert_eq!(answer.attribute("type"), Some("result"), "{answer:?}");
}

async fn disable(client: &mut Client, node: &str) {
    let payload = format!("<disable xmlns='urn:xmpp:push:0' jid='push.localhost'{node}/>");
    let answer = request(client, "push-disable", &payload).await;
    assert_eq!(answer.attribute("type"), Some("result"), "{answer:?}");
}

/// Returns the nodes of the next publishes, sorted by name.
async fn nodes(world: &mut World, count: usize) -> Vec<String> {
    let mut nodes = Vec::new();
    while nodes.len() < count {
        nodes.push(world.service.publish(PATIENCE).await.node.unwrap());
    }
    nodes.sort();
    nodes
}

fn was_pushed(publish: &Publish, count: u32) {
    assert_eq!((publish.count(), publish.body()), (Some(count), Some("New Message!")), "{}", publish.xml);
}

// The time of notifications

#[tokio::test]
async fn a_call_waits_neither_for_the_batch_nor_for_the_interval() {
    let mut world = World::with(|setup| setup.set("push.batch_delay", "'60s'").set("push.min_interval", "'60s'")).await;
    let (phone, _) = world.phone("phone", "n").await;
    lost(&world.pushward, phone, PHONE).await;
    world.bob.say("alice@localhost", "hello").await;
    world.service.assert_quiet(QUIET).await;
    sends(&mut world.bob, call("first", "propose")).await;
    was_pushed(&world.service.publish(PATIENCE).await, 2);
    sends(&mut world.bob, call("second", "propose")).await;
    was_pushed(&world.service.publish(PATIENCE).await, 3);
    sends(&mut world.bob, call("second", "propose")).await;
    world.service.assert_quiet(QUIET).await;
}

#[tokio::test]
async fn a_message_received_with_a_call_is_pushed_when_the_interval_is_over() {
    let mut world = World::with(|setup| quick(setup).set("push.min_interval", "'2s'")).await;
    let (phone, _) = world.phone("phone", "n").await;
    lost(&world.pushward, phone, PHONE).await;
    let began = Instant::now();
    world.bob.say("alice@localhost", "first").await;
    was_pushed(&world.service.publish(PATIENCE).await, 1);
    world.bob.say("alice@localhost", "second").await;
    sends(&mut world.bob, call("sid", "propose")).await;
    let mut last = world.service.publish(PATIENCE).await;
    while began.elapsed() < Duration::from_secs(2) {
        // The call. On a machine that is slow enough it comes last.
        last = world.service.publish(PATIENCE).await;
    }
    was_pushed(&last, 3);
    world.service.assert_quiet(QUIET).await;
}

/// The tablet acknowledges, and receives the call on its stream.
#[tokio::test]
async fn a_call_that_a_live_phone_leaves_unread_for_five_seconds_is_pushed_to_it() {
    let mut world = World::with(quick).await;
    let (mut phone, _) = world.phone("phone", "silent").await;
    let (mut tablet, _) = world.phone("tablet", "reads").await;
    phone.acks = false;
    let began = Instant::now();
    world.bob.say("alice@localhost", "hello").await;
    sends(&mut world.bob, call("sid", "propose")).await;
    let pushed = async {
        let publish = world.service.publish(PATIENCE).await;
        world.service.assert_quiet(QUIET).await;
        publish
    };
    let (publish, seen) = tokio::join!(pushed, tablet.live_for(Duration::from_millis(5_500)));
    assert_eq!(publish.node.as_deref(), Some("silent"));
    was_pushed(&publish, 1);
    assert!(publish.arrived - began >= Duration::from_secs(5), "{:?}", publish.arrived - began);
    assert_eq!(seen.iter().filter(|stanza| stanza.contains("<propose")).count(), 1, "{seen:?}");
    assert_eq!(bodies(&phone.messages(2).await), ["hello"], "its connection stays");
}

#[tokio::test]
async fn a_conversation_read_on_a_desktop_behind_the_proxy_is_not_pushed() {
    let world = World::with(until_read).await;
    let (desk, _) = world.session("desk").await;
    assert_what_was_read_is_not_pushed(world, desk).await;
}

#[tokio::test]
async fn a_conversation_read_on_a_desktop_connected_to_the_server_is_not_pushed() {
    let world = World::with(until_read).await;
    let desk = world.straight("alice", "desk").await;
    assert_what_was_read_is_not_pushed(world, desk).await;
}

/// Sets a batch delay that leaves the desk time to read.
fn until_read(setup: Setup) -> Setup {
    setup.set("push.batch_delay", "'3s'").set("push.with_sender", "true")
}

async fn assert_what_was_read_is_not_pushed(mut world: World, mut desk: Client) {
    let mut carol = world.straight("carol", "desk").await;
    let (mut phone, _) = world.phone("phone", "n").await;
    carbons(&mut phone).await;
    lost(&world.pushward, phone, PHONE).await;
    world.bob.say("alice@localhost", "read").await;
    desk.expect("<body>read</body>").await;
    let displayed = "<displayed xmlns='urn:xmpp:chat-markers:0' id='read'/>";
    sends(&mut desk, format!("<message type='chat' to='bob@localhost/desk' id='d'>{displayed}</message>")).await;
    carol.say("alice@localhost", "unread").await;
    let publish = world.service.publish(PATIENCE).await;
    was_pushed(&publish, 1);
    assert_eq!(publish.sender(), Some("carol@localhost/desk"));
    world.service.assert_quiet(QUIET).await;
}

#[tokio::test]
async fn while_the_desktop_is_in_use_the_phone_is_pushed_only_for_calls() {
    let grace = Duration::from_millis(1_500);
    let mut world = World::with(|setup| quick(setup).set("push.grace", "'1500ms'")).await;
    let mut desk = world.straight("alice", "desk").await;
    let (mut phone, _) = world.phone("phone", "n").await;
    carbons(&mut phone).await;
    lost(&world.pushward, phone, PHONE).await;
    let typed = Instant::now();
    desk.say("bob@localhost/desk", "typed at the desk").await;
    world.bob.say("alice@localhost", "answer").await;
    let held = world.service.publish(PATIENCE).await;
    was_pushed(&held, 1);
    assert!(held.arrived - typed >= grace, "{:?}", held.arrived - typed);
}

#[tokio::test]
async fn a_phone_that_does_not_come_is_pushed_for_again_until_it_does() {
    let mut world = World::with(|setup| quick(setup).set("push.repush", "['400ms', '2500ms']")).await;
    let (phone, enabled) = world.phone("phone", "n").await;
    let handled = phone.handled;
    lost(&world.pushward, phone, PHONE).await;
    let began = Instant::now();
    world.bob.say("alice@localhost", "hello").await;
    was_pushed(&world.service.publish(PATIENCE).await, 1);
    let again = world.service.publish(PATIENCE).await;
    was_pushed(&again, 1);
    assert!(again.arrived - began >= Duration::from_millis(400), "{:?}", again.arrived - began);
    let mut phone = world.resumed(&enabled, handled).await;
    assert_eq!(bodies(&phone.messages(1).await), ["hello"]);
    // Earlier publishes travelled ahead of this ping, on the same stream.
    phone.ping("push.localhost").await;
    world.service.forget();
    lost(&world.pushward, phone, PHONE).await;
    world.service.assert_quiet(Duration::from_millis(2_600)).await;
}

#[tokio::test]
async fn if_configured_every_stanza_pushes_without_a_text() {
    let mut world = World::with(|setup| quick(setup).set("push.unimportant", "true")).await;
    let (phone, _) = world.phone("phone", "n").await;
    lost(&world.pushward, phone, PHONE).await;
    let composing = "<composing xmlns='http://jabber.org/protocol/chatstates'/>";
    sends(&mut world.bob, format!("<message type='chat' to='alice@localhost'>{composing}</message>")).await;
    let publish = world.service.publish(PATIENCE).await;
    assert_eq!((publish.count(), publish.body()), (Some(0), None), "{}", publish.xml);
    world.bob.say("alice@localhost", "hello").await;
    was_pushed(&world.service.publish(PATIENCE).await, 1);
}

// Registrations

/// The older of the first two registrations belongs to a device that has been online since.
#[tokio::test]
async fn beyond_max_devices_the_device_that_was_away_longest_is_forgotten() {
    let mut world = World::with(|setup| quick(setup).set("push.max_devices", "2")).await;
    let (phone, enabled) = world.phone("phone", "phone").await;
    let (tablet, _) = world.phone("tablet", "tablet").await;
    let handled = phone.handled;
    lost(&world.pushward, phone, PHONE).await;
    lost(&world.pushward, tablet, "alice@localhost/tablet").await;
    another_second().await;
    let phone = world.resumed(&enabled, handled).await;
    let (watch, _) = world.phone("watch", "watch").await;
    // The tablet's session got the change before the watch got its answer. Once it answers this ping, it has processed
    // the change.
    world.bob.ping("alice@localhost/tablet").await;
    phone.reset();
    watch.reset();
    world.bob.say("alice@localhost", "hello").await;
    assert_eq!(nodes(&mut world, 2).await, ["phone", "watch"]);
    world.service.assert_quiet(QUIET).await;
}

/// Waits for the next second, because contact times are stored in seconds.
async fn another_second() {
    let second = || SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let began = second();
    eventually(PATIENCE, || "another second".into(), || (second() > began).then_some(())).await;
}

#[tokio::test]
async fn disabling_one_node_leaves_the_others_and_disabling_the_service_leaves_none() {
    let mut world = World::with(quick).await;
    let (mut phone, enabled) = world.phone("phone", "first").await;
    enable_push(&mut phone, "second").await;
    enable_push(&mut phone, "third").await;
    disable(&mut phone, " node='second'").await;
    let handled = phone.handled;
    lost(&world.pushward, phone, PHONE).await;
    world.bob.say("alice@localhost", "hello").await;
    assert_eq!(nodes(&mut world, 2).await, ["first", "third"]);
    let mut phone = world.resumed(&enabled, handled).await;
    disable(&mut phone, "").await;
    world.service.forget();
    lost(&world.pushward, phone, PHONE).await;
    world.bob.say("alice@localhost", "unheard").await;
    world.service.assert_quiet(QUIET).await;
}

/// XEP-0357 §8.
fn revocation(to: &str, node: &str) -> String {
    format!(
        "<message {to}><pubsub xmlns='http://jabber.org/protocol/pubsub' node='{node}'>\
         <affiliation jid='alice@localhost' affiliation='none'/></pubsub></message>"
    )
}

#[tokio::test]
async fn a_push_service_can_revoke_a_registration_and_the_client_gets_the_message() {
    let mut world = World::with(quick).await;
    let (mut phone, enabled) = world.phone("phone", "first").await;
    enable_push(&mut phone, "second").await;
    let handled = phone.handled;
    lost(&world.pushward, phone, PHONE).await;
    world.service.send(revocation("from='push.localhost' to='alice@localhost'", "first"));
    world.pushward.logged(&["push registration revoked", PHONE]).await;
    world.bob.say("alice@localhost", "hello").await;
    assert_eq!(nodes(&mut world, 1).await, ["second"]);
    world.service.assert_quiet(QUIET).await;
    let mut phone = world.resumed(&enabled, handled).await;
    let notice = phone.expect("<pubsub").await;
    assert!(notice.contains("push.localhost") && notice.contains("'first'") && notice.contains("'none'"), "{notice}");
}

#[tokio::test]
async fn only_the_push_service_can_revoke_a_registration() {
    let mut world = World::with(quick).await;
    let (mut phone, _) = world.phone("phone", "n").await;
    sends(&mut world.bob, revocation("to='alice@localhost'", "n")).await;
    phone.expect("from='bob@localhost/desk'").await;
    for from in ["mallory@push.localhost", "push.localhost/mallory"] {
        world.service.send(revocation(&format!("from='{from}' to='alice@localhost'"), "n"));
        phone.expect(from).await;
    }
    lost(&world.pushward, phone, PHONE).await;
    world.bob.say("alice@localhost", "hello").await;
    was_pushed(&world.service.publish(PATIENCE).await, 1);
}

// Answers of the push service

#[tokio::test]
async fn a_service_that_is_busy_does_not_lose_the_registration() {
    let mut world = World::with(|setup| quick(setup).set("push.max_errors", "1")).await;
    let (phone, _) = world.phone("phone", "n").await;
    lost(&world.pushward, phone, PHONE).await;
    world.service.answer_with(Answer::Error("wait", "resource-constraint"));
    world.bob.say("alice@localhost", "refused for now").await;
    world.answered().await;
    world.pushward.logged(&["push notification outcome", "\"outcome\":\"wait\""]).await;
    world.service.answer_with(Answer::Result);
    world.bob.say("alice@localhost", "accepted").await;
    was_pushed(&world.service.publish(PATIENCE).await, 2);
}

#[tokio::test]
async fn the_count_of_refusals_survives_a_crash() {
    let mut world = World::with(|setup| quick(setup).set("push.max_errors", "2")).await;
    let (phone, _) = world.phone("phone", "n").await;
    world.service.answer_with(Answer::Error("cancel", "item-not-found"));
    lost(&world.pushward, phone, PHONE).await;
    world.bob.say("alice@localhost", "refused").await;
    was_pushed(&world.service.publish(PATIENCE).await, 1);
    world.pushward.stored("\"errors\":1").await;
    world.pushward.kill();
    world.pushward.start_again().await;
    let (mut phone, _) = world.session("phone").await;
    // The phone has received what waited, so the next push is about the next message only.
    phone.expect("refused").await;
    phone.ack().await;
    phone.roundtrip().await;
    phone.reset();
    world.bob.say("alice@localhost", "refused again").await;
    world.answered().await;
    world.service.answer_with(Answer::Result);
    world.bob.say("alice@localhost", "unheard").await;
    world.service.assert_quiet(QUIET).await;
}

#[tokio::test]
async fn a_publish_that_is_never_answered_is_not_repeated_and_does_not_count_as_an_error() {
    let settings = |setup| quick(setup).set("push.publish_timeout", "'300ms'").set("push.max_errors", "1");
    let mut world = World::with(settings).await;
    let (phone, _) = world.phone("phone", "n").await;
    lost(&world.pushward, phone, PHONE).await;
    world.service.answer_with(Answer::Nothing);
    world.bob.say("alice@localhost", "hello").await;
    was_pushed(&world.service.publish(PATIENCE).await, 1);
    world.pushward.logged(&["push notification outcome", "\"outcome\":\"unknown\""]).await;
    world.service.assert_quiet(QUIET).await;
    world.bob.say("alice@localhost", "hello again").await;
    was_pushed(&world.service.publish(PATIENCE).await, 2);
}

// Devices without a session

impl World {
    /// Leaves a registration without a session, because its device logged out. Returns alice's desk, which is live.
    async fn logged_out(&self) -> Client {
        let (mut phone, _) = self.phone("phone", "n").await;
        let (desk, _) = self.session("desk").await;
        phone.send("<presence type='unavailable'/></stream:stream>").await;
        phone.closed(PATIENCE).await;
        self.pushward.logged(&["session ended", PHONE]).await;
        desk
    }

    /// Sends messages from bob until a push reports one: the test cannot see when the desk's session learns that the
    /// phone's has ended.
    async fn pushed_for_what_the_desktop_receives(&mut self, desk: &mut Client) {
        let deadline = Instant::now() + PATIENCE;
        for number in 0.. {
            assert!(Instant::now() < deadline, "no push");
            let body = format!("message {number}");
            self.bob.say("alice@localhost", &body).await;
            desk.expect(&body).await;
            desk.roundtrip().await;
            if let Some(publish) = self.service.next(Duration::from_millis(300)).await {
                assert_eq!((publish.node.as_deref(), publish.body()), (Some("n"), Some("New Message!")));
                return;
            }
        }
    }
}

fn no_linger(setup: Setup) -> Setup {
    quick(setup).set("push.linger", "false")
}

#[tokio::test]
async fn a_phone_that_logged_out_is_pushed_for_what_the_desktop_receives_until_it_is_back() {
    let mut world = World::with(no_linger).await;
    let mut desk = world.logged_out().await;
    let mut laptop = world.session("laptop").await.0;
    world.pushed_for_what_the_desktop_receives(&mut desk).await;
    world.service.assert_quiet(QUIET).await;
    world.bob.say("alice@localhost", "another").await;
    world.service.publish(PATIENCE).await;
    desk.expect("another").await;
    laptop.expect("another").await;
    // Two sessions saw it.
    world.service.assert_quiet(QUIET).await;
    let (mut phone, _) = world.session("phone").await;
    world.bob.say("alice@localhost", "live").await;
    phone.expect("live").await;
    let ((), _) = tokio::join!(world.service.assert_quiet(QUIET), phone.live_for(QUIET));
}

#[tokio::test]
async fn a_phone_without_a_session_whose_service_refuses_it_is_not_pushed_for_again() {
    let settings = |setup| no_linger(setup).set("push.max_errors", "1").set("push.repush", "['300ms', '600ms']");
    let mut world = World::with(settings).await;
    let mut desk = world.logged_out().await;
    world.service.answer_with(Answer::Error("cancel", "item-not-found"));
    world.pushed_for_what_the_desktop_receives(&mut desk).await;
    world.service.assert_quiet(QUIET).await;
}

#[tokio::test]
async fn a_phone_that_did_not_come_back_after_a_crash_is_pushed_for_what_the_desktop_receives() {
    let mut world = World::with(quick).await;
    let (phone, _) = world.phone("phone", "n").await;
    lost(&world.pushward, phone, PHONE).await;
    world.pushward.kill();
    world.pushward.start_again().await;
    let (mut desk, _) = world.session("desk").await;
    world.bob.say("alice@localhost", "hello").await;
    desk.expect("hello").await;
    was_pushed(&world.service.publish(PATIENCE).await, 1);
    let (mut phone, _) = world.session("phone").await;
    world.bob.say("alice@localhost", "live").await;
    phone.expect("live").await;
    let ((), _) = tokio::join!(world.service.assert_quiet(QUIET), phone.live_for(QUIET));
}
