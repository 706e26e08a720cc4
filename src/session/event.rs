//! Reports of a session: events for the log and the metrics, outcomes, reasons of ends.

use super::queue::Full;
use super::spool_refusal::ShedCounts;
use crate::push::account::DeviceId;
use crate::push::notification::PublishId;
use crate::push::outcome::Outcome;
use crate::push::pusher::Verdict;
use crate::push::registration::Target;

/// The way in which an attachment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// The stream footer or an error was written: flush, then close.
    Orderly,
    /// Close the TCP connection without a footer, so that the client reconnects and resumes.
    Abrupt,
}

/// One of the two ends of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The client.
    Client,
    /// The server.
    Server,
}

/// The reason why a device is to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WakeReason {
    /// The hold of its session has ended, or ends soon. Sessions do not use it, but a database may contain it.
    Expired,
    /// The server ended the session.
    UpstreamLost,
    /// The daemon stopped, or its process was lost.
    Restart,
}

impl WakeReason {
    /// Returns its name in the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::UpstreamLost => "upstream_lost",
            Self::Restart => "restart",
        }
    }
}

/// The outcome of a change that a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// The change is on disk. If an id is given, the session's device turned out to be that one.
    Durable(Option<DeviceId>),
    /// It failed.
    Failed,
}

/// A store request that a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Token(pub(super) u64);

/// A stanza in a report, without its addresses and content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    /// Its name.
    pub name: String,
    /// Its id, shortened if it is very long.
    pub id: Option<String>,
    /// Its size in bytes.
    pub len: usize,
}

/// An event for the log and the metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The client was lost; the session is held.
    Dark {
        /// The number of stanzas that wait.
        queued: usize,
        /// The number of the device's registrations. Without one, it is not notified.
        registrations: usize,
    },
    /// An ack is overdue.
    Suspect,
    /// A client has resumed the session.
    Resumed {
        /// The number of stanzas written again.
        replayed: usize,
    },
    /// A registration was stored.
    PushEnabled(Target),
    /// The client has removed registrations.
    PushDisabled,
    /// A push service has revoked a registration.
    PushRevoked(Target),
    /// The verdict about a stanza for an unreachable client.
    Judged(Verdict),
    /// A publish was sent.
    Published(PublishId, Target),
    /// A push service has answered, or has not answered in time.
    PublishOutcome(PublishId, Target, Outcome),
    /// The spool refuses stanzas: a limit is reached, or the disk fails. Memory keeps them, and the spool is asked again.
    SpoolRefuses,
    /// The spool accepts stanzas again.
    SpoolAccepts,
    /// The spool has not taken the last stanzas of a session in time.
    SpoolLate,
    /// Stanzas had no room in memory while the spool refused, or the session ended before the spool had them.
    Shed(ShedCounts),
    /// The spool has an entry that is not a stanza: it is lost, and reading continues after it.
    Unreadable,
    /// Memory is full: new stanzas are on disk only, until the client has taken the waiting ones.
    QueueFull(Full),
    /// The client closed its stream, and the session stays for its pushes.
    Lingering,
    /// The server's connection broke. This number of messages was kept that the server may send a second time.
    Kept(usize),
    /// A message came a second time, and was dropped.
    Redelivered,
    /// A stanza had waited too long, and was deleted.
    TooOld,
    /// The client's connection ended soon after this stanza was written: the stanza is suspect.
    Suspected(Reported),
    /// The client has broken on this stanza three times: it is set aside, and the device does not get it any more.
    SetAside(Reported),
    /// The client also breaks without the stanzas that were set aside: this number of them return to the queue.
    GivenBack(usize),
    /// The server has not answered within `server_timeout`.
    ServerSilent,
}

impl Event {
    /// Returns whether the client, or an entity that writes to it, can cause the event arbitrarily often.
    pub fn is_repeatable(&self) -> bool {
        match self {
            Self::PushEnabled(_) | Self::PushDisabled | Self::PushRevoked(_) | Self::Shed(_) | Self::Redelivered => {
                true
            }
            Self::Dark { .. }
            | Self::Suspect
            | Self::Resumed { .. }
            | Self::Judged(_)
            | Self::Published(..)
            | Self::PublishOutcome(..)
            | Self::SpoolRefuses
            | Self::SpoolLate
            | Self::SpoolAccepts
            | Self::Unreadable
            | Self::QueueFull(_)
            | Self::Lingering
            | Self::Kept(_)
            | Self::TooOld
            | Self::Suspected(_)
            | Self::SetAside(_)
            | Self::GivenBack(_)
            | Self::ServerSilent => false,
        }
    }
}

/// The reason why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum EndReason {
    /// The client closed its stream.
    ClientClosed,
    /// The client was lost, and its session cannot be resumed.
    ClientLost,
    /// The client broke the protocol and received a stream error.
    ClientError,
    /// The server closed its stream.
    UpstreamClosed,
    /// The server's connection broke.
    UpstreamLost,
    /// The server has not answered within `server_timeout`.
    UpstreamSilent,
    /// The session was not resumed in time.
    Expired,
    /// The session has no sequence numbers left.
    Exhausted,
    /// A newer session of the same device has replaced it.
    Superseded,
    /// The account had more held sessions than the limit.
    Crowded,
    /// The daemon was asked to stop.
    Drained,
    /// Another node acts in the place of this one.
    Fenced,
}

impl EndReason {
    /// All reasons.
    pub const ALL: [Self; 12] = [
        Self::ClientClosed,
        Self::ClientLost,
        Self::ClientError,
        Self::UpstreamClosed,
        Self::UpstreamLost,
        Self::UpstreamSilent,
        Self::Expired,
        Self::Exhausted,
        Self::Superseded,
        Self::Crowded,
        Self::Drained,
        Self::Fenced,
    ];

    /// Returns its name in the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::ClientLost => "client_lost",
            Self::ClientError => "client_error",
            Self::UpstreamClosed => "upstream_closed",
            Self::UpstreamLost => "upstream_lost",
            Self::UpstreamSilent => "upstream_silent",
            Self::Expired => "expired",
            Self::Exhausted => "exhausted",
            Self::Superseded => "superseded",
            Self::Crowded => "crowded",
            Self::Drained => "drained",
            Self::Fenced => "fenced",
        }
    }
}
