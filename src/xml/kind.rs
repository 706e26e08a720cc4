//! The kinds of top-level elements.

/// The kind of a top-level element: a stanza (RFC 6120 §8), or anything else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A message stanza in the stream's content namespace.
    Message,
    /// A presence stanza in the stream's content namespace.
    Presence,
    /// An iq stanza in the stream's content namespace.
    Iq,
    /// Not a stanza.
    #[default]
    Other,
}

impl Kind {
    /// Returns the kind of an element with this local name in the content namespace.
    pub(super) fn of(name: &[u8]) -> Self {
        match name {
            b"message" => Self::Message,
            b"presence" => Self::Presence,
            b"iq" => Self::Iq,
            _ => Self::Other,
        }
    }
}
