//! The way of the answers to what is published over a stream of our own.

/// The way of the answers to publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnswerPolicy {
    /// They come back on the stream.
    OnStream,
    /// They go to the server of our host; nothing of them is known here.
    ToServer,
}
