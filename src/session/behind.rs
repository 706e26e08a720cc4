//! What the client has sent behind a presence that waits for the backlog: it follows it, in order. Acknowledgements and requests
//! for them do not wait, since the backlog itself may need them to go on.

use std::collections::VecDeque;
use std::time::Instant;

use super::greeting::Greeting;
use super::{Session, Tracking};
use crate::xml::{Frame, ns};

/// What a frame costs beside its bytes.
const OVERHEAD: usize = 160;

/// Frames in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Behind {
    frames: VecDeque<Frame>,
    bytes: usize,
    stanzas: u64,
}

impl Behind {
    fn push(&mut self, frame: Frame) {
        self.bytes += weight(&frame);
        self.stanzas += u64::from(frame.is_stanza());
        self.frames.push_back(frame);
    }

    fn pop(&mut self) -> Option<Frame> {
        let frame = self.frames.pop_front();
        match &frame {
            Some(frame) => {
                self.bytes -= weight(frame);
                self.stanzas -= u64::from(frame.is_stanza());
            }
            None => *self = Self::default(),
        }
        frame
    }

    /// How many stanzas wait.
    pub(super) fn stanzas(&self) -> u64 {
        self.stanzas
    }

    /// Nothing of it was counted, so the client sends it again.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

fn weight(frame: &Frame) -> usize {
    match frame {
        Frame::Element(element) => element.bytes().len() + OVERHEAD,
        Frame::Open(header) => header.bytes().len() + OVERHEAD,
        Frame::Whitespace | Frame::Close => OVERHEAD,
    }
}

impl Session {
    /// Bytes of the client that wait to be relayed to the server behind a presence.
    pub fn held_bytes(&self) -> usize {
        self.behind.bytes
    }

    fn holds_presence(&self) -> bool {
        matches!(self.greeting, Greeting::Sending(Some(_)))
    }

    /// Lets a frame wait behind a presence that waits, or returns it.
    pub(super) fn follow_presence(&mut self, frame: Frame) -> Option<Frame> {
        if !self.holds_presence() && self.behind.frames.is_empty() {
            return Some(frame);
        }
        match &frame {
            Frame::Whitespace => return None,
            Frame::Element(element) if element.is("r", ns::SM) || element.is("a", ns::SM) => return Some(frame),
            // The answer to our ping is what `<a/>` is elsewhere.
            Frame::Element(element) if self.is_ping_answer(element) => return Some(frame),
            Frame::Element(_) | Frame::Open(_) | Frame::Close => {}
        }
        self.behind.push(frame);
        None
    }

    /// The presence has been forwarded: what came behind it follows.
    pub(super) fn go_on_behind_presence(&mut self, now: Instant) {
        if self.behind.frames.is_empty() {
            return;
        }
        while !self.holds_presence()
            && !self.is_ending()
            && let Some(frame) = self.behind.pop()
        {
            self.follow(now, frame);
        }
    }

    /// The client has gone. One that counts sends again what was not acknowledged; for another one the presence waits no more.
    pub(super) fn release_behind(&mut self, now: Instant) {
        if matches!(self.tracking, Tracking::Sm(_)) || self.behind.frames.is_empty() {
            return;
        }
        if let Greeting::Sending(presence) = &mut self.greeting
            && let Some(presence) = presence.take()
        {
            self.forward_counted(now, *presence);
        }
        self.go_on_behind_presence(now);
    }
}
