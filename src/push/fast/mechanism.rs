//! The SASL mechanisms of tokens, and the data by which they bind a login to its TLS connection.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A SASL mechanism for tokens (draft-schmaus-kitten-sasl-ht §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TokenMechanism {
    /// Without channel binding.
    #[serde(rename = "HT-SHA-256-NONE")]
    Sha256None,
    /// With the channel binding `tls-exporter` (RFC 9266), on TLS 1.3 only.
    #[serde(rename = "HT-SHA-256-EXPR")]
    Sha256Exporter,
}

impl TokenMechanism {
    /// All mechanisms, the one to prefer first.
    pub const ALL: [Self; 2] = [Self::Sha256Exporter, Self::Sha256None];

    /// Returns the mechanism with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mechanism| mechanism.name() == name)
    }

    /// Returns its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256None => "HT-SHA-256-NONE",
            Self::Sha256Exporter => "HT-SHA-256-EXPR",
        }
    }

    /// Returns the channel binding of a login with this mechanism. `exporter`: the value of RFC 9266, if the connection has
    /// one. `None` if the mechanism cannot be used on the connection.
    pub fn bind(self, exporter: Option<[u8; 32]>) -> Option<TokenBinding> {
        match self {
            Self::Sha256None => Some(TokenBinding::Unbound),
            Self::Sha256Exporter => exporter.map(TokenBinding::Exporter),
        }
    }
}

impl fmt::Display for TokenMechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The channel binding of a login by token.
#[derive(Clone, PartialEq, Eq)]
pub enum TokenBinding {
    /// The mechanism has none.
    Unbound,
    /// `tls-exporter`.
    Exporter([u8; 32]),
}

impl TokenBinding {
    /// Returns the mechanism that has this kind of binding.
    pub fn mechanism(&self) -> TokenMechanism {
        match self {
            Self::Unbound => TokenMechanism::Sha256None,
            Self::Exporter(_) => TokenMechanism::Sha256Exporter,
        }
    }

    /// Returns the data that both HMACs contain.
    pub(super) fn data(&self) -> &[u8] {
        match self {
            Self::Unbound => &[],
            Self::Exporter(value) => value,
        }
    }
}

impl fmt::Debug for TokenBinding {
    // The value of a connection is not for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.mechanism().fmt(f)
    }
}
