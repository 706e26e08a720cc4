//! The state of a spool that refuses stanzas, because a limit is reached or the disk fails.
//!
//! The session continues. Memory keeps the stanzas that the spool refuses, and offers them again. While the client is
//! connected, the server is not read beyond a limit. While it is not, the oldest stanzas beyond the limit are returned to
//! their senders, so that the acknowledgements to the server advance.

use std::time::Duration;

use bytes::Bytes;

use super::kind::is_request;
use super::queue::OnlineClients;
use crate::clock::Instant;
use crate::jid::{BareJid, Jid};
use crate::xml::{Element, ErrorType, Kind, StanzaCondition, stanza_error};

/// The time after a refusal until the spool is asked again.
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(5);
/// The bytes that the spool is asked to take then. If it accepts, the rest follows.
pub(super) const TRIAL: usize = 64 << 10;

/// The state of the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum Spool {
    Accepts,
    /// It has refused. It is asked again at this time.
    Refuses(Instant),
    /// It has refused, and was asked again.
    Asked,
}

impl Spool {
    pub(super) fn accepts(self) -> bool {
        self == Self::Accepts
    }

    /// The time at which it is asked again.
    pub(super) fn deadline(self) -> Option<Instant> {
        match self {
            Self::Refuses(at) => Some(at),
            Self::Accepts | Self::Asked => None,
        }
    }
}

/// Stanzas that the spool did not take and memory could not keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ShedCounts {
    /// The number returned to their senders with an error.
    pub returned: u32,
    /// The number lost: stanzas that must not be answered, or whose server is gone.
    pub lost: u32,
}

/// The error with which a stanza that cannot be kept is returned; `None` if it must not be answered. A stanza to the
/// account is answered only if no other client was online to get it.
pub(super) fn returned(element: &Element, account: &BareJid, online_clients: OnlineClients) -> Option<Bytes> {
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
    (foreign && (to_client || online_clients != OnlineClients::Others))
        .then(|| stanza_error(&node, ErrorType::Wait, StanzaCondition::ResourceConstraint))
}
