//! Push notifications: the class of a stanza, the decision to notify a device, its time, and the content.
//!
//! ```text
//!  stanza ── classify ──▶ Classified ─ filter ─▶ Audience ─┐
//!             (rooms)                (roster)             ▼
//!                                             Pusher = waiting (what) + schedule (when) ▶ Push ── notification ──▶ Publish
//!                                                         ▲                                                         │
//!                                                         └───────────────────── outcome ◀──────────────────────────┘
//! ```
//!
//! A session has the [`pusher::Pusher`] of its own device; [`absent`] has those of devices without a session. The module is pure:
//! functions take their input and the time as arguments, and return values.
//!
//! | file | holds |
//! |---|---|
//! | `classify/` | the class of a stanza; `classify/importance.rs`: which classes notify |
//! | `encryption.rs`, `message_text.rs` | the elements that mean "encrypted"; the text of a message |
//! | `rooms.rs`, `mucsub.rs`, `roster.rs` | rooms that the client is in; subscriptions to rooms; contacts |
//! | `filter.rs`, `filter/mention.rs` | filters of a registration (`tigase:push`); mentions in rooms |
//! | `pusher.rs` | the decisions about one device: `waiting.rs` (the stanzas), `schedule.rs` (the times), `retry.rs` |
//! | `absent.rs` | the devices of an account without a session |
//! | `notification.rs`, `encrypted_summary.rs` | the publish of XEP-0357; its encrypted form |
//! | `outcome.rs`, `affiliation.rs` | answers of push services; registrations that they revoke |
//! | `registration.rs` | requests and registrations of clients (XEP-0357 §5) |
//! | `account.rs`, `device.rs`, `guard.rs` | the stored record of an account, its devices, and the poison guard |
//! | `fast/` | tokens by which clients return to their sessions (XEP-0484) |
//! | `settings.rs` | the operator's settings |

pub mod absent;
pub mod account;
mod address;
pub mod affiliation;
pub mod classify;
pub mod device;
mod encrypted_summary;
mod encryption;
pub mod fast;
pub mod filter;
pub mod guard;
mod message_text;
pub mod mucsub;
pub mod notification;
pub mod outcome;
pub mod pusher;
pub mod registration;
pub mod retry;
pub mod rooms;
pub mod roster;
pub mod schedule;
pub mod settings;
pub mod waiting;
