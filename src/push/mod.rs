//! Push rules: what a stanza means, whether, when and to whom to notify, and what is said.
//!
//! Pure: every function here takes what it needs and the time, and returns a value.

pub mod absent;
pub mod account;
pub mod classify;
pub mod encrypt;
pub mod filter;
pub mod notification;
pub mod outcome;
pub mod pusher;
pub mod registration;
pub mod rooms;
pub mod roster;
pub mod rules;
pub mod waiting;
mod wording;
