//! Error conditions that Pushward writes: of streams (RFC 6120 §4.9.3) and of stanzas (RFC 6120 §8.3.3).

/// The condition of a stream error (RFC 6120 §4.9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamCondition {
    /// XML that cannot be processed as a stream.
    BadFormat,
    /// A newer stream of the same client replaces this one.
    Conflict,
    /// The peer has not done in time what was expected of it.
    ConnectionTimeout,
    /// The stream is addressed to a host that is not served.
    HostUnknown,
    /// The stream is addressed to nobody.
    ImproperAddressing,
    /// An error of Pushward itself.
    InternalServerError,
    /// The sender of a stanza is not the peer.
    InvalidFrom,
    /// The stream's namespace is not that of a stream.
    InvalidNamespace,
    /// The peer must authenticate first.
    NotAuthorized,
    /// The bytes are not well-formed XML.
    NotWellFormed,
    /// A limit was exceeded.
    PolicyViolation,
    /// The server does not answer.
    RemoteConnectionFailed,
    /// There is no room for another stream now.
    ResourceConstraint,
    /// XML that streams must not contain (RFC 6120 §11.1).
    RestrictedXml,
    /// The process ends.
    SystemShutdown,
    /// Another condition, which an application-specific element names.
    UndefinedCondition,
    /// The bytes are not UTF-8.
    UnsupportedEncoding,
    /// A top-level element that is not expected here.
    UnsupportedStanzaType,
}

impl StreamCondition {
    /// The name of the element.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadFormat => "bad-format",
            Self::Conflict => "conflict",
            Self::ConnectionTimeout => "connection-timeout",
            Self::HostUnknown => "host-unknown",
            Self::ImproperAddressing => "improper-addressing",
            Self::InternalServerError => "internal-server-error",
            Self::InvalidFrom => "invalid-from",
            Self::InvalidNamespace => "invalid-namespace",
            Self::NotAuthorized => "not-authorized",
            Self::NotWellFormed => "not-well-formed",
            Self::PolicyViolation => "policy-violation",
            Self::RemoteConnectionFailed => "remote-connection-failed",
            Self::ResourceConstraint => "resource-constraint",
            Self::RestrictedXml => "restricted-xml",
            Self::SystemShutdown => "system-shutdown",
            Self::UndefinedCondition => "undefined-condition",
            Self::UnsupportedEncoding => "unsupported-encoding",
            Self::UnsupportedStanzaType => "unsupported-stanza-type",
        }
    }
}

/// The condition of a stanza error (RFC 6120 §8.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StanzaCondition {
    /// The request is malformed.
    BadRequest,
    /// The request asks for a feature that is not there.
    FeatureNotImplemented,
    /// An error of Pushward itself.
    InternalServerError,
    /// What the request is about does not exist.
    ItemNotFound,
    /// The stanza breaks a rule of its recipient.
    NotAcceptable,
    /// Nobody may do this.
    NotAllowed,
    /// There is no room now.
    ResourceConstraint,
    /// Nobody is there to answer.
    ServiceUnavailable,
    /// The request is out of order.
    UnexpectedRequest,
}

impl StanzaCondition {
    /// The name of the element.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad-request",
            Self::FeatureNotImplemented => "feature-not-implemented",
            Self::InternalServerError => "internal-server-error",
            Self::ItemNotFound => "item-not-found",
            Self::NotAcceptable => "not-acceptable",
            Self::NotAllowed => "not-allowed",
            Self::ResourceConstraint => "resource-constraint",
            Self::ServiceUnavailable => "service-unavailable",
            Self::UnexpectedRequest => "unexpected-request",
        }
    }
}

/// The type of a stanza error: what the sender may do about it (RFC 6120 §8.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorType {
    /// Authenticate, then send it again.
    Auth,
    /// Do not send it again.
    Cancel,
    /// Change it, then send it again.
    Modify,
    /// Send it again later.
    Wait,
}

impl ErrorType {
    /// The value of the `type` attribute.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Cancel => "cancel",
            Self::Modify => "modify",
            Self::Wait => "wait",
        }
    }
}
