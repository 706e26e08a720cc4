//! Several nodes with one database.

use std::time::Duration;

use crate::support::{
    Client, Cluster, Enabled, PATIENCE, Prosody, PushService, StubConnection, StubOptions, bodies, eventually, failed,
    fresh, lost, message, nodes, numbered, push_enable, quick, request, resumed,
};

async fn cluster(count: u8) -> Cluster {
    Cluster::start(count, StubOptions::default(), |setup| {
        setup.set("stream_management.spool_after", "'10ms'").set("store.patience", "'6s'")
    })
    .await
}

/// Logs alice's phone in at a node.
async fn logged_in(cluster: &mut Cluster, node: usize) -> (Client, StubConnection, Enabled) {
    let mut client = cluster.nodes[node].login("alice", "phone").await;
    let server = cluster.stub.fresh().await;
    let enabled = client.enable().await;
    (client, server, enabled)
}

#[tokio::test]
async fn a_client_that_comes_to_another_node_gets_its_session() {
    let mut cluster = cluster(3).await;
    let (client, server, enabled) = logged_in(&mut cluster, 0).await;
    client.reset();
    numbered("dark", 1..=3).iter().for_each(|body| server.send(message(body)));
    cluster.nodes[0].stored("dark 3").await;
    for node in [1, 2, 0] {
        let (mut client, _) = resumed(&cluster.nodes[node], &enabled, 0).await;
        assert_eq!(bodies(&client.messages(3).await), numbered("dark", 1..=3), "node {node}");
        client.reset();
        cluster.nodes[0].logged(&["dark", "alice@localhost/phone"]).await;
    }
    server.assert_open();
    assert_eq!(cluster.psql("SELECT jid, owner FROM account").trim(), "alice@localhost|1");
}

#[tokio::test]
async fn an_account_goes_to_another_node_after_its_last_session() {
    let mut cluster = cluster(2).await;
    let (mut client, _server, _) = logged_in(&mut cluster, 0).await;
    client.send("</stream:stream>").await;
    client.closed(PATIENCE).await;
    let free = || (cluster.psql("SELECT owner IS NULL FROM account").trim() == "t").then_some(());
    eventually(PATIENCE, || "a free account".to_owned(), free).await;
    let (_client, _server, _) = logged_in(&mut cluster, 1).await;
    assert_eq!(cluster.psql("SELECT jid, owner FROM account").trim(), "alice@localhost|2");
}

#[tokio::test]
async fn what_a_dead_node_has_stored_is_delivered_by_another() {
    let mut cluster = cluster(2).await;
    let (client, server, enabled) = logged_in(&mut cluster, 0).await;
    client.reset();
    numbered("dark", 1..=3).iter().for_each(|body| server.send(message(body)));
    cluster.nodes[0].stored("dark 3").await;
    cluster.nodes[0].kill();
    cluster.nodes[1].logged(&["node is dead", "\"node\":1"]).await;
    cluster.nodes[1].logged(&["accounts of dead nodes freed"]).await;
    let (mut client, h) = failed(&cluster.nodes[1], &enabled, 0).await;
    assert_eq!(h, None);
    fresh(&mut client, "phone").await;
    assert_eq!(bodies(&client.messages(3).await), numbered("dark", 1..=3));
    client.ack().await;
    client.acked_up_to(1).await;
    // The dead node comes back, and passes clients on.
    cluster.nodes[0].start_again().await;
    client.reset();
    cluster.nodes[1].logged(&["dark", "alice@localhost/phone"]).await;
    let mut client = cluster.nodes[0].login("alice", "phone").await;
    client.enable().await;
    assert_eq!(cluster.psql("SELECT jid, owner FROM account").trim(), "alice@localhost|2");
    assert_eq!(client.until_quiet(Duration::from_millis(300)).await, [] as [String; 0]);
}

