//! The clear-text content of a SASL exchange: the name that logs in.
//!
//! Only the authentication identity is kept. A password or proof passes through and is neither stored nor printed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::jid::BareJid;
use crate::xml::ns;

/// The identity that the server accepted: the authentication identity of the exchange that it answered with `<success/>`.
///
/// Two equal identities are the same account, because a server maps the identity to an account in a fixed way. It exists
/// only for PLAIN and SCRAM without an authorization identity. With other mechanisms, a resumption is proven by a probe
/// bind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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

/// The method by which a client has logged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LoginMethod {
    /// RFC 6120 §6.
    Sasl1,
    /// XEP-0388, by the server.
    Sasl2,
    /// XEP-0388, in front of a server that lacks it.
    FrontedSasl2,
    /// XEP-0484, in front of a server that lacks it.
    FrontedToken,
}

impl LoginMethod {
    /// All methods.
    pub const ALL: [Self; 4] = [Self::Sasl1, Self::Sasl2, Self::FrontedSasl2, Self::FrontedToken];

    /// The name, for operators.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sasl1 => "SASL1",
            Self::Sasl2 | Self::FrontedSasl2 => "SASL2",
            Self::FrontedToken => "SASL2 FAST",
        }
    }

    /// The profile of SASL, as the metric's label.
    pub fn profile(self) -> &'static str {
        match self {
            Self::Sasl1 => "sasl1",
            Self::Sasl2 | Self::FrontedSasl2 | Self::FrontedToken => "sasl2",
        }
    }

    /// Returns whether Pushward offered the profile in place of the server.
    pub fn is_fronted(self) -> bool {
        match self {
            Self::Sasl1 | Self::Sasl2 => false,
            Self::FrontedSasl2 | Self::FrontedToken => true,
        }
    }
}

/// The names in a client's first message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaslNames {
    /// The authentication identity, byte for byte.
    pub authcid: String,
    /// The authorization identity, byte for byte; empty if the message has none.
    pub authzid: String,
}

impl SaslNames {
    /// Returns the account that logs in at this host, or `None` if the name is not valid there.
    pub fn account(&self, host: &str) -> Option<BareJid> {
        let named = || BareJid::new(&self.authcid).ok().filter(|account| account.domain() == host);
        BareJid::of_user(&self.authcid, host).or_else(named)
    }

    /// Returns whether the message asks for another account than this one.
    pub fn ask_for_other_than(&self, account: &BareJid) -> bool {
        !self.authzid.is_empty() && BareJid::new(&self.authzid).ok().as_ref() != Some(account)
    }
}

/// The progress of an exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Progress {
    /// None has begun, or the server has ended it.
    #[default]
    Over,
    /// The client or the server has to send the next message.
    Open,
}

/// One SASL exchange, from `<auth/>` or `<authenticate/>` to the server's answer.
#[derive(Debug, Default)]
pub struct SaslExchange {
    profile: Profile,
    mechanism: String,
    progress: Progress,
    /// The names in the client's first message; `None` inside if it had none in the clear.
    first: Option<Option<SaslNames>>,
    /// True if a SCRAM client's first message indicates that it supports channel binding but saw none offered.
    missed_binding: bool,
}

impl SaslExchange {
    /// Begins an exchange. Earlier ones have no effect.
    pub fn begin(profile: Profile, mechanism: String) -> Self {
        Self { profile, mechanism, progress: Progress::Open, first: None, missed_binding: false }
    }

    /// Notes that the exchange is over. The client may begin another one.
    pub fn end(&mut self) {
        self.progress = Progress::Over;
    }

    /// Returns whether an exchange of this profile has begun and is not over.
    pub fn is_open(&self, profile: Profile) -> bool {
        self.progress == Progress::Open && self.profile == profile
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
            self.first = Some(names(&self.mechanism, message));
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
        self.challenge_has(challenge, &["h=", "d="])
    }

    /// Returns whether a challenge of the server depends on the offers or on the TLS connection that the server sees: `h`, formerly
    /// `d` (XEP-0474), `t` (XEP-0515).
    pub fn depends_on_offers(&self, challenge: &str) -> bool {
        self.challenge_has(challenge, &["h=", "d=", "t="])
    }

    fn challenge_has(&self, challenge: &str, attributes: &[&str]) -> bool {
        let is_one = |field: &str| attributes.iter().any(|attribute| field.starts_with(attribute));
        self.is_scram() && decoded(challenge).is_some_and(|text| text.starts_with("r=") && text.split(',').any(is_one))
    }

    fn is_scram(&self) -> bool {
        self.mechanism.starts_with("SCRAM-")
    }

