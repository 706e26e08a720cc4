//! Publishes push notifications. [`Publisher`] selects a transport for each publish. [`crate::relay`] uses it.
//!
//! | file | holds |
//! |---|---|
//! | `publisher.rs` | [`Publisher`]: tries the transports for a publish |
//! | `selection.rs` | the order in which transports are tried, and the state kept about each push service |
//! | `stream.rs`, `exchange.rs`, `pending.rs`, `reconnect_backoff.rs` | one of our own streams: its task, its traffic, unanswered publishes, reconnection |
//! | `peer.rs`, `answers.rs` | the interface of that task to the other end, and the path of the answers |
//! | `component.rs`, `holders.rs` | `component`: as a component of the server (XEP-0114); the node that holds it |
//! | `s2s/` | `s2s`: as the domain itself, over our own stream to the push service |
//! | `session.rs` | `session`: through the user's own upstream stream, where the server stamps the full JID |
//! | `interruption.rs` | the end of publishing for a handover to another process |
//! | `namespace.rs` | the rewrite of stanzas from one content namespace to another |
//! | `probe.rs` | tries the transports without notifying a device, for `pushward check` |
//! | `settings.rs`, `error.rs` | the loaded configuration; errors |

mod answers;
mod component;
mod error;
mod exchange;
mod holders;
mod interruption;
mod namespace;
mod peer;
mod pending;
pub mod probe;
mod publisher;
mod reconnect_backoff;
mod s2s;
mod selection;
pub mod session;
mod settings;
#[cfg(test)]
pub(crate) mod stand_in;
mod stream;

pub use holders::{HolderNodes, PassedPublish, PassingOn};
pub use interruption::{Interrupted, PublishPermit};
pub use publisher::{Eligible, Publisher, PublisherRecord};
pub use s2s::pool::Revocation;
pub use selection::ServiceStatus;
pub use settings::TransportSettings;