#[tokio::test]
async fn a_node_that_was_paused_stores_nothing_and_joins_again() {
    let mut cluster = cluster(2).await;
    let (client, mut server, enabled) = logged_in(&mut cluster, 0).await;
    client.reset();
    server.send(message("before"));
    cluster.nodes[0].stored("before").await;
    cluster.nodes[0].signal("-STOP");
    // The zombie still has the connection to the server.
    server.send(message("meanwhile"));
    cluster.nodes[1].logged(&["node is dead", "\"node\":1"]).await;
    let (mut client, _) = failed(&cluster.nodes[1], &enabled, 0).await;
    fresh(&mut client, "phone").await;
    assert_eq!(bodies(&client.messages(1).await), ["before"]);
    client.ack().await;
    client.acked_up_to(1).await;
    cluster.nodes[0].signal("-CONT");
    cluster.nodes[0].logged(&["another node has taken this node's place"]).await;
    // Nobody else has this one, so its sender gets it back.
    let returned = server.expect("id='meanwhile'").await;
    assert!(returned.contains("type='error'") && returned.contains("resource-constraint"), "{returned}");
    server.footer(PATIENCE).await;
    let alive = "SELECT epoch FROM node WHERE id = 1 AND lease_until > clock_timestamp()";
    eventually(PATIENCE, || "the next epoch".to_owned(), || (cluster.psql(alive).trim() == "3").then_some(())).await;
    // Its clients go to the owner, under the same address as before.
    client.reset();
    cluster.nodes[1].logged(&["dark", "alice@localhost/phone"]).await;
    let mut client = cluster.nodes[0].login("alice", "phone").await;
    client.enable().await;
    assert_eq!(client.until_quiet(Duration::from_millis(300)).await, [] as [String; 0]);
    assert_eq!(cluster.psql("SELECT jid, owner FROM account").trim(), "alice@localhost|2");
    assert_eq!(cluster.psql("SELECT count(*) FROM spool").trim(), "0");
}

#[tokio::test]
async fn a_node_without_a_lease_for_patience_ends_its_sessions_and_joins_again() {
    let mut cluster = cluster(1).await;
    let (mut client, server, _) = logged_in(&mut cluster, 0).await;
    cluster.nodes[0].set_reachable(false);
    // Live traffic needs no disk and goes on.
    server.send(message("live"));
    assert_eq!(bodies(&client.messages(1).await), ["live"]);
    cluster.nodes[0].logged(&["no lease within [store] patience"]).await;
    client.closed(PATIENCE).await;
    assert!(!client.transcript().contains("</stream:stream>") && !client.transcript().contains("stream:error"));
    server.footer(PATIENCE).await;
    cluster.nodes[0].logged(&["cannot join the cluster again yet"]).await;
    cluster.nodes[0].set_reachable(true);
    let (mut client, server, _) = logged_in(&mut cluster, 0).await;
    server.send(message("after"));
    assert_eq!(bodies(&client.messages(1).await), ["after"]);
    assert_eq!(cluster.psql("SELECT epoch FROM node").trim(), "2");
}

#[tokio::test]
async fn operators_see_all_nodes_from_each_and_act_on_the_owner() {
    let mut cluster = cluster(2).await;
    let (client, server, _) = logged_in(&mut cluster, 0).await;
    client.reset();
    server.send(message("dark"));
    cluster.nodes[0].stored("dark").await;
    let (code, nodes) = cluster.nodes[1].ask(&["node", "list"]).await;
    assert_eq!(code, Some(0), "{nodes}");
    let lines: Vec<_> = nodes.lines().collect();
    assert!(lines[0].starts_with("1  127.0.0.1:") && lines[0].ends_with("  up  accounts 1"), "{nodes}");
    assert!(lines[1].starts_with("2  127.0.0.1:") && lines[1].ends_with("  up  accounts 0"), "{nodes}");
    for (arguments, expect) in [
        (&["sessions"][..], "alice@localhost/phone  dark"),
        (&["sessions", "--node", "1"], "alice@localhost/phone  dark"),
        (&["status"], "node 1: pushward"),
        (&["status", "--json"], "{\"cluster_node\":1,"),
    ] {
        for node in &cluster.nodes {
            let (code, output) = node.ask(arguments).await;
            assert!(code == Some(0) && output.contains(expect), "{arguments:?}: {output}");
        }
    }
    let (code, output) = cluster.nodes[0].ask(&["sessions", "--node", "2"]).await;
    assert_eq!((code, output.as_str()), (Some(0), ""));
    let (code, output) = cluster.nodes[0].ask(&["sessions", "--node", "9"]).await;
    assert!(code == Some(1) && output.contains("node 9 is not running"), "{output}");
    // The session is at the other node.
    let (code, output) = cluster.nodes[1].ask(&["forget", "alice@localhost"]).await;
    assert!(code == Some(0) && output.contains("dark sessions ended 1"), "{output}");
    server.footer(PATIENCE).await;
    cluster.nodes[0].kill();
    // Its lease still holds.
    let (code, output) = cluster.nodes[1].ask(&["sessions"]).await;
    assert!(code == Some(1) && output.contains("node 1 has not answered"), "{output}");
    cluster.nodes[1].logged(&["node is dead", "\"node\":1"]).await;
    let (code, output) = cluster.nodes[1].ask(&["node", "list"]).await;
    assert!(code == Some(0) && output.lines().next().unwrap().ends_with("  dead  accounts 0"), "{output}");
}