    /// The names in the client's first message. `None` if there has been none; `Some(None)` if it had no names in the clear.
    pub fn names(&self) -> Option<Option<&SaslNames>> {
        self.first.as_ref().map(Option::as_ref)
    }

    /// The name that logged in, if it was sent in the clear, without an authorization identity.
    pub fn authcid(&self) -> Option<String> {
        let names = self.first.as_ref()?.as_ref()?;
        names.authzid.is_empty().then(|| names.authcid.clone())
    }
}

/// Returns whether a mechanism sends the name of the account in the clear: PLAIN, and SCRAM with and without channel binding.
pub fn names_account(mechanism: &str) -> bool {
    let hash = mechanism.strip_prefix("SCRAM-").map(|hash| hash.strip_suffix("-PLUS").unwrap_or(hash));
    mechanism == "PLAIN"
        || hash.is_some_and(|hash| matches!(hash, "SHA-1" | "SHA-224" | "SHA-256" | "SHA-384" | "SHA-512" | "SHA3-512"))
}

/// Reads the names in a client's first SASL message, of all mechanisms that have them in the clear. Those of mechanisms other than
/// [`names_account`] are no identity: they only say for whom the client asks.
pub fn clear_names(mechanism: &str, message: &str) -> Option<SaslNames> {
    let of_mechanism = || match mechanism {
        // As PLAIN, with a token in the place of the password.
        "X-OAUTH2" => plain(&decoded(message)?),
        // RFC 4422, appendix A: the authorization identity alone.
        "EXTERNAL" => Some(SaslNames { authcid: String::new(), authzid: decoded(message)? }),
        "OAUTHBEARER" => Some(SaslNames { authcid: String::new(), authzid: oauth_bearer(&decoded(message)?)? }),
        _ if mechanism.starts_with("SCRAM-") => scram(&decoded(message)?),
        _ if mechanism.starts_with("HT-") => hashed_token(&STANDARD.decode(message.trim()).ok()?),
        _ => None,
    };
    names(mechanism, message).or_else(of_mechanism)
}

/// RFC 7628 §3.1: `gs2-cbind-flag "," ["a=" authzid] "," …`.
fn oauth_bearer(text: &str) -> Option<String> {
    Some(unescaped(text.split(',').nth(1)?.strip_prefix("a=")?))
}

/// draft-schmaus-kitten-sasl-ht §3.1: `authcid NUL initiator-hashed-token`.
fn hashed_token(message: &[u8]) -> Option<SaslNames> {
    let authcid = std::str::from_utf8(message.split(|byte| *byte == 0).next()?).ok()?;
    let has_hash = message.len() > authcid.len() + 1;
    (has_hash && !authcid.is_empty()).then(|| SaslNames { authcid: authcid.to_owned(), authzid: String::new() })
}

/// Reads the names in a client's first SASL message, base64 as on the wire (RFC 6120 §6.4.2). `None` if there are none in the
/// clear.
fn names(mechanism: &str, message: &str) -> Option<SaslNames> {
    let text = decoded(message).filter(|_| names_account(mechanism))?;
    if mechanism == "PLAIN" { plain(&text) } else { scram(&text) }
}

fn decoded(message: &str) -> Option<String> {
    String::from_utf8(STANDARD.decode(message.trim()).ok()?).ok()
}

/// RFC 4616 §2: `[authzid] NUL authcid NUL passwd`.
fn plain(text: &str) -> Option<SaslNames> {
    let mut fields = text.split('\0');
    let (authzid, authcid) = (fields.next()?, fields.next()?);
    let names = SaslNames { authcid: authcid.to_owned(), authzid: authzid.to_owned() };
    (!authcid.is_empty() && fields.count() == 1).then_some(names)
}

/// RFC 5802 §7: `gs2-cbind-flag "," [authzid] "," [reserved-mext ","] "n=" saslname ","…`.
fn scram(text: &str) -> Option<SaslNames> {
    let mut fields = text.split(',');
    let (_cbind, authzid, username) = (fields.next()?, fields.next()?, fields.next()?);
    let authzid = if authzid.is_empty() { "" } else { authzid.strip_prefix("a=").filter(|name| !name.is_empty())? };
    let name = username.strip_prefix("n=").filter(|name| !name.is_empty())?;
    Some(SaslNames { authcid: unescaped(name), authzid: unescaped(authzid) })
}

