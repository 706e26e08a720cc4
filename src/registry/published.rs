//! The result of a publish: [`Published`].

use crate::config::Transport;
use crate::push::outcome::Outcome;

/// The transport of a publish, and its outcome.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Published {
    /// The transport that carried it; `None` if it was not sent.
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
