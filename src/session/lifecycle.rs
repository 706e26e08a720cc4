//! How far a session is on its way to its end.
//!
//! Durable stanzas that the client does not have go to the spool for the device's next session, or stay the server's, which
//! sends them elsewhere. Then the server gets the last `<a/>` and the footer, and what it still sends until its own footer is
//! taken as well.

use std::time::{Duration, Instant};

use super::event::EndReason;
use crate::seq::Seq;

/// How long the spool may take for the last stanzas.
const SPOOL_PATIENCE: Duration = Duration::from_secs(5);
/// How long the server may take to answer behind all that it has sent, where only this session can return it.
const LAST_PATIENCE: Duration = Duration::from_secs(2);
/// How long the store may take for the last requests of a client that leaves.
const STORE_PATIENCE: Duration = Duration::from_secs(5);
/// How long the server may take to close its stream. While it goes on sending, it has more time.
const FOOTER_PATIENCE: Duration = Duration::from_secs(2);
/// How long it may take in all.
const CLOSING_PATIENCE: Duration = Duration::from_secs(10);

/// How a client left while requests of it were open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    /// It closed its stream, and gets its answers and a footer.
    Closed,
    /// Its connection was lost.
    Lost,
}

/// How far the end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// The last stanzas are on their way to the disk.
    Spooling(Last),
    /// The footer was written to the server.
    Closing(Footer),
    Over,
}

/// What the footer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Last {
    pub(super) reason: EndReason,
    /// The number of the newest stanza as the end began. Those that come later follow while the server closes its stream.
    pub(super) newest: Seq,
    /// The server was asked for an answer behind all that it has sent.
    pub(super) is_asked: bool,
    deadline: Instant,
}

impl Last {
    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.deadline <= now
    }
}

/// What the end waits for once the footer was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Footer {
    reason: EndReason,
    written: Instant,
    deadline: Instant,
}

impl EndReason {
    /// Whether the server is there to be told.
    pub(super) fn has_upstream(self) -> bool {
        !matches!(self, Self::UpstreamClosed | Self::UpstreamLost | Self::UpstreamSilent)
    }

    /// Whether what the client does not have is kept here for the device's next session, even where the server would keep it.
    pub(super) fn keeps_all(self) -> bool {
        matches!(self, Self::Expired | Self::Superseded | Self::Crowded | Self::Drained | Self::Exhausted)
    }
}

/// A client that has left.
#[derive(Clone, Copy, Debug)]
struct Leaving {
    how: Leave,
    /// Until when the store's answers are waited for.
    until: Instant,
}

/// The life of a session: whether its client leaves, and how far its end is.
#[derive(Debug)]
pub(super) struct Lifecycle {
    phase: Phase,
    /// The client has left, while requests of it are open.
    leaving: Option<Box<Leaving>>,
}

impl Lifecycle {
    pub(super) fn new() -> Self {
        Self { phase: Phase::Running, leaving: None }
    }

    // A client that leaves

    /// The client has left; its requests are waited for.
    pub(super) fn await_store(&mut self, now: Instant, how: Leave) {
        self.leaving = Some(Box::new(Leaving { how, until: now + STORE_PATIENCE }));
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    /// Takes how the client has left, if the store is late.
    pub(super) fn take_late_leave(&mut self, now: Instant) -> Option<Leave> {
        self.leaving.take_if(|leaving| leaving.until <= now).map(|leaving| leaving.how)
    }

    /// Takes how the client has left.
    pub(super) fn take_leave(&mut self) -> Option<Leave> {
        self.leaving.take().map(|leaving| leaving.how)
    }

    pub(super) fn leave_deadline(&self) -> Option<Instant> {
        self.leaving.as_ref().map(|leaving| leaving.until)
    }

    // The end

    /// Whether the end has begun: the session cannot be resumed any more.
    pub(super) fn is_ending(&self) -> bool {
        self.phase != Phase::Running
    }

    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Whether a stanza can still be answered.
    pub(super) fn can_answer(&self) -> bool {
        match self.phase {
            Phase::Running => true,
            Phase::Spooling(last) => last.reason.has_upstream(),
            Phase::Closing(..) | Phase::Over => false,
        }
    }

    /// Begins the end; `newest`: the number of the newest stanza.
    pub(super) fn begin_end(&mut self, now: Instant, reason: EndReason, newest: Seq) {
        let deadline = now + SPOOL_PATIENCE;
        self.phase = Phase::Spooling(Last { reason, deadline, newest, is_asked: false });
    }

    /// What the footer waits for, while it does.
    pub(super) fn last(&self) -> Option<Last> {
        match self.phase {
            Phase::Spooling(last) => Some(last),
            Phase::Running | Phase::Closing(_) | Phase::Over => None,
        }
    }

    /// The server was asked for an answer behind all that it has sent: the footer waits for that.
    pub(super) fn await_last_answer(&mut self, now: Instant) {
        if let Phase::Spooling(last) = &mut self.phase {
            (last.is_asked, last.deadline) = (true, now + LAST_PATIENCE);
        }
    }

    /// The footer was written.
    pub(super) fn await_footer(&mut self, now: Instant, reason: EndReason) {
        self.phase = Phase::Closing(Footer { reason, written: now, deadline: now + FOOTER_PATIENCE });
    }

    /// The server sends on, though the footer was written: its own comes behind that.
    pub(super) fn on_server_sends(&mut self, now: Instant) {
        if let Phase::Closing(footer) = &mut self.phase {
            footer.deadline = (now + FOOTER_PATIENCE).min(footer.written + CLOSING_PATIENCE);
        }
    }

    /// Whether the server's footer is not waited for any more.
    pub(super) fn is_footer_late(&self, now: Instant) -> bool {
        matches!(self.phase, Phase::Closing(footer) if footer.deadline <= now)
    }

    /// Why the session ends, while it does.
    pub(super) fn end_reason(&self) -> Option<EndReason> {
        match self.phase {
            Phase::Spooling(Last { reason, .. }) | Phase::Closing(Footer { reason, .. }) => Some(reason),
            Phase::Running | Phase::Over => None,
        }
    }

    /// The session is over.
    pub(super) fn end(&mut self) {
        self.phase = Phase::Over;
    }

    /// When the end goes on.
    pub(super) fn end_deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Spooling(Last { deadline, .. }) | Phase::Closing(Footer { deadline, .. }) => Some(deadline),
            Phase::Running | Phase::Over => None,
        }
    }
}
