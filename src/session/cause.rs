//! Why a stanza is written to the client.

/// Why a stanza is written to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Somebody else sent it.
    Relayed,
    /// It answers what the client has sent.
    Reply,
}
