//! The other nodes of a cluster: the node that owns an account, and the connections between nodes.
//!
//! A client may connect to any node, but an account belongs to one: the node that has its sessions. The node that accepts the
//! client ends its TLS, and looks up the owner by the client's first SASL message. If that is another node, it passes the byte
//! stream on to it, over TLS on which both nodes show certificates:
//!
//! ```text
//!  client ──TLS── node 2 ────────── TLS with two certificates ────────── node 1 (owner) ── server
//!                   PROXY header: address, TLS, hop=1, tls-exporter
//!                   the client's header and first SASL message, then all bytes
//! ```
//!
//! To the owner it is one more client, whose TLS is the one at the other node. A stream is passed on once.
//!
//! | file | contents |
//! |---|---|
//! | `directory.rs` | [`Directory`](directory::Directory): the owners of accounts, and the certificates of nodes |
//! | `node_tls.rs`, `fingerprint.rs` | TLS between nodes; the name of a certificate |
//! | `hop.rs` | the connection to the owner of an account |
//! | `request.rs` | requests to another node |
//! | `arrival.rs` | a connection of another node |

pub mod arrival;
pub mod directory;
pub mod fingerprint;
pub mod hop;
pub mod node_tls;
pub mod request;
#[cfg(test)]
pub(crate) mod testing;
