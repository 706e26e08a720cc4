//! Connections to the upstream server, over TCP or a unix socket: plain, with STARTTLS, or with direct TLS. [`Way`]
//! connects to the server of one domain, [`Ways`] holds the ways of all hosts.

mod version;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ProtocolVersion;
use rustls::pki_types::CertificateDer;
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::conn::{Conn, ConnEvent, Io};
use super::forward::forward_io;
use super::lookup::{LookupError, look_up};
use super::proxy_protocol::{self, ProxiedClient};
use super::socket::{Socket, Sources};
use super::trust::{self, TlsFault, Trust, TrustError, Trusts};
use crate::config::{Endpoint, Host, ProxyProtocol, Upstream, UpstreamTls};
use crate::session::mechanism_filter::Leg;
use crate::session::upgrade::{Upgrade, UpgradeRefusal, UpgradeStep};
use crate::xml::{FrameError, FrameLimits};
use version::Lacking;

/// The limits on the bytes that a server may send before TLS.
const CLEAR_TEXT: FrameLimits = FrameLimits::new(64 << 10, 32);

/// A framed connection to the server.
pub type UpstreamConn = Conn<UpstreamStream>;

/// The byte stream of a connection to the server.
#[derive(Debug)]
pub enum UpstreamStream {
    /// Unencrypted.
    Plain(Socket),
    /// Encrypted with TLS.
    Tls(Box<TlsStream<Socket>>),
}

impl UpstreamStream {
    /// Returns the certificate of the server, if there is TLS.
    pub fn certificate(&self) -> Option<&CertificateDer<'static>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(tls) => trust::shown(tls),
        }
    }

    /// Returns the version of TLS, if there is TLS.
    pub fn version(&self) -> Option<ProtocolVersion> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(tls) => tls.get_ref().1.protocol_version(),
        }
    }
}

forward_io!(UpstreamStream { Plain, Tls });

/// An error in connecting to a server.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// Connection and TLS were not established within `connect_timeout`.
    #[error("cannot connect: no answer within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// The connection was refused or broke.
    #[error("cannot connect: {0}")]
    Io(#[from] io::Error),
    /// The host name in `upstream` cannot be looked up.
    #[error(transparent)]
    Name(#[from] LookupError),
    /// There is no TLS, and the server's name resolves to an address outside this machine.
    #[error("its name resolves to {0}, which is not this machine: passwords would cross the network unencrypted")]
    Exposed(IpAddr),
    /// The server's answers before TLS are not an XML stream.
    #[error("no valid XML stream before TLS: {0}")]
    Frame(#[from] FrameError),
    /// The server refuses STARTTLS.
    #[error(transparent)]
    Refused(#[from] UpgradeRefusal),
    /// TLS with this server failed, or it is not the expected server.
    #[error(transparent)]
    Tls(#[from] TlsFault),
}

impl ConnectError {
    /// Returns the remedy for the operator.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                "give the user that runs Pushward write permission for the server's socket"
            }
            Self::Io(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                "name addresses of this machine in upstream_source; name more of them if their ports are used up"
            }
            Self::Timeout(_) | Self::Io(_) => {
                "start the server, or name the address of its port for client connections"
            }
            Self::Name(_) => {
                "correct the name in upstream, or the name resolution of this machine, or name an IP address"
            }
            Self::Exposed(_) => {
                "set upstream_tls = \"starttls\", or use a loopback address, or set upstream_insecure = true if the \
                    network is trusted"
            }
            Self::Frame(_) => "name the server's port for client connections with STARTTLS",
            Self::Refused(refusal) => refusal.remedy(),
            Self::Tls(fault) => fault.remedy(),
        }
    }
}

/// The ways to the upstream servers of all hosts.
#[derive(Clone, Debug)]
pub struct Ways {
    by_domain: HashMap<String, Way>,
}

impl Ways {
    /// Loads the settings for verifying the servers.
    ///
    /// # Errors
    /// Returns the [`TrustError`] of the first host whose settings are invalid.
    pub fn load(hosts: &[Host]) -> Result<Self, TrustError> {
        let mut trusts = Trusts::default();
        let ways = hosts.iter().map(|host| Ok((host.domain.clone(), Way::new(host, &mut trusts)?)));
        Ok(Self { by_domain: ways.collect::<Result<_, TrustError>>()? })
    }

    /// Returns the way to the server of a domain.
    pub fn to(&self, domain: &str) -> Option<&Way> {
        self.by_domain.get(domain)
    }
}

/// The way to the upstream server of one domain: its address, and how to connect and secure the connection.
#[derive(Clone, Debug)]
pub struct Way {
    upstream: Upstream,
    sources: Arc<Sources>,
    proxy_protocol: ProxyProtocol,
    domain: String,
    security: Security,
    leg: Leg,
    lacking: Arc<Lacking>,
}

#[derive(Clone, Debug)]
enum Security {
    /// `anywhere` is true if the operator allows unencrypted connections beyond this machine.
    Off {
        anywhere: bool,
    },
    Starttls(Trust),
    Direct(Trust),
}

/// Time limits and size limits of a connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectTerms {
    /// `[limits] connect_timeout`, for all steps up to and including TLS.
    pub connect_timeout: Duration,
    /// `[stream_management] write_timeout`.
    pub write_timeout: Duration,
    /// The limits on the bytes that the server sends afterwards.
    pub limits: FrameLimits,
    /// The only version of TLS to offer to a server that supports it; `None` offers all.
    pub tls: Option<ProtocolVersion>,
}

