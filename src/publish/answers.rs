//! [`AnswerPolicy`]: the path on which answers to publishes over our own streams arrive.

/// The path of the answers to publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnswerPolicy {
    /// Answers arrive on the stream.
    OnStream,
    /// Answers go to the server of our host. This process does not see them.
    ToServer,
}
