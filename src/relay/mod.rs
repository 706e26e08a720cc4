//! The relay runs one task per connection, which becomes the task of its session: it passes events to the core and performs
//! the outputs.
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
//! | `arrivals.rs`, `relayed.rs`, `node_requests.rs`, `node_answers.rs`, `node_end.rs` | clients that another node has passed on, clients that are passed on to another node, requests between nodes, the end of a node's sessions |
//! | `login/`, `bound/` | the tasks that drive a negotiation and a session |
//! | `jobs/` | the store requests of a session |
//! | `shared.rs` | [`Relay`]: the state that all connections share, made of the following components |
//! | `accounts.rs`, `device_memories.rs` | changes of accounts; the memories of devices |
//! | `fast/` | tokens by which clients return to their sessions |
//! | `components.rs` | the components that this node of a cluster holds |
//! | `publishing.rs`, `absent.rs` | publishes for sessions and accounts; devices that have no session |
//! | `overload.rs`, `report.rs`, `status.rs` | limits; log and metrics of sessions |
//! | `certificates.rs`, `upstream_warnings.rs`, `reachability.rs` | warnings for the operator about certificates and upstream servers |
//! | `upkeep.rs`, `wake_pushes.rs`, `wake_retries.rs`, `revocations.rs` | background tasks |
//! | `backpressure.rs`, `read_ahead.rs`, `timer.rs`, `background.rs` | the choice of peers to read; connections while their task waits; deadlines; tasks that the shutdown waits for |
//! | `frozen.rs`, `thaw.rs` | sessions that another process goes on with |
//! | `handover.rs` | the state beside the sessions, for another process |
//! | `snapshot.rs` | the state that a reload replaces |
//! | `client.rs` | the types of [`crate::registry`] for connections of clients |

mod absent;
mod accounts;
mod arrivals;
mod background;
mod backpressure;
mod bound;
mod certificates;
mod client;
mod client_address;
mod components;
mod device_memories;
mod fast;
mod frozen;
pub mod handover;
mod handshake;
mod jobs;
mod login;
mod node_answers;
mod node_end;
pub mod node_requests;
mod overload;
mod publishing;
mod reachability;
mod read_ahead;
mod relayed;
mod report;
mod revocations;
#[cfg(test)]
mod rig;
mod serve;
mod shared;
pub mod snapshot;
mod status;
mod thaw;
mod timer;
mod upkeep;
mod upstream_warnings;
mod wake_pushes;
mod wake_retries;

pub use client::{Client, Handle, Registry};
pub use frozen::{FrozenSession, HandoverReport, SessionHandover};
pub use node_end::NodeEnd;
pub use shared::Relay;
pub use thaw::{ThawedSessions, thaw};
