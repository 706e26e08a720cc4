//! Verification of the upstream server: the authorities, the TLS settings ([`Trust`]), and the errors of certificates
//! ([`TlsFault`]).

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{CertificateError, ClientConfig, Error, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::roots::{self, RootsError};
use super::socket::Socket;
use super::tls::{ALPN, ascii};
use crate::config::{Host, UpstreamTls};
use crate::xml::excerpt;

/// An error in the settings for verifying a server's certificate. The operator has to fix it.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The authorities could not be loaded.
    #[error(transparent)]
    Roots(#[from] RootsError),
    /// No certificate can name the domain.
    #[error("{domain} is not a valid name for a certificate")]
    Name {
        /// The domain.
        domain: String,
    },
    /// The TLS library cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Library(#[from] Error),
}

/// The TLS settings for the server of one domain.
#[derive(Clone)]
pub struct Trust {
    settings: TrustSettings,
    name: ServerName<'static>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Trust {
    /// Performs the handshake: sends the domain as the server name (RFC 6066 §3) and verifies the certificate for it
    /// (RFC 6125). With `only`, offers only this version of TLS.
    ///
    /// # Errors
    /// Returns the error of the library. [`TlsFault::from`] interprets it.
    pub async fn handshake(&self, socket: Socket, only: Option<ProtocolVersion>) -> io::Result<TlsStream<Socket>> {
        let config = only.and_then(|version| self.settings.only(version)).unwrap_or(&self.settings.any);
        TlsConnector::from(Arc::clone(config)).connect(self.name.clone(), socket).await
    }
}

/// The TLS settings for a set of authorities: one with all versions, and one for each version.
#[derive(Clone, Debug)]
struct TrustSettings {
    any: Arc<ClientConfig>,
    each: [(ProtocolVersion, Arc<ClientConfig>); 2],
}

impl TrustSettings {
    fn new(roots: RootCertStore, direct: bool) -> Result<Self, Error> {
        let roots = Arc::new(roots);
        let offering = |versions: &[&'static SupportedProtocolVersion]| {
            let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_protocol_versions(versions)?
                .with_root_certificates(Arc::clone(&roots))
                .with_no_client_auth();
            if direct {
                config.alpn_protocols = vec![ALPN.to_vec()];
            }
            Ok::<_, Error>(Arc::new(config))
        };
        let each = [(ProtocolVersion::TLSv1_2, offering(&[&TLS12])?), (ProtocolVersion::TLSv1_3, offering(&[&TLS13])?)];
        Ok(Self { any: offering(&[&TLS13, &TLS12])?, each })
    }

    fn only(&self, version: ProtocolVersion) -> Option<&Arc<ClientConfig>> {
        self.each.iter().find(|(only, _)| *only == version).map(|(_, config)| config)
    }
}

/// Returns the settings of connections to a server that is no XMPP server: its certificate and name are verified with these
/// authorities.
///
/// # Errors
/// None of the versions of TLS is supported, which does not happen.
pub fn of_authorities(roots: RootCertStore) -> Result<Arc<ClientConfig>, Error> {
    Ok(TrustSettings::new(roots, false)?.any)
}

/// Loads the trust of hosts. Hosts with the same authorities share the settings and their TLS sessions.
#[derive(Debug, Default)]
pub struct Trusts {
    loaded: HashMap<(Option<PathBuf>, bool), TrustSettings>,
}

impl Trusts {
    /// Returns the trust of a host whose server is connected with TLS.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn load(&mut self, host: &Host) -> Result<Trust, TrustError> {
        let unnamed = || TrustError::Name { domain: host.domain.clone() };
        let name = ServerName::try_from(ascii(&host.domain)).map_err(|_| unnamed())?;
        let direct = host.upstream_tls == UpstreamTls::Direct;
        let key = (host.upstream_ca.clone(), direct);
        if let Some(settings) = self.loaded.get(&key) {
            return Ok(Trust { settings: settings.clone(), name });
        }
        let roots = match &host.upstream_ca {
            Some(path) => roots::in_file(path)?,
            None => roots::system()?,
        };
        let settings = TrustSettings::new(roots, direct)?;
        self.loaded.insert(key, settings.clone());
        Ok(Trust { settings, name })
    }
}

