//! The proxy or the server is killed: messages on their way to a client arrive when the client is back.

use std::time::Duration;

use crate::support::{
    Client, Enabled, PATIENCE, Pushward, Scene, Server, Setup, StubOptions, bodies, distinct, enable_push, failed,
    fresh, message, numbered,
};

/// alice's phone, available, on a real server.
struct World {
    server: Server,
    pushward: Pushward,
    bob: Client,
    alice: Client,
    enabled: Enabled,
}

impl World {
    async fn on(server: Server) -> Self {
        let setup = Setup::new(server.address()).set("stream_management.spool_after", "'10ms'");
        let pushward = Pushward::start(setup).await;
        let bob = server.bob().await;
        let mut alice = pushward.login("alice", "phone").await;
        let enabled = alice.enable().await;
        alice.available().await;
        Self { server, pushward, bob, alice, enabled }
    }

    async fn say(&mut self, bodies: &[String]) {
        for body in bodies {
            self.bob.say("alice@localhost/phone", body).await;
        }
    }
}

fn assert_delayed(elements: &[String]) {
    for element in elements.iter().filter(|element| element.contains("<body")) {
        assert!(element.contains("urn:xmpp:delay"), "this says not since when it waited: {element}");
    }
}

/// Reads until all of `wanted` have come. All that waited carries a delay stamp and comes in order.
async fn assert_arrive(alice: &mut Client, wanted: &[String]) {
    let mut seen = Vec::new();
    let mut arrived = Vec::new();
    while !wanted.iter().all(|body| arrived.contains(body)) {
        let element = alice.expect("<body").await;
        arrived.extend(bodies(std::slice::from_ref(&element)));
        seen.push(element);
    }
    let arrived = distinct(arrived);
    assert!(arrived.ends_with(wanted), "{arrived:?} for {wanted:?}");
    assert_delayed(&seen);
}

async fn nothing_unacked_is_lost_when_the_proxy_is_killed_under_a_live_client(server: Server) {
    let mut world = World::on(server).await;
    world.alice.acks = false;
    let live = numbered("live", 1..=3);
    world.say(&live).await;
    assert_eq!(bodies(&world.alice.messages(3).await), live);
    if !world.server.manages_streams() {
        // Here a crash may lose what came within `spool_after`. A server with stream management still has these
        // messages itself.
        world.pushward.stored("live 3").await;
    }
    world.pushward.kill();
    world.pushward.start_again().await;
    let (mut alice, h) = failed(&world.pushward, &world.enabled, 0).await;
    assert_eq!(h, None, "after a crash nobody knows how far the session had come");
    fresh(&mut alice, "phone").await;
    // ejabberd 23.01 sometimes loses the first message that it sends again, although only earlier ones were
    // acknowledged to it.
    let theirs = usize::from(world.server.may_lose_the_first());
    assert_arrive(&mut alice, &live[theirs..]).await;
}

async fn nothing_queued_is_lost_when_the_proxy_is_killed_over_a_dark_client(server: Server) {
    let mut world = World::on(server).await;
    world.alice.acks = false;
    let all = [numbered("live", 1..=2), numbered("dark", 1..=3)].concat();
    world.say(&all[..2]).await;
    world.alice.messages(2).await;
    world.alice.reset();
    let mut bob = world.bob;
    for body in &all[2..] {
        bob.say("alice@localhost/phone", body).await;
    }
    world.pushward.stored("dark 3").await;
    world.pushward.kill();
    world.pushward.start_again().await;
    let (mut alice, h) = failed(&world.pushward, &world.enabled, 0).await;
    assert_eq!(h, None, "after a crash nobody knows how far the session had come");
    fresh(&mut alice, "phone").await;
    bob.say("alice@localhost/phone", "after").await;
    assert_arrive_before(&mut alice, &all, "after").await;
}

async fn assert_arrive_before(alice: &mut Client, wanted: &[String], last: &str) {
    let mut seen = Vec::new();
    while bodies(&seen).last().is_none_or(|body| body != last) {
        seen.push(alice.expect("<body").await);
    }
    seen.pop();
    assert_eq!(distinct(bodies(&seen)), wanted);
    assert_delayed(&seen);
}

