//! The server's answers to requests, and its stream errors.

use std::time::Instant;

use crate::push::notification::Publish;
use crate::push::outcome::Outcome;

/// The kind of stream error by which a server ends the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::session) enum StreamError {
    /// An error that is passed to the client.
    Passed,
    /// RFC 6120 §4.9.3.19: the server redirects its clients to another host. Pushward does not listen there, so the error
    /// is not passed on. Clients reconnect to Pushward.
    SeeOtherHost,
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
