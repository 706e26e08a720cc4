//! Push rules: what a stanza means, whether, when and to whom to notify, and what is said.
//!
//! ```text
//!  stanza ── classify ──▶ Classified ─ filter ─▶ Audience ─┐
//!             (rooms)                (roster)             ▼
//!                                             Pusher = waiting (what) + rules (when) ──▶ Push ── notification ──▶ Publish
//!                                                         ▲                                                         │
//!                                                         └───────────────────── outcome ◀──────────────────────────┘
//! ```
//!
//! A session has the [`pusher::Pusher`] of its own device; [`absent`] has those of devices without a session. Pure: every
//! function here takes what it needs and the time, and returns a value.

pub mod absent;
pub mod account;
mod address;
pub mod affiliation;
pub mod backoff;
pub mod classify;
pub mod device;
mod encrypted_summary;
mod encryption;
pub mod filter;
pub mod guard;
mod message_text;
pub mod mucsub;
pub mod notification;
pub mod outcome;
pub mod pusher;
pub mod registration;
pub mod rooms;
pub mod roster;
pub mod rules;
pub mod settings;
pub mod waiting;
