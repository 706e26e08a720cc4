//! The nodes of the cluster, as the commands show them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::text::printable;

/// The state of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// It serves clients.
    Up,
    /// It takes no more clients, and its sessions end.
    Draining,
    /// It has stopped, or its lease is over.
    Dead,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedNode {
    /// Its number.
    pub node: u8,
    /// `[cluster] advertise` of the node.
    pub address: String,
    /// Its state.
    pub state: NodeState,
    /// The number of accounts that it owns.
    pub accounts: u64,
}

/// The answer to [`AdminRequest::DrainNode`](super::AdminRequest::DrainNode).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDraining {
    /// The number of the node.
    pub draining: u8,
    /// The sessions that end.
    pub sessions: usize,
}

/// A node that has not answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreachedNode {
    /// The number of the node.
    pub cluster_node: u8,
    /// The reason, as text for a person.
    pub unreached: String,
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Dead => "dead",
        })
    }
}

impl fmt::Display for ListedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, address, state, accounts } = self;
        write!(f, "{node}  {}  {state}  accounts {accounts}", printable(address))
    }
}

impl fmt::Display for NodeDraining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} drains: {} sessions end within drain_timeout", self.draining, self.sessions)
    }
}

impl fmt::Display for UnreachedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} has not answered: {}", self.cluster_node, printable(&self.unreached))
    }
}

/// Returns a JSON object with the number of the node that it comes from, as the first member.
pub(super) fn labelled(node: u8, object: &str) -> String {
    let members = object.strip_prefix('{').unwrap_or(object);
    let comma = if members == "}" { "" } else { "," };
    format!("{{\"cluster_node\":{node}{comma}{members}")
}
