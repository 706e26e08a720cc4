//! What is spoken on the socket: one line with a [`AdminRequest`], then lines with an [`AdminAnswer`] each, the last of them
//! [`AdminAnswer::End`] or [`AdminAnswer::Failed`]. Lines are JSON. Nodes are shortened and publish-options left out: they are secrets.

mod display;

use std::io;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

use crate::clock::UnixSecs;
use crate::jid::{BareJid, Jid};
use crate::push::outcome::Outcome;
use crate::secret::Secret;
use crate::session::liveness::Reach;

/// Bytes of a line, its end included; a node has at most 8 KiB.
const LINE: u64 = 64 * 1024;

/// What the operator wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum AdminRequest {
    /// How the daemon is: one [`AdminAnswer::Status`].
    Status,
    /// Who is there: an [`AdminAnswer::Session`] each.
    Sessions,
    /// Who is notified, of one account or of all: an [`AdminAnswer::Registration`] each.
    PushList {
        /// The account.
        account: Option<BareJid>,
    },
    /// Notify: an [`AdminAnswer::Ping`] for each registration.
    PushPing {
        /// The account.
        account: BareJid,
        /// One push service, or all.
        service: Option<Jid>,
        /// One node there, in full or as it is listed, or all.
        node: Option<Secret<String>>,
    },
    /// Remove registrations: one [`AdminAnswer::Removed`].
    PushRemove {
        /// The account.
        account: BareJid,
        /// The push service.
        service: Jid,
        /// One node there, in full or as it is listed, or all.
        node: Option<Secret<String>>,
    },
    /// Take the configuration anew: one [`AdminAnswer::Reloaded`].
    Reload,
    /// Deliver the stanzas that are set aside for an account's devices: one [`AdminAnswer::Released`].
    Release {
        /// The account.
        account: BareJid,
    },
    /// Delete all that is kept about an account, known or not: one [`AdminAnswer::Forgotten`].
    Forget {
        /// The account.
        account: BareJid,
    },
}

/// One line of what the daemon says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminAnswer {
    /// How the daemon is.
    Status(DaemonStatus),
    /// A session.
    Session(SessionEntry),
    /// A registration.
    Registration(RegistrationEntry),
    /// What became of a notification.
    Ping(Ping),
    /// What was removed.
    Removed(Removed),
    /// The number of released stanzas.
    Released(Released),
    /// What was deleted.
    Forgotten(Forgotten),
    /// What came of a reload.
    Reloaded(Reloaded),
    /// That was all.
    End,
    /// It was not done.
    Failed {
        /// Why, for people.
        reason: String,
    },
}

/// How the daemon is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonStatus {
    /// Its version.
    pub version: String,
    /// Seconds since its start.
    pub uptime: u64,
    /// It takes no more connections, and ends.
    pub draining: bool,
    /// Connected clients.
    pub connections: usize,
    /// Sessions with their client.
    pub live: usize,
    /// Sessions whose client is late with an acknowledgement.
    pub suspect: usize,
    /// Sessions that are held without their client.
    pub dark: usize,
    /// Stanzas in memory that await an acknowledgement.
    pub queued: usize,
    /// What they count for, in bytes.
    pub queue_bytes: usize,
    /// Accounts about which something is kept.
    pub accounts: u64,
    /// Stanzas that wait on disk.
    pub spooled: u64,
    /// Bytes that wait on disk.
    pub spool_bytes: u64,
    /// Devices that wait to be woken.
    pub wakes_waiting: u64,
}

/// What came of a reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The new configuration serves; else the one before does.
    pub done: bool,
    /// What of it waits for a restart.
    pub notes: Vec<String>,
    /// Why it was not done.
    pub problems: Vec<String>,
}

/// Whether a client is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// There is no session.
    None,
    /// The session is held without it.
    Dark,
    /// It is connected, and late with an acknowledgement.
    Suspect,
    /// It is.
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
    /// Never [`SessionState::None`].
    pub state: SessionState,
    /// Since when it is so.
    pub since: UnixSecs,
    /// Where its client is from, or was last.
    pub client: Option<SocketAddr>,
    /// Stanzas in memory that await an acknowledgement.
    pub queued: usize,
    /// What they count for, in bytes.
    pub queue_bytes: usize,
    /// Stanzas that wait for the device on disk.
    pub spooled: u64,
    /// What they count for, in bytes.
    pub spool_bytes: u64,
    /// Stanzas that are set aside: the client breaks on them, and the device does not get them any more.
    #[serde(default)]
    pub set_aside: usize,
    /// The push services that notify the device.
    pub services: Vec<Jid>,
    /// The newest notification of this session.
    pub push: Option<LastPublish>,
    /// The newest decision to notify or not to.
    pub verdict: Option<LastVerdict>,
}

/// A decision about a stanza.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastVerdict {
    /// What was decided, and why.
    pub verdict: String,
    /// When.
    pub at: UnixSecs,
}

