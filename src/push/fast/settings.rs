//! The operator's settings for tokens.

use std::time::Duration;

pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// `[fast]`: the operator's settings for tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FastSettings {
    /// `ttl`: the time for which a token is valid. Zero turns FAST off. Default: 21 d.
    pub ttl: Duration,
}

impl Default for FastSettings {
    fn default() -> Self {
        Self { ttl: 21 * DAY }
    }
}

impl FastSettings {
    /// Returns whether tokens are issued and accepted.
    pub fn is_on(&self) -> bool {
        !self.ttl.is_zero()
    }
}
