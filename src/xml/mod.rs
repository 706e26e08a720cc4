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
//! | `stanza.rs` | [`Node`]: the borrowed view |
//! | `build.rs` | [`XmlWriter`], [`stream_header`], [`stream_error`] |
//! | `condition.rs` | the conditions of stream and stanza errors |
//! | `scan.rs` | the check of an element, token by token |
//! | `tag.rs`, `boundary.rs` | the careful way: tokens, and where they end |
//! | `walk.rs`, `ordinary.rs`, `dense.rs` | the short way: through an element, token by token, and many small tags at once |
//! | `window.rs`, `chars.rs`, `names.rs` | characters: many at a time, and one by one; those of names |
//! | `open.rs`, `scope.rs`, `table.rs` | the elements that are open; prefixes; names by their hash |
//! | `limits.rs`, `room.rs` | [`FrameLimits`]; the memory that large elements share |
//! | `skip.rs` | passing over an element that cannot be passed on |

mod boundary;
mod build;
mod chars;
mod condition;
mod dense;
mod digest;
mod element;
mod error;
mod excerpt;
mod frame;
mod header;
mod limits;
mod names;
pub mod ns;
mod open;
mod ordinary;
mod room;
mod scan;
mod scope;
mod skip;
mod stanza;
mod table;
mod tag;
mod walk;
mod window;

pub use build::{STREAM_CLOSE, XmlWriter, stream_error, stream_header};
pub use condition::{ErrorType, StanzaCondition, StreamCondition};
pub use element::{Element, Kind};
pub use error::{FrameError, Restricted, Unfit};
pub use excerpt::excerpt;
pub use frame::{Frame, Framer, Share};
pub use header::Header;
pub use limits::FrameLimits;
pub use room::Room;
pub use skip::{SkipReason, Skipped};
pub use stanza::{Children, Node};
pub(crate) use tag::normalized;

#[cfg(test)]
mod differential;
#[cfg(test)]
mod wild;
