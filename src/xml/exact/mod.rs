//! The exact path: reads every token that XMPP allows, and determines the error in any other.
//!
//! | file | holds |
//! |---|---|
//! | `reader.rs` | [`ExactReader`]: one token of an element |
//! | `header.rs` | [`HeaderScan`]: the stream header |
//! | `boundary.rs` | the search for the end of a token, across chunks |
//! | `tag.rs` | names, attributes and tags |
//! | `declare.rs` | namespace declarations and prefixes of a tag |
//! | `names.rs` | names beyond ASCII |

mod boundary;
mod declare;
mod header;
mod names;
mod reader;
mod tag;

pub(super) use boundary::Boundary;
pub(super) use header::HeaderScan;
#[cfg(test)]
pub(super) use names::is_name;
pub(super) use reader::ExactReader;
pub(super) use tag::end_tag;
pub(crate) use tag::normalized;
