//! The proof that a login is of the account of a held session (invariant 4).
//!
//! It is asked for at three places: for a `<resume/>` after the login (`binding.rs`, which also has the server name the account by
//! a bind if the SASL exchange does not prove it), for an inline resumption (`welcome.rs`), and for a resource that a dark session
//! has ([`Registry::held_resource`](crate::registry)).

use serde::{Deserialize, Serialize};

use crate::jid::BareJid;
use crate::session::sasl::SaslIdentity;

/// The identity that the server accepted, as far as it is certain before the bind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The account that the server named (XEP-0388 §2.6.1).
    Account(BareJid),
    /// The login, which the server maps to an account.
    Login(SaslIdentity),
}

/// The identity that must be proven to resume a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HeldSession {
    /// The account of the session.
    pub account: BareJid,
    /// The login that created the session, if its name was sent in the clear.
    pub identity: Option<SaslIdentity>,
}

impl Proof {
    /// Returns whether the session is of the account that is proven. A login proves it if the server accepted the same one for the
    /// session.
    pub fn proves(&self, held: &HeldSession) -> bool {
        match self {
            Self::Account(account) => *account == held.account,
            Self::Login(login) => held.identity.as_ref() == Some(login),
        }
    }
}
