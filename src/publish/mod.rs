//! Publishes notifications: the selection of a transport, and the transports.
//!
//! | file | holds |
//! |---|---|
//! | `publisher.rs` | [`Publisher`]: tries the transports for a publish |
//! | `selection.rs` | the order in which they are tried, and what is remembered of a push service |
//! | `stream.rs`, `exchange.rs`, `pending.rs`, `backoff.rs` | a stream of our own: its task, its traffic, publishes without an answer, reconnection |
//! | `peer.rs`, `answers.rs` | what that task needs of the other end, and by which way it answers |
//! | `component.rs` | `component`: as a component of the server (XEP-0114) |
//! | `s2s/` | `s2s`: as the domain itself, over a stream of its own to the push service |
//! | `session.rs` | `session`: through the user's own upstream stream, where the server stamps the full JID |
//! | `namespace.rs` | stanzas from one content namespace to another |
//! | `probe.rs` | tries the transports without notifying anybody, for `pushward check` |
//! | `settings.rs`, `error.rs` | the loaded configuration; errors |

mod answers;
mod backoff;
mod component;
mod error;
mod exchange;
mod namespace;
mod peer;
mod pending;
pub mod probe;
mod publisher;
mod s2s;
mod selection;
pub mod session;
mod settings;
mod stream;

pub use publisher::{Eligible, Publisher};
pub use s2s::pool::Revocation;
pub use selection::Standing;
pub use settings::TransportSettings;
