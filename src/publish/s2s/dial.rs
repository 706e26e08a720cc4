//! Connects to a push service as one of our hosts: address by address, over TLS, with the host's own certificate.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::ResolvesClientCert;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, ClientConfig, RootCertStore};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::dns::Dns;
use super::handshake::{Failure, Handshake, Step};
use super::order::Tls;
use crate::config::{Config, Limits, Route};
use crate::net::conn::Conn;
use crate::net::roots::{self, RootsError};
use crate::publish::line::{Link, Stream, frame};
use crate::xml::{FrameLimits, ns};

/// The ALPN name of server connections (XEP-0368 §4).
const ALPN: &[u8] = b"xmpp-server";
/// How long one address may take.
const ATTEMPT: Duration = Duration::from_secs(10);
/// How long all of them may take.
const DIAL: Duration = Duration::from_secs(30);
/// How long a stream stays open after the last answer, where the peer takes it for its way to us.
const IDLE_BIDI: Duration = Duration::from_secs(10);
/// How long a stream stays open after the last publish.
const IDLE: Duration = Duration::from_secs(60);
/// DER of the purposes clientAuth (RFC 5280 §4.2.1.12), and of what names purposes.
const CLIENT_AUTH: &[u8] = &[0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];
const EXTENDED_KEY_USAGE: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x25];

/// Why an address is of no use.
enum Fault {
    /// Another one may be.
    Here(String),
    /// The push service has spoken.
    Final(String),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Here(error.to_string())
    }
}

/// What of the configuration matters.
struct Terms {
    routes: Vec<Route>,
    bidi: bool,
    write_timeout: Duration,
    limits: Limits,
}

/// What connections to push services share: name servers, authorities, the hosts' certificates.
pub(crate) struct Dialer {
    terms: Terms,
    dns: Dns,
    keys: HashMap<String, Arc<CertifiedKey>>,
    system: OnceCell<Arc<RootCertStore>>,
    routed: HashMap<PathBuf, Arc<RootCertStore>>,
}

impl Dialer {
    /// Loads the authorities of all routes.
    ///
    /// # Errors
    /// The first file of a route that cannot be used.
    pub(crate) fn new(config: &Config, keys: HashMap<String, Arc<CertifiedKey>>) -> Result<Self, RootsError> {
        let files = config.push.routes.iter().filter_map(|route| route.ca.clone());
        let routed =
            files.map(|file| Ok((file.clone(), Arc::new(roots::in_file(&file)?)))).collect::<Result<_, _>>()?;
        let terms = Terms {
            routes: config.push.routes.clone(),
            bidi: config.push.s2s_bidi,
            write_timeout: config.stream_management.write_timeout,
            limits: config.limits.clone(),
        };
        Ok(Self { dns: Dns::new(&config.dns), system: OnceCell::new(), keys, routed, terms })
    }

    /// Connects from a host to a domain.
    pub(super) async fn dial(&self, us: &str, peer: &str) -> Result<Link, String> {
        let dialled = timeout(DIAL, self.dial_patiently(us, peer)).await;
        dialled.unwrap_or_else(|_| Err(format!("{peer} cannot be reached within {DIAL:?}")))
    }

    async fn dial_patiently(&self, us: &str, peer: &str) -> Result<Link, String> {
        let route = self.terms.routes.iter().find(|route| route.domain == peer);
        let roots = self.roots(route).await?;
        let dialogue = Dialogue { dialer: self, us, peer, roots };
        match route {
            Some(route) => dialogue.by_route(route).await,
            None => dialogue.by_dns().await,
        }
    }

    async fn roots(&self, route: Option<&Route>) -> Result<Arc<RootCertStore>, String> {
        if let Some(roots) = route.and_then(|route| route.ca.as_ref()).and_then(|file| self.routed.get(file)) {
            return Ok(Arc::clone(roots));
        }
        let load = || async {
            let loaded = tokio::task::spawn_blocking(roots::system).await.map_err(|error| error.to_string())?;
            loaded.map(Arc::new).map_err(|error| error.to_string())
        };
        self.system.get_or_try_init(load).await.cloned()
    }
}

