//! Outcomes, with the words for them in labels.

use crate::push::classify::Noise;
use crate::push::fast::TokenVerdict;
use crate::push::filter::Blocked;
use crate::push::pusher::{Skip, Verdict};
use crate::session::negotiate::CloseReason;

/// The outcome of a TLS handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeOutcome {
    /// TLS is established.
    Established,
    /// The peer disconnected, broke the protocol, or could not agree on TLS.
    Failed,
    /// `handshake_timeout` was exceeded.
    Timeout,
}

/// The outcome of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginOutcome {
    /// A new session.
    Bound,
    /// A held session was resumed.
    Resumed,
    /// The stream was passed on to the node that owns the account.
    PassedOn,
    /// The client's connection was lost.
    Lost,
    /// The connection was closed.
    Closed(CloseReason),
}

/// The outcome of a login for an account that another node may own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HopOutcome {
    /// The owner has the stream.
    PassedOn,
    /// The owner could not be found out.
    OwnerUnknown,
    /// The owner cannot be reached, or the connection to it broke.
    Unreachable,
    /// The peer at the owner's address has not shown its certificate.
    Untrusted,
    /// The owner has not answered in time.
    Late,
    /// The owner has refused the stream.
    Refused,
    /// The owner offers the client something else than this node.
    OtherOffer,
}

/// The outcome of a connection to the listener for other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeArrival {
    /// It is of a node, which has passed a client on.
    Accepted,
    /// It is over a limit.
    Limited,
    /// It is of a stranger, whose certificate no node has.
    Stranger,
    /// It has not passed a client on.
    Invalid,
    /// It could not be checked whether it is of a node.
    Unchecked,
    /// `handshake_timeout` was exceeded.
    Timeout,
}

/// The outcome of an attempt to connect to the server of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectOutcome {
    /// The connection is established.
    Connected,
    /// The connection failed.
    Failed,
}

/// The outcome of a reload of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// The new configuration is in use.
    Done,
    /// The old configuration stays in use.
    Refused,
}

/// The outcome of a request to hand the sessions over to another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandoverOutcome {
    /// This process has taken up the sessions of the previous one.
    Done,
    /// The installed program cannot take the place of this process, which goes on.
    Refused,
    /// The handover failed after it had begun.
    Failed,
}

/// The outcome of a client's request to resume a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResumeOutcome {
    /// The session was resumed.
    Resumed,
    /// The session has ended; the client was sent the number of its stanzas that the session had handled.
    Ended,
    /// There is no such session.
    Unknown,
    /// The client acknowledges stanzas that it was never sent.
    TooHigh,
    /// The server did not prove that the session belongs to the client.
    NotProven,
}

/// The outcome of a login by token (XEP-0484).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FastOutcome {
    /// The client has its session again.
    Accepted,
    /// The token has expired.
    Expired,
    /// The HMAC is not that of the client's token.
    WrongHash,
    /// The count was used before.
    Replayed,
    /// The account has no such token, or none for the session.
    UnknownToken,
    /// The session is gone, or cannot be resumed.
    NoSession,
}

impl From<&TokenVerdict> for FastOutcome {
    fn from(verdict: &TokenVerdict) -> Self {
        match verdict {
            TokenVerdict::Accepted(_) => Self::Accepted,
            TokenVerdict::Expired => Self::Expired,
            TokenVerdict::WrongHash => Self::WrongHash,
            TokenVerdict::Replayed => Self::Replayed,
            TokenVerdict::Unknown => Self::UnknownToken,
        }
    }
}

impl HopOutcome {
    pub(super) const ALL: [Self; 7] = [
        Self::PassedOn,
        Self::OwnerUnknown,
        Self::Unreachable,
        Self::Untrusted,
        Self::Late,
        Self::Refused,
        Self::OtherOffer,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::PassedOn => "passed_on",
            Self::OwnerUnknown => "owner_unknown",
            Self::Unreachable => "unreachable",
            Self::Untrusted => "untrusted",
            Self::Late => "late",
            Self::Refused => "refused",
            Self::OtherOffer => "other_offer",
        }
    }
}

impl NodeArrival {
    pub(super) const ALL: [Self; 6] =
        [Self::Accepted, Self::Limited, Self::Stranger, Self::Invalid, Self::Unchecked, Self::Timeout];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Limited => "limited",
            Self::Stranger => "stranger",
            Self::Invalid => "invalid",
            Self::Unchecked => "unchecked",
            Self::Timeout => "timeout",
        }
    }
}

impl ConnectOutcome {
    pub(super) const ALL: [Self; 2] = [Self::Connected, Self::Failed];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Failed => "failed",
        }
    }
}

impl ReloadOutcome {
    pub(super) const ALL: [Self; 2] = [Self::Done, Self::Refused];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
        }
    }
}

impl HandoverOutcome {
    pub(super) const ALL: [Self; 3] = [Self::Done, Self::Refused, Self::Failed];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

impl HandshakeOutcome {
    pub(super) const ALL: [Self; 3] = [Self::Established, Self::Failed, Self::Timeout];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
        }
    }
}

impl LoginOutcome {
    pub(super) fn all() -> impl Iterator<Item = Self> {
        [Self::Bound, Self::Resumed, Self::PassedOn, Self::Lost].into_iter().chain(CloseReason::ALL.map(Self::Closed))
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bound => "bound",
            Self::Resumed => "resumed",
            Self::PassedOn => "passed_on",
            Self::Lost => "client_lost",
            Self::Closed(reason) => reason.name(),
        }
    }
}

impl ResumeOutcome {
    pub(super) const ALL: [Self; 5] = [Self::Resumed, Self::Ended, Self::Unknown, Self::TooHigh, Self::NotProven];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Resumed => "resumed",
            Self::Ended => "ended",
            Self::Unknown => "unknown",
            Self::TooHigh => "handled_count_too_high",
            Self::NotProven => "not_proven",
        }
    }
}

impl FastOutcome {
    pub(super) const ALL: [Self; 6] =
        [Self::Accepted, Self::Expired, Self::WrongHash, Self::Replayed, Self::UnknownToken, Self::NoSession];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Expired => "expired",
            Self::WrongHash => "wrong_hash",
            Self::Replayed => "replayed",
            Self::UnknownToken => "unknown_token",
            Self::NoSession => "no_session",
        }
    }
}

/// Returns all verdicts about a stanza.
pub(super) fn verdicts() -> impl Iterator<Item = Verdict> {
    let skips = [Skip::Duplicate, Skip::ReadElsewhere, Skip::CallEnd];
    let skips = skips.into_iter().chain(Noise::ALL.map(Skip::Noise)).chain(Blocked::ALL.map(Skip::Blocked));
    [Verdict::Push, Verdict::Ring].into_iter().chain(skips.map(Verdict::Skip))
}
