//! Tokens by which a client returns to its held session without its password: FAST (XEP-0484) with the mechanisms HT-*
//! (draft-schmaus-kitten-sasl-ht). [`TokenList`] holds the tokens of an account, [`TokenProof`] is what a client presents.
//!
//! A token belongs to one account, one user agent and one mechanism. Its text is sent to the client once and is never
//! stored: the record has only the key of the HMAC, which is the hash of the text.
//!
//! | file | holds |
//! |---|---|
//! | `mechanism.rs` | [`TokenMechanism`]; [`TokenBinding`], the channel binding of a connection |
//! | `key.rs` | [`TokenText`] and its key; the HMACs of both sides |
//! | `token.rs` | [`FastToken`], the stored record of a token; [`IssuedToken`] |
//! | `list.rs` | [`TokenList`]: rotation, limits, verification |
//! | `settings.rs` | [`FastSettings`] |
//! | `proof.rs` | [`InitiatorMessage`], [`TokenProof`], [`TokenVerdict`] |

mod key;
mod list;
mod mechanism;
mod proof;
mod settings;
#[cfg(test)]
pub(crate) mod tests;
mod token;

pub use key::TokenText;
pub use list::{TokenChange, TokenList};
pub use mechanism::{TokenBinding, TokenMechanism};
pub use proof::{AcceptedToken, InitiatorMessage, TokenProof, TokenVerdict};
pub use settings::FastSettings;
pub use token::{FastToken, IssuedToken, TokenId, TokenRequest};
