//! Being rewritten.
