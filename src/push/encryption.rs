//! The elements that mark a message as encrypted.

use crate::xml::{Node, ns};

/// The encryption of a message. If a message contains several, the greatest decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Encryption {
    /// XEP-0380 announces that it is encrypted.
    Announced,
    /// OMEMO without a payload only transports keys. A body beside it is meant for clients without OMEMO; no person
    /// wrote it.
    Keys,
    /// It contains an encrypted text.
    Text,
}

impl Encryption {
    /// Returns the encryption that a child of a message stands for, if any.
    pub(super) fn of(child: &Node<'_>) -> Option<Self> {
        match (child.ns(), child.name()) {
            (ns::OMEMO_AXOLOTL | ns::OMEMO0 | ns::OMEMO1 | ns::OMEMO2, "encrypted") => {
                let payload = child.child("payload", child.ns()).is_some();
                Some(if payload { Self::Text } else { Self::Keys })
            }
            (ns::PGP_ENCRYPTED, "x") | (ns::OPENPGP, "openpgp") => Some(Self::Text),
            (ns::EME, "encryption") => Some(Self::Announced),
            _ => None,
        }
    }

    /// Returns whether a child of a message holds an encrypted text.
    pub(super) fn is_text(child: &Node<'_>) -> bool {
        Self::of(child) == Some(Self::Text)
    }
}
