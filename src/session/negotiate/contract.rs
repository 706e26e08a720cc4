//! The inputs and outputs of a [`Negotiation`](super::Negotiation).

use std::time::Duration;

use bytes::Bytes;

use super::owner::{AccountPlace, LocateRequest, PassedStream};
use super::proof::{HeldSession, Proof};
use crate::jid::BareJid;
use crate::push::fast::{IssuedToken, TokenProof};
use crate::session::mechanism_filter::{Leg, UpstreamWarning};
use crate::session::sasl::LoginMethod;
use crate::session::{Bound, Resumption, SmId, TokenWish, sm};
use crate::xml::Frame;

/// The lockout of a client address after too many failed logins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lockout {
    /// Logins are passed to the server.
    Inactive,
    /// Logins are refused without asking the server.
    Active,
}

/// An event of a login.
#[derive(Debug)]
pub enum LoginInput {
    /// A frame from the client.
    Client(Frame),
    /// A frame from the server.
    Upstream(Frame),
    /// The connection to the server is established.
    Connected(Leg),
    /// The server could not be reached, or its connection broke.
    UpstreamLost,
    /// The answer to [`LoginOutput::Find`]: a session, or the count handled by a session that has ended.
    Found(Result<HeldSession, Option<Ended>>),
    /// The session ended before it got the connection. If it ended in order, contains the count that it had handled.
    Gone(Option<Ended>),
    /// The client claims stanzas that the session never sent.
    TooHigh(sm::TooHigh),
    /// The answer to [`LoginOutput::Locate`].
    Located(AccountPlace),
    /// The stream of [`LoginOutput::PassOn`] could not be passed on.
    NotPassedOn,
    /// The answer to [`LoginOutput::CheckToken`], or of a session that does not accept a token.
    TokenRefused(TokenRefusal),
    /// The answer to [`LoginOutput::IssueToken`].
    TokenIssued(Option<IssuedToken>),
    /// The deadline has passed, or the daemon stops.
    Stop(Stop),
}

/// The refusal of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenRefusal {
    /// It opens no session, for whatever reason.
    NotAuthorized,
    /// It has expired.
    Expired,
}

/// The reason why a negotiation is aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// `authentication_timeout` has passed.
    Timeout,
    /// The server has not answered within `server_timeout`.
    ServerSilent,
    /// The store has not answered in time.
    StoreLate,
    /// Another node has become the owner of the account.
    OtherOwner,
    /// There are too many unauthenticated connections.
    Crowded,
    /// The daemon was asked to stop.
    Shutdown,
}

/// The answer that the server has to send next. Equal values mean the same answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// The kind of answer.
    pub answer: ServerAnswer,
    /// The number of answers that came before.
    pub(super) given: u64,
}

#[cfg(test)]
impl Awaited {
    /// Creates an awaited answer after `given` others.
    pub(crate) fn of(answer: ServerAnswer, given: u64) -> Self {
        Self { answer, given }
    }
}

/// An answer that the login needs to continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerAnswer {
    /// The stream header.
    Header,
    /// The stream features.
    Features,
    /// The answer to a SASL message.
    Sasl,
    /// The result of a bind.
    Bind,
    /// Answers to requests that complete a bind. The login goes on without them after [`ServerAnswer::patience`].
    Extras,
}

/// The time that a server has to answer the requests that complete a bind.
const EXTRAS: Duration = Duration::from_secs(5);

impl ServerAnswer {
    /// The time that the server has, if it has `server_timeout` for its other answers.
    pub fn patience(self, server_timeout: Duration) -> Duration {
        match self {
            Self::Header | Self::Features | Self::Sasl | Self::Bind => server_timeout,
            Self::Extras => server_timeout.min(EXTRAS),
        }
    }
}