/// An error in TLS with a server, described for the operator.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct TlsFault {
    what: String,
    remedy: &'static str,
    /// True if the server may have failed because of the offered versions.
    of_version: bool,
}

impl TlsFault {
    /// Returns the remedy for the operator.
    pub fn remedy(&self) -> &'static str {
        self.remedy
    }

    /// Returns whether another version of TLS may succeed. False if the server is the wrong one or does not use TLS.
    pub fn may_be_of_the_version(&self) -> bool {
        self.of_version
    }

    /// Returns whether the server may expect something else than TLS at this port.
    pub fn may_be_of_the_port(&self) -> bool {
        self.remedy == OTHER_PORT
    }

    fn new(what: impl Into<String>, remedy: &'static str) -> Self {
        Self { what: what.into(), remedy, of_version: false }
    }

    fn of_version(self) -> Self {
        Self { of_version: true, ..self }
    }
}

const OTHER_PORT: &str = "check upstream_tls and the port: \"direct\" is for a port that starts with TLS, \"starttls\" \
    for one that does not";

impl From<io::Error> for TlsFault {
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(Error::InvalidCertificate(fault)) => certificate_fault(fault),
            Some(Error::InvalidMessage(_)) => Self::new("the server does not use TLS on this port", OTHER_PORT),
            Some(other) => {
                Self::new(format!("TLS failed: {}", excerpt(&other.to_string())), "see the log of the server")
                    .of_version()
            }
            // Some servers close the connection instead of sending an alert.
            None => Self::new(format!("TLS failed: {}", excerpt(&error.to_string())), OTHER_PORT).of_version(),
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "another's enum that grows: the others keep the library's text")]
fn certificate_fault(fault: &CertificateError) -> TlsFault {
    use CertificateError as E;
    const RENEW: &str = "renew it, and reload the server";
    const CLOCK: &str = "set the clock of this machine, or give the server another certificate";
    const AUTHORITY: &str = "name the certificate of the authority that issued it, or the certificate itself if it is \
        self-signed, in upstream_ca";
    const NAME: &str = "give the server a certificate that lists the domain as a DNS name";
    match fault {
        E::NotValidForNameContext { expected, presented } => {
            let names = if presented.is_empty() { "no name".to_owned() } else { names(presented) };
            TlsFault::new(format!("its certificate is for {names}, not for {}", expected.to_str()), NAME)
        }
        E::NotValidForName => TlsFault::new("its certificate is not for the domain", NAME),
        E::ExpiredContext { not_after, .. } => {
            TlsFault::new(format!("its certificate expired at {}", date(*not_after)), RENEW)
        }
        E::Expired => TlsFault::new("its certificate has expired", RENEW),
        E::NotValidYetContext { not_before, .. } => {
            TlsFault::new(format!("its certificate is not valid before {}", date(*not_before)), CLOCK)
        }
        E::NotValidYet => TlsFault::new("its certificate is not valid yet", CLOCK),
        E::UnknownIssuer => TlsFault::new("its certificate was issued by an unknown authority", AUTHORITY),
        E::BadSignature => TlsFault::new("its certificate was not signed by the authority that it names", AUTHORITY),
        other if other.to_string().contains("CaUsedAsEndEntity") => TlsFault::new(
            "its certificate is that of an authority, not of a server",
            "create a certificate for the server with basicConstraints CA:FALSE",
        ),
        other => TlsFault::new(
            format!("its certificate cannot be trusted: {}", excerpt(&other.to_string())),
            "give the server another certificate",
        ),
    }
}

/// Returns the names without the library's notation, `DnsName("a.example")`.
fn names(presented: &[String]) -> String {
    let bare = |name: &String| name.split('"').nth(1).unwrap_or(name).to_owned();
    excerpt(&presented.iter().map(bare).collect::<Vec<_>>().join(", "))
}

fn date(time: UnixTime) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(time.as_secs())).to_string()
}

/// Returns the certificate of the server.
pub fn shown<S>(tls: &TlsStream<S>) -> Option<&CertificateDer<'static>> {
    tls.get_ref().1.peer_certificates().and_then(<[_]>::first)
}
