//! The requests of the operator.

use serde::{Deserialize, Serialize};

use crate::jid::{BareJid, Jid};
use crate::secret::Secret;

/// A request of the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum AdminRequest {
    /// Returns the state of the daemon: one [`Status`](super::AdminAnswer::Status).
    Status,
    /// Lists the sessions: one [`Session`](super::AdminAnswer::Session) each.
    Sessions,
    /// Lists the registrations of one account or of all: one [`Registration`](super::AdminAnswer::Registration) each.
    PushList {
        /// The account.
        account: Option<BareJid>,
    },
    /// Sends a notification: one [`Ping`](super::AdminAnswer::Ping) for each registration.
    PushPing {
        /// The account.
        account: BareJid,
        /// The push service. `None`: all.
        service: Option<Jid>,
        /// The node at the push service, in full or as it is listed. `None`: all.
        node: Option<Secret<String>>,
    },
    /// Removes registrations: one [`Removed`](super::AdminAnswer::Removed).
    PushRemove {
        /// The account.
        account: BareJid,
        /// The push service.
        service: Jid,
        /// The node at the push service, in full or as it is listed. `None`: all.
        node: Option<Secret<String>>,
    },
    /// Reloads the configuration: one [`Reloaded`](super::AdminAnswer::Reloaded).
    Reload,
    /// Drains, then ends the daemon: one [`Stopping`](super::AdminAnswer::Stopping).
    Stop,
    /// Replaces the daemon by the program that is installed now, without ending its dark sessions: one
    /// [`Upgrading`](super::AdminAnswer::Upgrading).
    Upgrade,
    /// Delivers the stanzas that are set aside for an account's devices: one [`Released`](super::AdminAnswer::Released).
    Release {
        /// The account.
        account: BareJid,
    },
    /// Deletes all data of an account, known or not: one [`Forgotten`](super::AdminAnswer::Forgotten).
    Forget {
        /// The account.
        account: BareJid,
    },
    /// Lists the nodes of the cluster: one [`Node`](super::AdminAnswer::Node) each.
    Nodes,
    /// Moves the sessions of this node to others: one [`NodeDraining`](super::AdminAnswer::NodeDraining).
    DrainNode,
    /// The same request to one node of the cluster.
    OnNode {
        /// The number of the node.
        node: u8,
        /// The request.
        request: Box<AdminRequest>,
    },
    /// The same request to each node of the cluster. Each answer is an [`OfNode`](super::AdminAnswer::OfNode), with an
    /// [`Unreached`](super::AdminAnswer::Unreached) for each node that does not answer.
    OnAllNodes {
        /// The request.
        request: Box<AdminRequest>,
    },
}

impl AdminRequest {
    /// Returns the account that it is about.
    pub fn account(&self) -> Option<&BareJid> {
        match self {
            Self::PushList { account } => account.as_ref(),
            Self::PushPing { account, .. }
            | Self::PushRemove { account, .. }
            | Self::Release { account }
            | Self::Forget { account } => Some(account),
            Self::Status
            | Self::Sessions
            | Self::Reload
            | Self::Stop
            | Self::Upgrade
            | Self::Nodes
            | Self::DrainNode
            | Self::OnNode { .. }
            | Self::OnAllNodes { .. } => None,
        }
    }
}
