//! The fast path: ordinary tokens, many bytes at a time.

mod block;
mod cursor;
mod walk;
mod window;
