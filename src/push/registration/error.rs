//! Errors in a request for notifications.

use crate::xml::{ErrorType, StanzaCondition};

/// The reason why a client's request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// There is no `jid`, or it is not one.
    #[error("the push service's jid is missing or malformed")]
    Jid,
    /// The client names itself as the push service.
    #[error("the push service is the client itself")]
    OwnJid,
    /// The operator does not allow this push service: `services`.
    #[error("this push service is not allowed")]
    NotAllowed,
    /// The request exceeds the size that is stored.
    #[error("the request is too large to keep")]
    TooLarge,
    /// It asks for an unknown encryption algorithm.
    #[error("the algorithm is unknown")]
    Algorithm,
    /// The key is not base64 or not of the right length.
    #[error("the key is malformed")]
    Key,
}

impl RequestError {
    /// The type of the stanza error (RFC 6120 §8.3.2).
    pub fn kind(self) -> ErrorType {
        if self == Self::NotAllowed { ErrorType::Cancel } else { ErrorType::Modify }
    }

    /// The condition of the stanza error (RFC 6120 §8.3.3).
    pub fn condition(self) -> StanzaCondition {
        match self {
            Self::Algorithm => StanzaCondition::FeatureNotImplemented,
            Self::NotAllowed => StanzaCondition::NotAllowed,
            Self::Jid | Self::OwnJid | Self::TooLarge | Self::Key => StanzaCondition::BadRequest,
        }
    }
}