/// RFC 5802 §5.1: a comma and an equals sign are escaped in a name.
fn unescaped(name: &str) -> String {
    name.replace("=2C", ",").replace("=3D", "=")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authcid(mechanism: &str, message: &str) -> Option<String> {
        let mut exchange = SaslExchange::begin(Profile::Sasl, mechanism.into());
        exchange.client_message(message);
        exchange.authcid()
    }

    fn check(mechanism: &str, message: &str, expect: Option<&str>) {
        assert_eq!(authcid(mechanism, &STANDARD.encode(message)).as_deref(), expect, "{mechanism} {message:?}");
    }

    #[test]
    fn the_authentication_identity_is_read_where_it_stands_in_the_clear() {
        check("PLAIN", "\0juliet\0r0m30", Some("juliet"));
        check("SCRAM-SHA-1", "n,,n=juliet,r=abc", Some("juliet"));
        check("SCRAM-SHA-256", "y,,n=a=2Cb=3Dc,r=abc", Some("a,b=c"));
        check("SCRAM-SHA-512", "n,,n=jul=3D2Ciet,r=abc", Some("jul=2Ciet"));
        check("SCRAM-SHA-1-PLUS", "p=tls-server-end-point,,n=juliet,r=abc", Some("juliet"));
    }

    #[test]
    fn only_mechanisms_that_name_the_account_in_the_clear_do() {
        for mechanism in ["PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-256-PLUS", "SCRAM-SHA3-512"] {
            assert!(names_account(mechanism), "{mechanism}");
        }
        for mechanism in ["", "plain", "SCRAM-", "SCRAM-MD5", "SCRAM-SHA-1-PLUS-PLUS", "OAUTHBEARER", "HT-SHA-256-NONE"]
        {
            assert!(!names_account(mechanism), "{mechanism}");
        }
    }

    #[test]
    fn an_authorization_identity_may_only_be_the_own_account() {
        let juliet = BareJid::new("juliet@example.org").unwrap();
        let names = |authzid: &str, authcid: &str| SaslNames { authcid: authcid.into(), authzid: authzid.into() };
        assert_eq!(names("", "Juliet").account("example.org"), Some(juliet.clone()));
        assert_eq!(names("", "juliet@example.org").account("example.org"), Some(juliet.clone()));
        assert_eq!(names("", "juliet@example.net").account("example.org"), None);
        for own in ["", "juliet@example.org", "Juliet@Example.org"] {
            assert!(!names(own, "juliet").ask_for_other_than(&juliet), "{own}");
        }
        for other in
            ["juliet", "romeo@example.org", "juliet@example.net", "juliet@example.org/phone", " ", "example.org"]
        {
            assert!(names(other, "juliet").ask_for_other_than(&juliet), "{other}");
        }
    }

    #[test]
    fn an_exchange_is_open_until_the_server_ends_it() {
        assert!(!SaslExchange::default().is_open(Profile::Sasl));
        let mut exchange = SaslExchange::begin(Profile::Sasl2, "PLAIN".into());
        assert!(exchange.is_open(Profile::Sasl2) && !exchange.is_open(Profile::Sasl));
        exchange.end();
        assert!(!exchange.is_open(Profile::Sasl2));
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
    fn the_account_that_a_client_asks_for_is_read_from_other_mechanisms_too() {
        let read = |mechanism: &str, message: &[u8]| {
            clear_names(mechanism, &STANDARD.encode(message)).map(|names| (names.authcid, names.authzid))
        };
        let is = |authcid: &str, authzid: &str| Some((authcid.to_owned(), authzid.to_owned()));
        assert_eq!(read("PLAIN", b"\0juliet\0x"), is("juliet", ""));
        assert_eq!(read("SCRAM-SHA-256-PLUS", b"p=tls-exporter,a=j@x.org,n=juliet,r=1"), is("juliet", "j@x.org"));
        assert_eq!(read("SCRAM-SHA3-256", b"n,,n=juliet,r=1"), is("juliet", ""));
        assert_eq!(read("HT-SHA-256-EXPR", b"juliet\0\xff\xfe"), is("juliet", ""));
        assert_eq!(read("EXTERNAL", b"juliet@x.org"), is("", "juliet@x.org"));
        assert_eq!(read("OAUTHBEARER", b"n,a=juliet@x.org,\x01auth=Bearer x\x01\x01"), is("", "juliet@x.org"));
        assert_eq!(read("X-OAUTH2", b"\0juliet\0token"), is("juliet", ""));
        for (mechanism, message) in [
            ("HT-SHA-256-NONE", &b"juliet"[..]),
            ("HT-SHA-256-NONE", b"\0hash"),
            ("HT-SHA-256-NONE", b"\xff\0hash"),
            ("OAUTHBEARER", b"n,,\x01auth=Bearer x"),
            ("DIGEST-MD5", b"username=\"juliet\""),
            ("X-OTHER", b"\0juliet\0x"),
        ] {
            assert_eq!(read(mechanism, message), None, "{mechanism}");
        }
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
