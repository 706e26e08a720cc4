//! The `s2s` transport: connects as one of our hosts, over our own stream to the push service, authenticated by the host's
//! certificate.
//!
//! | file | holds |
//! |---|---|
//! | `pool.rs` | the streams to push services |
//! | `dial.rs` | connects |
//! | `endpoints.rs`, `dns.rs` | the candidate endpoints of a push service and their order |
//! | `handshake.rs` | the steps from a connection to a stream (RFC 6120, XEP-0178, XEP-0288) |
//! | `inbound.rs` | the stanzas that the push service may send on such a stream |
//! | `one_way.rs` | push services that have sent other stanzas |
//! | `new_services.rs`, `permits.rs` | limits per account: new push services and streams |
//! | `error.rs` | the reasons why a push service cannot be reached |

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
