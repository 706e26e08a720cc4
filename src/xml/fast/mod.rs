//! The fast path: takes ordinary tokens, sixty-four bytes at a time, and leaves any other to the exact path.
//!
//! | file | holds |
//! |---|---|
//! | `walk.rs` | [`advance`]: the way through an element |
//! | `cursor.rs` | one token at a time: tags with attributes, text |
//! | `window.rs` | sixty-four bytes, classified |
//! | `block.rs` | many small tags at once |

mod block;
mod cursor;
mod walk;
mod window;

pub(super) use walk::advance;
