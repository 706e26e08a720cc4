//! The fast path: takes ordinary tokens, sixty-four bytes at a time, and leaves all others to the exact path.
//!
//! | file | holds |
//! |---|---|
//! | `walk.rs` | [`advance`]: the loop over an element's tokens |
//! | `cursor.rs` | one token at a time: tags with attributes, text |
//! | `window.rs` | sixty-four bytes, classified |
//! | `block.rs` | many small tags at once |

mod block;
mod cursor;
mod walk;
mod window;

pub(super) use walk::advance;
