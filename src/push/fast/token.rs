//! The stored record of a token, and the creation of a token.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::key::{TokenKey, TokenText};
use super::mechanism::TokenMechanism;
use super::settings::DAY;
use crate::clock::UnixSecs;

/// The time after a login that the server accepted within which the chain of tokens that began with it ends. A password that
/// was changed where Pushward cannot see it opens sessions no longer than this.
const CHAIN: Duration = Duration::from_secs(90 * DAY.as_secs());
/// The maximum bytes of the id of a user agent that gets a token. XEP-0388 §2.3: the id is a UUID.
const AGENT: usize = 256;

/// The id of a token within its account: random, and unrelated to its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenId(pub u64);

/// The stored record of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FastToken {
    /// Its id.
    pub id: TokenId,
    /// The id of the user agent that it belongs to (XEP-0388 §2.3).
    pub agent: String,
    /// The mechanism that it belongs to.
    pub mechanism: TokenMechanism,
    /// The time at which it was issued.
    pub issued: UnixSecs,
    /// The time from which it is not valid any more.
    pub expires: UnixSecs,
    /// The time of the last login that the server itself accepted: a later token of the chain has the same.
    pub root: UnixSecs,
    /// The greatest count with which it was used (XEP-0484 §3.4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// True if it was used. So its client has it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub used: bool,
    /// The name of the login that got it, if the server had not named the account: it opens only sessions of the same login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authcid: Option<String>,
    pub(super) key: TokenKey,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

impl FastToken {
    /// Returns whether it is not valid any more.
    pub fn has_expired(&self, now: UnixSecs) -> bool {
        self.expires <= now
    }

    /// Returns whether it has the same user agent and mechanism.
    pub(super) fn is_sibling(&self, other: &Self) -> bool {
        self.agent == other.agent && self.mechanism == other.mechanism
    }
}

/// A request for a token by a client whose login is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// The id of its user agent (XEP-0388 §2.3).
    pub agent: String,
    /// The mechanism for which it wants a token.
    pub mechanism: TokenMechanism,
    /// The time of the last login that the server itself accepted: now, or [`AcceptedToken::root`](super::AcceptedToken).
    pub root: UnixSecs,
}

/// A new token.
#[derive(Debug)]
pub struct IssuedToken {
    /// The text for the client.
    pub text: TokenText,
    /// The record to store.
    pub token: FastToken,
}

impl IssuedToken {
    /// Creates a token. `None` if it would have expired already, or if the user agent has no valid id.
    pub fn new(request: TokenRequest, ttl: Duration, now: UnixSecs, mut random: impl FnMut() -> u128) -> Option<Self> {
        let TokenRequest { agent, mechanism, root } = request;
        // A clock that was set back must not make the chain longer.
        let root = root.min(now);
        let ttl = Duration::from_secs(ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0)));
        let expires = now.plus(ttl).min(root.plus(CHAIN));
        if expires <= now || agent.is_empty() || agent.len() > AGENT {
            return None;
        }
        let [id, _] = halves(random());
        let text = TokenText::new(random);
        let key = text.key();
        let token = FastToken {
            id: TokenId(id),
            agent,
            mechanism,
            issued: now,
            expires,
            root,
            count: None,
            used: false,
            authcid: None,
            key,
        };
        Some(Self { text, token })
    }

    /// Returns the time at which it expires as XEP-0082 writes it: the attribute `expiry` of XEP-0484 §3.3.
    pub fn expiry(&self) -> String {
        // A token lives for 90 d at most, so the calendar can represent its end.
        let expires = self.token.expires.to_time().map(|at| humantime::format_rfc3339_seconds(at).to_string());
        expires.unwrap_or_default()
    }
}

#[allow(clippy::cast_possible_truncation, reason = "each half is a number of its own")]
fn halves(number: u128) -> [u64; 2] {
    [(number >> 64) as u64, number as u64]
}
