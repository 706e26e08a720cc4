//! The importance of each class of stanza.

use super::class::Class;

/// The importance of a stanza for a device that cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Importance {
    /// It rings: it is notified at once, whatever waits.
    Urgent,
    /// It notifies, at the times of the schedule, and counts in `message-count`.
    Important,
    /// It does not notify, and takes back what waits: a call has ended, a conversation was read elsewhere.
    Settling,
    /// It does not notify.
    Unimportant,
}

impl Class {
    /// The importance of stanzas of this class. This is the table; filters of a registration come on top of it.
    pub fn importance(self) -> Importance {
        match self {
            Self::Call => Importance::Urgent,
            Self::Message | Self::Invite | Self::Subscribe => Importance::Important,
            Self::CallEnd | Self::ReadSync => Importance::Settling,
            Self::Noise(_) => Importance::Unimportant,
        }
    }

    /// Returns whether a stanza of this class notifies.
    pub fn is_important(self) -> bool {
        match self.importance() {
            Importance::Urgent | Importance::Important => true,
            Importance::Settling | Importance::Unimportant => false,
        }
    }
}