impl Way {
    /// Creates the way to the server of a host.
    ///
    /// # Errors
    /// Returns a [`TrustError`], only with TLS.
    pub fn new(host: &Host, trusts: &mut Trusts) -> Result<Self, TrustError> {
        let (security, leg) = match host.upstream_tls {
            UpstreamTls::Off => (Security::Off { anywhere: host.upstream_insecure }, Leg::Plain),
            UpstreamTls::Starttls => (Security::Starttls(trusts.load(host)?), Leg::Tls(host.channel_binding)),
            UpstreamTls::Direct => (Security::Direct(trusts.load(host)?), Leg::Tls(host.channel_binding)),
        };
        let sources = Arc::new(Sources::new(host.upstream_source.clone()));
        let (upstream, proxy_protocol) = (host.upstream.clone(), host.upstream_proxy_protocol);
        let (domain, lacking) = (host.domain.clone(), Arc::default());
        Ok(Self { upstream, sources, proxy_protocol, domain, security, leg, lacking })
    }

    /// Returns the server's address.
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// Returns the security of a connection on this way.
    pub fn leg(&self) -> Leg {
        self.leg
    }

    /// Connects for a client, or for Pushward itself, and resolves the server's name each time. The stream header comes
    /// next.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(
        &self,
        terms: &ConnectTerms,
        client: Option<&ProxiedClient>,
    ) -> Result<UpstreamConn, ConnectError> {
        match timeout(terms.connect_timeout, self.speak(terms, client)).await {
            Ok(stream) => Ok(Conn::new(stream?, terms.limits)),
            Err(_) => Err(ConnectError::Timeout(terms.connect_timeout)),
        }
    }

    /// Connects with the required version of TLS, or with another one if the server does not support it.
    async fn speak(
        &self,
        terms: &ConnectTerms,
        client: Option<&ProxiedClient>,
    ) -> Result<UpstreamStream, ConnectError> {
        let Some(only) = terms.tls.filter(|version| !self.lacking.has(*version)) else {
            return self.attempt(terms, client, None).await;
        };
        match self.attempt(terms, client, Some(only)).await {
            Err(ConnectError::Tls(fault)) if fault.may_be_of_the_version() => {
                tracing::debug!(error = %fault, version = ?only, "TLS handshake with upstream server failed: version \
                    not offered");
                let stream = self.attempt(terms, client, None).await?;
                if stream.version() != Some(only) {
                    self.lacking.note(only);
                }
                Ok(stream)
            }
            done => done,
        }
    }

    async fn attempt(
        &self,
        terms: &ConnectTerms,
        client: Option<&ProxiedClient>,
        only: Option<ProtocolVersion>,
    ) -> Result<UpstreamStream, ConnectError> {
        let mut socket = self.dial(terms).await?;
        if self.proxy_protocol != ProxyProtocol::Off {
            let ourselves = ProxiedClient { addresses: socket.addresses()?, tls: None };
            let header = proxy_protocol::header(self.proxy_protocol, client.unwrap_or(&ourselves))?;
            socket.write_all(&header).await?;
        }
        match &self.security {
            Security::Off { .. } => Ok(UpstreamStream::Plain(socket)),
            Security::Direct(trust) => secure(socket, trust, only).await,
            Security::Starttls(trust) => secure(self.upgraded(socket).await?, trust, only).await,
        }
    }

    async fn dial(&self, terms: &ConnectTerms) -> Result<Socket, ConnectError> {
        match &self.upstream {
            Upstream::Unix(path) => Ok(Socket::Unix(UnixStream::connect(path).await?)),
            Upstream::Tcp(endpoint) => {
                let tcp = self.sources.connect(&self.addresses(endpoint).await?).await?;
                super::tune(&tcp, terms.write_timeout)?;
                Ok(Socket::Tcp(tcp))
            }
        }
    }

    async fn addresses(&self, endpoint: &Endpoint) -> Result<Vec<SocketAddr>, ConnectError> {
        let mut addresses = look_up(endpoint).await?;
        if matches!(self.security, Security::Off { anywhere: false }) {
            let first = addresses.first().map(SocketAddr::ip);
            addresses.retain(|address| address.ip().to_canonical().is_loopback());
            if let (Some(outside), true) = (first, addresses.is_empty()) {
                return Err(ConnectError::Exposed(outside));
            }
        }
        Ok(addresses)
    }

    /// Performs the STARTTLS exchange.
    async fn upgraded(&self, socket: Socket) -> Result<Socket, ConnectError> {
        let mut conn = Conn::new(socket, CLEAR_TEXT);
        let (mut upgrade, opening) = Upgrade::new(&self.domain);
        conn.write(&opening);
        loop {
            while let Some(frame) = conn.next_frame()? {
                match upgrade.handle(&frame)? {
                    UpgradeStep::Wait => {}
                    UpgradeStep::Send(bytes) => conn.write(&bytes),
                    UpgradeStep::Proceed => return Ok(conn.into_inner()),
                }
            }
            if conn.event(Io::ReadWrite).await? == ConnEvent::Closed {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }
}

async fn secure(socket: Socket, trust: &Trust, only: Option<ProtocolVersion>) -> Result<UpstreamStream, ConnectError> {
    let tls = trust.handshake(socket, only).await.map_err(TlsFault::from)?;
    tracing::debug!(version = ?tls.get_ref().1.protocol_version(), "TLS with upstream server established");
    Ok(UpstreamStream::Tls(Box::new(tls)))
}

#[cfg(test)]
mod tests;
