//! Identifiers of a session and of its client's connections, and the source of random numbers.

use std::fmt;
use std::sync::Arc;

/// The source of unguessable numbers: the relay passes a cryptographic generator, tests a counter.
pub type RandomSource = fn() -> u128;

/// One TCP connection of a client to a session. A later attachment has a larger number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Attachment(u32);

impl Attachment {
    /// The connection on which the session was bound.
    pub const FIRST: Self = Self(1);

    pub(super) fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

/// A resumption identifier (XEP-0198 §5 `id`, `previd`): 128 random bits.
#[derive(Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct SmId(Arc<str>);

impl SmId {
    /// Creates an id from the text that a client presented.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// The text on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SmId {
    // Knowledge of the id is half of what a resumption needs, so no log shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SmId([redacted])")
    }
}
