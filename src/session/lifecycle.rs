//! The progress of a session towards its end. `Session` owns one [`Lifecycle`].
//!
//! Durable stanzas that the client does not have go to the spool for the device's next session, or are left to the server,
//! which delivers them elsewhere. Then the server gets the last `<a/>` and the footer. Stanzas that it sends until its own
//! footer are handled as well.

use std::time::Duration;

use super::event::{Closing, EndReason};
use crate::clock::Instant;
use crate::seq::Seq;

/// The time that a resumption waits for the server to confirm what the client sent before.
pub(super) const RESUME_PATIENCE: Duration = Duration::from_secs(2);
/// The time that the spool has for the last stanzas.
const SPOOL_PATIENCE: Duration = Duration::from_secs(5);
/// The time that the server has to answer a ping after its last stanza, if only this session can return the stanzas.
const LAST_PATIENCE: Duration = Duration::from_secs(2);
/// The time that the store has for the last requests of a client that leaves.
const STORE_PATIENCE: Duration = Duration::from_secs(5);
/// The time that the server has to close its stream. While it keeps sending, it has more time.
const FOOTER_PATIENCE: Duration = Duration::from_secs(2);
/// The total time that it has.
const CLOSING_PATIENCE: Duration = Duration::from_secs(10);

/// The way in which a client left while it had open requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum Leave {
    /// It closed its stream, and gets its answers and a footer.
    Closed,
    /// Its connection was lost.
    Lost,
}

/// The progress of the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
enum Phase {
    Running,
    /// The last stanzas are on their way to the disk.
    Spooling(Last),
    /// The footer was written to the server.
    Closing(Footer),
    Over,
}

/// The state of the end before the footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Last {
    pub(super) reason: EndReason,
    /// The number of the newest stanza when the end began. Later stanzas are handled while the server closes its stream.
    pub(super) newest: Seq,
    /// True if the server was asked for an answer after its last stanza.
    pub(super) is_asked: bool,
    deadline: Instant,
}

impl Last {
    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.deadline <= now
    }
}

/// The state of the end after the footer was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Footer {
    reason: EndReason,
    written: Instant,
    deadline: Instant,
}

impl EndReason {
    /// Returns whether the server is still connected.
    pub(super) fn has_upstream(self) -> bool {
        !matches!(self, Self::UpstreamClosed | Self::UpstreamLost | Self::UpstreamSilent)
    }

    /// Returns how the client's connection is closed. After an abrupt end, clients connect again at once.
    pub(super) fn closing(self) -> Closing {
        match self {
            Self::UpstreamLost | Self::Fenced => Closing::Abrupt,
            Self::ClientClosed
            | Self::ClientLost
            | Self::ClientError
            | Self::UpstreamClosed
            | Self::UpstreamSilent
            | Self::Expired
            | Self::Exhausted
            | Self::Superseded
            | Self::Crowded
            | Self::Drained => Closing::Orderly,
        }
    }

    /// Returns whether requests are answered in place of the client, which will not come back to this session. After
    /// [`EndReason::Fenced`], those on disk are for the node that acts in the place of this one.
    pub(super) fn refuses_requests(self) -> bool {
        self != Self::Fenced
    }

    /// Returns whether the stanzas that the client does not have are kept here for the device's next session, even if the
    /// server would keep them.
    pub(super) fn keeps_all(self) -> bool {
        matches!(self, Self::Expired | Self::Superseded | Self::Crowded | Self::Drained | Self::Exhausted)
    }
}

/// A client that has left.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
struct Leaving {
    how: Leave,
    /// The end of the wait for the store's answers.
    until: Instant,
}

/// The life of a session: the leaving of its client, and the progress of its end.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Lifecycle {
    phase: Phase,
    /// A client that has left while it had open requests.
    leaving: Option<Box<Leaving>>,
}

impl Lifecycle {
    pub(super) fn new() -> Self {
        Self { phase: Phase::Running, leaving: None }
    }

    // A client that leaves

    /// Notes that the client has left, and waits for its requests.
    pub(super) fn await_store(&mut self, now: Instant, how: Leave) {
        self.leaving = Some(Box::new(Leaving { how, until: now + STORE_PATIENCE }));
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    /// Takes the way in which the client has left, if the store is late.
    pub(super) fn take_late_leave(&mut self, now: Instant) -> Option<Leave> {
        self.leaving.take_if(|leaving| leaving.until <= now).map(|leaving| leaving.how)
    }

    /// Takes the way in which the client has left.
    pub(super) fn take_leave(&mut self) -> Option<Leave> {
        self.leaving.take().map(|leaving| leaving.how)
    }

    pub(super) fn leave_deadline(&self) -> Option<Instant> {
        self.leaving.as_ref().map(|leaving| leaving.until)
    }

    // The end

    /// Returns whether the end has begun: the session cannot be resumed any more.
    pub(super) fn is_ending(&self) -> bool {
        self.phase != Phase::Running
    }

    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Returns whether a stanza can still be answered.
    pub(super) fn can_answer(&self) -> bool {
        match self.phase {
            Phase::Running => true,
            Phase::Spooling(last) => last.reason.has_upstream(),
            Phase::Closing(..) | Phase::Over => false,
        }
    }

    /// Begins the end. `newest` is the number of the newest stanza.
    pub(super) fn begin_end(&mut self, now: Instant, reason: EndReason, newest: Seq) {
        let deadline = now + SPOOL_PATIENCE;
        self.phase = Phase::Spooling(Last { reason, deadline, newest, is_asked: false });
    }

    /// The state of the end before the footer, if that is the current one.
    pub(super) fn last(&self) -> Option<Last> {
        match self.phase {
            Phase::Spooling(last) => Some(last),
            Phase::Running | Phase::Closing(_) | Phase::Over => None,
        }
    }

    /// Notes that the server was asked for an answer after its last stanza. The footer waits for that.
    pub(super) fn await_last_answer(&mut self, now: Instant) {
        if let Phase::Spooling(last) = &mut self.phase {
            (last.is_asked, last.deadline) = (true, now + LAST_PATIENCE);
        }
    }

    /// Notes that the footer was written.
    pub(super) fn await_footer(&mut self, now: Instant, reason: EndReason) {
        self.phase = Phase::Closing(Footer { reason, written: now, deadline: now + FOOTER_PATIENCE });
    }

    /// Extends the wait for the server's footer, because the server is still sending.
    pub(super) fn on_server_sends(&mut self, now: Instant) {
        if let Phase::Closing(footer) = &mut self.phase {
            footer.deadline = (now + FOOTER_PATIENCE).min(footer.written + CLOSING_PATIENCE);
        }
    }

    /// Returns whether the server's footer is late.
    pub(super) fn is_footer_late(&self, now: Instant) -> bool {
        matches!(self.phase, Phase::Closing(footer) if footer.deadline <= now)
    }

    /// The reason of the end, while the session ends.
    pub(super) fn end_reason(&self) -> Option<EndReason> {
        match self.phase {
            Phase::Spooling(Last { reason, .. }) | Phase::Closing(Footer { reason, .. }) => Some(reason),
            Phase::Running | Phase::Over => None,
        }
    }

    /// Notes that the session is over.
    pub(super) fn end(&mut self) {
        self.phase = Phase::Over;
    }

    /// The time at which the end continues.
    pub(super) fn end_deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Spooling(Last { deadline, .. }) | Phase::Closing(Footer { deadline, .. }) => Some(deadline),
            Phase::Running | Phase::Over => None,
        }
    }
}
