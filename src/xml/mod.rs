//! Framing and reading of XML streams (RFC 6120 §11).
//!
//! [`Framer`] takes bytes in any chunking and returns whole top-level elements. Each is checked in one forward pass and
//! kept exactly as received. [`Node`] is a borrowed view of an element, read in place on demand. The module builds no
//! tree and does not know what a stanza means.
//!
//! # Two paths
//!
//! An element is checked on two paths, which give the same frames, the same errors, and the same [`Element`]:
//!
//! | path | takes | is used |
//! |---|---|---|
//! | **fast** (`fast/`) | whole tokens of ordinary stanzas: ASCII names without prefixes, plain attribute values, text, the five references | for each token first |
//! | **exact** (`exact/`) | every token that XMPP allows; it finds what is wrong with any other, and remembers across reads how far a token was searched | when the fast path declines a token; for a token that is cut off until its end has come; for stream headers |
//!
//! The fast path affects only speed. It declines everything that is malformed, incomplete, or unusual (prefixes,
//! entities beyond the five, names beyond ASCII, streams whose default namespace is not the content namespace). The
//! exact path takes one token, then the fast path is tried again (`scan.rs`). Both store their result in the same
//! struct (`progress.rs`). Rules of XML and XMPP belong into the exact path; the fast path must decline what it does
//! not check itself. The tests of `fast/walk.rs` compare the paths, those of `tests/` compare both with an independent
//! parser.
//!
//! # Files, from the top layer down
//!
//! | file | holds |
//! |---|---|
//! | `frame.rs` | [`Framer`], [`Frame`]: the stream; [`FramerRecord`] |
//! | `skip.rs` | [`Skipped`]: skipping an element that cannot be passed on |
//! | `namespace_rewrite.rs` | rewriting an element for another stream |
//! | `answer.rs` | [`answer()`], [`stanza_error`], [`is_request`]: answers to stanzas |
//! | `digest.rs` | a hash of an element's content |
//! | `node.rs` | [`Node`]: the borrowed view |
//! | `element.rs` | [`Element`]: one top-level element |
//! | `scan.rs` | the check of one element: fast path, exact path, and again |
//! | `fast/` | the fast path |
//! | `exact/` | the exact path, and the stream header |
//! | `progress.rs` | the progress of an element, shared by both paths |
//! | `open_elements.rs`, `scope.rs` | open elements; namespace declarations and their scopes |
//! | `header.rs` | [`Header`], [`HeaderCache`], [`HeaderPool`]: the stream header and its namespace context |
//! | `hash_table.rs`, `chars.rs` | names found by their hash; characters |
//! | `error.rs`, `condition.rs` | [`FrameError`]; the conditions of stream and stanza errors |
//! | `limits.rs`, `memory.rs` | [`FrameLimits`]; [`SharedMemory`] of large elements |
//! | `writer.rs`, `excerpt.rs` | [`XmlWriter`], [`stream_header`], [`stream_error`]; text for a log line |
//! | `kind.rs`, `ns.rs` | [`Kind`] of an element; namespaces |
//!
//! The module has no global state: the values that streams share ([`HeaderCache`], [`SharedMemory`]) are passed in. The
//! one constant is the header of [`Header::bare`].

mod answer;
mod chars;
mod condition;
mod digest;
mod element;
mod error;
mod exact;
mod excerpt;
mod fast;
mod frame;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod hash_table;
mod header;
mod kind;
mod limits;
mod memory;
mod namespace_rewrite;
mod node;
pub mod ns;
mod open_elements;
mod progress;
mod scan;
mod scope;
mod skip;
mod writer;

pub use answer::{answer, is_request, stanza_error};
pub use condition::{ErrorType, StanzaCondition, StreamCondition};
pub use element::Element;
pub use error::{FrameError, Restricted, Unfit};
pub(crate) use exact::normalized;
pub use excerpt::excerpt;
pub use frame::{Frame, Framer, FramerRecord};
pub use header::{Header, HeaderCache, HeaderPool};
pub use kind::Kind;
pub use limits::FrameLimits;
pub use memory::{MemoryShare, SharedMemory};
pub use node::{Children, Node};
pub use skip::{SkipReason, Skipped};
pub use writer::{STREAM_CLOSE, XmlWriter, stream_error, stream_header, stream_header_like};

#[cfg(test)]
mod tests;
