//! What a session reports: events for operators, outcomes, ends.

use super::queue::Full;
use super::shed::Shed;
use crate::push::account::DeviceId;
use crate::push::outcome::Outcome;
use crate::push::pusher::Verdict;
use crate::push::registration::Target;

/// How an attachment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// The stream footer or an error was written: flush, then close.
    Orderly,
    /// Close the TCP connection as it is, so that the client comes back and resumes.
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

/// Why a device is to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WakeReason {
    /// Its session is or was held for as long as sessions are. No session asks for it; a database may have it.
    Expired,
    /// The server ended the session.
    UpstreamLost,
    /// The daemon stopped, or its process was lost.
    Restart,
}

/// What became of a change that a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It is on disk. If it says so, the session's device turned out to be this one.
    Durable(Option<DeviceId>),
    /// It failed.
    Failed,
}

/// A store request that a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub(super) u64);

/// A stanza in a report. Neither its addresses nor its content are in it.
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
    /// The client has gone; the session is held.
    Dark {
        /// Stanzas that wait.
        queued: usize,
        /// Registrations of the device: without one nothing notifies it.
        registrations: usize,
    },
    /// An ack is overdue.
    Suspect,
    /// A client took the session up again.
    Resumed {
        /// Stanzas written again.
        replayed: usize,
    },
    /// A registration was stored.
    PushEnabled(Target),
    /// Registrations were removed at the client's wish.
    PushDisabled,
    /// A push service took a registration back.
    PushRevoked(Target),
    /// What was decided about a stanza for a client that cannot be reached.
    Judged(Verdict),
    /// A publish left.
    Published(Target),
    /// A push service answered, or did not.
    PublishOutcome(Target, Outcome),
    /// The spool takes no more: a bound, or the disk. Memory keeps what it refuses, and it is asked again.
    SpoolRefuses,
    /// The spool takes stanzas again.
    SpoolAccepts,
    /// The spool has not taken the last stanzas of a session in time.
    SpoolLate,
    /// Stanzas had no room in memory while the spool refused, or the session ended before the spool had them.
    Shed(Shed),
    /// The spool has something in place of a stanza that is none: it is lost, and what is behind it is read.
    Unreadable,
    /// Memory has no room for more: what comes is on disk only, until the client has taken what waits.
    QueueFull(Full),
    /// The client closed its stream, and the session goes on for its pushes.
    Lingering,
    /// The server's connection broke. This number of messages was kept that the server may send a second time.
    Kept(usize),
    /// A message came a second time, and was dropped.
    Redelivered,
    /// A stanza had waited too long, and was deleted.
    TooOld,
    /// The client has ended soon after this stanza was written: it is suspect.
    Suspected(Reported),
    /// The client has broken on this stanza three times: it is set aside, and the device does not get it any more.
    SetAside(Reported),
    /// The client also breaks without the stanzas that were set aside: this number of them go back to their places.
    GivenBack(usize),
    /// The server has not answered within `server_timeout`.
    ServerSilent,
}

impl Event {
    /// Returns whether the client, or whoever writes to it, can cause it as often as they like.
    pub fn is_repeatable(&self) -> bool {
        match self {
            Self::PushEnabled(_) | Self::PushDisabled | Self::PushRevoked(_) | Self::Shed(_) | Self::Redelivered => {
                true
            }
            Self::Dark { .. }
            | Self::Suspect
            | Self::Resumed { .. }
            | Self::Judged(_)
            | Self::Published(_)
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

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The client closed its stream.
    ClientClosed,
    /// The client vanished and its session cannot be resumed.
    ClientLost,
    /// The client broke the protocol and was told so.
    ClientError,
    /// The server closed its stream.
    UpstreamClosed,
    /// The server's connection broke.
    UpstreamLost,
    /// The server has not answered within `server_timeout`.
    UpstreamSilent,
    /// Nobody resumed in time.
    Expired,
    /// The session has no numbers left for its stanzas.
    Exhausted,
    /// A fresh session of the same device has taken over.
    Superseded,
    /// More sessions of the account were held than may be.
    Crowded,
    /// The daemon was asked to stop.
    Drained,
}
