//! The protocol on the operator's socket: one line with an [`AdminRequest`], then one line for each [`AdminAnswer`]. The last
//! of them is [`AdminAnswer::End`] or [`AdminAnswer::Failed`]. Lines are JSON. Nodes are shortened and publish-options are
//! omitted, because they are secrets.

mod daemon_status;
mod display;
mod nodes;
mod request;
mod text;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::clock::{Instant, UnixSecs};
use crate::jid::{BareJid, Jid};
pub(super) use crate::net::lines::{line, read};
use crate::push::outcome::Outcome;
use crate::session::liveness::Reach;
pub use daemon_status::{DaemonStatus, HandoverStatus};
pub use nodes::{ListedNode, NodeDraining, NodeState, UnreachedNode};
pub use request::AdminRequest;
pub use text::{printable, shortened};

/// One line of the daemon's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminAnswer {
    /// The state of the daemon.
    Status(DaemonStatus),
    /// A session.
    Session(SessionEntry),
    /// A registration.
    Registration(RegistrationEntry),
    /// The outcome of a notification.
    Ping(Ping),
    /// The number of removed registrations.
    Removed(Removed),
    /// The number of released stanzas.
    Released(Released),
    /// The number of deleted items.
    Forgotten(Forgotten),
    /// The result of a reload.
    Reloaded(Reloaded),
    /// The drain has begun.
    Stopping(Stopping),
    /// The handover to the installed program has begun.
    Upgrading(Upgrading),
    /// A node of the cluster.
    Node(ListedNode),
    /// The drain of a node has begun.
    NodeDraining(NodeDraining),
    /// A line of the answer of one of several nodes.
    OfNode {
        /// The number of the node.
        node: u8,
        /// The line.
        answer: Box<AdminAnswer>,
    },
    /// A node has not answered.
    Unreached(UnreachedNode),
    /// The end of the answer.
    End,
    /// The request was not carried out.
    Failed {
        /// The reason, as text for a person.
        reason: String,
    },
}

/// The result of a reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// True if the new configuration is in force, false if the previous one still is.
    pub done: bool,
    /// The changes that need a restart.
    pub notes: Vec<String>,
    /// The reasons why the reload failed.
    pub problems: Vec<String>,
}

/// The answer to [`AdminRequest::Stop`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopping {
    /// True: the drain has begun.
    pub stopping: bool,
}

/// The answer to [`AdminRequest::Upgrade`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgrading {
    /// The version that is replaced.
    pub from: String,
    /// The time at which the replacement has begun, on the clock of the machine.
    pub began: Instant,
}

/// The connection state of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// There is no session.
    None,
    /// The session is held without a connection.
    Dark,
    /// The client is connected, and late with an acknowledgement.
    Suspect,
    /// The client is connected.
    Live,
}

impl From<Reach> for SessionState {
    fn from(reach: Reach) -> Self {
        match reach {
            Reach::Live => Self::Live,
            Reach::Suspect => Self::Suspect,
            Reach::Dark => Self::Dark,
        }
    }
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionEntry {
    /// The full JID.
    pub jid: String,
    /// The state. Never [`SessionState::None`].
    pub state: SessionState,
    /// The time since which the session has this state.
    pub since: UnixSecs,
    /// The current or last address of the client.
    pub client: Option<SocketAddr>,
    /// The method of its last login: `SASL1`, `SASL2` or `SASL2 FAST`.
    #[serde(default)]
    pub login: Option<String>,
    /// Stanzas in memory that await an acknowledgement.
    pub queued: usize,
    /// The size of those stanzas, in bytes.
    pub queue_bytes: usize,
    /// Stanzas in the device's spools on disk.
    pub spooled: u64,
    /// The size of those stanzas, in bytes.
    pub spool_bytes: u64,
    /// Stanzas that are set aside: the client fails on them, and the device does not get them any more.
    #[serde(default)]
    pub set_aside: usize,
    /// The push services that notify the device.
    pub services: Vec<Jid>,
    /// The last notification of this session.
    pub push: Option<LastPublish>,
    /// The last decision on whether to notify.
    pub verdict: Option<LastVerdict>,
}

/// A decision about a stanza.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastVerdict {
    /// The decision and its reason.
    pub verdict: String,
    /// The time of the decision.
    pub at: UnixSecs,
}

/// A registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationEntry {
    /// The account.
    pub account: BareJid,
    /// The resource that the device bound last; `None` if nothing is known of the device.
    pub resource: Option<String>,
    /// The push service.
    pub service: Jid,
    /// The node, [`shortened`].
    pub node: Option<String>,
    /// The connection state of the device.
    pub state: SessionState,
    /// The number of consecutive errors.
    pub errors: u32,
    /// The time of the last notification that was accepted, to the minute.
    pub last_success: Option<UnixSecs>,
    /// The time since which no notification has reached the push service. `None`: the last one has.
    #[serde(default)]
    pub undelivered_since: Option<UnixSecs>,
    /// The time of the device's last contact.
    pub last_seen: UnixSecs,
    /// The transport that the next notification uses. `None`: there is none.
    #[serde(default)]
    pub transport: Option<String>,
    /// The outcome of the last notification to this push service for any account, since the daemon started.
    #[serde(default)]
    pub last: Option<LastPublish>,
    /// The transports that were passed over in the last attempts.
    #[serde(default)]
    pub passed_over: Vec<PassedOver>,
    /// The time until which no answers are requested on the domain's stream, because the push service has sent more than
    /// answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bidi_off_until: Option<UnixSecs>,
}

/// The outcome of the last notification to a push service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastPublish {
    /// The transport that was used. `None` if there was none.
    pub transport: Option<String>,
    /// The outcome.
    pub outcome: PingOutcome,
    /// The stanza error condition of a refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// The time of the notification.
    pub at: UnixSecs,
}

