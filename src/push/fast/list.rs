//! The tokens of an account.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::key::TokenKey;
use super::proof::{AcceptedToken, TokenProof, TokenVerdict};
use super::settings::DAY;
use super::token::{FastToken, TokenId};
use crate::clock::UnixSecs;

/// The number of tokens of a user agent for one mechanism: the old one stays valid until the new one is used.
const TOKENS: usize = 2;
/// The number of user agents of an account that have tokens.
const AGENTS: usize = 64;
/// The time for which an expired token is kept, so that its client gets the right error.
const EXPIRED: Duration = Duration::from_secs(7 * DAY.as_secs());

/// A change of an account's tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenChange {
    /// A token was issued.
    Issued(Box<FastToken>),
    /// A client has logged in by a token.
    Used {
        /// The token.
        id: TokenId,
        /// The `count` that the client has sent (XEP-0484 §3.4).
        count: Option<u64>,
        /// The time.
        at: UnixSecs,
    },
    /// A client has ended its token.
    Ended {
        /// The token.
        id: TokenId,
    },
    /// The account has to prove its password again: all tokens end.
    Revoked,
}

/// The tokens of an account, in the order in which they were issued.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenList {
    #[allow(clippy::box_collection, reason = "every account and session has the field, and few have any")]
    tokens: Option<Box<Vec<FastToken>>>,
}

impl TokenList {
    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_none()
    }

    /// Returns the tokens.
    pub fn iter(&self) -> impl Iterator<Item = &FastToken> {
        self.tokens.iter().flat_map(|tokens| tokens.iter())
    }

    /// Applies a change.
    pub fn apply(&mut self, change: TokenChange) {
        match change {
            TokenChange::Issued(token) => self.add(*token),
            TokenChange::Used { id, count, at } => self.on_used(id, count, at),
            TokenChange::Ended { id } => self.change(|tokens| tokens.retain(|token| token.id != id)),
            TokenChange::Revoked => self.tokens = None,
        }
    }

    /// Returns the decision about a proof. It costs the same work for each outcome.
    pub fn verify(&self, proof: &TokenProof, now: UnixSecs) -> TokenVerdict {
        let TokenProof { agent, hash, binding, count, invalidate: _ } = proof;
        let mechanism = binding.mechanism();
        let mut own = self.iter().filter(|token| token.agent == *agent && token.mechanism == mechanism);
        let nothing = TokenKey::of_nothing();
        let (mut proven, mut has_any) = (None, false);
        for _ in 0..TOKENS {
            let token = own.next();
            let is_proven = token.map_or(&nothing, |token| &token.key).is_proven_by(hash.expose(), binding);
            has_any |= token.is_some();
            proven = token.filter(|_| is_proven).or(proven);
        }
        let responder = proven.map_or(&nothing, |token| &token.key).responder(binding);
        match proven {
            None if has_any => TokenVerdict::WrongHash,
            None => TokenVerdict::Unknown,
            Some(token) if token.has_expired(now) => TokenVerdict::Expired,
            Some(token) if count.is_some() && *count <= token.count => TokenVerdict::Replayed,
            Some(token) => {
                let (id, root, authcid) = (token.id, token.root, token.authcid.clone());
                TokenVerdict::Accepted(AcceptedToken { id, root, authcid, responder })
            }
        }
    }

    /// Adds a new token. An older one of its user agent stays until the new one is used: the one that was used, if there is
    /// one, since its client certainly has it, otherwise the newest.
    fn add(&mut self, token: FastToken) {
        if self.iter().any(|known| known.id == token.id) {
            return;
        }
        let now = token.issued;
        self.change(|tokens| {
            let siblings = || tokens.iter().filter(|known| known.is_sibling(&token));
            let kept = siblings().rfind(|known| known.used).or_else(|| siblings().next_back()).map(|known| known.id);
            tokens.retain(|known| !known.is_sibling(&token) || Some(known.id) == kept);
            tokens.push(token);
        });
        self.forget_expired(now);
        self.forget_agents();
    }

    /// Notes that a token was used. The older ones that it replaces end (XEP-0484 §3.5: those of the client that expire
    /// earlier).
    fn on_used(&mut self, id: TokenId, count: Option<u64>, now: UnixSecs) {
        self.change(|tokens| {
            let Some(at) = tokens.iter().position(|token| token.id == id) else { return };
            let Some(token) = tokens.get_mut(at) else { return };
            (token.used, token.count) = (true, token.count.max(count));
            let used = token.clone();
            let mut place = 0..;
            tokens.retain(|token| {
                let is_older = place.next().is_some_and(|place| place < at) && token.is_sibling(&used);
                !is_older && (token.agent != used.agent || token.expires >= used.expires)
            });
        });
        self.forget_expired(now);
    }

    /// Forgets tokens that expired some time ago.
    pub(in crate::push) fn forget_expired(&mut self, now: UnixSecs) {
        if self.iter().any(|token| token.has_expired(now.minus(EXPIRED))) {
            self.change(|tokens| tokens.retain(|token| !token.has_expired(now.minus(EXPIRED))));
        }
    }

    /// Forgets the tokens of user agents beyond the limit: those that expire first.
    fn forget_agents(&mut self) {
        self.change(|tokens| {
            loop {
                // The end of each agent's last token.
                let mut ends: Vec<(&str, UnixSecs)> = Vec::new();
                for token in tokens.iter() {
                    match ends.iter_mut().find(|(agent, _)| *agent == token.agent) {
                        Some((_, end)) => *end = token.expires.max(*end),
                        None => ends.push((&token.agent, token.expires)),
                    }
                }
                if ends.len() <= AGENTS {
                    return;
                }
                let Some(first) = ends.iter().min_by_key(|(_, end)| *end).map(|(agent, _)| (*agent).to_owned()) else {
                    return;
                };
                tokens.retain(|token| token.agent != first);
            }
        });
    }

    fn change(&mut self, change: impl FnOnce(&mut Vec<FastToken>)) {
        let mut tokens = self.tokens.take().unwrap_or_default();
        change(&mut tokens);
        self.tokens = Some(tokens).filter(|tokens| !tokens.is_empty());
    }
}
