//! Frames of the server that come before the client has its `<success/>`.

use crate::xml::Frame;

/// The number of frames and of their bytes that wait for the client's `<success/>`. With more, the login does not wait for further
/// answers.
const EARLY: (usize, usize) = (64, 64 * 1024);

/// Frames of the server for a client that waits for its `<success/>`.
#[derive(Debug, Default)]
pub(super) struct EarlyFrames {
    pub(super) frames: Vec<Frame>,
    bytes: usize,
}

impl EarlyFrames {
    /// Adds a frame.
    pub(super) fn push(&mut self, frame: Frame) {
        self.bytes += match &frame {
            Frame::Element(element) => element.bytes().len(),
            Frame::Skipped(skipped) => skipped.element.bytes().len(),
            Frame::Open(_) | Frame::Whitespace | Frame::Close => 0,
        };
        self.frames.push(frame);
    }

    /// Returns whether no more frames are kept.
    pub(super) fn is_full(&self) -> bool {
        self.frames.len() >= EARLY.0 || self.bytes >= EARLY.1
    }
}
