//! The stream to the server.

pub(super) mod confirmation;
pub(super) mod leg;
