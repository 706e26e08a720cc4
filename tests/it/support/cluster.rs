//! Several nodes with one database and one scripted server.

use std::net::SocketAddr;

use super::{Authority, Pushward, Setup, StubOptions, StubUpstream, free_address};

/// Nodes that share a database.
pub(crate) struct Cluster {
    pub(crate) stub: StubUpstream,
    pub(crate) nodes: Vec<Pushward>,
    /// Its files are in use.
    _authority: Authority,
}

impl Cluster {
    /// Starts this number of nodes. Node `n` has the number `n + 1`.
    pub(crate) async fn start(count: u8, options: StubOptions, settings: impl Fn(Setup) -> Setup) -> Self {
        let stub = StubUpstream::start(options).await;
        let (nodes, authority) = nodes(count, stub.address, settings).await;
        Self { stub, nodes, _authority: authority }
    }

    /// Executes SQL in the database and returns the rows as text.
    pub(crate) fn psql(&self, sql: &str) -> String {
        self.nodes[0].psql(sql)
    }
}

/// Starts this number of nodes in front of a server. Node `n` has the number `n + 1`. The authority has their files.
pub(crate) async fn nodes(
    count: u8,
    upstream: SocketAddr,
    settings: impl Fn(Setup) -> Setup,
) -> (Vec<Pushward>, Authority) {
    let authority = Authority::new("cluster");
    let shared = settings(Setup::new(upstream).on_postgres());
    let mut nodes = Vec::new();
    for node in 1..=count {
        let issued = authority.issue_for_both(&format!("node{node}"));
        let setup = shared.clone().in_cluster(node, free_address(), &authority, &issued);
        nodes.push(Pushward::start(setup).await);
    }
    (nodes, authority)
}
