//! Push rules: what a stanza means, whether, when and to whom to notify, and what is said.
//!
//! Pure: every function here takes what it needs and the time, and returns a value.

pub mod account;
pub mod classify;
pub mod notification;
pub mod registration;
pub mod rooms;
pub mod rules;
