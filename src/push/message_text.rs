//! The text of a message, as far as Pushward can read it.

use super::encryption::Encryption;
use crate::xml::{Node, ns};

/// The text of a message.
#[derive(Debug)]
pub(super) enum MessageText {
    /// This text.
    Readable(String),
    /// A text that only the client can read. A body beside it is meant for clients that cannot.
    Encrypted,
    /// The message has no text.
    Absent,
}

impl MessageText {
    /// Reads a message.
    pub(super) fn of(message: &Node<'_>) -> Self {
        if message.children().any(|child| Encryption::of(&child).is_some()) {
            return Self::Encrypted;
        }
        let mut bodies = message.children().filter(|child| child.is("body", ns::CLIENT)).map(|body| body.text());
        match bodies.find(|text| !text.trim().is_empty()) {
            Some(text) => Self::Readable(text.into_owned()),
            None => Self::Absent,
        }
    }
}
