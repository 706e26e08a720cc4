//! The reasons for which a login ends without a session, and the stream errors for the client.

use std::sync::Arc;

use bytes::Bytes;

use super::contract::{CloseReason, Stop};
use crate::session::rewrite::fronted;
use crate::session::sm;
use crate::xml::{self, FrameError, Header, Kind, StreamCondition};

/// The end of a login. Each variant has a reason for metrics and logs, and most have a stream error for the client.
#[derive(Debug)]
pub(super) enum LoginEnd {
    /// The client closed its stream.
    ClientClosed,
    /// The client sent something that is not expected here.
    OutOfOrder,
    /// The client sent a nonza that would change the upstream stream without Pushward's knowledge.
    UnsupportedElement,
    /// The client sent a stanza that needs a login.
    NotAuthorized,
    /// The client's bytes are not an XML stream, or it acknowledged stanzas never sent. Contains the stream error.
    ClientError(Bytes),
    /// The client's header does not name a host that is served.
    HostUnknown {
        /// The problem with the header.
        condition: StreamCondition,
        /// The header.
        header: Arc<Header>,
    },
    /// The client sent too many elements before it authenticated.
    TooManyElements,
    /// The client tried to log in again while its address was locked out.
    LockedOut,
    /// The server closed its stream.
    ServerClosed,
    /// The server could not be reached, or its connection broke.
    ServerLost,
    /// The server has not answered in time.
    ServerSilent,
    /// The server does not offer any more what the client chose. Contains the namespace of the client's profile.
    OfferChanged(&'static str),
    /// The server requires TLS, which its leg does not have.
    ServerRequiresTls,
    /// The server broke the protocol.
    ServerError,
    /// The server bound another account than the one that was named to the client.
    OtherAccount,
    /// A resumption was not proven, after a bind that only served to prove it.
    ResumeRefused,
    /// `authentication_timeout` has passed.
    Timeout,
    /// The store has not answered in time.
    StoreLate,
    /// Too many connections have not authenticated yet.
    Overload,
    /// The node that owns the account could not be found out.
    OwnerUnknown,
    /// The stream could not be passed on to the node that owns the account.
    NotPassedOn,
    /// Another node has become the owner of the account.
    OtherOwner,
    /// The daemon was asked to stop.
    Shutdown,
}

impl LoginEnd {
    /// The end for an element of the client that is not forwarded.
    pub(super) fn not_forwarded(kind: Kind) -> Self {
        match kind {
            Kind::Other => Self::UnsupportedElement,
            Kind::Message | Kind::Presence | Kind::Iq => Self::NotAuthorized,
        }
    }

    /// The reason for metrics and logs.
    pub(super) fn reason(&self) -> CloseReason {
        match self {
            Self::ClientClosed => CloseReason::ClientClosed,
            Self::OutOfOrder | Self::UnsupportedElement | Self::NotAuthorized | Self::ClientError(_) => {
                CloseReason::ClientError
            }
            Self::HostUnknown { .. } => CloseReason::HostUnknown,
            Self::TooManyElements => CloseReason::TooManyElements,
            Self::LockedOut => CloseReason::LockedOut,
            Self::ServerClosed => CloseReason::UpstreamClosed,
            Self::ServerLost => CloseReason::UpstreamLost,
            Self::ServerSilent => CloseReason::ServerSilent,
            Self::ServerRequiresTls => CloseReason::UpstreamWantsTls,
            Self::ServerError => CloseReason::UpstreamError,
            Self::OtherAccount => CloseReason::OtherAccount,
            Self::OfferChanged(_) => CloseReason::OfferChanged,
            Self::ResumeRefused => CloseReason::ResumeRefused,
            Self::Timeout => CloseReason::Timeout,
            Self::StoreLate => CloseReason::StoreLate,
            Self::Overload => CloseReason::Crowded,
            Self::OwnerUnknown => CloseReason::OwnerUnknown,
            Self::NotPassedOn => CloseReason::NotPassedOn,
            Self::OtherOwner => CloseReason::OtherOwner,
            Self::Shutdown => CloseReason::Shutdown,
        }
    }

    /// Returns whether the client's connection is closed without the end of its stream. To the client it is lost, so the client
    /// connects again. After a failure or a stream error some clients would discard their password or token.
    pub(super) fn is_lost_connection(&self) -> bool {
        matches!(self, Self::OwnerUnknown | Self::NotPassedOn | Self::OtherOwner)
    }

    /// The stream error for the client, which also ends the stream; `None` if the stream ends without one.
    pub(super) fn error(&self) -> Option<Bytes> {
        let (condition, text) = match self {
            Self::ClientClosed
            | Self::ServerClosed
            | Self::ResumeRefused
            | Self::OwnerUnknown
            | Self::NotPassedOn
            | Self::OtherOwner => return None,
            Self::OfferChanged(profile) => {
                let failure = fronted::refusal(profile, "temporary-auth-failure");
                return Some([&failure[..], xml::STREAM_CLOSE].concat().into());
            }
            Self::ClientError(error) => return Some(error.clone()),
            Self::OutOfOrder => (StreamCondition::BadFormat, None),
            Self::UnsupportedElement => (StreamCondition::UnsupportedStanzaType, None),
            Self::NotAuthorized => (StreamCondition::NotAuthorized, None),
            Self::HostUnknown { condition, .. } => (*condition, None),
            Self::TooManyElements => {
                (StreamCondition::PolicyViolation, Some("Too many elements before authentication"))
            }
            Self::LockedOut => (StreamCondition::PolicyViolation, Some("Too many failed logins from this address")),
            Self::ServerLost | Self::ServerSilent | Self::ServerRequiresTls => {
                (StreamCondition::RemoteConnectionFailed, None)
            }
            Self::ServerError => (StreamCondition::InternalServerError, Some("The server violated the protocol")),
            Self::OtherAccount => {
                (StreamCondition::InternalServerError, Some("The server bound another account than the login's"))
            }
            Self::Timeout => (StreamCondition::ConnectionTimeout, None),
            Self::StoreLate => (StreamCondition::InternalServerError, None),
            Self::Overload => (StreamCondition::ResourceConstraint, Some("Too many unauthenticated connections")),
            Self::Shutdown => (StreamCondition::SystemShutdown, None),
        };
        Some(xml::stream_error(condition, None, text))
    }
}

impl From<Stop> for LoginEnd {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Timeout => Self::Timeout,
            Stop::ServerSilent => Self::ServerSilent,
            Stop::StoreLate => Self::StoreLate,
            Stop::OtherOwner => Self::OtherOwner,
            Stop::Crowded => Self::Overload,
            Stop::Shutdown => Self::Shutdown,
        }
    }
}

impl From<&FrameError> for LoginEnd {
    fn from(error: &FrameError) -> Self {
        Self::ClientError(error.stream_error())
    }
}

impl From<sm::TooHigh> for LoginEnd {
    fn from(too_high: sm::TooHigh) -> Self {
        let (condition, text) = (StreamCondition::UndefinedCondition, too_high.to_string());
        Self::ClientError(xml::stream_error(condition, Some(&too_high.condition()), Some(&text)))
    }
}
