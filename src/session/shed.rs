//! What a session does while the spool refuses stanzas: a bound is reached, or the disk fails.
//!
//! The session goes on. Memory keeps what the spool refuses, and offers it again. While the client is there, the server is not
//! read beyond a bound. While it is not, the oldest stanzas beyond the bound go back to their senders, so that the
//! acknowledgements to the server move on.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::kind::is_request;
use super::queue::Company;
use crate::jid::{BareJid, Jid};
use crate::xml::{Element, ErrorType, Kind, StanzaCondition, stanza_error};

/// How long after a refusal the spool is asked again.
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(5);
/// What the spool is asked to take then, in bytes: the rest follows once it has.
pub(super) const TRIAL: usize = 64 << 10;

/// Whether the spool takes what it is handed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spool {
    Accepts,
    /// It has refused, and is asked again then.
    Refuses(Instant),
    /// It has refused, and was asked again.
    Asked,
}

impl Spool {
    pub(super) fn accepts(self) -> bool {
        self == Self::Accepts
    }

    /// When it is asked again.
    pub(super) fn deadline(self) -> Option<Instant> {
        match self {
            Self::Refuses(at) => Some(at),
            Self::Accepts | Self::Asked => None,
        }
    }
}

/// Stanzas that the spool did not take and memory could not keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shed {
    /// How many went back to their senders with an error.
    pub returned: u32,
    /// How many are lost: those that must not be answered, or whose server is gone.
    pub lost: u32,
}

/// The error with which a stanza goes back that nobody can keep; `None` if it must not be answered. What came to the account is
/// only answered if no other client was there to get it.
pub(super) fn returned(element: &Element, account: &BareJid, company: Company) -> Option<Bytes> {
    let node = element.node();
    if is_request(element) {
        return Some(stanza_error(&node, ErrorType::Wait, StanzaCondition::ResourceConstraint));
    }
    let conversational = matches!(node.attr("type").as_deref(), None | Some("chat" | "normal"));
    if element.kind() != Kind::Message || !conversational {
        return None;
    }
    let from = Jid::new(&node.attr("from")?);
    let to_client = node.attr("to").is_some_and(|to| Jid::new(&to).resource().is_some());
    let foreign = from.to_bare() != *account;
    (foreign && (to_client || company != Company::Others))
        .then(|| stanza_error(&node, ErrorType::Wait, StanzaCondition::ResourceConstraint))
}