#[tokio::test]
async fn a_drained_node_moves_its_sessions_and_goes_on() {
    let mut cluster = cluster(2).await;
    let (client, server, _) = logged_in(&mut cluster, 0).await;
    client.reset();
    server.send(message("dark"));
    cluster.nodes[0].stored("dark").await;
    let mut live = cluster.nodes[0].login("bob", "desk").await;
    let _desk = cluster.stub.fresh().await;
    live.enable().await;
    let (code, output) = cluster.nodes[1].ask(&["node", "drain", "1"]).await;
    assert!(code == Some(0) && output.contains("node 1 drains: 2 sessions"), "{output}");
    live.expect("<system-shutdown").await;
    live.closed(PATIENCE).await;
    server.footer(PATIENCE).await;
    let free = || (cluster.psql("SELECT count(*) FROM account WHERE owner IS NOT NULL").trim() == "0").then_some(());
    eventually(PATIENCE, || "free accounts".to_owned(), free).await;
    assert!(tokio::net::TcpStream::connect(cluster.nodes[0].direct).await.is_err());
    let (_, output) = cluster.nodes[0].ask(&["node", "list"]).await;
    assert!(output.lines().next().unwrap().contains("  draining  "), "{output}");
    let (mut client, _server, _) = logged_in(&mut cluster, 1).await;
    client.available().await;
    assert_eq!(bodies(&client.messages(1).await), ["dark"]);
    let (status, _) = cluster.nodes[0].terminate(PATIENCE).await;
    assert!(status.success());
    // A start ends the drain.
    cluster.nodes[0].start_again().await;
    let (_, output) = cluster.nodes[0].ask(&["node", "list"]).await;
    assert!(output.lines().next().unwrap().contains("  up  "), "{output}");
}

#[tokio::test]
async fn the_node_that_holds_a_component_publishes_for_the_others_until_it_dies() {
    let prosody = Prosody::with_hosts("Component \"pushward.localhost\"\n  component_secret = \"shared\"").await;
    let mut service = PushService::connect(&prosody).await;
    let component = format!(
        "[host.component]\naddress = '{}'\ndomain = 'pushward.localhost'\nsecret = 'shared'\nfrom = 'component'",
        prosody.components
    );
    let settings = |setup| quick(setup).table(&component).set("push.transports", "['component']");
    let (mut nodes, _authority) = nodes(2, prosody.address, settings).await;
    nodes[0].logged(&["push stream established"]).await;
    let mut phone = nodes[1].login("alice", "phone").await;
    phone.enable().await;
    phone.available().await;
    let answer = request(&mut phone, "push-enable", &push_enable("phone")).await;
    assert_eq!(answer.attribute("type"), Some("result"), "{answer:?}");
    lost(&nodes[1], phone, "alice@localhost/phone").await;
    let mut bob = Client::plain(prosody.address).await;
    bob.login("bob", "desk").await;
    bob.say("alice@localhost/phone", "one").await;
    let publish = service.publish(PATIENCE).await;
    assert_eq!(publish.from, "pushward.localhost");
    nodes[1].logged(&["push transport selected", "\"transport\":\"component\""]).await;
    nodes[1].logged(&["push notification outcome", "\"outcome\":\"accepted\""]).await;
    assert_eq!(nodes[1].count("push stream established"), 0);
    nodes[0].kill();
    nodes[1].logged(&["this node holds the component"]).await;
    nodes[1].logged(&["push stream established"]).await;
    bob.say("alice@localhost/phone", "two").await;
    assert_eq!(service.publish(PATIENCE).await.from, "pushward.localhost");
}

#[tokio::test]
async fn an_upgraded_node_keeps_its_epoch_its_sessions_and_its_listener_for_nodes() {
    let mut cluster = cluster(2).await;
    let (client, server, enabled) = logged_in(&mut cluster, 0).await;
    lost(&cluster.nodes[0], client, "alice@localhost/phone").await;
    cluster.nodes[0].replaced().await;
    server.send(message("after"));
    let (mut client, _) = resumed(&cluster.nodes[1], &enabled, 0).await;
    assert_eq!(bodies(&client.messages(1).await), ["after"]);
    server.assert_open();
    assert_eq!(cluster.psql("SELECT epoch, draining FROM node WHERE id = 1").trim(), "1|f");
}

/// A client that comes with the name of another one's node is no node.
#[tokio::test]
async fn strangers_get_nothing_from_the_listener_for_nodes() {
    let cluster = cluster(2).await;
    let address = cluster.psql("SELECT address FROM node WHERE id = 1").trim().parse().unwrap();
    let mut stranger = Client::plain(address).await;
    stranger.try_send("<stream:stream xmlns='jabber:client' to='localhost'>").await;
    assert_eq!(stranger.closed(PATIENCE).await, [] as [String; 0]);
    cluster.nodes[0].logged(&["connection refused: not of a node of the cluster"]).await;
}
