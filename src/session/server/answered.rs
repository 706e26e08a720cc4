//! The server's answers to requests, and its stream errors.

use crate::clock::Instant;
use crate::push::notification::Publish;
use crate::push::outcome::Outcome;
use crate::xml::{Node, ns};

/// The kind of stream error by which a server ends the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::session) enum StreamError {
    /// An error that is passed to the client.
    Passed,
    /// RFC 6120 §4.9.3.19: the server redirects its clients to another host. Pushward does not listen there, so the error
    /// is not passed on. Clients reconnect to Pushward.
    SeeOtherHost,
    /// XEP-0077 §3.2: the end of the stream confirms that the account is removed, as the client has requested.
    AccountRemoved,
    /// The server does not trust the login any more: its clients must prove their passwords again. The error is passed to
    /// the client.
    NotTrusted,
}

impl StreamError {
    /// Reads a stream error. `takes_removal` returns whether the client has requested the removal of its account.
    pub(super) fn of(error: &Node<'_>, takes_removal: impl FnOnce() -> bool) -> Self {
        let is_one_of = |names: &[&str]| names.iter().any(|name| error.child(name, ns::STREAM_ERRORS).is_some());
        if is_one_of(&["see-other-host"]) {
            Self::SeeOtherHost
        } else if is_one_of(&["not-authorized", "conflict"]) && takes_removal() {
            Self::AccountRemoved
        } else if is_one_of(&["not-authorized", "policy-violation", "reset"]) {
            Self::NotTrusted
        } else {
            Self::Passed
        }
    }
}

/// A publish for the user's own stream.
#[derive(Clone, Copy, Debug)]
pub(in crate::session) struct SessionPublish<'a> {
    /// The relay's number of the publish.
    pub(in crate::session) number: u64,
    pub(in crate::session) publish: &'a Publish,
    /// The time after which its outcome counts as unknown.
    pub(in crate::session) deadline: Instant,
}

/// The request that an iq result or error of the server answers.
#[derive(Debug)]
pub(in crate::session) enum AnsweredRequest {
    /// A request of the client that does not concern Pushward.
    Client,
    /// The client's request for the features of its account.
    Features,
    /// The client's request to remove its account. The account is removed.
    Removal,
    /// The client's request for another password for its account. The password is set.
    Password,
    /// A ping that was sent after other stanzas: the server has those.
    Ping,
    /// A publish.
    Publish {
        /// The relay's number of it.
        number: u64,
        /// The outcome of the publish.
        outcome: Outcome,
    },
    /// A request of Pushward that has timed out (invariant 5: a late answer is still ours).
    Late,
}

impl AnsweredRequest {
    /// Returns whether this answers a request of Pushward that is not waited for.
    pub(super) fn is_late(&self) -> bool {
        matches!(self, Self::Late)
    }
}
