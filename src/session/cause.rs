//! The reason why a stanza is written to the client.

/// The reason why a stanza is written to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Cause {
    /// Another entity sent it.
    Relayed,
    /// It answers a stanza of the client.
    Reply,
}
