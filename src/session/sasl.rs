//! The clear-text content of a SASL exchange: the name that logs in.
//!
//! Only the authentication identity is kept. A password or proof passes through and is neither stored nor printed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::xml::ns;

/// The identity that the server accepted: the authentication identity of the exchange that it answered with `<success/>`.
///
/// Two equal identities are the same account, because a server maps the identity to an account in a fixed way. It exists
/// only for PLAIN and SCRAM without an authorization identity. With other mechanisms, a resumption is proven by a probe
/// bind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SaslIdentity {
    /// The served host.
    pub host: String,
    /// The authentication identity, byte for byte.
    pub authcid: String,
}

/// The two profiles of SASL in XMPP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// RFC 6120 §6.
    #[default]
    Sasl,
    /// XEP-0388.
    Sasl2,
}

impl Profile {
    /// The namespace of its elements.
    pub fn ns(self) -> &'static str {
        match self {
            Self::Sasl => ns::SASL,
            Self::Sasl2 => ns::SASL2,
        }
    }
}

/// One SASL exchange, from `<auth/>` or `<authenticate/>` to the server's answer.
#[derive(Debug, Default)]
pub struct SaslExchange {
    profile: Profile,
    mechanism: String,
    /// The name in the client's first message; `None` inside if it had none in the clear.
    first: Option<Option<String>>,
    /// True if a SCRAM client's first message indicates that it supports channel binding but saw none offered.
    missed_binding: bool,
}

impl SaslExchange {
    /// Begins an exchange. Earlier ones have no effect.
    pub fn begin(profile: Profile, mechanism: String) -> Self {
        Self { profile, mechanism, first: None, missed_binding: false }
    }

    /// The profile of the exchange.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// The mechanism that the client chose.
    pub fn mechanism(&self) -> &str {
        &self.mechanism
    }

    /// Takes the client's next message. Only the first one contains the name. It comes with the element that begins the
    /// exchange or, if that was empty, with the first `<response/>`.
    pub fn client_message(&mut self, message: &str) {
        if self.first.is_none() && !message.is_empty() {
            self.first = Some(authcid(&self.mechanism, message));
            self.missed_binding = self.is_scram() && decoded(message).is_some_and(|text| text.starts_with("y,"));
        }
    }

    /// Returns whether the client indicates that it supports channel binding and the server does not offer it (RFC 5802
    /// §6).
    pub fn missed_binding(&self) -> bool {
        self.missed_binding
    }

    /// Returns whether a challenge of the server contains a hash of its offers: `h`, formerly `d` (XEP-0474).
    pub fn hashes_offers(&self, challenge: &str) -> bool {
        let is_hash = |field: &str| field.starts_with("h=") || field.starts_with("d=");
        self.is_scram() && decoded(challenge).is_some_and(|text| text.starts_with("r=") && text.split(',').any(is_hash))
    }

    fn is_scram(&self) -> bool {
        self.mechanism.starts_with("SCRAM-")
    }

    /// The name that logged in, if it was sent in the clear.
    pub fn authcid(&self) -> Option<String> {
        self.first.clone().flatten()
    }
}

/// Reads the authentication identity from a client's first SASL message, base64 as on the wire (RFC 6120 §6.4.2).
///
/// `None` if there is none in the clear, or if an authorization identity requests another account.
fn authcid(mechanism: &str, message: &str) -> Option<String> {
    let text = decoded(message)?;
    match mechanism {
        "PLAIN" => plain(&text),
        "SCRAM-SHA-1" | "SCRAM-SHA-256" | "SCRAM-SHA-512" => scram(&text),
        _ => None,
    }
}

fn decoded(message: &str) -> Option<String> {
    String::from_utf8(STANDARD.decode(message.trim()).ok()?).ok()
}

/// RFC 4616 §2: `[authzid] NUL authcid NUL passwd`.
fn plain(text: &str) -> Option<String> {
    let mut fields = text.split('\0');
    let (authzid, authcid) = (fields.next()?, fields.next()?);
    (authzid.is_empty() && !authcid.is_empty() && fields.count() == 1).then(|| authcid.to_owned())
}

