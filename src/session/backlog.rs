//! The backlog of a device: the stanzas of its earlier sessions, which it gets before new ones. The client's first
//! available presence, and everything that it sends after that, wait until the backlog has been written.

use super::behind::Behind;
use super::identity::Owner;
use crate::xml::{Element, Frame, HeaderPool, Kind, ns};

/// The progress of the backlog, up to the client's first available presence.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
enum BacklogState {
    /// The device's spools have stanzas of earlier sessions. These go first.
    Unread,
    /// The backlog is being written. The presence waits.
    Sending(Option<Box<Element>>),
    /// There is no backlog, or it was written. No presence was forwarded yet.
    Written,
    /// The presence was forwarded.
    Done,
}

/// The backlog of a device, and the frames that wait for it.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct BacklogReading {
    state: BacklogState,
    /// True while older sessions of the device have not ended or answered.
    awaits_older: bool,
    behind: Behind,
}

/// The action for an available presence of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstPresence {
    /// Forward it.
    Passes,
    /// Make it wait.
    Waits,
    /// Make it wait, and read the backlog.
    ReadsBacklog,
}

/// The earlier sessions of a device at the start of a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EarlierSessions {
    /// They have ended, and their spools are empty.
    Gone,
    /// They have ended, and their spools have stanzas.
    LeftStanzas,
    /// Some have not ended or answered yet.
    Unsettled,
}

impl EarlierSessions {
    pub(super) fn of(owner: &Owner) -> Self {
        match (owner.older, owner.waits) {
            (true, _) => Self::Unsettled,
            (false, true) => Self::LeftStanzas,
            (false, false) => Self::Gone,
        }
    }
}

impl BacklogReading {
    pub(super) fn new(earlier: EarlierSessions) -> Self {
        let state = match earlier {
            EarlierSessions::Gone => BacklogState::Written,
            EarlierSessions::LeftStanzas | EarlierSessions::Unsettled => BacklogState::Unread,
        };
        Self { state, awaits_older: earlier == EarlierSessions::Unsettled, behind: Behind::default() }
    }

    /// Completes a state that was read from a record.
    pub(super) fn restore(&mut self, headers: &mut HeaderPool<'_>) {
        self.behind.restore(headers);
    }

    // Older sessions

    /// Notes that older sessions turned out to be of the same device.
    pub(super) fn expect_older(&mut self) {
        self.awaits_older = true;
    }

    pub(super) fn awaits_older(&self) -> bool {
        self.awaits_older
    }

    /// Notes that the older sessions have ended, or stay. Returns whether that was awaited.
    pub(super) fn on_older_settled(&mut self) -> bool {
        std::mem::take(&mut self.awaits_older)
    }

    /// Returns whether stanzas of earlier sessions are to be read now, because the client is ready for them.
    pub(super) fn is_asked_for(&self) -> bool {
        match self.state {
            BacklogState::Sending(_) | BacklogState::Done => true,
            BacklogState::Unread | BacklogState::Written => false,
        }
    }

    /// Notes that a session of the device has ended and left stanzas. Returns whether to read them now.
    pub(super) fn on_inherit(&mut self) -> bool {
        match self.state {
            BacklogState::Written => {
                self.state = BacklogState::Unread;
                false
            }
            BacklogState::Unread => false,
            BacklogState::Done | BacklogState::Sending(_) => true,
        }
    }

    // The client's presence

    /// Notes that the client begins to count stanzas. Returns whether to read the backlog.
    pub(super) fn on_enabled(&mut self) -> bool {
        let is_unread = matches!(self.state, BacklogState::Unread);
        if is_unread {
            self.state = BacklogState::Sending(None);
        }
        is_unread
    }

