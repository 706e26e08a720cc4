//! Error conditions that Pushward writes: of streams (RFC 6120 §4.9.3) and of stanzas (RFC 6120 §8.3.3).

/// The condition of a stream error (RFC 6120 §4.9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamCondition {
    /// XML that cannot be processed as a stream.
    BadFormat,
    /// A newer stream of the same client replaces this stream.
    Conflict,
    /// The peer did not act in time.
    ConnectionTimeout,
    /// The stream is addressed to a host that is not served.
    HostUnknown,
    /// The stream has no address.
    ImproperAddressing,
    /// An internal error of Pushward.
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
    /// There are no resources for another stream now.
    ResourceConstraint,
    /// XML that streams must not contain (RFC 6120 §11.1).
    RestrictedXml,
    /// The process is shutting down.
    SystemShutdown,
    /// Another condition, named by an application-specific element.
    UndefinedCondition,
    /// The bytes are not UTF-8.
    UnsupportedEncoding,
    /// A top-level element is not expected here.
    UnsupportedStanzaType,
}

impl StreamCondition {
    /// Returns the name of the element.
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
    /// The request asks for a feature that is not implemented.
    FeatureNotImplemented,
    /// An internal error of Pushward.
    InternalServerError,
    /// The item of the request does not exist.
    ItemNotFound,
    /// The stanza breaks a rule of its recipient.
    NotAcceptable,
    /// No entity is allowed to do this.
    NotAllowed,
    /// There are no resources now.
    ResourceConstraint,
    /// The recipient is not available.
    ServiceUnavailable,
    /// The request is not expected at this point.
    UnexpectedRequest,
}

impl StanzaCondition {
    /// Returns the name of the element.
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

/// The type of a stanza error. It states what the sender may do (RFC 6120 §8.3.2).
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
    /// Returns the value of the `type` attribute.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Cancel => "cancel",
            Self::Modify => "modify",
            Self::Wait => "wait",
        }
    }
}
