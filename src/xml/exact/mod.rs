//! The exact path: every token that XML 1.0 allows, read once its end has come.

pub(super) mod boundary;
pub(super) mod names;
pub(super) mod tag;