/// One attempt to reach a push service.
struct Dialogue<'a> {
    dialer: &'a Dialer,
    us: &'a str,
    peer: &'a str,
    roots: Arc<RootCertStore>,
}

impl Dialogue<'_> {
    async fn by_route(&self, route: &Route) -> Result<Link, String> {
        let tls = if route.direct_tls { Tls::Direct } else { Tls::Starttls };
        let found = lookup_host((route.address.host.as_str(), route.address.port)).await;
        let addresses: Vec<_> = found.map_err(|error| format!("{}: {error}", route.address))?.collect();
        self.first_of(addresses, tls).await.map_err(|(Fault::Here(reason) | Fault::Final(reason))| reason)
    }

    async fn by_dns(&self) -> Result<Link, String> {
        let mut last = String::new();
        for target in self.dialer.dns.targets(self.peer).await? {
            let addresses = match self.dialer.dns.addresses(&target.host).await {
                Ok(addresses) => addresses.into_iter().map(|address| SocketAddr::new(address, target.port)).collect(),
                Err(reason) => {
                    last = reason;
                    continue;
                }
            };
            match self.first_of(addresses, target.tls).await {
                Ok(link) => return Ok(link),
                Err(Fault::Final(reason)) => return Err(reason),
                Err(Fault::Here(reason)) => last = reason,
            }
        }
        Err(last)
    }

    async fn first_of(&self, addresses: Vec<SocketAddr>, tls: Tls) -> Result<Link, Fault> {
        let mut last = Fault::Here("no address".to_owned());
        for address in addresses {
            last = match timeout(ATTEMPT, self.connect(address, tls)).await {
                Ok(Ok(link)) => return Ok(link),
                Ok(Err(Fault::Final(reason))) => return Err(Fault::Final(reason)),
                Ok(Err(Fault::Here(reason))) => Fault::Here(format!("{address}: {reason}")),
                Err(_) => Fault::Here(format!("{address}: not ready within {ATTEMPT:?}")),
            };
        }
        Err(last)
    }

    async fn connect(&self, address: SocketAddr, tls: Tls) -> Result<Link, Fault> {
        let tcp = TcpStream::connect(address).await?;
        crate::net::tune(&tcp, self.dialer.terms.write_timeout)?;
        let mut handshake = Handshake::new(self.us, self.peer, self.dialer.terms.bidi);
        let tcp = match tls {
            Tls::Direct => tcp,
            Tls::Starttls => self.starttls(tcp, &mut handshake).await?,
        };
        let secured = self.secure(tcp, tls).await?;
        let mut conn = self.framed(Box::new(secured) as Stream);
        conn.write(&handshake.secured());
        let bidi = self.until_ready(&mut conn, &mut handshake).await?;
        conn.framer().set_limits(self.limits(self.dialer.terms.limits.stanza));
        let idle = Some(if bidi { IDLE_BIDI } else { IDLE });
        Ok(Link { conn, from: self.us.to_owned(), answers: bidi, idle })
    }

    async fn starttls(&self, tcp: TcpStream, handshake: &mut Handshake) -> Result<TcpStream, Fault> {
        let mut conn =
            Conn::in_namespace(tcp, self.limits(self.dialer.terms.limits.unauthenticated_stanza), ns::SERVER);
        conn.write(&handshake.open());
        loop {
            let frame = frame(&mut conn).await?;
            match handshake.handle(&frame).map_err(|failure| Fault::Here(failure.to_string()))? {
                Step::Wait => {}
                Step::Write(bytes) | Step::Restart(bytes) => conn.write(&bytes),
                Step::Secure => return Ok(conn.into_inner()),
                Step::Ready { .. } => return Err(Fault::Here("the peer skips TLS".to_owned())),
            }
        }
    }

    async fn secure(&self, tcp: TcpStream, tls: Tls) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Fault> {
        let name = idna::domain_to_ascii(self.peer).ok().and_then(|ascii| ServerName::try_from(ascii).ok());
        let name =
            name.ok_or_else(|| Fault::Final(format!("{} is not a name that a certificate can hold", self.peer)))?;
        let key = self.dialer.keys.get(self.us);
        let key = key.ok_or_else(|| Fault::Final(format!("{} has no certificate", self.us)))?;
        let config =
            client_config(Arc::clone(&self.roots), key, tls).map_err(|error| Fault::Final(error.to_string()))?;
        let connected = TlsConnector::from(Arc::new(config)).connect(name, tcp).await;
        connected.map_err(|error| Fault::Here(self.explained(&error).unwrap_or_else(|| format!("TLS failed: {error}"))))
    }

    /// Whether answers come back on the same stream.
    async fn until_ready(&self, conn: &mut Conn<Stream>, handshake: &mut Handshake) -> Result<bool, Fault> {
        loop {
            let frame = match frame(conn).await {
                Ok(frame) => frame,
                Err(error) => {
                    return Err(match self.explained(&error) {
                        Some(reason) => Fault::Final(reason),
                        None => Fault::Here(error.to_string()),
                    });
                }
            };
            match handshake.handle(&frame) {
                Ok(Step::Wait) => {}
                Ok(Step::Write(bytes)) => conn.write(&bytes),
                Ok(Step::Restart(bytes)) => {
                    conn.framer().restart();
                    conn.write(&bytes);
                }
                Ok(Step::Ready { bidi }) => return Ok(bidi),
                Ok(Step::Secure) => return Err(Fault::Final("the peer wants TLS within TLS".to_owned())),
                Err(failure) => return Err(Fault::Final(self.refused(&failure))),
            }
        }
    }

    fn refused(&self, failure: &Failure) -> String {
        if failure.is_about_certificate() { format!("{failure}; {}", self.remedy()) } else { failure.to_string() }
    }

    /// TLS 1.3 tells a client only afterwards that its certificate is not taken.
    fn explained(&self, error: &io::Error) -> Option<String> {
        use AlertDescription as A;
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())?;
        let rustls::Error::AlertReceived(alert) = inner else { return None };
        let ours = [
            A::BadCertificate,
            A::UnsupportedCertificate,
            A::CertificateRevoked,
            A::CertificateExpired,
            A::CertificateUnknown,
            A::UnknownCA,
            A::AccessDenied,
            A::CertificateRequired,
        ];
        ours.contains(alert).then(|| format!("the peer refuses the certificate: {alert:?}; {}", self.remedy()))
    }

    /// What the operator can do about a certificate that is not taken.
    fn remedy(&self) -> &'static str {
        let leaf = self.dialer.keys.get(self.us).and_then(|key| key.cert.first());
        let names = |what: &[u8]| leaf.is_some_and(|leaf| memchr::memmem::find(leaf, what).is_some());
        if names(EXTENDED_KEY_USAGE) && !names(CLIENT_AUTH) {
            "the host's certificate is for servers only (no clientAuth usage), which older servers refuse: get one with clientAuth, or put \
             another transport first"
        } else {
            "the host's certificate must be valid for the host and signed by an authority that the peer trusts"
        }
    }

    fn framed(&self, stream: Stream) -> Conn<Stream> {
        Conn::in_namespace(stream, self.limits(self.dialer.terms.limits.unauthenticated_stanza), ns::SERVER)
    }

    fn limits(&self, bytes: usize) -> FrameLimits {
        FrameLimits { bytes, depth: self.dialer.terms.limits.depth }
    }
}

fn client_config(roots: Arc<RootCertStore>, key: &Arc<CertifiedKey>, tls: Tls) -> Result<ClientConfig, rustls::Error> {
    let resolver: Arc<dyn ResolvesClientCert> = Arc::new(SingleCertAndKey::from(CertifiedKey::clone(key)));
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_root_certificates(roots)
        .with_client_cert_resolver(resolver);
    if tls == Tls::Direct {
        config.alpn_protocols = vec![ALPN.to_vec()];
    }
    Ok(config)
}
