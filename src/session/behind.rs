//! Frames that the client sent after a presence that waits for the backlog. They follow it in order. Acknowledgements and
//! requests for them do not wait, because the backlog itself may need them to advance.

use std::collections::VecDeque;

use crate::xml::{Frame, HeaderPool, ns};

/// The memory charge of a frame in addition to its bytes.
const OVERHEAD: usize = 160;

/// Frames in the order in which they came. Few sessions have any.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Behind(Option<Box<Frames>>);

#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
struct Frames {
    frames: VecDeque<Frame>,
    #[serde(skip)]
    bytes: usize,
    #[serde(skip)]
    stanzas: u64,
}

impl Behind {
    /// Completes and counts the frames after they were read from a record.
    pub(super) fn restore(&mut self, headers: &mut HeaderPool<'_>) {
        for mut frame in self.0.take().map(|waiting| waiting.frames).unwrap_or_default() {
            if let Frame::Element(element) = &mut frame {
                element.share_header(headers);
            }
            self.push(frame);
        }
    }

    pub(super) fn push(&mut self, frame: Frame) {
        let waiting = self.0.get_or_insert_default();
        waiting.bytes += weight(&frame);
        waiting.stanzas += u64::from(frame.is_stanza());
        waiting.frames.push_back(frame);
    }

    pub(super) fn pop(&mut self) -> Option<Frame> {
        let waiting = self.0.as_mut()?;
        let frame = waiting.frames.pop_front()?;
        waiting.bytes -= weight(&frame);
        waiting.stanzas -= u64::from(frame.is_stanza());
        if waiting.frames.is_empty() {
            self.0 = None;
        }
        Some(frame)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |waiting| waiting.bytes)
    }

    /// Returns whether the client enables stream management among them: it counts the stanzas that it sent afterwards.
    pub(super) fn enables(&self) -> bool {
        let enables = |frame: &Frame| matches!(frame, Frame::Element(element) if element.is("enable", ns::SM));
        self.0.as_ref().is_some_and(|waiting| waiting.frames.iter().any(enables))
    }

    /// The number of stanzas that wait.
    pub(super) fn stanzas(&self) -> u64 {
        self.0.as_ref().map_or(0, |waiting| waiting.stanzas)
    }

    /// Drops all frames. None was counted as handled, so the client sends them again.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::{Element, Header, Kind};

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
