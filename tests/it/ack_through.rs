//! Acknowledgements of the client's own stanzas: they never exceed what the server has confirmed, and they are never
//! late.

use std::time::{Duration, Instant};

use crate::support::{
    Client, Element, PATIENCE, Scene, StubConnection, StubOptions, bodies, eventually, message, resumed,
};

/// XEP-0198 §4 forbids withholding an answer. The design allows 200 ms; the rest is margin for a busy machine.
const AT_ONCE: Duration = Duration::from_millis(600);

const REQUEST: &str = "<r xmlns='urn:xmpp:sm:3'/>";

fn messages(names: &[&str]) -> String {
    names.iter().map(|name| message(name)).collect()
}

/// Sends `<r/>`, and checks that the answer is `h` and comes at once.
async fn asked(client: &mut Client, h: u32) {
    let asked = Instant::now();
    client.send(REQUEST).await;
    client.next_ack().await;
    assert!(asked.elapsed() < AT_ONCE, "<r/> was answered after {:?}", asked.elapsed());
    assert_eq!(client.acked.last(), Some(&h));
}

/// Returns the answer to the ping that the proxy sends after the client's stanzas.
async fn barrier(server: &mut StubConnection) -> String {
    let ping = Element::parse(&server.expect("<iq").await);
    let from = ping.attribute("to").map(|to| format!(" from='{to}'")).unwrap_or_default();
    format!("<iq type='result' id='{}'{from}/>", ping.attribute("id").unwrap())
}

#[tokio::test]
async fn an_ack_covers_only_what_the_server_has_acknowledged() {
    let mut scene = Scene::with(StubOptions::slow_to_ack(), |setup| setup).await;
    scene.client.send(messages(&["1", "2", "3"])).await;
    scene.server.expect("<body>3<").await;
    asked(&mut scene.client, 0).await;
    scene.server.ack(2);
    // The proxy may or may not send a partial count without a further request.
    scene.server.send(message("behind the ack"));
    scene.client.expect("behind the ack").await;
    asked(&mut scene.client, 2).await;
    scene.server.ack(3);
    scene.client.ack_reaches(3).await;
}

#[tokio::test]
async fn the_server_is_asked_as_soon_as_there_is_something_to_ask_for() {
    let mut scene = Scene::with(StubOptions::slow_to_ack(), |setup| setup).await;
    scene.client.send(format!("{}{REQUEST}", message("1"))).await;
    let requests = || (scene.server.seen().requests > 0).then_some(());
    eventually(PATIENCE, || format!("<r/>: {:?}", scene.server.seen()), requests).await;
}

/// Dino stops sending at ten stanzas that are not acknowledged, and then sends no further requests.
#[tokio::test]
async fn stanzas_that_an_ack_did_not_cover_are_acknowledged_later_without_a_request() {
    let mut scene = Scene::with(StubOptions::slow_to_ack(), |setup| setup).await;
    let names: Vec<String> = (1..=10).map(|number| number.to_string()).collect();
    for name in &names {
        scene.client.send(format!("{}{REQUEST}", message(name))).await;
    }
    scene.server.expect("<body>10<").await;
    // One answer may serve several requests. None may exceed the server's count.
    scene.client.next_ack().await;
    assert!(scene.client.acked.iter().all(|&h| h == 0), "{:?}", scene.client.acked);
    scene.server.ack(10);
    scene.client.ack_reaches(10).await;
}

#[tokio::test]
async fn without_server_stream_management_a_stanza_counts_once_a_later_ping_is_answered() {
    let options = StubOptions { pings: false, ..StubOptions::default() };
    let mut scene = Scene::with(options, |setup| setup).await;
    scene.client.send(format!("{}{REQUEST}", messages(&["1", "2"]))).await;
    scene.client.ack_reaches(0).await;
    let answer = barrier(&mut scene.server).await;
    scene.client.send(format!("{}{REQUEST}", message("3"))).await;
    scene.server.expect("<body>3<").await;
    scene.client.next_ack().await;
    assert_eq!(scene.client.acked.last(), Some(&0));
    let others = scene.server.rest();
    assert!(others.iter().all(|element| !element.starts_with("<iq")), "one barrier at a time: {others:?}");
    scene.server.send(answer);
    let answer = barrier(&mut scene.server).await;
    asked(&mut scene.client, 2).await;
    scene.server.send(answer);
    scene.client.ack_reaches(3).await;
}