/// RFC 5802 §7: `gs2-cbind-flag "," [authzid] "," [reserved-mext ","] "n=" saslname ","…`.
fn scram(text: &str) -> Option<String> {
    let mut fields = text.split(',');
    let (_cbind, authzid, username) = (fields.next()?, fields.next()?, fields.next()?);
    let name = username.strip_prefix("n=")?;
    if !authzid.is_empty() || name.is_empty() {
        return None;
    }
    Some(name.replace("=2C", ",").replace("=3D", "="))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mechanism: &str, message: &str, expect: Option<&str>) {
        assert_eq!(authcid(mechanism, &STANDARD.encode(message)).as_deref(), expect, "{mechanism} {message:?}");
    }

    #[test]
    fn the_authentication_identity_is_read_where_it_stands_in_the_clear() {
        check("PLAIN", "\0juliet\0r0m30", Some("juliet"));
        check("SCRAM-SHA-1", "n,,n=juliet,r=abc", Some("juliet"));
        check("SCRAM-SHA-256", "y,,n=a=2Cb=3Dc,r=abc", Some("a,b=c"));
        check("SCRAM-SHA-512", "n,,n=jul=3D2Ciet,r=abc", Some("jul=2Ciet"));
    }

    #[test]
    fn only_the_first_message_of_the_latest_exchange_counts() {
        let mut exchange = SaslExchange::begin(Profile::Sasl, "SCRAM-SHA-1".into());
        exchange.client_message(&STANDARD.encode("n,a=x,n=mallory,r=1"));
        exchange.client_message(&STANDARD.encode("n,,n=juliet,r=1"));
        assert_eq!(exchange.authcid(), None);
        let mut exchange = SaslExchange::begin(Profile::Sasl2, "PLAIN".into());
        exchange.client_message("");
        exchange.client_message(&STANDARD.encode("\0juliet\0x"));
        assert_eq!(exchange.authcid().as_deref(), Some("juliet"));
        assert_eq!(SaslExchange::begin(Profile::Sasl, "PLAIN".into()).authcid(), None);
    }

    #[test]
    fn what_a_client_misses_and_a_server_hashes_is_seen_in_scram_only() {
        let missed = |mechanism: &str, message: &str| {
            let mut exchange = SaslExchange::begin(Profile::Sasl, mechanism.into());
            exchange.client_message(&STANDARD.encode(message));
            exchange.missed_binding()
        };
        assert!(missed("SCRAM-SHA-1", "y,,n=juliet,r=abc"));
        assert!(!missed("SCRAM-SHA-1", "n,,n=juliet,r=abc"));
        assert!(!missed("SCRAM-SHA-1-PLUS", "p=tls-server-end-point,,n=juliet,r=abc"));
        assert!(!missed("X-OTHER", "y,,n=juliet,r=abc"));
        let hashes = |mechanism: &str, message: &str| {
            SaslExchange::begin(Profile::Sasl, mechanism.into()).hashes_offers(&STANDARD.encode(message))
        };
        assert!(hashes("SCRAM-SHA-1", "r=abc,s=c2FsdA==,i=4096,h=aGFzaA=="));
        assert!(hashes("SCRAM-SHA-256", "r=abc,s=c2FsdA==,i=4096,d=aGFzaA=="));
        assert!(!hashes("SCRAM-SHA-1", "r=h,s=c2FsdA==,i=4096"));
        assert!(!hashes("SCRAM-SHA-1", "v=h,h=x"));
        assert!(!hashes("PLAIN", "r=abc,h=x"));
    }

    #[test]
    fn an_authorization_identity_or_an_opaque_mechanism_gives_none() {
        check("PLAIN", "romeo\0juliet\0r0m30", None);
        check("PLAIN", "\0juliet\0a\0b", None);
        check("PLAIN", "\0\0secret", None);
        check("SCRAM-SHA-1", "n,a=romeo,n=juliet,r=abc", None);
        check("SCRAM-SHA-1", "n,,m=ext,n=juliet,r=abc", None);
        check("OAUTHBEARER", "n,a=juliet,\u{1}auth=Bearer x", None);
        assert_eq!(authcid("PLAIN", "not base64!"), None);
    }
}
