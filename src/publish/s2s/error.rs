//! Errors of connecting to a push service, each with the remedy for the operator.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustls::AlertDescription;
use thiserror::Error;

use super::handshake::HandshakeError;
use crate::net::lookup::LookupError;
use crate::xml::excerpt;

pub(super) const AUTHORITY: &str = "the push service needs another certificate; if it has its own authority, name that \
    as ca in a [[push.route]]";
pub(super) const NOT_XMPP: &str = "the operator of the push service must correct that; or name the right port in a \
    [[push.route]]";
const CLOSED: &str =
    "allow this machine to connect to other servers, if a firewall blocks it; otherwise the push service is down";
const ROUTE: &str = "add a [[push.route]] if this is intended";
const RESOLVE: &str = "correct the name resolution of this machine, name other [dns] servers, or name its address in a \
    [[push.route]]";

/// The reason why one address, or all of them, cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::publish) struct ReachError {
    cause: ReachCause,
    /// The address that was tried.
    address: Option<SocketAddr>,
    /// True if the push service has answered, so that no other address is tried.
    is_final: bool,
}

/// The cause, with its data.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(in crate::publish) enum ReachCause {
    /// All addresses together took too long, because of a firewall or the push service.
    #[error("{peer} did not answer within {within:?}")]
    Late { peer: String, within: Duration },
    #[error("no address")]
    NoAddress,
    /// The resolver of this machine cannot be used.
    #[error("no name servers: {0}")]
    NoNameServers(String),
    /// The user's fault: the user chose the push service.
    #[error("{0} is not a valid DNS name")]
    NotForDns(String),
    /// The name servers failed, or the name does not exist.
    #[error("cannot look up the name {name}: {reason}")]
    Dns { name: String, reason: String },
    /// The DNS records of the domain say so.
    #[error("according to the DNS, {0} has no server")]
    NoServer(String),
    #[error("{host} has no address on the public internet ({first})", first = first.map_or_else(String::new, |first| first.to_string()))]
    NotPublic { host: String, first: Option<IpAddr> },
    #[error("{host} is at port {port}, which belongs to another service")]
    PortOfOthers { host: String, port: u16 },
    #[error("{host} is this machine, at port {port}")]
    ThisMachine { host: String, port: u16 },
    /// The operator's `[[push.route]]` cannot be resolved.
    #[error(transparent)]
    RouteAddress(LookupError),
    #[error("not ready within {0:?}")]
    NotReady(Duration),
    /// The connection could not be established, or broke before TLS.
    #[error("{0}")]
    Io(String),
    /// The connection broke after TLS.
    #[error("{0}")]
    Broken(String),
    /// The push service violates the XMPP protocol.
    #[error("{0}")]
    Handshake(HandshakeError),
    /// The push service does not accept the host's certificate.
    #[error("{error}")]
    NotAuthenticated { error: HandshakeError, remedy: &'static str },
    #[error("the peer refuses the certificate: {alert:?}")]
    CertificateRefused { alert: AlertDescription, remedy: &'static str },
    #[error("TLS failed: {cause}")]
    Tls { cause: String, remedy: &'static str },
    #[error("the peer continues without TLS")]
    SkipsTls,
    #[error("the peer requires TLS inside TLS")]
    TlsInTls,
    #[error("{0} is not a valid name for a certificate")]
    NoCertificateName(String),
    #[error("{0} has no certificate")]
    NoCertificate(String),
    /// The host's certificate cannot be used for TLS.
    #[error("{0}")]
    OwnCertificate(String),
    /// This system has no certificate authorities.
    #[error("{0}")]
    Roots(String),
}

impl ReachCause {
    fn remedy(&self) -> &'static str {
        match self {
            Self::Late { .. } | Self::NotReady(_) | Self::Io(_) => CLOSED,
            Self::NoAddress | Self::NoNameServers(_) | Self::NotForDns(_) | Self::Dns { .. } | Self::NoServer(_) => {
                RESOLVE
            }
            Self::NotPublic { .. } | Self::PortOfOthers { .. } | Self::ThisMachine { .. } => ROUTE,
            Self::RouteAddress(_) => "name another [[push.route]] address",
            Self::Broken(_) | Self::Handshake(_) | Self::SkipsTls | Self::TlsInTls | Self::NoCertificateName(_) => {
                NOT_XMPP
            }
            Self::NotAuthenticated { remedy, .. }
            | Self::CertificateRefused { remedy, .. }
            | Self::Tls { remedy, .. } => remedy,
            Self::NoCertificate(_) => "set a certificate for the host",
            Self::OwnCertificate(_) => "give the host another certificate",
            Self::Roots(_) => "",
        }
    }
}

impl ReachError {
    /// Creates an error of a push service that has answered: no other address is tried.
    pub(super) fn fatal(cause: ReachCause) -> Self {
        Self { is_final: true, ..cause.into() }
    }

    /// Returns whether no other address is tried.
    pub(super) fn is_final(&self) -> bool {
        self.is_final
    }

    /// Adds the address that was tried.
    pub(super) fn at(self, address: SocketAddr) -> Self {
        if self.is_final { self } else { Self { address: Some(address), ..self } }
    }

    /// Returns the remedy for the operator. Empty if the message contains it.
    pub(in crate::publish) fn remedy(&self) -> &'static str {
        self.cause.remedy()
    }
}

impl From<ReachCause> for ReachError {
    fn from(cause: ReachCause) -> Self {
        Self { cause, address: None, is_final: false }
    }
}

impl From<io::Error> for ReachError {
    fn from(error: io::Error) -> Self {
        ReachCause::Io(describe_io(&error)).into()
    }
}

impl fmt::Display for ReachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(address) = self.address {
            write!(f, "{address}: ")?;
        }
        write!(f, "{}", self.cause)?;
        let remedy = self.remedy();
        if remedy.is_empty() { Ok(()) } else { write!(f, "; {remedy}") }
    }
}

impl std::error::Error for ReachError {}

/// Returns a message for a connection error. Omits the advice to programmers that the TLS library adds to a connection end
/// without a close.
pub(super) fn describe_io(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        "the peer closed the connection".to_owned()
    } else {
        // A certificate may contain any text.
        excerpt(&error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_address_and_the_remedy() {
        let address: SocketAddr = "192.0.2.1:5269".parse().unwrap();
        let late = ReachError::from(ReachCause::NotReady(Duration::from_secs(10))).at(address);
        assert_eq!(late.to_string(), format!("192.0.2.1:5269: not ready within 10s; {CLOSED}"));
        let answered = ReachError::fatal(ReachCause::TlsInTls).at(address);
        assert_eq!(answered.to_string(), format!("the peer requires TLS inside TLS; {NOT_XMPP}"));
        assert_eq!(ReachError::fatal(ReachCause::Roots("none".to_owned())).to_string(), "none");
    }
}
