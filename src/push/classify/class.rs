//! The classes of stanzas.

use std::fmt;

use super::noise_reason::Noise;

/// The class of a stanza.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Class {
    /// A call (XEP-0353 `propose`, XEP-0482 `invite`, a Jingle `session-initiate` over RTP).
    Call,
    /// A call is over, or another client of the account has taken or declined it.
    CallEnd,
    /// A person wrote a message. This notifies.
    Message,
    /// An invitation to a room (XEP-0249, XEP-0045 §7.8.2).
    Invite,
    /// A person asks to see the user's presence (RFC 6121 §3.1).
    Subscribe,
    /// Another client of the account has read [`Classified::chat`](super::Classified::chat) (XEP-0333 `displayed`,
    /// XEP-0490). Of several chats, `chat` is the last.
    ReadSync,
    /// A stanza that no person waits for.
    Noise(Noise),
}

impl Class {
    /// Returns its name in logs and metrics. [`Noise::name`] is more precise.
    pub fn name(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::CallEnd => "call_end",
            Self::Message => "message",
            Self::Invite => "invite",
            Self::Subscribe => "subscribe",
            Self::ReadSync => "read_sync",
            Self::Noise(_) => "noise",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
