//! Errors of a stream, and the stream errors sent in response.

use bytes::Bytes;

use super::condition::StreamCondition;
use super::writer::stream_error;

/// An error in a stream, after which it cannot be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The bytes are not well-formed XML 1.0, or not namespace-well-formed.
    #[error("not well-formed: {what} at byte {at}")]
    NotWellFormed {
        /// The finding.
        what: &'static str,
        /// The place, in bytes from the start of the top-level element or stream header.
        at: usize,
    },
    /// The tags are in order, but a name, value or text is not well-formed.
    #[error("not well-formed: {what} at byte {at}")]
    Unfit {
        /// The finding.
        what: Unfit,
        /// The place, in bytes from the start of the top-level element or stream header.
        at: usize,
    },
    /// XML that is well-formed but prohibited in XMPP (RFC 6120 §11.1).
    #[error("prohibited XML: {0}")]
    Restricted(Restricted),
    /// A top-level element or stream header is longer than allowed.
    #[error("element longer than {limit} bytes")]
    TooLarge {
        /// The maximum bytes.
        limit: usize,
    },
    /// Elements are nested deeper than allowed.
    #[error("elements nested deeper than {limit}")]
    TooDeep {
        /// The maximum levels, including the top-level element.
        limit: usize,
    },
    /// A tag has too many attributes, or there are too many namespace prefixes in scope.
    #[error("more than {limit} {what}")]
    TooMany {
        /// The kind of item that there are too many of.
        what: &'static str,
        /// The maximum number.
        limit: usize,
    },
    /// The stream header is not `{streams}stream`, or its default namespace is not the expected one (RFC 6120 §4.8).
    #[error("invalid stream namespace")]
    BadNamespace,
    /// The XML declaration names an encoding other than UTF-8, or bytes are not UTF-8 (RFC 6120 §11.6).
    #[error("not UTF-8")]
    BadEncoding,
    /// Well-formed XML in a place where the stream does not allow it (RFC 6120 §4.9.3.1).
    #[error("unexpected {what}")]
    BadFormat {
        /// The finding.
        what: &'static str,
    },
}

/// An error inside an element whose tags are in order. Its end can be found, so the element can be skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// A name that XML does not allow, or that its 4th edition does not allow.
    Name,
    /// A prefix without a declared namespace.
    Unbound,
    /// An attribute occurs twice.
    DuplicateAttribute,
    /// A prefix is declared twice on one tag.
    DeclaredTwice,
    /// A declaration of a reserved prefix or namespace.
    Reserved,
    /// A declaration of a prefix with an empty namespace.
    Undeclared,
    /// A character that XML excludes.
    Character,
    /// `]]>` in text.
    Terminator,
    /// A `&` that starts no reference, or a reference to a character that XML excludes.
    Reference,
    /// A reference to a number that is not a character.
    NoCharacter,
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Unfit::Name => "invalid name",
            Unfit::Unbound => "unbound prefix",
            Unfit::DuplicateAttribute => "duplicate attribute",
            Unfit::DeclaredTwice => "namespace declared twice",
            Unfit::Reserved => "reserved prefix or namespace",
            Unfit::Undeclared => "prefix undeclared",
            Unfit::Character => "excluded character",
            Unfit::Terminator => "]]> in text",
            Unfit::Reference => "invalid reference",
            Unfit::NoCharacter => "reference to no character",
        })
    }
}

/// The kinds of XML that RFC 6120 §11.1 prohibits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restricted {
    /// A document type declaration.
    Doctype,
    /// A comment.
    Comment,
    /// A processing instruction, or an XML declaration that is not at the start of a stream.
    ProcessingInstruction,
    /// A reference to an entity other than the five predefined ones.
    Entity,
}

impl std::fmt::Display for Restricted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Restricted::Doctype => "document type declaration",
            Restricted::Comment => "comment",
            Restricted::ProcessingInstruction => "processing instruction",
            Restricted::Entity => "entity reference",
        })
    }
}

impl FrameError {
    /// Returns the condition of the stream error to send (RFC 6120 §4.9.3).
    pub fn condition(&self) -> StreamCondition {
        match self {
            FrameError::NotWellFormed { .. } | FrameError::Unfit { .. } => StreamCondition::NotWellFormed,
            FrameError::Restricted(_) => StreamCondition::RestrictedXml,
            FrameError::TooLarge { .. } | FrameError::TooDeep { .. } | FrameError::TooMany { .. } => {
                StreamCondition::PolicyViolation
            }
            FrameError::BadNamespace => StreamCondition::InvalidNamespace,
            FrameError::BadEncoding => StreamCondition::UnsupportedEncoding,
            FrameError::BadFormat { .. } => StreamCondition::BadFormat,
        }
    }

    /// Returns the application-specific condition to add (RFC 6120 §4.9.4, §4.9.3.14).
    pub fn application(&self) -> Option<&'static [u8]> {
        let too_large = matches!(self, FrameError::TooLarge { .. });
        too_large.then_some(b"<stanza-too-big xmlns='urn:xmpp:errors'/>")
    }

    /// Returns the stream error that closes the stream.
    pub fn stream_error(&self) -> Bytes {
        stream_error(self.condition(), self.application(), None)
    }

    /// Returns the same error with its place moved by `by` bytes.
    pub(super) fn moved(self, by: usize) -> Self {
        match self {
            FrameError::NotWellFormed { what, at } => FrameError::NotWellFormed { what, at: at + by },
            FrameError::Unfit { what, at } => FrameError::Unfit { what, at: at + by },
            FrameError::Restricted(_)
            | FrameError::TooLarge { .. }
            | FrameError::TooDeep { .. }
            | FrameError::TooMany { .. }
            | FrameError::BadNamespace
            | FrameError::BadEncoding
            | FrameError::BadFormat { .. } => self,
        }
    }

    pub(super) const fn malformed(what: &'static str, at: usize) -> Self {
        FrameError::NotWellFormed { what, at }
    }

    pub(super) const fn unfit(what: Unfit, at: usize) -> Self {
        FrameError::Unfit { what, at }
    }
}
