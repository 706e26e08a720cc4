//! The end of a publish.

use crate::config::Transport;
use crate::push::outcome::Outcome;

/// The end of a publish: by which transport it left, and its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The transport that it left by; `None`: none.
    pub transport: Option<Transport>,
    /// The outcome.
    pub outcome: Outcome,
}

impl Published {
    /// Returns the name of the transport for logs and metrics.
    pub fn transport_name(&self) -> &'static str {
        self.transport.map_or("none", Transport::name)
    }
}
