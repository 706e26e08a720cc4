//! What a device gets before anything new: the stanzas of its earlier sessions. The client's first available presence, and what
//! it sends behind that, wait until they have been written.

use super::behind::Behind;
use super::identity::Owner;
use crate::xml::{Element, Frame, Kind, ns};

/// What stands before the client's first available presence.
#[derive(Debug)]
enum BacklogState {
    /// The device's spools have stanzas of earlier sessions: they go first.
    Unread,
    /// They are on their way; the presence waits.
    Sending(Option<Box<Element>>),
    /// There are none, or they were written; no presence was forwarded yet.
    Written,
    /// The presence was forwarded.
    Done,
}

/// The backlog of a device, and what waits behind it.
#[derive(Debug)]
pub(super) struct BacklogReading {
    state: BacklogState,
    /// Older sessions of the device are still to end, give way or answer.
    awaits_older: bool,
    behind: Behind,
}

/// What is to be done with an available presence of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstPresence {
    /// It passes.
    Passes,
    /// It waits.
    Waits,
    /// It waits, and the backlog is to be read for it.
    ReadsBacklog,
}

/// The earlier sessions of a device at the start of a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EarlierSessions {
    /// They have ended, and their spools are empty.
    Gone,
    /// They have ended, and their spools have stanzas.
    LeftStanzas,
    /// Some are still to end, give way or answer.
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

    // Older sessions

    /// Older sessions turned out to be of the same device.
    pub(super) fn expect_older(&mut self) {
        self.awaits_older = true;
    }

    pub(super) fn awaits_older(&self) -> bool {
        self.awaits_older
    }

    /// The older sessions have ended, or stay. Returns whether that was awaited.
    pub(super) fn on_older_settled(&mut self) -> bool {
        std::mem::take(&mut self.awaits_older)
    }

    /// Whether stanzas of earlier sessions are to be read now: the client has asked for them.
    pub(super) fn is_asked_for(&self) -> bool {
        match self.state {
            BacklogState::Sending(_) | BacklogState::Done => true,
            BacklogState::Unread | BacklogState::Written => false,
        }
    }

    /// A session of the device has ended and left stanzas. Returns whether they are to be read now.
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

    /// The client begins to count. Returns whether the backlog is to be read.
    pub(super) fn on_enabled(&mut self) -> bool {
        let is_unread = matches!(self.state, BacklogState::Unread);
        if is_unread {
            self.state = BacklogState::Sending(None);
        }
        is_unread
    }

    /// The client sends available presence to everybody.
    pub(super) fn on_presence(&mut self, presence: &Element) -> FirstPresence {
        let first = match self.state {
            BacklogState::Unread => FirstPresence::ReadsBacklog,
            // What follows a presence that waits comes after it.
            BacklogState::Sending(_) => FirstPresence::Waits,
            BacklogState::Written | BacklogState::Done => return FirstPresence::Passes,
        };
        self.state = BacklogState::Sending(Some(Box::new(presence.compact())));
        first
    }

    /// Whether the client's presence waits.
    pub(super) fn holds_presence(&self) -> bool {
        matches!(self.state, BacklogState::Sending(Some(_)))
    }

    /// Whether the backlog is on its way.
    pub(super) fn is_sending(&self) -> bool {
        matches!(self.state, BacklogState::Sending(_))
    }

    /// The backlog has been written. Returns the presence that waited.
    pub(super) fn on_written(&mut self) -> Option<Element> {
        match std::mem::replace(&mut self.state, BacklogState::Written) {
            BacklogState::Sending(presence) => presence.map(|presence| *presence),
            BacklogState::Unread | BacklogState::Written | BacklogState::Done => None,
        }
    }

    /// Presence of an available client is forwarded. Returns whether it is the first one.
    pub(super) fn on_available(&mut self) -> bool {
        let is_first = matches!(self.state, BacklogState::Written);
        if is_first {
            self.state = BacklogState::Done;
        }
        is_first
    }

    /// A client that counts resumes: what waited was not acknowledged, so it sends it again.
    pub(super) fn on_resumed(&mut self) {
        if let BacklogState::Sending(presence) = &mut self.state {
            *presence = None;
            self.behind.forget();
        }
    }

    // Frames behind the presence

    /// Lets a frame wait behind a presence that waits, or returns it.
    pub(super) fn follow(&mut self, frame: Frame, is_ping_answer: impl Fn(&Element) -> bool) -> Option<Frame> {
        if !self.holds_presence() && self.behind.is_empty() {
            return Some(frame);
        }
        match &frame {
            Frame::Whitespace | Frame::Skipped(_) => return None,
            Frame::Element(element) if element.is("r", ns::SM) || element.is("a", ns::SM) => return Some(frame),
            // The answer to our ping is what `<a/>` is elsewhere.
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

    /// How many stanzas wait behind a presence.
    pub(super) fn stanzas_behind(&self) -> u64 {
        self.behind.stanzas()
    }

    /// Bytes of the client that wait behind a presence.
    pub(super) fn bytes_behind(&self) -> usize {
        self.behind.bytes()
    }

    /// A client that counts has gone: it sends again what was not acknowledged.
    pub(super) fn forget_behind(&mut self) {
        self.behind.forget();
    }

    /// A client that does not count has gone: its presence and the stanzas behind that wait no more.
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