#[tokio::test]
async fn an_error_in_answer_to_the_ping_counts_too() {
    let options = StubOptions { pings: false, ..StubOptions::default() };
    let mut scene = Scene::with(options, |setup| setup).await;
    scene.client.send(format!("{}{REQUEST}", message("1"))).await;
    let answer = barrier(&mut scene.server).await;
    let error = "type='error'><error type='cancel'><service-unavailable \
                 xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>";
    scene.server.send(answer.replace("type='result'", "").replace("/>", &format!(" {error}")));
    scene.client.ack_reaches(1).await;
    scene.server.send(message("behind"));
    scene.client.expect("behind").await;
    assert!(!scene.client.transcript().contains("service-unavailable"), "{}", scene.client.transcript());
}

#[tokio::test]
async fn after_a_resumption_an_ack_is_sent_only_after_the_replay() {
    for options in [StubOptions::slow_to_ack(), StubOptions::managed(), StubOptions::default()] {
        let mut scene = Scene::with(options, |setup| setup).await;
        scene.client.acks = false;
        scene.client.send(format!("{}{REQUEST}", message("open"))).await;
        scene.server.expect("<body>open<").await;
        let names: Vec<String> = (1..=30).map(|number| number.to_string()).collect();
        scene.server.send(names.iter().map(|name| message(name)).collect::<String>());
        scene.client.messages(30).await;
        scene.client.reset();
        let mut client = scene.pushward.authenticated("alice").await;
        client.send(format!("<resume xmlns='urn:xmpp:sm:3' previd='{}' h='0'/>{REQUEST}", scene.enabled.id)).await;
        scene.server.ack(1);
        let mut seen = Vec::new();
        while client.acked.is_empty() {
            seen.push(client.next_item().await);
        }
        assert!(seen[0].starts_with("<resumed"), "{seen:?}");
        assert_eq!(bodies(&seen), names, "the replay comes before the answer");
    }
}

/// A stanza that the client sends in one packet with its `<resume/>` is processed after `<resumed/>` has reported the
/// earlier count.
#[tokio::test]
async fn a_stanza_sent_together_with_a_resumption_is_counted_and_acknowledged() {
    let mut scene = Scene::with(StubOptions::slow_to_ack(), |setup| setup).await;
    scene.client.send(message("first")).await;
    scene.server.expect("<body>first<").await;
    scene.client.reset();
    let mut client = scene.pushward.authenticated("alice").await;
    let resume = format!("<resume xmlns='urn:xmpp:sm:3' previd='{}' h='0'/>", scene.enabled.id);
    client.send(format!("{resume}{}{REQUEST}", message("second"))).await;
    scene.server.ack(1);
    client.expect("<resumed xmlns='urn:xmpp:sm:3' h='1'").await;
    scene.server.expect("<body>second<").await;
    scene.server.ack(2);
    client.ack_reaches(2).await;
}

/// The server is slow to confirm. A client that returns meanwhile sends again whatever was not confirmed to it.
#[tokio::test]
async fn stanzas_that_a_client_sends_again_reach_the_server_once() {
    for options in [StubOptions::slow_to_ack(), StubOptions::managed(), StubOptions::default()] {
        let mut scene = Scene::with(options, |setup| setup).await;
        let names = ["1", "2", "3", "4", "5"];
        scene.client.send(messages(&names)).await;
        let mut arrived = vec![scene.server.expect("<body>1<").await];
        scene.client.reset();
        let ((mut client, answer), ()) = tokio::join!(resumed(&scene.pushward, &scene.enabled, 0), async {
            for name in &names[1..] {
                arrived.push(scene.server.expect(&format!("<body>{name}<")).await);
            }
            scene.server.ack(5);
        });
        let handled: usize = answer.attribute("h").unwrap().parse().unwrap();
        client.send(messages(&names[handled..])).await;
        client.send(message("end")).await;
        while !arrived.last().unwrap().contains("<body>end<") {
            arrived.push(scene.server.expect("<message").await);
        }
        assert_eq!(bodies(&arrived), ["1", "2", "3", "4", "5", "end"], "h was {handled}");
    }
}