async fn stanzas_that_waited_survive_a_crash_of_the_server(server: Server) {
    let mut world = World::on(server).await;
    world.alice.say("bob@localhost/desk", "one").await;
    let sent = 1 + 1 + 2;
    world.alice.acked_up_to(sent).await;
    let handled = world.alice.handled;
    world.alice.reset();
    let dark = numbered("dark", 1..=3);
    for body in &dark {
        world.bob.say("alice@localhost/phone", body).await;
    }
    world.pushward.stored("dark 3").await;
    world.server.kill();
    world.server.start_again().await;
    let (mut alice, h) = failed(&world.pushward, &world.enabled, handled).await;
    assert_eq!(h, Some(sent), "presence, ping, message, ping");
    fresh(&mut alice, "phone").await;
    assert_arrive(&mut alice, &dark).await;
    let doubled = bodies(&alice.until_quiet(Duration::from_millis(300)).await);
    assert!(doubled.is_empty(), "twice without a crash of the proxy: {doubled:?}");
}

async fn a_live_client_is_cut_off_when_its_server_is_killed(server: Server) {
    let mut world = World::on(server).await;
    world.server.kill();
    let last = world.alice.closed(PATIENCE).await;
    let last = last.concat();
    assert!(!last.contains("</stream:stream") && !last.contains("<stream:error"), "it should try to resume: {last}");
}

/// Makes each scenario a test on every server, with and without the server's own stream management.
macro_rules! on_every_server {
    ($($server:ident),*) => {$(
        mod $server {
            use crate::support::Server;

            #[tokio::test]
            async fn nothing_unacked_is_lost_when_the_proxy_is_killed_under_a_live_client() {
                super::nothing_unacked_is_lost_when_the_proxy_is_killed_under_a_live_client(Server::$server().await).await;
            }

            #[tokio::test]
            async fn nothing_queued_is_lost_when_the_proxy_is_killed_over_a_dark_client() {
                super::nothing_queued_is_lost_when_the_proxy_is_killed_over_a_dark_client(Server::$server().await).await;
            }

            #[tokio::test]
            async fn stanzas_that_waited_survive_a_crash_of_the_server() {
                super::stanzas_that_waited_survive_a_crash_of_the_server(Server::$server().await).await;
            }

            #[tokio::test]
            async fn a_live_client_is_cut_off_when_its_server_is_killed() {
                super::a_live_client_is_cut_off_when_its_server_is_killed(Server::$server().await).await;
            }
        }
    )*};
}

on_every_server!(prosody, managed_prosody, ejabberd, managed_ejabberd);

#[tokio::test]
async fn what_the_client_acked_before_the_crash_does_not_come_again() {
    let mut scene = Scene::with(StubOptions::default(), |setup| setup).await;
    scene.client.acks = false;
    let names = numbered("message", 1..=4);
    scene.server.send(names.iter().map(|body| message(body)).collect::<String>());
    scene.client.messages(4).await;
    scene.pushward.stored("message 4").await;
    scene.client.send("<a xmlns='urn:xmpp:sm:3' h='2'/>").await;
    scene.client.roundtrip().await;
    scene.client.reset();
    scene.server.send(message("dark"));
    // The acknowledgement was written before this, in the same writer's queue.
    scene.pushward.stored("<body>dark<").await;
    scene.pushward.kill();
    scene.pushward.start_again().await;
    let (mut client, _) = failed(&scene.pushward, &scene.enabled, 2).await;
    fresh(&mut client, "phone").await;
    let wanted = [&names[2..], &["dark".to_owned()]].concat();
    assert_eq!(client.bodies_until(&wanted).await, wanted);
}

#[tokio::test]
async fn what_was_delivered_after_a_crash_does_not_come_a_second_time() {
    let mut scene = Scene::with(StubOptions::default(), |setup| setup).await;
    scene.client.reset();
    scene.server.send(message("dark"));
    scene.pushward.stored("<body>dark<").await;
    scene.pushward.kill();
    scene.pushward.start_again().await;
    let mut client = scene.pushward.authenticated("alice").await;
    fresh(&mut client, "phone").await;
    client.messages(1).await;
    client.ack().await;
    client.send("</stream:stream>").await;
    client.closed(PATIENCE).await;
    let mut client = scene.pushward.authenticated("alice").await;
    fresh(&mut client, "phone").await;
    let seen = client.until_quiet(Duration::from_millis(300)).await;
    assert!(bodies(&seen).is_empty(), "{seen:?}");
}

