//! Push notifications for any XMPP server, without touching the server.
//!
//! ```text
//!  mobile client ──TLS── pushward ──plain── XMPP server (unmodified: Prosody, ejabberd, Openfire, …)
//!                           │  └── redb: registrations
//!                           └───── push service (app server)
//! ```

pub mod check;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod demo;
pub mod jid;
pub mod log;
pub mod net;
pub mod publish;
pub mod push;
pub mod relay;
pub mod session;
pub mod store;
pub mod xml;
