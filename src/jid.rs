//! Addresses (RFC 7622): every JID that is compared is normalised by [`jid`] first.

pub use ::jid::{BareJid, FullJid, Jid};