#[tokio::test]
async fn the_count_of_a_session_that_expired_is_kept() {
    let settings = |setup: Setup| setup.set("stream_management.resume_timeout", "'300ms'");
    for options in [StubOptions::default(), StubOptions::managed()] {
        let mut scene = Scene::with(options, settings).await;
        scene.client.send(format!("{}{}", message("1"), message("2"))).await;
        scene.client.acked_up_to(2).await;
        scene.client.reset();
        scene.server.closed(PATIENCE).await;
        assert_eq!(failed(&scene.pushward, &scene.enabled, 0).await.1, Some(2));
    }
}

#[tokio::test]
async fn the_counts_of_live_and_dark_sessions_are_kept_over_a_drained_restart() {
    let mut scene = Scene::with(StubOptions::default(), |setup| setup).await;
    scene.client.send(format!("{}{}", message("1"), message("2"))).await;
    scene.client.acked_up_to(2).await;
    let mut desk = scene.pushward.login("alice", "desk").await;
    let of_the_desk = desk.enable().await;
    desk.send(message("3")).await;
    desk.acked_up_to(1).await;
    scene.client.reset();
    scene.server.send(message("dark"));
    scene.pushward.stored("<body>dark<").await;
    scene.pushward.terminate(PATIENCE).await;
    desk.closed(PATIENCE).await;
    scene.pushward.start_again().await;
    let (mut client, h) = failed(&scene.pushward, &scene.enabled, 0).await;
    assert_eq!(h, Some(2), "the dark one");
    assert_eq!(failed(&scene.pushward, &of_the_desk, 0).await.1, Some(1), "the live one");
    fresh(&mut client, "phone").await;
    assert_eq!(bodies(&client.messages(1).await), ["dark"]);
}

#[tokio::test]
async fn the_count_of_a_session_that_the_server_closed_is_kept() {
    let mut scene = Scene::with(StubOptions::default(), |setup| setup).await;
    scene.client.send(message("1")).await;
    scene.client.acked_up_to(1).await;
    scene.client.reset();
    scene.server.send("</stream:stream>");
    scene.server.closed(PATIENCE).await;
    assert_eq!(failed(&scene.pushward, &scene.enabled, 0).await.1, Some(1));
}

#[tokio::test]
async fn after_a_crash_there_is_no_count() {
    let mut scene = Scene::with(StubOptions::default(), |setup| setup).await;
    scene.client.send(message("1")).await;
    scene.client.acked_up_to(1).await;
    scene.pushward.kill();
    scene.pushward.start_again().await;
    assert_eq!(failed(&scene.pushward, &scene.enabled, 0).await.1, None);
}

#[tokio::test]
async fn another_account_does_not_get_the_count() {
    let settings = |setup: Setup| setup.set("stream_management.resume_timeout", "'300ms'");
    let mut scene = Scene::with(StubOptions::default(), settings).await;
    scene.client.send(message("1")).await;
    scene.client.acked_up_to(1).await;
    scene.client.reset();
    scene.server.closed(PATIENCE).await;
    let mut mallory = scene.pushward.authenticated("mallory").await;
    let answer = mallory.resume(&scene.enabled.id, 0).await;
    assert_eq!((answer.name.as_str(), answer.attribute("h")), ("failed", None), "{answer:?}");
}

#[tokio::test]
async fn after_a_restart_a_wake_that_no_transport_can_carry_is_logged_by_that_name() {
    let mut scene = Scene::with(StubOptions::default(), |setup| setup).await;
    enable_push(&mut scene.client, "n").await;
    scene.client.reset();
    scene.server.send(message("dark"));
    scene.pushward.stored("<body>dark<").await;
    scene.pushward.restart().await;
    scene.pushward.logged(&["no_transport"]).await;
}
