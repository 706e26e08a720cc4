//! Errors of a stream, and the stream errors that are sent for them.

use bytes::Bytes;

use super::condition::StreamCondition;
use super::writer::stream_error;

/// An error in a stream, which cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The bytes are not well-formed XML 1.0, or not namespace-well-formed.
    #[error("not well-formed: {what} at byte {at}")]
    NotWellFormed {
        /// The finding.
        what: &'static str,
        /// Where, in bytes from the start of the top-level element or stream header.
        at: usize,
    },
    /// The tags are in order, but what stands in them or between them is not well-formed.
    #[error("not well-formed: {what} at byte {at}")]
    Unfit {
        /// The finding.
        what: Unfit,
        /// Where, in bytes from the start of the top-level element or stream header.
        at: usize,
    },
    /// XML that is well-formed but prohibited in XMPP (RFC 6120 §11.1).
    #[error("prohibited XML: {0}")]
    Restricted(Restricted),
    /// A top-level element or stream header is longer than allowed.
    #[error("element longer than {limit} bytes")]
    TooLarge {
        /// Bytes allowed.
        limit: usize,
    },
    /// Elements are nested deeper than allowed.
    #[error("elements nested deeper than {limit}")]
    TooDeep {
        /// Levels allowed, the top-level element included.
        limit: usize,
    },
    /// More attributes on a tag, or namespace prefixes in scope, than anybody needs.
    #[error("more than {limit} {what}")]
    TooMany {
        /// The kind of thing that there is too much of.
        what: &'static str,
        /// The number that is allowed.
        limit: usize,
    },
    /// The stream header is not `{streams}stream`, or its default namespace is not the expected one (RFC 6120 §4.8).
    #[error("invalid stream namespace")]
    BadNamespace,
    /// The XML declaration names an encoding other than UTF-8, or bytes are not UTF-8 (RFC 6120 §11.6).
    #[error("not UTF-8")]
    BadEncoding,
    /// Well-formed XML where the stream has no place for it (RFC 6120 §4.9.3.1).
    #[error("unexpected {what}")]
    BadFormat {
        /// The finding.
        what: &'static str,
    },
}

/// An error within an element whose tags are in order, so that its end can be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// A name that XML does not allow, or not in its 4th edition.
    Name,
    /// A prefix that stands for no namespace.
    Unbound,
    /// An attribute is given twice.
    DuplicateAttribute,
    /// A prefix is declared twice on one tag.
    DeclaredTwice,
    /// A prefix or namespace that must not be declared.
    Reserved,
    /// A prefix is declared to stand for nothing.
    Undeclared,
    /// A character that XML excludes.
    Character,
    /// `]]>` in text.
    Terminator,
    /// A `&` that begins no reference, or one to a character that XML excludes.
    Reference,
    /// A reference to a number that is no character's.
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
    /// A processing instruction, or an XML declaration anywhere but at the start of a stream.
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
    /// The stream error condition to close the stream with (RFC 6120 §4.9.3).
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

    /// The application-specific condition that goes with it (RFC 6120 §4.9.4, §4.9.3.14).
    pub fn application(&self) -> Option<&'static [u8]> {
        let too_large = matches!(self, FrameError::TooLarge { .. });
        too_large.then_some(b"<stanza-too-big xmlns='urn:xmpp:errors'/>")
    }

    /// The stream error with which the stream is closed.
    pub fn stream_error(&self) -> Bytes {
        stream_error(self.condition(), self.application(), None)
    }

    /// The same error of bytes that begin `by` later.
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
