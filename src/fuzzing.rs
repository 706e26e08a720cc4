//! Fuzz targets. Compiled only for tests and for cargo-fuzz, which sets `cfg(fuzzing)`.
//!
//! A target takes bytes from the fuzzer and panics if the code under test breaks an invariant. Each target is written next to that
//! code, in a file `fuzzing.rs`, because it reads private items. `fuzz/` has the binaries and the seed corpora; `tests` below replays
//! the corpora and tries random changes of them.

#[cfg(test)]
mod tests;

/// A fuzz target.
pub type Target = fn(&[u8]);

/// The targets by name, as in `fuzz/fuzz_targets` and `fuzz/corpus`.
pub const TARGETS: [(&str, Target); 6] = [
    ("framer", framer),
    ("negotiation", negotiation),
    ("session", session),
    ("proxy_header", proxy_header),
    ("records", records),
    ("config", config),
];

/// Compares the fast framer, fed in chunks, with the exact reader.
pub fn framer(data: &[u8]) {
    crate::xml::fuzzing::framer(data);
}

/// Plays a login between a client and a server that may break the protocol.
pub fn negotiation(data: &[u8]) {
    crate::session::negotiate::fuzzing::negotiation(data);
}

/// Plays actions in the model of a session, and checks its invariants.
pub fn session(data: &[u8]) {
    crate::session::tests::model::fuzz(data);
}

/// Reads a PROXY header of version 1 or 2.
pub fn proxy_header(data: &[u8]) {
    crate::net::proxy_protocol::fuzzing::proxy_header(data);
}

/// Decodes a record of the database, and encodes it again.
pub fn records(data: &[u8]) {
    crate::store::fuzzing::records(data);
}

/// Parses a configuration.
pub fn config(data: &[u8]) {
    crate::config::fuzzing::config(data);
}