/// An effect of a login, to be performed in order.
#[derive(Debug)]
pub enum LoginOutput {
    /// Write to the client something that the server sent.
    ToClient(Bytes),
    /// Write to the client an answer to its own bytes.
    ReplyToClient(Bytes),
    /// Write to the server.
    ToUpstream(Bytes),
    /// Connect to the server of this host, then pass [`LoginInput::Connected`].
    Connect(String),
    /// The client's header is answered without the server.
    Answered,
    /// Find out which node owns the account of a login, then pass [`LoginInput::Located`]. Only with
    /// [`Negotiation::locate_logins`](super::Negotiation::locate_logins).
    Locate(Box<LocateRequest>),
    /// Close the stream to the server with its footer, and pass the client's stream on to the node that owns the account. This
    /// ends the negotiation, unless [`LoginInput::NotPassedOn`] follows.
    PassOn(Box<PassedStream>),
    /// The server accepted the login: the larger limits apply from now on.
    Authenticated(LoginMethod),
    /// Make this node the owner of the account of the login, which is not proven to be this one. If another node owns it, the
    /// login ends with [`Stop::OtherOwner`], and the following outputs are not performed.
    Claim(BareJid),
    /// A fronted login is complete. It took this number of round trips less than SASL of RFC 6120 and the requests behind it.
    RoundTripsSaved(u32),
    /// The server answered a SASL exchange with a failure of any kind.
    SaslFailed(SaslFailure),
    /// The server refused a login because of the client's data.
    LoginFailed,
    /// A login was refused here because too many failed before ([`Lockout`]).
    LoginRefused,
    /// Both streams restart (RFC 6120 §6.4.6).
    Restart,
    /// The stream of the server restarts; the client's goes on (XEP-0388 §2.6.3).
    RestartServer,
    /// Find the session that can be resumed under this id.
    Find(SmId),
    /// Hand the connection to that session and close the upstream stream.
    HandOver {
        /// The id under which the session can be resumed.
        id: SmId,
        /// The data that the session needs.
        resumption: Resumption,
    },
    /// Check a token for which there is no session, and end it if the client asks for that. Then pass
    /// [`LoginInput::TokenRefused`].
    CheckToken {
        /// The account that the client names.
        account: BareJid,
        /// The proof of the client.
        proof: Box<TokenProof>,
    },
    /// Issue a token for the account of this login, then pass [`LoginInput::TokenIssued`].
    IssueToken {
        /// The account.
        account: BareJid,
        /// The request of the client.
        wish: TokenWish,
        /// The name of the login, if the server has not named the account: the token opens only sessions of the same login.
        authcid: Option<String>,
    },
    /// End all tokens of this account: the server does not let it in any more.
    RevokeTokens(BareJid),
    /// End the held session of this login that has this resource. Otherwise the server would end it, or refuse the bind.
    Release {
        /// The login.
        proof: Proof,
        /// The resource.
        resource: String,
    },
    /// The connection becomes a new session.
    Bound(Box<Bound>),
    /// Report a problem of a server to the operator.
    UpstreamWarning {
        /// The host of the server.
        host: String,
        /// The problem.
        warning: UpstreamWarning,
    },
    /// Write the remaining bytes to both legs and close them.
    Close(CloseReason),
}

/// A failed SASL exchange, for the log. It contains nothing of the messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaslFailure {
    /// The host of the stream.
    pub host: String,
    /// The mechanism that the client chose, shortened if it is very long.
    pub mechanism: String,
    /// The condition of the server, such as `not-authorized`; empty if there is none.
    pub condition: String,
}

/// The reason why a connection ended before it became a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The client closed its stream.
    ClientClosed,
    /// The client broke the protocol and received a stream error.
    ClientError,
    /// The server closed its stream.
    UpstreamClosed,
    /// The server could not be reached, or its connection broke.
    UpstreamLost,
    /// The server broke the protocol.
    UpstreamError,
    /// The server bound another account than the one that was named to the client.
    OtherAccount,
    /// The server does not offer any more what the client chose.
    OfferChanged,
    /// The server requires TLS, and its leg has none.
    UpstreamWantsTls,
    /// The client asked for a host that is not served.
    HostUnknown,
    /// A resumption was not proven.
    ResumeRefused,
    /// `authentication_timeout` has passed.
    Timeout,
    /// The server has not answered within `server_timeout`.
    ServerSilent,
    /// The store has not answered in time.
    StoreLate,
    /// There are too many unauthenticated connections.
    Crowded,
    /// The client sent too many elements before it authenticated.
    TooManyElements,
    /// The client kept trying to log in while its address was locked out.
    LockedOut,
    /// The node that owns the account could not be found out.
    OwnerUnknown,
    /// The stream could not be passed on to the node that owns the account.
    NotPassedOn,
    /// Another node has become the owner of the account.
    OtherOwner,
    /// The daemon was asked to stop.
    Shutdown,
}

impl CloseReason {
    /// All reasons.
    pub const ALL: [Self; 20] = [
        Self::ClientClosed,
        Self::ClientError,
        Self::UpstreamClosed,
        Self::UpstreamLost,
        Self::UpstreamError,
        Self::OtherAccount,
        Self::OfferChanged,
        Self::UpstreamWantsTls,
        Self::HostUnknown,
        Self::ResumeRefused,
        Self::Timeout,
        Self::ServerSilent,
        Self::StoreLate,
        Self::Crowded,
        Self::TooManyElements,
        Self::LockedOut,
        Self::OwnerUnknown,
        Self::NotPassedOn,
        Self::OtherOwner,
        Self::Shutdown,
    ];

    /// The metric's label.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::ClientError => "client_error",
            Self::UpstreamClosed => "upstream_closed",
            Self::UpstreamLost => "upstream_lost",
            Self::UpstreamError => "upstream_error",
            Self::OtherAccount => "other_account",
            Self::OfferChanged => "offer_changed",
            Self::UpstreamWantsTls => "upstream_wants_tls",
            Self::HostUnknown => "host_unknown",
            Self::ResumeRefused => "resume_refused",
            Self::Timeout => "timeout",
            Self::ServerSilent => "server_silent",
            Self::StoreLate => "store_late",
            Self::Crowded => "crowded",
            Self::TooManyElements => "too_many_elements",
            Self::LockedOut => "locked_out",
            Self::OwnerUnknown => "owner_unknown",
            Self::NotPassedOn => "not_passed_on",
            Self::OtherOwner => "other_owner",
            Self::Shutdown => "shutdown",
        }
    }
}

/// The record of a session that has ended in order.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The account of the session.
    pub account: BareJid,
    /// The number of the client's stanzas that were handled.
    pub h: sm::Handled,
}