    /// Takes a broadcast of available presence by the client.
    pub(super) fn on_presence(&mut self, presence: &Element) -> FirstPresence {
        let first = match self.state {
            BacklogState::Unread => FirstPresence::ReadsBacklog,
            // A newer presence replaces the waiting one.
            BacklogState::Sending(_) => FirstPresence::Waits,
            BacklogState::Written | BacklogState::Done => return FirstPresence::Passes,
        };
        self.state = BacklogState::Sending(Some(Box::new(presence.compact())));
        first
    }

    /// Returns whether the client's presence waits.
    pub(super) fn holds_presence(&self) -> bool {
        matches!(self.state, BacklogState::Sending(Some(_)))
    }

    /// Returns whether the backlog is being written.
    pub(super) fn is_sending(&self) -> bool {
        matches!(self.state, BacklogState::Sending(_))
    }

    /// Notes that the backlog has been written. Returns the presence that waited.
    pub(super) fn on_written(&mut self) -> Option<Element> {
        match std::mem::replace(&mut self.state, BacklogState::Written) {
            BacklogState::Sending(presence) => presence.map(|presence| *presence),
            BacklogState::Unread | BacklogState::Written | BacklogState::Done => None,
        }
    }

    /// Notes that presence of an available client is forwarded. Returns whether it is the first one.
    pub(super) fn on_available(&mut self) -> bool {
        let is_first = matches!(self.state, BacklogState::Written);
        if is_first {
            self.state = BacklogState::Done;
        }
        is_first
    }

    /// Drops what waited, because a client that counts stanzas resumes: nothing of it was acknowledged, so the client sends
    /// it again.
    pub(super) fn on_resumed(&mut self) {
        if let BacklogState::Sending(presence) = &mut self.state {
            *presence = None;
            self.behind.forget();
        }
    }

    // Frames that wait for the presence

    /// Makes a frame wait if a presence waits. Otherwise returns it.
    pub(super) fn follow(&mut self, frame: Frame, is_ping_answer: impl Fn(&Element) -> bool) -> Option<Frame> {
        if !self.holds_presence() && self.behind.is_empty() {
            return Some(frame);
        }
        match &frame {
            Frame::Whitespace | Frame::Skipped(_) => return None,
            Frame::Element(element) if element.is("r", ns::SM) || element.is("a", ns::SM) => return Some(frame),
            // The answer to our ping serves as an `<a/>`.
            Frame::Element(element) if is_ping_answer(element) && !self.behind.enables() => return Some(frame),
            Frame::Element(_) | Frame::Open(_) | Frame::Close => {}
        }
        self.behind.push(frame);
        None
    }

    /// Takes the next frame behind a presence that has been forwarded.
    pub(super) fn next_behind(&mut self) -> Option<Frame> {
        if self.holds_presence() { None } else { self.behind.pop() }
    }

    /// The number of stanzas that wait for a presence.
    pub(super) fn stanzas_behind(&self) -> u64 {
        self.behind.stanzas()
    }

    /// The bytes of the client's frames that wait for a presence.
    pub(super) fn bytes_behind(&self) -> usize {
        self.behind.bytes()
    }

    /// Drops the waiting frames of a client that counts stanzas and was lost: it sends them again.
    pub(super) fn forget_behind(&mut self) {
        self.behind.forget();
    }

    /// Returns the presence and the waiting stanzas of a client that was lost and does not count stanzas.
    pub(super) fn release(&mut self) -> Vec<Element> {
        if self.behind.is_empty() {
            return Vec::new();
        }
        let presence = match &mut self.state {
            BacklogState::Sending(presence) => presence.take().map(|presence| *presence),
            BacklogState::Unread | BacklogState::Written | BacklogState::Done => None,
        };
        let behind = std::iter::from_fn(|| self.behind.pop()).filter_map(|frame| match frame {
            Frame::Element(element) if element.kind() != Kind::Other => Some(element),
            Frame::Element(_) | Frame::Open(_) | Frame::Whitespace | Frame::Skipped(_) | Frame::Close => None,
        });
        presence.into_iter().chain(behind).collect()
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, BacklogState::Done)
    }
}
