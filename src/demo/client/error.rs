//! What a client did not get, and what it got instead.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;

use crate::demo::wire::WireError;

/// How long an answer may take: 5 s.
pub const ANSWER: Duration = Duration::from_secs(5);

/// The last elements that came, without secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenElements(pub Vec<String>);

impl fmt::Display for SeenElements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            f.write_str("nothing was received")
        } else {
            write!(f, "received last: {}", self.0.join(" "))
        }
    }
}

/// Why a client cannot go on.
#[derive(Debug, Error)]
pub enum ClientError {
    /// There is no connection, or no TLS on it.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// What the system or TLS says.
        source: io::Error,
    },
    /// It did not come in time.
    #[error("no {awaited} within {patience:?}; {seen}")]
    TooLate {
        /// What was waited for.
        awaited: &'static str,
        /// For how long.
        patience: Duration,
        /// What came instead.
        seen: SeenElements,
    },
    /// The server ended the stream.
    #[error("the stream ended before {awaited} came; {seen}")]
    Ended {
        /// What was waited for.
        awaited: &'static str,
        /// What came instead.
        seen: SeenElements,
    },
    /// The server said no.
    #[error("{what} was refused: {answer}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// The answer.
        answer: String,
    },
    /// The server does not offer it.
    #[error("{feature} is not offered: {offered}")]
    NotOffered {
        /// What is missing.
        feature: &'static str,
        /// The stream features.
        offered: String,
    },
    /// More stanzas came than anybody asked for.
    #[error("more than {0} unexpected stanzas arrived")]
    InboxFull(usize),
    /// There is no session yet.
    #[error("no resource is bound")]
    Unbound,
    /// Stream management is off.
    #[error("stream management is not enabled")]
    Unmanaged,
    /// The stream.
    #[error(transparent)]
    Wire(#[from] WireError),
}
