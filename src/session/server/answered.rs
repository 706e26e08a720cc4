//! What the server says to requests and to the stream.

use std::time::Instant;

use crate::push::notification::Publish;
use crate::push::outcome::Outcome;

/// How a server ends its stream with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::session) enum StreamError {
    /// The client is to be told.
    Passed,
    /// RFC 6120 §4.9.3.19: the server sends its clients elsewhere, where nobody is there for ours; they come back here.
    SeeOtherHost,
}

/// A publish for the user's own stream.
#[derive(Clone, Copy, Debug)]
pub(in crate::session) struct CarriedPublish<'a> {
    /// The relay's number of it.
    pub(in crate::session) number: u64,
    pub(in crate::session) publish: &'a Publish,
    /// When its outcome counts as unknown.
    pub(in crate::session) deadline: Instant,
}

/// What an iq result or error of the server answers.
#[derive(Debug)]
pub(in crate::session) enum Answered {
    /// A request of the client that does not concern Pushward.
    Client,
    /// The client's request for the features of its account.
    Features,
    /// The client's request to remove its account: it is removed.
    Removal,
    /// A ping behind what was sent: the server has that.
    Ping,
    /// A publish.
    Publish {
        /// The relay's number of it.
        number: u64,
        /// What became of it.
        outcome: Outcome,
    },
    /// A request of Pushward that is not waited for any more (invariant 5: a late answer is still ours).
    Late,
}

impl Answered {
    /// Whether nobody waits for the answer, as far as requests are concerned.
    pub(super) fn is_late(&self) -> bool {
        matches!(self, Self::Late)
    }
}
