//! The servers of the run, and the faults that they suffer.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::time::sleep;

use crate::phone::Doors;
use crate::support::postgres::Replicated;
use crate::support::{Authority, PATIENCE, Prosody, Pushward, Setup, free_address};

/// The time between two faults.
const CALM: Duration = Duration::from_secs(5);

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A node is killed, and started again later.
    KillNode,
    /// Two nodes are killed at once.
    KillTwoNodes,
    /// A node is paused for longer than its lease.
    PauseNode,
    /// A node is drained, stopped and started again.
    DrainNode,
    /// All connections to the database break.
    BreakConnections,
    /// Both standbys are paused: nothing can be committed.
    PauseStandbys,
}

/// Returns all faults.
pub(crate) fn all() -> Vec<Fault> {
    vec![
        Fault::KillNode,
        Fault::KillTwoNodes,
        Fault::PauseNode,
        Fault::DrainNode,
        Fault::BreakConnections,
        Fault::PauseStandbys,
    ]
}

impl Fault {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::KillNode => "kill-node",
            Self::KillTwoNodes => "kill-two-nodes",
            Self::PauseNode => "pause-node",
            Self::DrainNode => "drain-node",
            Self::BreakConnections => "break-connections",
            Self::PauseStandbys => "pause-standbys",
        }
    }
}

/// The servers of the run.
pub(crate) struct Stage {
    prosody: Prosody,
    database: Replicated,
    nodes: Vec<Pushward>,
    doors: Doors,
    _authority: Authority,
}

impl Stage {
    pub(crate) async fn start(accounts: &[String]) -> Self {
        let prosody = Prosody::keeping(accounts).await;
        let database = Replicated::start();
        let url = database.database("campaign");
        let authority = Authority::new("cluster");
        let host = authority.issue("localhost");
        let shared = Setup::new(prosody.address)
            .set("host.certificate", &format!("'{}'", host.certificate.display()))
            .set("host.key", &format!("'{}'", host.key.display()))
            .on_replicated(&url)
            .set("stream_management.resume_timeout", "'10m'")
            .set("drain_timeout", "'5s'");
        let mut nodes = Vec::new();
        for node in 1..=3u8 {
            let issued = authority.issue_for_both(&format!("node{node}"));
            let setup = shared.clone().in_cluster(node, free_address(), &authority, &issued);
            nodes.push(Pushward::start(setup).await);
        }
        let addresses = Arc::new(Mutex::new(nodes.iter().map(|node| node.direct).collect()));
        let doors = Doors { addresses, certificate: host.certificate.clone() };
        Self { prosody, database, nodes, doors, _authority: authority }
    }

    /// Returns the addresses of the nodes.
    pub(crate) fn doors(&self) -> Doors {
        self.doors.clone()
    }

    /// Returns the address of the XMPP server.
    pub(crate) fn server(&self) -> SocketAddr {
        self.prosody.address
    }

    /// Suffers a fault, and waits until all is well again.
    pub(crate) async fn suffer(&mut self, fault: Fault, random: &mut StdRng) {
        let one = random.random_range(0..self.nodes.len());
        let other = (one + 1) % self.nodes.len();
        match fault {
            Fault::KillNode => {
                self.nodes[one].kill();
                sleep(Duration::from_millis(random.random_range(0..12_000))).await;
                self.start_again(one).await;
            }
            Fault::KillTwoNodes => {
                self.nodes[one].kill();
                self.nodes[other].kill();
                sleep(Duration::from_secs(8)).await;
                self.start_again(one).await;
                self.start_again(other).await;
            }
            Fault::PauseNode => {
                self.nodes[one].signal("-STOP");
                sleep(Duration::from_secs(15)).await;
                self.nodes[one].signal("-CONT");
                sleep(Duration::from_secs(5)).await;
            }
            Fault::DrainNode => {
                let number = (one + 1).to_string();
                let (code, output) = self.nodes[other].ask(&["node", "drain", &number]).await;
                assert_eq!(code, Some(0), "{output}");
                sleep(Duration::from_secs(7)).await;
                self.nodes[one].terminate(PATIENCE * 2).await;
                self.start_again(one).await;
            }
            Fault::BreakConnections => {
                for _ in 0..5 {
                    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                        WHERE datname = 'campaign' AND pid <> pg_backend_pid()";
                    self.database.servers[0].psql("postgres", end);
                    sleep(Duration::from_millis(700)).await;
                }
            }
            Fault::PauseStandbys => {
                self.database.servers[1..].iter().for_each(|standby| standby.signal("STOP"));
                sleep(Duration::from_secs(6)).await;
                self.database.servers[1..].iter().for_each(|standby| standby.signal("CONT"));
            }
        }
        sleep(CALM).await;
    }

    /// Kills the primary and a node at the same time. A standby becomes the primary.
    pub(crate) async fn fail_over(&mut self) {
        self.nodes[0].kill();
        self.database.fail_over();
        sleep(Duration::from_secs(12)).await;
        self.start_again(0).await;
        sleep(CALM).await;
    }

    async fn start_again(&mut self, node: usize) {
        self.nodes[node].start_again().await;
        self.doors.addresses.lock().unwrap()[node] = self.nodes[node].direct;
    }

    /// Prints the warnings and errors of all nodes.
    pub(crate) fn print_logs(&self) {
        for (number, node) in self.nodes.iter().enumerate() {
            println!("-- node {}", number + 1);
            for line in node.log().iter().filter(|line| line.contains("\"ERROR\"") || line.contains("\"WARN\"")) {
                println!("{line}");
            }
        }
    }
}
