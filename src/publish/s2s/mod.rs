//! The `s2s` transport: as one of our hosts, over a stream of its own to the push service, proven by the host's certificate.
//!
//! | file | holds |
//! |---|---|
//! | `pool.rs` | the streams to push services |
//! | `dial.rs` | connects |
//! | `endpoints.rs`, `dns.rs` | where the push service may be, and what is tried first |
//! | `handshake.rs` | from a connection to a stream (RFC 6120, XEP-0178, XEP-0288) |
//! | `inbound.rs` | what the push service may send on such a stream |
//! | `one_way.rs` | push services that have sent more than that |
//! | `new_services.rs`, `permits.rs` | how many push services an account may bring, and how many streams it may cause |
//! | `error.rs` | why a push service cannot be reached |

pub(super) mod dial;
mod dns;
pub(super) mod endpoints;
pub(super) mod error;
mod handshake;
pub(super) mod inbound;
mod new_services;
mod one_way;
mod permits;
pub(super) mod pool;
