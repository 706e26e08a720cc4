//! The reasons why a stanza does not notify.

use std::fmt;

/// The reason why a stanza does not notify. Its name is the log field and the metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Noise {
    /// Presence of any type but `subscribe`.
    Presence,
    /// An iq of any type that neither calls nor carries a UnifiedPush message.
    Iq,
    /// Not a stanza.
    Nonza,
    /// A message of type `error`.
    Error,
    /// A message of type `headline` (RFC 6121 §5.2.2).
    Headline,
    /// A carbon of a message that another client of the account sent (XEP-0280).
    SentCarbon,
    /// A message of the account itself, coming back from a room (XEP-0045 §7.4).
    Reflection,
    /// A message of a room from before the client joined (XEP-0045 §7.2).
    RoomHistory,
    /// A message of the account to itself.
    NoteToSelf,
    /// A correction of an earlier message (XEP-0308).
    Correction,
    /// A reaction to an earlier message (XEP-0444).
    Reaction,
    /// A retraction of a message, by its author (XEP-0424) or by a moderator (XEP-0425).
    Retraction,
    /// A text that only replaces something that does not notify (XEP-0428).
    Fallback,
    /// An encrypted element that carries a key, but no text (XEP-0384).
    KeyTransport,
    /// A device of the other side rings (XEP-0353 `ringing`).
    Ringing,
    /// The other side answers a call that the account made, or leaves one (XEP-0353, XEP-0482).
    CallAnswer,
    /// An invitation to a room was declined (XEP-0045 §7.8.2).
    Decline,
    /// A subject without a body. With a body beside it, it is a message and not a change of the subject (XEP-0045
    /// §7.2).
    Subject,
    /// The other side has opened, left or is writing in the chat (XEP-0085).
    ChatState,
    /// A receipt for a message (XEP-0184).
    Receipt,
    /// The other side has received or read a message (XEP-0333).
    Marker,
    /// A publish-subscribe or PEP event (XEP-0060, XEP-0163).
    PubsubEvent,
    /// A result from an archive (XEP-0313).
    Archive,
    /// A forwarded stanza that is not a carbon from the account itself (XEP-0297, XEP-0280 §11).
    Forward,
    /// A notice of a room about a change of itself (XEP-0045).
    RoomNotice,
    /// A message with none of the above, and without a text.
    NoText,
}

impl Noise {
    /// All of them, in the order of declaration.
    pub const ALL: [Noise; 26] = [
        Self::Presence,
        Self::Iq,
        Self::Nonza,
        Self::Error,
        Self::Headline,
        Self::SentCarbon,
        Self::Reflection,
        Self::RoomHistory,
        Self::NoteToSelf,
        Self::Correction,
        Self::Reaction,
        Self::Retraction,
        Self::Fallback,
        Self::KeyTransport,
        Self::Ringing,
        Self::CallAnswer,
        Self::Decline,
        Self::Subject,
        Self::ChatState,
        Self::Receipt,
        Self::Marker,
        Self::PubsubEvent,
        Self::Archive,
        Self::Forward,
        Self::RoomNotice,
        Self::NoText,
    ];

    /// Returns its name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Presence => "presence",
            Self::Iq => "iq",
            Self::Nonza => "nonza",
            Self::Error => "error",
            Self::Headline => "headline",
            Self::SentCarbon => "sent_carbon",
            Self::Reflection => "reflection",
            Self::RoomHistory => "room_history",
            Self::NoteToSelf => "note_to_self",
            Self::Correction => "correction",
            Self::Reaction => "reaction",
            Self::Retraction => "retraction",
            Self::Fallback => "fallback",
            Self::KeyTransport => "key_transport",
            Self::Ringing => "ringing",
            Self::CallAnswer => "call_answer",
            Self::Decline => "decline",
            Self::Subject => "subject",
            Self::ChatState => "chat_state",
            Self::Receipt => "receipt",
            Self::Marker => "marker",
            Self::PubsubEvent => "pubsub_event",
            Self::Archive => "archive",
            Self::Forward => "forward",
            Self::RoomNotice => "room_notice",
            Self::NoText => "no_text",
        }
    }
}

impl fmt::Display for Noise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_noise_is_listed_once_under_a_name_of_its_own() {
        let names: HashSet<_> = Noise::ALL.iter().map(|noise| noise.to_string()).collect();
        assert_eq!(names.len(), Noise::ALL.len());
        assert!(names.iter().all(|name| name.bytes().all(|b| b == b'_' || b.is_ascii_lowercase())));
        for (index, noise) in Noise::ALL.into_iter().enumerate() {
            assert_eq!(noise as usize, index, "{noise}");
        }
        assert_eq!(Noise::ALL.len(), Noise::NoText as usize + 1, "NoText stays the last");
    }
}
