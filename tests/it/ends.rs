//! Ends of sessions that the server causes, as the client sees them.

use std::time::Duration;

use crate::support::{Client, Element, PATIENCE, Scene, StubOptions, bodies, failed, fresh, message, resumed};

fn stream_error(condition: &str) -> String {
    format!(
        "<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>\
         <text  xml:lang='en' xmlns='urn:ietf:params:xml:ns:xmpp-streams'>As the server &gt; put it</text></stream:error>"
    )
}

#[tokio::test]
async fn a_servers_stream_error_reaches_an_attached_client_unchanged() {
    for condition in ["conflict", "system-shutdown", "policy-violation", "not-authorized"] {
        for options in [StubOptions::default(), StubOptions::managed()] {
            let mut scene = Scene::with(options, |setup| setup).await;
            let error = stream_error(condition);
            scene.server.send(format!("{}{error}</stream:stream>", message("last")));
            let seen = scene.client.closed(PATIENCE).await;
            assert_eq!(seen, [message("last"), error, "</stream:stream>".into()]);
            scene.server.closed(PATIENCE).await;
            failed(&scene.pushward, &scene.enabled, 0).await;
        }
    }
}

#[tokio::test]
async fn a_server_that_closes_the_stream_in_order_closes_the_clients_too() {
    let mut scene = Scene::new().await;
    scene.server.send("</stream:stream>");
    assert_eq!(scene.client.closed(PATIENCE).await, ["</stream:stream>"]);
}

#[tokio::test]
async fn a_lost_server_closes_the_clients_connection_without_a_footer() {
    for options in [StubOptions::default(), StubOptions::managed()] {
        let mut scene = Scene::with(options, |setup| setup).await;
        scene.server.send(message("last"));
        scene.client.messages(1).await;
        scene.server.close();
        assert!(scene.client.closed(PATIENCE).await.is_empty(), "{}", scene.client.transcript());
    }
}

#[tokio::test]
async fn a_server_that_sends_invalid_xml_counts_as_lost() {
    let mut scene = Scene::new().await;
    scene.server.send("<message></presence>");
    let seen = scene.client.closed(PATIENCE).await.concat();
    assert!(!seen.contains("<message"), "{seen}");
    scene.server.closed(PATIENCE).await;
}

#[tokio::test]
async fn a_dark_client_finds_what_the_server_sent_before_it_closed_the_session() {
    let mut scene = Scene::new().await;
    scene.client.reset();
    scene.server.send(format!("{}{}</stream:stream>", message("last words"), stream_error("system-shutdown")));
    scene.server.closed(PATIENCE).await;
    let (mut client, h) = failed(&scene.pushward, &scene.enabled, 0).await;
    assert_eq!(h, Some(0));
    fresh(&mut client, "phone").await;
    assert_eq!(bodies(&client.messages(1).await), ["last words"]);
    let server = scene.stub.fresh().await;
    server.send(message("new"));
    client.expect("new").await;
    assert!(!client.transcript().contains("system-shutdown"), "{}", client.transcript());
}

/// A server with stream management sends unacknowledged stanzas again elsewhere, so the proxy must not keep a copy.
#[tokio::test]
async fn stanzas_not_acked_to_a_server_with_stream_management_are_left_to_it() {
    let mut scene =
        Scene::with(StubOptions::managed(), |setup| setup.set("stream_management.spool_after", "'20s'")).await;
    scene.client.acks = false;
    scene.server.send(message("acked"));
    scene.client.messages(1).await;
    scene.client.ack().await;
    scene.server.acked(1, PATIENCE).await;
    scene.server.send(message("unacked"));
    scene.client.messages(1).await;
    assert_eq!(scene.server.request_ack().await, 1);
    scene.server.send("</stream:stream>");
    scene.client.closed(PATIENCE).await;
    let (mut client, _) = failed(&scene.pushward, &scene.enabled, 1).await;
    fresh(&mut client, "phone").await;
    let server = scene.stub.fresh().await;
    // The server sends it again.
    server.send(message("unacked"));
    assert_eq!(bodies(&client.messages(1).await), ["unacked"]);
    let seen = client.until_quiet(Duration::from_millis(300)).await;
    assert!(bodies(&seen).is_empty(), "{seen:?}");
    server.assert_open();
}

#[tokio::test]
async fn at_a_clean_close_the_server_gets_the_clients_last_ack() {
    let mut scene =
        Scene::with(StubOptions::managed(), |setup| setup.set("stream_management.spool_after", "'20s'")).await;
    scene.client.acks = false;
    scene.server.send(message("1"));
    scene.client.messages(1).await;
    scene.client.send("<a xmlns='urn:xmpp:sm:3' h='1'/></stream:stream>").await;
    scene.server.footer(PATIENCE).await;
    assert_eq!(scene.server.seen().acks.last(), Some(&1));
}

#[tokio::test]
async fn a_connection_lost_in_the_middle_of_a_stanza_does_not_end_the_session() {
    let Scene { stub: _stub, pushward, client, server, enabled } = Scene::new().await;
    client.reset();
    let (mut client, _) = resumed(&pushward, &enabled, 0).await;
    client.send("<message").await;
    client.reset();
    server.send(message("after half a stanza"));
    let (mut client, answer) = resumed(&pushward, &enabled, 0).await;
    assert_eq!(answer.attribute("h"), Some("0"), "half a stanza is none");
    client.messages(1).await;
    server.assert_open();
}

/// The client's `h` exceeds the number of stanzas sent to it. Other sessions must not be affected.
#[tokio::test]
async fn a_resumption_with_too_high_a_count_is_refused_and_the_session_stays() {
    let Scene { stub: _stub, pushward, client, server, enabled } = Scene::new().await;
    client.reset();
    let mut client: Client = pushward.authenticated("alice").await;
    client.send(format!("<resume xmlns='urn:xmpp:sm:3' previd='{}' h='99'/>", enabled.id)).await;
    let seen = client.closed(PATIENCE).await;
    let error = seen.iter().find(|element| element.starts_with("<stream:error")).unwrap_or_else(|| panic!("{seen:?}"));
    assert!(Element::parse(error).child("handled-count-too-high").is_some(), "{error}");
    server.send(message("still here"));
    let (mut client, _) = resumed(&pushward, &enabled, 0).await;
    assert_eq!(bodies(&client.messages(1).await), ["still here"]);
}

/// An app may register and close its stream in one write. The answer comes before the footer, and the session is held.
#[tokio::test]
async fn a_client_that_closes_its_stream_right_after_its_request_is_answered_and_pushed_for() {
    let mut scene = Scene::new().await;
    scene.client.available().await;
    let enable = "<enable xmlns='urn:xmpp:push:0' jid='push.localhost' node='n'/>";
    let last = format!("<iq type='set' id='last'>{enable}</iq><presence type='unavailable'/></stream:stream>");
    scene.client.send(last).await;
    let received = scene.client.closed(PATIENCE).await;
    assert!(received.iter().any(|xml| xml.contains("id='last'") && xml.contains("type='result'")), "{received:?}");
    scene.pushward.logged(&["session lingers"]).await;
    scene.server.send(message("for the one that has gone"));
    scene.server.expect("<publish").await;
}
