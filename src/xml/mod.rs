//! Framing and reading of XML streams (RFC 6120 §11).
//!
//! [`Framer`] takes bytes in any chunking and yields whole top-level elements, each checked in one forward pass and kept
//! exactly as it came. [`Node`] is a borrowed view of an element, read where it lies when somebody asks. Nothing here
//! builds a tree, and nothing here knows what a stanza means.
//!
//! | file | holds |
//! |---|---|
//! | `frame.rs` | [`Framer`], [`Frame`]: the stream |
//! | `header.rs` | [`Header`]: the stream header |
//! | `element.rs` | [`Element`]: one top-level element, and carrying it to another stream |
//! | `node.rs` | [`Node`]: the borrowed view |
//! | `writer.rs` | [`XmlWriter`], [`stream_header`], [`stream_error`] |
//! | `condition.rs` | the conditions of stream and stanza errors |
//! | `scan.rs` | the check of an element, token by token |
//! | `exact/` | the careful way: tokens, and where they end |
//! | `fast/` | the short way: through an element, token by token, and many small tags at once |
//! | `chars.rs` | characters: many at a time, and one by one; those of names |
//! | `open_elements.rs`, `scope.rs`, `hash_table.rs` | the elements that are open; prefixes; names by their hash |
//! | `limits.rs`, `memory.rs` | [`FrameLimits`]; the memory that large elements share |
//! | `skip.rs` | passing over an element that cannot be passed on |

mod chars;
mod condition;
mod digest;
mod element;
mod error;
mod exact;
mod excerpt;
mod fast;
mod frame;
mod hash_table;
mod header;
mod limits;
mod memory;
mod node;
pub mod ns;
mod open_elements;
mod scan;
mod scope;
mod skip;
mod writer;

pub use condition::{ErrorType, StanzaCondition, StreamCondition};
pub use element::{Element, Kind};
pub use error::{FrameError, Restricted, Unfit};
pub(crate) use exact::tag::normalized;
pub use excerpt::excerpt;
pub use frame::{Frame, Framer, Share};
pub use header::Header;
pub use limits::FrameLimits;
pub use memory::Room;
pub use node::{Children, Node};
pub use skip::{SkipReason, Skipped};
pub use writer::{STREAM_CLOSE, XmlWriter, stream_error, stream_header};

#[cfg(test)]
mod tests;
