//! The limits, and the consequence of reaching each of them.

/// A limit, named like its key in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `connections`
    Connections,
    /// `connections_per_address`
    ConnectionsPerAddress,
    /// `unauthenticated`
    Unauthenticated,
    /// `unauthenticated_stanza`
    UnauthenticatedStanza,
    /// `stanza`
    Stanza,
    /// `depth`
    Depth,
    /// `handshake_timeout`
    HandshakeTimeout,
    /// `authentication_timeout`
    AuthenticationTimeout,
    /// `server_timeout`
    ServerTimeout,
    /// `failed_logins_per_address`
    FailedLoginsPerAddress,
    /// `stanza_rate`
    StanzaRate,
    /// `bandwidth`
    Bandwidth,
    /// `held_per_account`
    HeldPerAccount,
    /// `session_queue`
    SessionQueue,
    /// `queue_memory`
    QueueMemory,
    /// `spool_per_session`
    SpoolPerSession,
    /// `spool_per_account`
    SpoolPerAccount,
    /// `spool`
    Spool,
}

impl Limit {
    /// All limits.
    pub const ALL: [Self; 18] = [
        Self::Connections,
        Self::ConnectionsPerAddress,
        Self::Unauthenticated,
        Self::UnauthenticatedStanza,
        Self::Stanza,
        Self::Depth,
        Self::HandshakeTimeout,
        Self::AuthenticationTimeout,
        Self::ServerTimeout,
        Self::FailedLoginsPerAddress,
        Self::StanzaRate,
        Self::Bandwidth,
        Self::HeldPerAccount,
        Self::SessionQueue,
        Self::QueueMemory,
        Self::SpoolPerSession,
        Self::SpoolPerAccount,
        Self::Spool,
    ];

    /// Returns its key in `[limits]`, which is also its label in the metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ConnectionsPerAddress => "connections_per_address",
            Self::Unauthenticated => "unauthenticated",
            Self::UnauthenticatedStanza => "unauthenticated_stanza",
            Self::Stanza => "stanza",
            Self::Depth => "depth",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::AuthenticationTimeout => "authentication_timeout",
            Self::ServerTimeout => "server_timeout",
            Self::FailedLoginsPerAddress => "failed_logins_per_address",
            Self::StanzaRate => "stanza_rate",
            Self::Bandwidth => "bandwidth",
            Self::HeldPerAccount => "held_per_account",
            Self::SessionQueue => "session_queue",
            Self::QueueMemory => "queue_memory",
            Self::SpoolPerSession => "spool_per_session",
            Self::SpoolPerAccount => "spool_per_account",
            Self::Spool => "spool",
        }
    }

    /// Returns the consequence of reaching it, for the log.
    pub fn consequence(self) -> &'static str {
        match self {
            Self::Connections | Self::ConnectionsPerAddress => "connection refused",
            Self::Unauthenticated => "an unauthenticated connection was closed to admit a new one",
            Self::UnauthenticatedStanza | Self::Stanza | Self::Depth => "stream closed",
            Self::HandshakeTimeout | Self::AuthenticationTimeout => "connection closed",
            Self::ServerTimeout => "client received remote-connection-failed",
            Self::FailedLoginsPerAddress => "logins are answered with temporary-auth-failure",
            Self::StanzaRate | Self::Bandwidth => "reading from the client slowed down",
            Self::HeldPerAccount => "the session held longest was ended",
            Self::SessionQueue | Self::QueueMemory => "waiting stanzas are kept on disk only",
            Self::SpoolPerSession | Self::SpoolPerAccount | Self::Spool => {
                "stanzas stay in memory; what does not fit there stays on the server or is returned to its sender"
            }
        }
    }
}