/// A transport that was passed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedOver {
    /// The transport.
    pub transport: String,
    /// The reason, with the remedy.
    pub reason: String,
}

/// The outcome of a notification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// The push service.
    pub service: Jid,
    /// The node, [`shortened`].
    pub node: Option<String>,
    /// The transport that was used. `None` if there was none.
    pub transport: Option<String>,
    /// The outcome.
    pub outcome: PingOutcome,
    /// The stanza error condition of a refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// The time that it took, in milliseconds.
    pub millis: u64,
}

/// The outcome of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PingOutcome {
    /// The push service accepted it.
    Accepted,
    /// The push service refused it temporarily.
    Wait,
    /// The push service refused it.
    Refused,
    /// It was sent, and no answer was seen: the answer may go to the server, or it was late.
    Unknown,
    /// No transport could send it.
    NotSent,
}

/// The answer to [`AdminRequest::PushRemove`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// The number of removed registrations.
    pub registrations: usize,
}

/// The answer to [`AdminRequest::Release`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// The number of stanzas that are delivered again.
    pub stanzas: usize,
}

/// The answer to [`AdminRequest::Forget`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    /// The account.
    pub account: BareJid,
    /// The number of known devices.
    pub devices: usize,
    /// The number of registrations.
    pub registrations: usize,
    /// The number of held sessions that were ended.
    pub held: usize,
    /// The number of sessions with a connected client, which continue.
    pub live: usize,
}

impl AdminAnswer {
    /// Returns the answer as one JSON object for machines. `None` if the line only ends the answer.
    ///
    /// # Errors
    /// None in practice: all values can be written as JSON.
    pub fn json(&self) -> Result<Option<String>, serde_json::Error> {
        match self {
            Self::Status(it) => serde_json::to_string(it).map(Some),
            Self::Session(it) => serde_json::to_string(it).map(Some),
            Self::Registration(it) => serde_json::to_string(it).map(Some),
            Self::Ping(it) => serde_json::to_string(it).map(Some),
            Self::Removed(it) => serde_json::to_string(it).map(Some),
            Self::Released(it) => serde_json::to_string(it).map(Some),
            Self::Forgotten(it) => serde_json::to_string(it).map(Some),
            Self::Reloaded(it) => serde_json::to_string(it).map(Some),
            Self::Stopping(it) => serde_json::to_string(it).map(Some),
            Self::Upgrading(it) => serde_json::to_string(it).map(Some),
            Self::Node(it) => serde_json::to_string(it).map(Some),
            Self::NodeDraining(it) => serde_json::to_string(it).map(Some),
            Self::Unreached(it) => serde_json::to_string(it).map(Some),
            Self::OfNode { node, answer } => Ok(answer.json()?.map(|object| nodes::labelled(*node, &object))),
            Self::End | Self::Failed { .. } => Ok(None),
        }
    }
}

impl PingOutcome {
    /// Returns the outcome as operators see it, with the condition of a refusal.
    pub fn of(outcome: Outcome) -> (Self, Option<String>) {
        match outcome {
            Outcome::Accepted => (Self::Accepted, None),
            Outcome::Wait(condition) => (Self::Wait, Some(condition)),
            Outcome::Refused(condition) => (Self::Refused, Some(condition)),
            Outcome::Unknown => (Self::Unknown, None),
            Outcome::NotSent => (Self::NotSent, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn a_node_is_told_apart_but_not_told() {
        for (node, expect) in [
            ("", "…(0)"),
            ("abc", "…(3)"),
            ("abcdefgh", "ab…(8)"),
            ("abcdefghijklmnopq", "abcd…(17)"),
            ("äöüßäöüß", "äö…(8)"),
            ("\u{9b}2Jabcde", "?2…(8)"),
        ] {
            assert_eq!(shortened(node), expect);
        }
    }

    async fn check(bytes: &[u8], expect: Result<Option<AdminRequest>, &str>) {
        let read = read::<AdminRequest>(&mut &bytes[..]).await;
        assert_eq!(read.map_err(|error| error.to_string()), expect.map_err(str::to_owned));
    }

    #[tokio::test]
    async fn a_request_is_one_line_of_bounded_length() {
        check(b"", Ok(None)).await;
        check(b"{\"command\":\"status\"}\nrest", Ok(Some(AdminRequest::Status))).await;
        check(b"{\"command\":\"status\"}", Err("the line is incomplete or too long")).await;
        check(&vec![b' '; 1 << 20], Err("the line is incomplete or too long")).await;
        check(b"{\"command\":\"halt\"}\n", Err("cannot parse the line at byte 17")).await;
    }

    #[tokio::test]
    async fn what_is_sent_is_what_is_read() {
        let account: BareJid = "romeo@example.org".parse().unwrap();
        let service: Jid = "push.example.net".parse().unwrap();
        let node = Some(Secret::new("n".to_owned()));
        for request in [
            AdminRequest::Sessions,
            AdminRequest::Reload,
            AdminRequest::Stop,
            AdminRequest::Upgrade,
            AdminRequest::PushList { account: None },
            AdminRequest::PushPing { account: account.clone(), service: None, node: None },
            AdminRequest::PushRemove { account: account.clone(), service, node },
            AdminRequest::Release { account: account.clone() },
            AdminRequest::Forget { account },
        ] {
            assert_eq!(read(&mut line(&request).unwrap().as_slice()).await.unwrap(), Some(request));
        }
        for answer in [AdminAnswer::End, AdminAnswer::Failed { reason: "why".to_owned() }] {
            assert_eq!(read(&mut line(&answer).unwrap().as_slice()).await.unwrap(), Some(answer));
        }
    }
}
