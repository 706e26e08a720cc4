//! The importance of each class of stanza.

use super::class::Class;

/// The importance of a stanza for a device that cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Importance {
    /// It rings. It is notified at once, whatever else waits.
    Urgent,
    /// It notifies at the times of the schedule, and counts in `message-count`.
    Important,
    /// It does not notify, and it removes waiting stanzas: a call has ended, or a conversation was read on another
    /// device.
    Settling,
    /// It does not notify.
    Unimportant,
}

impl Class {
    /// Returns the importance of stanzas of this class. The filters of a registration apply in addition.
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
