//! [`ClientError`]: the errors of the client, with the elements that it received instead.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;

use crate::demo::wire::WireError;

/// The time limit for an answer: 5 s.
pub const ANSWER: Duration = Duration::from_secs(5);

/// The last received elements, without secrets.
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

/// The reason why a client cannot continue.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The connection, or TLS on it, could not be established.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// The address of the server.
        address: SocketAddr,
        /// The error of the operating system or of TLS.
        source: io::Error,
    },
    /// An awaited element did not arrive in time.
    #[error("no {awaited} within {patience:?}; {seen}")]
    TooLate {
        /// The awaited element.
        awaited: &'static str,
        /// The time limit.
        patience: Duration,
        /// The received elements.
        seen: SeenElements,
    },
    /// The server ended the stream.
    #[error("the stream ended before {awaited} came; {seen}")]
    Ended {
        /// The awaited element.
        awaited: &'static str,
        /// The received elements.
        seen: SeenElements,
    },
    /// The server refused a request.
    #[error("{what} was refused: {answer}")]
    Refused {
        /// The request.
        what: &'static str,
        /// The answer.
        answer: String,
    },
    /// The server does not offer a feature.
    #[error("{feature} is not offered: {offered}")]
    NotOffered {
        /// The missing feature.
        feature: &'static str,
        /// The stream features.
        offered: String,
    },
    /// Too many stanzas arrived that were not requested.
    #[error("more than {0} unexpected stanzas arrived")]
    InboxFull(usize),
    /// No resource is bound yet.
    #[error("no resource is bound")]
    Unbound,
    /// Stream management is not enabled.
    #[error("stream management is not enabled")]
    Unmanaged,
    /// The stream failed.
    #[error(transparent)]
    Wire(#[from] WireError),
}
