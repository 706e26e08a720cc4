//! Errors of the transports: a publish that was not sent, a stream that could not be set up or was lost.

use std::io;
use std::time::Duration;

use thiserror::Error;

use super::s2s::error::ReachError;
use crate::config::Endpoint;
use crate::net::lookup::LookupError;
use crate::xml::{FrameError, StreamCondition};

/// The reason why a transport did not take a publish. The next transport is tried then.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum UnsentReason {
    /// The host has no component.
    #[error("no [host.component]")]
    NoComponent,
    /// The node that holds the component has not sent it. Contains the reason.
    #[error("the node that holds the component: {0}")]
    Holder(String),
    /// Too many publishes wait for the stream.
    #[error("publish_queue_full")]
    QueueFull,
    /// The task of the stream has ended.
    #[error("its stream has ended")]
    StreamOver,
    /// The stream could not take the publish in time.
    #[error("not ready within {0:?}")]
    NotReady(Duration),
    /// The user has no session.
    #[error("the account has no session")]
    NoSession,
    /// Too many commands wait for the user's session.
    #[error("the account's session is busy")]
    SessionBusy,
    /// The account has named too many new push services.
    #[error("the account has named too many new push services")]
    TooManyNewServices,
    /// Too many streams are in backoff.
    #[error("too many push services are unreachable")]
    TooManyOutOfReach,
    /// No more streams may be opened.
    #[error(transparent)]
    NoPermit(#[from] NoPermit),
    /// The stream could not be set up.
    #[error(transparent)]
    Unreachable(#[from] StreamConnectError),
    /// The stream was up and was lost.
    #[error(transparent)]
    Lost(#[from] StreamLost),
}

/// The reason why a stream may not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum NoPermit {
    /// No account needs the stream.
    #[error("no account needs the stream")]
    Unwanted,
    /// All streams together have reached the limit.
    #[error("the limit s2s_connections is reached")]
    All,
    /// The streams that one account has caused have reached its limit.
    #[error("the account uses a tenth of s2s_connections, its limit")]
    Account,
}

/// The reason why there is no stream.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum StreamConnectError {
    /// A component's stream could not be set up.
    #[error(transparent)]
    Component(#[from] ComponentError),
    /// A push service could not be reached.
    #[error(transparent)]
    S2s(#[from] ReachError),
    /// The process is shutting down.
    #[error("the daemon is stopping")]
    Stopping,
}

/// The reason why a component has no stream.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum ComponentError {
    /// The server's component port does not accept connections: a fault of the server or the network, or a wrong address.
    #[error("cannot connect to {address}: {cause}")]
    Connect {
        /// `[host.component] address`
        address: Endpoint,
        /// The error of the operating system.
        cause: String,
    },
    /// The host name in `[host.component] address` cannot be looked up.
    #[error("{0}; correct [host.component] address, or the name resolution of this machine")]
    Name(LookupError),
    /// The server did not answer in time.
    #[error("no answer from {address} within {within:?}")]
    Silent {
        /// `[host.component] address`
        address: Endpoint,
        /// `connect_timeout`
        within: Duration,
    },
    /// The server refuses the component: one of the two configurations is wrong.
    #[error("the server refuses the component {domain}: {condition}; {remedy}", remedy = COMPARE)]
    Refused {
        /// `[host.component] domain`
        domain: String,
        /// The stream error.
        condition: String,
    },
    /// The server's stream header has no id, so no handshake is possible: the server's fault.
    #[error("the server's stream has no id")]
    NoId,
    /// The server has closed the stream.
    #[error("the server closed the component's stream")]
    Closed,
    /// The connection broke.
    #[error("{0}")]
    Io(String),
}

/// The remedy for a refused component.
const COMPARE: &str = "compare [host.component] with the server's configuration";

/// The reason why an established stream has ended. Mostly the peer's fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum StreamLost {
    /// The peer closed the stream or the connection.
    #[error("closed by the peer")]
    Closed,
    /// The peer opened the stream a second time.
    #[error("the peer restarted the stream")]
    Reopened,
    /// The peer's bytes are not XMPP.
    #[error("invalid XML stream: {0}")]
    NotXml(FrameError),
    /// The peer sent a stream error.
    #[error("the peer sent the stream error {0}")]
    StreamError(String),
    /// The peer sent something that it is not allowed to send, and got this stream error.
    #[error("closed with {}: the peer sent something that is not allowed", .0.name())]
    Misused(StreamCondition),
    /// The peer sent stanzas that are not answers.
    #[error("the peer sent more than answers")]
    MoreThanAnswers,
    /// The peer does not read the bytes that are written to it.
    #[error("the peer is not reading")]
    Stalled,
    /// The connection broke.
    #[error("{0}")]
    Io(String),
}

impl From<io::Error> for StreamLost {
    fn from(error: io::Error) -> Self {
        Self::Io(error.to_string())
    }
}
