//! One task per connection, which becomes the task of its session: an event goes into the core, its outputs are performed.
//!
//! ```text
//!  accept ─ handshake (STARTTLS or direct TLS) ─ login (Negotiation) ─┬─ bound: this task drives a Session until it ends
//!                                                                     └─ resumed: the connection moves to the session's task
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `serve.rs` | the stages of a connection |
//! | `client_address.rs`, `handshake.rs` | the PROXY header; TLS |
//! | `login/`, `bound/` | the tasks that drive a negotiation and a session |
//! | `jobs/` | what a session asks of the store |
//! | `shared.rs` | [`Relay`]: what all connections share, made of the following components |
//! | `accounts.rs`, `device_memories.rs` | changes of accounts; what devices remember |
//! | `publishing.rs`, `absent.rs` | publishes for sessions and accounts; devices that have no session |
//! | `overload.rs`, `report.rs`, `status.rs` | limits; log and metrics of sessions |
//! | `certificates.rs`, `upstream_warnings.rs`, `reachability.rs` | what an operator must know of certificates and servers |
//! | `upkeep.rs`, `wake_pushes.rs`, `revocations.rs` | tasks beside the sessions |
//! | `backpressure.rs`, `read_ahead.rs`, `timer.rs`, `background.rs` | which peer is read; connections while their task waits; deadlines; tasks that are waited for at shutdown |
//! | `snapshot.rs` | what a reload replaces |
//! | `client.rs` | the types of [`crate::registry`] for connections of clients |

mod absent;
mod accounts;
mod background;
mod backpressure;
mod bound;
mod certificates;
mod client;
mod client_address;
mod device_memories;
mod handshake;
mod jobs;
mod login;
mod overload;
mod publishing;
mod reachability;
mod read_ahead;
mod report;
mod revocations;
#[cfg(test)]
mod rig;
mod serve;
mod shared;
pub mod snapshot;
mod status;
mod timer;
mod upkeep;
mod upstream_warnings;
mod wake_pushes;

pub use client::{Client, Handle, Registry};
pub use shared::Relay;