/// A registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationEntry {
    /// Whose it is.
    pub account: BareJid,
    /// The resource that the device bound last; `None` if nothing is known of the device.
    pub resource: Option<String>,
    /// The push service.
    pub service: Jid,
    /// The node, [`shortened`].
    pub node: Option<String>,
    /// Whether the device is there.
    pub state: SessionState,
    /// Errors in a row.
    pub errors: u32,
    /// The time of the last notification that was accepted, to the minute.
    pub last_success: Option<UnixSecs>,
    /// Since when no notification has reached its push service; `None`: the last one has.
    #[serde(default)]
    pub undelivered_since: Option<UnixSecs>,
    /// The time of the device's last contact.
    pub last_seen: UnixSecs,
    /// The transport by which its push service is told next; `None`: there is none.
    #[serde(default)]
    pub transport: Option<String>,
    /// What came of the last notification to that push service, whoever it was for, since the daemon started.
    #[serde(default)]
    pub last: Option<LastPublish>,
    /// Transports that its push service was not told by when they were tried last.
    #[serde(default)]
    pub passed_over: Vec<PassedOver>,
    /// Until when its push service is not asked for answers on the domain's stream: it has sent more than answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bidi_off_until: Option<UnixSecs>,
}

/// What came of the last notification to a push service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastPublish {
    /// How it went there; `None` if there was no way.
    pub transport: Option<String>,
    /// What became of it.
    pub outcome: PingOutcome,
    /// The stanza error condition that it was refused with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// When.
    pub at: UnixSecs,
}

/// A transport that was passed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedOver {
    /// The transport.
    pub transport: String,
    /// Why, and what to do about it.
    pub reason: String,
}

/// What became of a notification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// The push service.
    pub service: Jid,
    /// The node, [`shortened`].
    pub node: Option<String>,
    /// How it went there; `None` if there was no way.
    pub transport: Option<String>,
    /// What became of it.
    pub outcome: PingOutcome,
    /// The stanza error condition that it was refused with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// Milliseconds that it took.
    pub millis: u64,
}

/// What became of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PingOutcome {
    /// The push service accepted it.
    Accepted,
    /// It was refused for now.
    Wait,
    /// It was refused.
    Refused,
    /// It was sent, and no answer was seen: it may come to the server, or not in time.
    Unknown,
    /// There was no way to send it.
    NotSent,
}

/// What was removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// How many registrations.
    pub registrations: usize,
}

/// The answer to [`AdminRequest::Release`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// The number of stanzas that go back to their places.
    pub stanzas: usize,
}

/// What was deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    /// Whose.
    pub account: BareJid,
    /// How many devices were known.
    pub devices: usize,
    /// How many registrations there were.
    pub registrations: usize,
    /// How many held sessions ended.
    pub held: usize,
    /// How many sessions go on, with their client.
    pub live: usize,
}

impl AdminAnswer {
    /// What it says, as one JSON object for machines; `None` if it only ends the answer.
    ///
    /// # Errors
    /// Never in practice: all of it can be written as JSON.
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
            Self::End | Self::Failed { .. } => Ok(None),
        }
    }
}

impl PingOutcome {
    /// What operators are told of an outcome, with the condition of a refusal.
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

/// A node in a form that tells nodes apart but not what they are: at most a quarter of it, and four characters at most,
/// then how many it has. Nothing in it moves the cursor of a terminal.
pub fn shortened(node: &str) -> String {
    let characters = node.chars().count();
    let shown: String = node.chars().take((characters / 4).min(4)).collect();
    format!("{}…({characters})", printable(&shown))
}

/// A text of which nothing moves the cursor of a terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// A line as it is sent.
///
/// # Errors
/// Never in practice: all of it can be written as JSON.
pub(super) fn line(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

/// Reads a message; `None` at the end of the stream. Not cancel safe.
pub(super) async fn read<T: for<'de> Deserialize<'de>>(
    reader: &mut (impl AsyncBufRead + Unpin),
) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    let length = reader.take(LINE).read_until(b'\n', &mut line).await?;
    if length == 0 {
        return Ok(None);
    }
    if line.pop() != Some(b'\n') {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the line is incomplete or too long"));
    }
    // serde's own message may quote what is secret.
    serde_json::from_slice(&line).map(Some).map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidData, format!("cannot parse the line at byte {}", error.column()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
        check(b"{\"command\":\"stop\"}\n", Err("cannot parse the line at byte 17")).await;
    }

    #[tokio::test]
    async fn what_is_sent_is_what_is_read() {
        let account: BareJid = "romeo@example.org".parse().unwrap();
        let service: Jid = "push.example.net".parse().unwrap();
        let node = Some(Secret::new("n".to_owned()));
        for request in [
            AdminRequest::Sessions,
            AdminRequest::Reload,
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
