//! What a message says, as far as it can be read.

use crate::xml::{Node, ns};

/// What a message says.
#[derive(Debug)]
pub(super) enum Wording {
    /// This text.
    Text(String),
    /// Something that only the client can read; a body beside it is for clients that cannot.
    Encrypted,
    /// Nothing.
    Silence,
}

impl Wording {
    /// Reads a message.
    pub(super) fn of(message: &Node<'_>) -> Self {
        if message.children().any(|child| is_encrypted(&child)) {
            return Self::Encrypted;
        }
        let mut bodies = message.children().filter(|child| child.is("body", ns::CLIENT)).map(|body| body.text());
        match bodies.find(|text| !text.trim().is_empty()) {
            Some(text) => Self::Text(text.into_owned()),
            None => Self::Silence,
        }
    }
}

fn is_encrypted(child: &Node<'_>) -> bool {
    match child.name() {
        "encrypted" => matches!(child.ns(), ns::OMEMO_AXOLOTL | ns::OMEMO0 | ns::OMEMO1 | ns::OMEMO2),
        "x" => child.ns() == ns::PGP_ENCRYPTED,
        "openpgp" => child.ns() == ns::OPENPGP,
        "encryption" => child.ns() == ns::EME,
        _ => false,
    }
}
