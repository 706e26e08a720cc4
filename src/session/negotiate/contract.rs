//! The inputs and outputs of a [`Negotiation`](super::Negotiation).

use bytes::Bytes;

use crate::jid::BareJid;
use crate::session::mechanism_filter::{Leg, UpstreamWarning};
use crate::session::sasl::SaslIdentity;
use crate::session::{Bound, Resumption, SmId, sm};
use crate::xml::Frame;

/// Whether the logins of a client address are refused, because too many have failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lockout {
    /// They are passed to the server.
    Inactive,
    /// They are refused without asking the server.
    Active,
}

/// What happened.
#[derive(Debug)]
pub enum LoginInput {
    /// A frame from the client.
    Client(Frame),
    /// A frame from the server.
    Upstream(Frame),
    /// The connection to the server stands.
    Connected(Leg),
    /// The server could not be reached, or its connection broke.
    UpstreamLost,
    /// The answer to [`LoginOutput::Find`]: a session, or what a session that has ended had handled.
    Found(Result<HeldSession, Option<Ended>>),
    /// The session was gone when it was to be handed over; what it had handled, if it ended in order.
    Gone(Option<Ended>),
    /// The client claims stanzas that the session never sent.
    TooHigh(sm::TooHigh),
    /// The deadline has come, or the daemon ends.
    Stop(Stop),
}

/// Why a negotiation is cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// `authentication_timeout` is over.
    Timeout,
    /// The server has not answered within `server_timeout`.
    ServerSilent,
    /// The store has not answered in time.
    StoreLate,
    /// There are too many connections that have not logged in.
    Crowded,
    /// The daemon was asked to stop.
    Shutdown,
}

/// What the server has to send next. Two that are equal are one and the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// What it is.
    pub answer: ServerAnswer,
    /// How many answers it has given before.
    pub(super) given: u64,
}

#[cfg(test)]
impl Awaited {
    /// This answer, after so many others.
    pub(crate) fn of(answer: ServerAnswer, given: u64) -> Self {
        Self { answer, given }
    }
}

/// An answer that the login cannot go on without.
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
}

/// What to do, in order.
#[derive(Debug)]
pub enum LoginOutput {
    /// Write to the client what the server sent.
    ToClient(Bytes),
    /// Write to the client what answers its own bytes.
    ReplyToClient(Bytes),
    /// Write to the server.
    ToUpstream(Bytes),
    /// Connect to the server of this host, then say [`LoginInput::Connected`].
    Connect(String),
    /// The server let the client in: the larger limits hold.
    Authenticated,
    /// The server has failed an exchange of SASL, for whatever reason.
    SaslFailed,
    /// The server refused a log-in, and not for reasons of its own.
    LoginFailed,
    /// A log-in was refused here, since too many failed before ([`Lockout`]).
    LoginRefused,
    /// Both streams begin anew (RFC 6120 §6.4.6).
    Restart,
    /// Look for a session that can be resumed under this id.
    Find(SmId),
    /// Hand the connection to that session and close the upstream stream.
    HandOver {
        /// The id under which the session can be resumed.
        id: SmId,
        /// What the session needs to know.
        resumption: Resumption,
    },
    /// End the held session of this login that has this resource: the server would end it, or refuse the bind.
    Release {
        /// The login.
        proof: Proof,
        /// The resource.
        resource: String,
    },
    /// The connection is a session of its own.
    Bound(Box<Bound>),
    /// Report a problem of a server to the operator.
    UpstreamWarning {
        /// The host of the server.
        host: String,
        /// The problem.
        warning: UpstreamWarning,
    },
    /// Write what is left to both legs and close them.
    Close(CloseReason),
}

/// Why a connection ended before it became a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The client closed its stream.
    ClientClosed,
    /// The client broke the protocol and was told so.
    ClientError,
    /// The server closed its stream.
    UpstreamClosed,
    /// The server could not be reached, or its connection broke.
    UpstreamLost,
    /// The server broke the protocol.
    UpstreamError,
    /// The server wants TLS, and its leg has none.
    UpstreamWantsTls,
    /// The client asked for a host that is not served.
    HostUnknown,
    /// A resumption was not proven.
    ResumeRefused,
    /// `authentication_timeout` is over.
    Timeout,
    /// The server has not answered within `server_timeout`.
    ServerSilent,
    /// The store has not answered in time.
    StoreLate,
    /// There are too many connections that have not logged in.
    Crowded,
    /// It has sent too many elements before it logged in.
    TooManyElements,
    /// It went on to try log-ins while none was let try.
    LockedOut,
    /// The daemon was asked to stop.
    Shutdown,
}

impl CloseReason {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::ClientClosed,
        Self::ClientError,
        Self::UpstreamClosed,
        Self::UpstreamLost,
        Self::UpstreamError,
        Self::UpstreamWantsTls,
        Self::HostUnknown,
        Self::ResumeRefused,
        Self::Timeout,
        Self::ServerSilent,
        Self::StoreLate,
        Self::Crowded,
        Self::TooManyElements,
        Self::LockedOut,
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
            Self::UpstreamWantsTls => "upstream_wants_tls",
            Self::HostUnknown => "host_unknown",
            Self::ResumeRefused => "resume_refused",
            Self::Timeout => "timeout",
            Self::ServerSilent => "server_silent",
            Self::StoreLate => "store_late",
            Self::Crowded => "crowded",
            Self::TooManyElements => "too_many_elements",
            Self::LockedOut => "locked_out",
            Self::Shutdown => "shutdown",
        }
    }
}

/// Whom the server let in, as far as that is certain before the bind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The account that the server named (XEP-0388 §2.6.1).
    Account(BareJid),
    /// The login, which the server maps to an account.
    Login(SaslIdentity),
}

/// What must be proven to resume a session.
#[derive(Clone, Debug)]
pub struct HeldSession {
    /// The account of the session.
    pub account: BareJid,
    /// Who created it, where that is known in the clear.
    pub identity: Option<SaslIdentity>,
}

/// What is remembered of a session that has ended in order.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The account of the session.
    pub account: BareJid,
    /// How many stanzas of the client were handled.
    pub h: sm::Handled,
}
