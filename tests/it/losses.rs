//! Lost connections with many waiting messages, concurrent resumptions, and a full disk.

use std::time::Duration;

use crate::support::{
    Client, Element, Enabled, PATIENCE, Scene, Setup, StubConnection, StubOptions, another, bodies, message, numbered,
    resumed,
};

/// The ways in which a connection may be lost.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Fin,
    Reset,
    Silence,
}

type Surroundings = (&'static str, StubOptions, fn(Setup) -> Setup);

/// The configurations and servers under which each loss is tested.
fn surroundings() -> Vec<Surroundings> {
    fn small(setup: Setup) -> Setup {
        let keys = ["limits.unauthenticated_stanza", "limits.stanza", "limits.session_queue"];
        keys.into_iter().fold(setup, |setup, key| setup.set(key, "'16 KiB'"))
    }
    vec![
        ("a server without stream management", StubOptions::default(), |setup| setup),
        ("a server with it", StubOptions::managed(), |setup| setup),
        ("memory for a hundred stanzas only", StubOptions::default(), small),
        ("memory for a hundred, and a server with stream management", StubOptions::managed(), small),
    ]
}

async fn five_hundred_messages_wait_after(loss: Loss) {
    for (name, options, settings) in surroundings() {
        // Printed if the test fails.
        println!("{loss:?}, {name}");
        // Longer than this client ever takes to answer, also on a busy machine.
        let patience = if matches!(loss, Loss::Silence) { "'1500ms'" } else { "'30s'" };
        let keys = ["stream_management.max_ack_delay", "stream_management.ack_timeout"];
        let settings = |setup| keys.into_iter().fold(settings(setup), |setup, key| setup.set(key, patience));
        let Scene { stub: _stub, pushward, mut client, mut server, enabled } = Scene::with(options, settings).await;
        client.acks = false;
        let all = numbered("message", 1..=500);
        server.send(message(&all[0]));
        client.messages(1).await;
        let _half = match loss {
            Loss::Fin => Some(client.fin()),
            Loss::Reset => {
                client.reset();
                None
            }
            Loss::Silence => {
                client.closed(PATIENCE).await;
                None
            }
        };
        pushward.logged(&["dark", "alice@localhost/phone"]).await;
        server.send(all[1..].iter().map(|body| message(body)).collect::<String>());
        // The proxy answers a ping for a dark client. Everything before the ping waits by then.
        server.send("<iq type='get' id='behind'><ping xmlns='urn:xmpp:ping'/></iq>");
        server.expect("behind").await;
        let (mut client, _) = resumed(&pushward, &enabled, 0).await;
        assert_eq!(bodies(&client.messages(500).await), all);
        server.send(message("behind"));
        assert_eq!(bodies(&client.messages(1).await), ["behind"]);
        assert!(client.requests >= 4, "a long replay is paced by requests, {} came", client.requests);
        client.send(message("back")).await;
        client.acked_up_to(1).await;
        server.assert_open();
    }
}

#[tokio::test]
async fn five_hundred_messages_wait_after_a_fin() {
    five_hundred_messages_wait_after(Loss::Fin).await;
}

#[tokio::test]
async fn five_hundred_messages_wait_after_a_reset() {
    five_hundred_messages_wait_after(Loss::Reset).await;
}

#[tokio::test]
async fn five_hundred_messages_wait_for_a_client_that_fell_silent() {
    five_hundred_messages_wait_after(Loss::Silence).await;
}

#[tokio::test]
async fn a_client_lost_in_the_middle_of_the_replay_gets_the_rest_once() {
    for (name, options, settings) in surroundings() {
        let Scene { stub: _stub, pushward, client, server, enabled } = Scene::with(options, settings).await;
        client.reset();
        let all = numbered("message", 1..=500);
        server.send(all.iter().map(|body| message(body)).collect::<String>());
        let mut seen = Vec::new();
        let mut handled = 0;
        for part in [1, 149, 50, 250] {
            let (mut client, _) = resumed(&pushward, &enabled, handled).await;
            seen.extend(bodies(&client.messages(part).await));
            handled = client.handled;
            client.reset();
        }
        let (mut client, _) = resumed(&pushward, &enabled, handled).await;
        seen.extend(bodies(&client.messages(50).await));
        assert_eq!(seen, all, "{name}");
        server.send(message("behind"));
        assert_eq!(bodies(&client.messages(1).await), ["behind"], "{name}");
    }
}

#[tokio::test]
async fn stanzas_that_arrive_during_a_replay_are_delivered_after_it() {
    for (name, options, settings) in surroundings() {
        let Scene { stub: _stub, pushward, client, server, enabled } = Scene::with(options, settings).await;
        client.reset();
        let all = numbered("message", 1..=600);
        server.send(all[..400].iter().map(|body| message(body)).collect::<String>());
        let (mut client, _) = resumed(&pushward, &enabled, 0).await;
        server.send(all[400..].iter().map(|body| message(body)).collect::<String>());
        assert_eq!(bodies(&client.messages(600).await), all, "{name}");
    }
}

/// Sends `<resume/>` and reads until the connection ends or nothing more comes.
async fn race(mut client: Client, enabled: &Enabled) -> (Client, Vec<String>, bool) {
    client.acks = false;
    client.send(format!("<resume xmlns='urn:xmpp:sm:3' previd='{}' h='0'/>", enabled.id)).await;
    let (seen, open) = client.until_quiet_or_closed(Duration::from_millis(700)).await;
    (client, seen, open)
}

#[tokio::test]
async fn of_two_clients_that_resume_at_once_one_gets_the_session_and_all_stanzas() {
    for round in 0..5 {
        let Scene { stub: _stub, pushward, client, server, enabled } = Scene::new().await;
        client.reset();
        let all = numbered("message", 1..=50);
        server.send(all.iter().map(|body| message(body)).collect::<String>());
        let (first, second) = tokio::join!(pushward.authenticated("alice"), pushward.authenticated("alice"));
        let (first, second) = tokio::join!(race(first, &enabled), race(second, &enabled));
        let contenders = [first, second];
        let resumed = |seen: &[String]| seen.first().is_some_and(|answer| answer.starts_with("<resumed"));
        let open: Vec<_> = contenders.iter().filter(|(_, seen, open)| *open && resumed(seen)).collect();
        assert_eq!(open.len(), 1, "round {round}: {:?}", contenders.iter().map(|c| (&c.1, c.2)).collect::<Vec<_>>());
        assert_eq!(bodies(&open[0].1), all, "round {round}");
        for (client, seen, open) in contenders {
            assert!(!seen.concat().contains("conflict"), "{seen:?}");
            if open && resumed(&seen) {
                let mut client = client;
                client.acks = true;
                client.ack().await;
                server.send(message("behind"));
                assert_eq!(bodies(&client.messages(1).await), ["behind"], "round {round}");
            }
        }
        server.assert_open();
    }
}

#[tokio::test]
async fn a_resumption_takes_the_session_over_and_sends_nothing_to_the_old_connection() {
    let Scene { stub: _stub, pushward, client: mut old, server, enabled } = Scene::new().await;
    let (mut client, _) = resumed(&pushward, &enabled, 0).await;
    let last = old.closed(PATIENCE).await;
    assert!(last.is_empty(), "{last:?}");
    server.send(message("for the new one"));
    client.messages(1).await;
    server.assert_open();
}

/// Returns the numbers at the start of the messages.
fn numbers(seen: &[String]) -> Vec<u32> {
    bodies(seen).iter().map(|body| body.split(' ').next().unwrap().parse().unwrap()).collect()
}

/// Waits for this many messages that are returned to their sender, and returns their numbers.
async fn returned(server: &mut StubConnection, count: usize) -> Vec<u32> {
    let mut returned = Vec::new();
    while returned.len() < count {
        let error = Element::parse(&server.expect("<resource-constraint").await);
        assert_eq!((error.name.as_str(), error.attribute("type")), ("message", Some("error")), "{error:?}");
        returned.push(error.attribute("id").unwrap().split(' ').next().unwrap().parse().unwrap());
    }
    returned
}

/// No file may grow beyond 6 MiB. alice is dark and is sent 12 MiB. Memory holds 256 KiB: the rest is returned to its
/// sender.
#[tokio::test]
async fn on_a_full_disk_a_session_stays_and_stanzas_without_room_are_returned() {
    let settings = |setup: Setup| {
        setup.largest_file(6 * 1024).set("limits.stanza", "'256 KiB'").set("limits.session_queue", "'256 KiB'")
    };
    let mut scene = Scene::with(StubOptions::managed(), settings).await;
    let (mut desk, desk_server) = another(&scene.pushward, &mut scene.stub, "desk").await;
    scene.client.reset();
    let long = "x".repeat(100_000);
    for number in 1..=120 {
        scene.server.send(message(&format!("{number} {long}")));
    }
    let line = scene.pushward.logged(&["spool failed"]).await;
    let level = serde_json::from_str::<serde_json::Value>(&line).unwrap()["level"].clone();
    assert!(["WARN", "ERROR"].contains(&level.as_str().unwrap()), "{line}");
    let mut gone = returned(&mut scene.server, 10).await;
    scene.pushward.assert_log_never_contains("xxxxxxxx");
    scene.server.assert_open();
    for number in 1..=3 {
        desk_server.send(message(&format!("desk {number}")));
        assert_eq!(bodies(&desk.messages(1).await), [format!("desk {number}")]);
        desk.send(message("and back")).await;
        desk.acked_up_to(number).await;
    }
    // The client is asked, and answers, a moment later.
    tokio::select! {
        acked = desk_server.acked(3, PATIENCE) => assert_eq!(acked, 3),
        last = desk.closed(PATIENCE) => panic!("{last:?}"),
    }
    desk_server.assert_open();
    // Each message is with the client or was returned to its sender.
    let (mut client, _) = resumed(&scene.pushward, &scene.enabled, 0).await;
    let mut have = numbers(&client.until_quiet(Duration::from_secs(2)).await);
    for error in scene.server.rest().iter().filter(|xml| xml.contains("<resource-constraint")) {
        let error = Element::parse(error);
        gone.push(error.attribute("id").unwrap().split(' ').next().unwrap().parse().unwrap());
    }
    assert!(have.is_sorted(), "{have:?}");
    have.extend(gone);
    have.sort_unstable();
    assert_eq!(have, (1..=120).collect::<Vec<_>>());
}

#[tokio::test]
async fn at_the_bound_of_a_sessions_spool_the_rest_stays_in_memory_and_with_the_server() {
    let settings = |setup: Setup| setup.set("limits.spool_per_session", "'256 KiB'");
    let mut scene = Scene::with(StubOptions::managed(), settings).await;
    let (mut desk, desk_server) = another(&scene.pushward, &mut scene.stub, "desk").await;
    scene.client.reset();
    let long = "x".repeat(20_000);
    for number in 1..=30 {
        scene.server.send(message(&format!("{number} {long}")));
    }
    scene.pushward.logged(&["spool failed"]).await;
    let acked = scene.server.request_ack().await;
    assert!(acked < 30, "{acked} of 30 stanzas of 20 KB are acknowledged with 256 KiB to hold them");
    desk_server.send(message("desk"));
    desk.messages(1).await;
    scene.server.assert_open();
    let (mut phone, _) = resumed(&scene.pushward, &scene.enabled, 0).await;
    assert_eq!(numbers(&phone.messages(30).await), (1..=30).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_client_that_stops_reading_is_closed_and_delays_no_other_client() {
    let settings = |setup: Setup| setup.set("stream_management.write_timeout", "'3s'");
    let Scene { mut stub, pushward, client, mut server, enabled } = Scene::with(StubOptions::default(), settings).await;
    let (mut desk, desk_server) = another(&pushward, &mut stub, "desk").await;
    // More than the system buffers on the way, so that a write must stall.
    let long = "x".repeat(100_000);
    let all: Vec<_> = (1..=130).map(|number| format!("{number} {long}")).collect();
    server.send(all.iter().map(|body| message(body)).collect::<String>());
    desk_server.send(message("meanwhile"));
    desk.messages(1).await;
    pushward.logged(&["dark", "alice@localhost/phone"]).await;
    server.send("<iq type='get' id='behind'><ping xmlns='urn:xmpp:ping'/></iq>");
    server.expect("behind").await;
    drop(client);
    let (mut client, _) = resumed(&pushward, &enabled, 0).await;
    assert_eq!(numbers(&client.messages(130).await), (1..=130).collect::<Vec<_>>());
    let rest = client.until_quiet(Duration::from_millis(300)).await;
    assert!(numbers(&rest).is_empty(), "{:?}", numbers(&rest));
}
