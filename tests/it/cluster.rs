//! Several nodes with one database.

use std::time::Duration;

use crate::support::{
    Client, Cluster, Enabled, PATIENCE, StubConnection, StubOptions, bodies, eventually, failed, fresh, message,
    numbered, resumed,
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
    client.acked_up_to(3).await;
    // The dead node comes back, and passes clients on.
    cluster.nodes[0].start_again().await;
    client.reset();
    cluster.nodes[1].logged(&["dark", "alice@localhost/phone"]).await;
    let mut client = cluster.nodes[0].login("alice", "phone").await;
    client.enable().await;
    assert_eq!(cluster.psql("SELECT jid, owner FROM account").trim(), "alice@localhost|2");
    assert_eq!(client.until_quiet(Duration::from_millis(300)).await, [] as [String; 0]);
}
