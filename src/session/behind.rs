//! What the client has sent behind a presence that waits for the backlog: it follows it, in order. Acknowledgements and requests
//! for them do not wait, since the backlog itself may need them to go on.

use std::collections::VecDeque;
use std::time::Instant;

use super::greeting::Greeting;
use super::{Session, Tracking};
use crate::xml::{Frame, Kind, ns};

/// Bytes of replies that may be on their way to the disk.
const REPLIES: usize = 64 << 10;

/// What a frame costs beside its bytes.
const OVERHEAD: usize = 160;

/// Frames in the order in which they came. Few sessions have any.
#[derive(Debug, Default)]
pub(super) struct Behind(Option<Box<Frames>>, Option<Box<Replies>>);

/// Replies of our own that had no place in memory and are on their way to the disk.
#[derive(Debug, Default)]
struct Replies {
    bytes: usize,
    last: u64,
}

#[derive(Debug, Default)]
struct Frames {
    frames: VecDeque<Frame>,
    bytes: usize,
    stanzas: u64,
}

impl Behind {
    fn push(&mut self, frame: Frame) {
        let waiting = self.0.get_or_insert_default();
        waiting.bytes += weight(&frame);
        waiting.stanzas += u64::from(frame.is_stanza());
        waiting.frames.push_back(frame);
    }

    fn pop(&mut self) -> Option<Frame> {
        let waiting = self.0.as_mut()?;
        let frame = waiting.frames.pop_front()?;
        waiting.bytes -= weight(&frame);
        waiting.stanzas -= u64::from(frame.is_stanza());
        if waiting.frames.is_empty() {
            self.0 = None;
        }
        Some(frame)
    }

    fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |waiting| waiting.bytes)
    }

    /// Whether the client turns stream management on among them: it counts what it sent behind that.
    fn enables(&self) -> bool {
        let enables = |frame: &Frame| matches!(frame, Frame::Element(element) if element.is("enable", ns::SM));
        self.0.as_ref().is_some_and(|waiting| waiting.frames.iter().any(enables))
    }

    /// How many stanzas wait.
    pub(super) fn stanzas(&self) -> u64 {
        self.0.as_ref().map_or(0, |waiting| waiting.stanzas)
    }

    /// A reply to the client had no place in memory.
    pub(super) fn reply_goes_to_spool(&mut self, seq: u64, len: usize) {
        let replies = self.1.get_or_insert_default();
        **replies = Replies { bytes: replies.bytes.saturating_add(len), last: seq };
    }

    /// What was handed to the spool up to this place is on disk.
    pub(super) fn committed(&mut self, seq: u64) {
        self.1 = self.1.take().filter(|replies| replies.last > seq);
    }

    /// Whether replies on their way to the disk are over the mark for those that wait to be written.
    pub(super) fn owes_too_much(&self) -> bool {
        self.1.as_ref().is_some_and(|replies| replies.bytes >= REPLIES)
    }

    /// Drops all of it. Nothing of it was counted, so the client sends it again.
    pub(super) fn forget(&mut self) {
        self.0 = None;
    }
}

fn weight(frame: &Frame) -> usize {
    match frame {
        Frame::Element(element) => element.bytes().len() + OVERHEAD,
        Frame::Open(header) => header.bytes().len() + OVERHEAD,
        Frame::Whitespace | Frame::Skipped(_) | Frame::Close => OVERHEAD,
    }
}

impl Session {
    /// Bytes of the client that wait to be relayed to the server behind a presence.
    pub fn held_bytes(&self) -> usize {
        self.behind.bytes()
    }

    /// Lets a frame wait behind a presence that waits, or returns it.
    pub(super) fn follow_presence(&mut self, frame: Frame) -> Option<Frame> {
        if !self.holds_presence() && self.behind.is_empty() {
            return Some(frame);
        }
        match &frame {
            Frame::Whitespace | Frame::Skipped(_) => return None,
            Frame::Element(element) if element.is("r", ns::SM) || element.is("a", ns::SM) => return Some(frame),
            // The answer to our ping is what `<a/>` is elsewhere.
            Frame::Element(element) if self.is_ping_answer(element) && !self.behind.enables() => return Some(frame),
            Frame::Element(_) | Frame::Open(_) | Frame::Close => {}
        }
        self.behind.push(frame);
        None
    }

    /// The presence has been forwarded: what came behind it follows.
    pub(super) fn go_on_behind_presence(&mut self, now: Instant) {
        if self.behind.is_empty() {
            return;
        }
        while !self.holds_presence()
            && !self.is_ending()
            && let Some(frame) = self.behind.pop()
        {
            self.follow(now, frame);
        }
    }

    /// The client has gone. One that counts sends again what was not acknowledged; the stanzas of another one wait no more.
    pub(super) fn release_behind(&mut self, now: Instant) {
        if matches!(self.tracking, Tracking::Sm(_)) {
            return self.behind.forget();
        }
        if self.behind.is_empty() {
            return;
        }
        if let Greeting::Sending(presence) = &mut self.greeting
            && let Some(presence) = presence.take()
        {
            self.forward_counted(now, *presence);
        }
        while let Some(frame) = self.behind.pop() {
            if let Frame::Element(element) = frame
                && element.kind() != Kind::Other
            {
                self.forward_counted(now, element);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::{Element, Header};

    fn frame(xml: &'static str) -> Frame {
        Frame::Element(Element::parse(xml.into(), &Header::bare()).unwrap())
    }

    #[test]
    fn what_waits_is_counted_and_keeps_its_order() {
        let mut behind = Behind::default();
        for xml in ["<message id='1'/>", "<x xmlns='y'/>", "<iq id='2'/>"] {
            behind.push(frame(xml));
        }
        behind.push(Frame::Close);
        assert_eq!((behind.stanzas(), behind.bytes()), (2, 17 + 14 + 12 + 4 * OVERHEAD));
        let order: Vec<_> = std::iter::from_fn(|| behind.pop()).collect();
        assert!(
            matches!(order.as_slice(), [Frame::Element(first), _, _, Frame::Close] if first.kind() == Kind::Message)
        );
        assert!(behind.is_empty());
    }
}
