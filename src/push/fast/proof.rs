//! The proof that a client presents to log in by token, and the decision about it.

use super::mechanism::TokenBinding;
use super::token::TokenId;
use crate::clock::UnixSecs;
use crate::secret::Secret;

/// The client's message of an HT-* mechanism (draft-schmaus-kitten-sasl-ht §3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitiatorMessage {
    /// The name of the account: the node of its JID.
    pub authcid: String,
    /// The HMAC.
    pub hash: Secret<[u8; 32]>,
}

impl InitiatorMessage {
    /// Reads the message, after base64. `None` if it is not valid.
    pub fn parse(message: &[u8]) -> Option<Self> {
        let end = message.iter().position(|byte| *byte == 0)?;
        let (authcid, rest) = message.split_at_checked(end)?;
        let authcid = std::str::from_utf8(authcid).ok().filter(|authcid| !authcid.is_empty())?;
        let hash = rest.get(1..)?.try_into().ok()?;
        Some(Self { authcid: authcid.to_owned(), hash: Secret::new(hash) })
    }
}

/// The proof of a client that it has a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenProof {
    /// The id of its user agent (XEP-0388 §2.3).
    pub agent: String,
    /// The HMAC of [`InitiatorMessage`].
    pub hash: Secret<[u8; 32]>,
    /// The channel binding, which depends on the mechanism.
    pub binding: TokenBinding,
    /// The `count` of XEP-0484 §3.4, if the client has sent one.
    pub count: Option<u64>,
    /// True if the token is to end (`invalidate` of XEP-0484 §3.6).
    pub invalidate: bool,
}

/// The decision about a proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenVerdict {
    /// It is valid.
    Accepted(AcceptedToken),
    /// The token has expired.
    Expired,
    /// A login with this count or a greater one has succeeded before.
    Replayed,
    /// The user agent has a token, and this is not its HMAC. It counts as a failed login.
    WrongHash,
    /// The account has no token for this user agent and mechanism, or none that opens this session.
    Unknown,
}

/// A token that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedToken {
    /// Its id.
    pub id: TokenId,
    /// The time of the last login that the server itself accepted, for [`TokenRequest::root`](super::TokenRequest).
    pub root: UnixSecs,
    /// The login to whose sessions it is limited, if it is ([`FastToken::authcid`](super::FastToken)).
    pub authcid: Option<String>,
    /// The server's message of the mechanism, before base64: an HMAC.
    pub responder: [u8; 32],
}
