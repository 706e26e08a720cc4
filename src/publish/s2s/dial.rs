//! Connects to a push service as one of our hosts: address by address, over TLS, with the host's own certificate.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, ClientConfig, RootCertStore};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::dns::Dns;
use super::endpoints::{Target, Tls, is_here, is_open, is_open_here};
use super::handshake::{Failure, Handshake, Step};
use crate::config::{Config, Route};
use crate::jid;
use crate::net::certificate::{self, Defect};
use crate::net::conn::Conn;
use crate::net::roots::{self, RootsError};
use crate::publish::stream::{Link, Stream, frame};
use crate::xml::{FrameLimits, excerpt, ns};

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

/// What operators can do about it.
const AUTHORITY: &str = "the push service needs another certificate; or, if its authority is its own, a [[push.route]] must name that as ca";
const CLOSED: &str =
    "let this machine connect to other servers, if a firewall forbids it; else the push service is down";
const NOT_XMPP: &str = "the push service must mend that; or name the right port in a [[push.route]]";
const ROUTE: &str = "it needs a [[push.route]] if it is meant";
pub(super) const RESOLVE: &str =
    "let this machine resolve it, name other [dns] servers, or its address in a [[push.route]]";

/// Why an address is of no use, and what operators can do about it.
#[derive(Debug)]
pub(in crate::publish) struct Fault {
    what: String,
    remedy: &'static str,
    /// The push service has spoken: no other address is tried.
    is_final: bool,
}

impl Fault {
    pub(super) fn here(what: impl Into<String>, remedy: &'static str) -> Self {
        Self { what: what.into(), remedy, is_final: false }
    }

    fn last(what: impl Into<String>, remedy: &'static str) -> Self {
        Self { is_final: true, ..Self::here(what, remedy) }
    }

    fn at(self, address: SocketAddr) -> Self {
        if self.is_final { self } else { Self { what: format!("{address}: {}", self.what), ..self } }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, "; {}", self.remedy) }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::here(said(&error), CLOSED)
    }
}

/// What went wrong with a connection, without the advice to programmers that the TLS library adds to an end without a close.
fn said(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        "the peer closed the connection".to_owned()
    } else {
        // A certificate may name what it likes.
        excerpt(&error.to_string())
    }
}

/// A push service that has let us in.
pub(in crate::publish) struct Reached {
    pub(in crate::publish) conn: Conn<Stream>,
    pub(in crate::publish) address: SocketAddr,
    pub(in crate::publish) tls: Tls,
    /// XEP-0288 was agreed on: answers come back on the same stream.
    pub(in crate::publish) bidi: bool,
    /// The push service offers it.
    pub(in crate::publish) offers_bidi: bool,
}

/// What all connections to push services share.
pub(crate) struct Dialer {
    config: Arc<Config>,
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
    pub(crate) fn new(config: Arc<Config>, keys: HashMap<String, Arc<CertifiedKey>>) -> Result<Self, RootsError> {
        let files = config.push.routes.iter().filter_map(|route| route.ca.clone());
        let routed =
            files.map(|file| Ok((file.clone(), Arc::new(roots::in_file(&file)?)))).collect::<Result<_, _>>()?;
        Ok(Self { dns: Dns::new(&config.dns), system: OnceCell::new(), keys, routed, config })
    }

    /// Connects from a host to a domain; `two_way`: answers are asked for on the stream, if the configuration allows it.
    pub(super) async fn dial(&self, us: &str, peer: &str, two_way: bool) -> Result<Link, Fault> {
        let Reached { conn, bidi, .. } = self.reach(us, peer, two_way && self.config.push.s2s_bidi).await?;
        let idle = Some(if bidi { IDLE_BIDI } else { IDLE });
        Ok(Link { conn, from: us.to_owned(), answers: bidi, idle })
    }

    /// The same, saying how far it came; `bidi`: whether the push service may send on the stream, too.
    pub(in crate::publish) async fn reach(&self, us: &str, peer: &str, bidi: bool) -> Result<Reached, Fault> {
        let dialled = timeout(DIAL, self.reach_patiently(us, peer, bidi)).await;
        dialled.unwrap_or_else(|_| Err(Fault::here(format!("{peer} cannot be reached within {DIAL:?}"), CLOSED)))
    }

    async fn reach_patiently(&self, us: &str, peer: &str, bidi: bool) -> Result<Reached, Fault> {
        let route = self.config.push.routes.iter().find(|route| route.domain == peer);
        let roots = self.roots(route).await.map_err(|reason| Fault::last(reason, ""))?;
        let dialogue = Dialogue { dialer: self, us, peer, bidi, roots };
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
    bidi: bool,
    roots: Arc<RootCertStore>,
}

impl Dialogue<'_> {
    async fn by_route(&self, route: &Route) -> Result<Reached, Fault> {
        let tls = if route.direct_tls { Tls::Direct } else { Tls::Starttls };
        let found = lookup_host((route.address.host.as_str(), route.address.port)).await;
        let unknown = |error| Fault::here(format!("{}: {error}", route.address), "name another [[push.route]] address");
        self.first_of(found.map_err(unknown)?.collect(), tls).await
    }

    async fn by_dns(&self) -> Result<Reached, Fault> {
        let mut last = Fault::here("no address", RESOLVE);
        for target in self.dialer.dns.targets(self.peer).await.map_err(|reason| Fault::here(reason, RESOLVE))? {
            let addresses = match self.addresses(&target).await {
                Ok(addresses) => addresses,
                Err(fault) => {
                    last = fault;
                    continue;
                }
            };
            match self.first_of(addresses, target.tls).await {
                Err(fault) if !fault.is_final => last = fault,
                reached => return reached,
            }
        }
        Err(last)
    }

    /// Where a target is. The owner of a domain chooses the port: it is not one of another service's, and on this machine only
    /// that of a server.
    async fn addresses(&self, target: &Target) -> Result<Vec<SocketAddr>, Fault> {
        let port = target.port;
        let host = excerpt(&target.host);
        if !is_open(port) {
            return Err(Fault::here(format!("{host} is at port {port}, which is another service's"), ROUTE));
        }
        let found = self.dialer.dns.addresses(&target.host).await?;
        let elsewhere = |address: &IpAddr| is_open_here(port) || !is_here(*address);
        let addresses: Vec<_> = found.into_iter().filter(elsewhere).map(|ip| SocketAddr::new(ip, port)).collect();
        if addresses.is_empty() {
            return Err(Fault::here(format!("{host} is this machine, at port {port}"), ROUTE));
        }
        Ok(addresses)
    }

    async fn first_of(&self, addresses: Vec<SocketAddr>, tls: Tls) -> Result<Reached, Fault> {
        let mut last = Fault::here("no address", RESOLVE);
        for address in addresses {
            last = match timeout(ATTEMPT, self.connect(address, tls)).await {
                Ok(Err(fault)) if !fault.is_final => fault.at(address),
                Ok(reached) => return reached,
                Err(_) => Fault::here(format!("not ready within {ATTEMPT:?}"), CLOSED).at(address),
            };
        }
        Err(last)
    }

    async fn connect(&self, address: SocketAddr, tls: Tls) -> Result<Reached, Fault> {
        let tcp = TcpStream::connect(address).await?;
        crate::net::tune(&tcp, self.dialer.config.stream_management.write_timeout)?;
        let mut handshake = Handshake::new(self.us, self.peer, self.bidi);
        let tcp = match tls {
            Tls::Direct => tcp,
            Tls::Starttls => self.starttls(tcp, &mut handshake).await?,
        };
        let secured = self.secure(tcp, tls).await?;
        let mut conn = self.framed(Box::new(secured) as Stream);
        conn.write(&handshake.secured());
        let bidi = self.until_ready(&mut conn, &mut handshake).await?;
        conn.framer().set_limits(self.limits(self.dialer.config.limits.stanza));
        Ok(Reached { conn, address, tls, bidi, offers_bidi: handshake.offers_bidi() })
    }

    async fn starttls(&self, tcp: TcpStream, handshake: &mut Handshake) -> Result<TcpStream, Fault> {
        let mut conn =
            Conn::in_namespace(tcp, self.limits(self.dialer.config.limits.unauthenticated_stanza), ns::SERVER);
        conn.write(&handshake.open());
        loop {
            let frame = frame(&mut conn).await?;
            match handshake.handle(&frame).map_err(|failure| Fault::here(failure.to_string(), NOT_XMPP))? {
                Step::Wait => {}
                Step::Write(bytes) | Step::Restart(bytes) => conn.write(&bytes),
                Step::Secure => return Ok(conn.into_inner()),
                Step::Ready { .. } => return Err(Fault::here("the peer skips TLS", NOT_XMPP)),
            }
        }
    }

    async fn secure(&self, tcp: TcpStream, tls: Tls) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Fault> {
        let name = jid::ascii(self.peer).and_then(|ascii| ServerName::try_from(ascii).ok());
        let unnamed = || Fault::last(format!("{} is not a name that a certificate can hold", self.peer), NOT_XMPP);
        let key = self.dialer.keys.get(self.us);
        let key = key.ok_or_else(|| Fault::last(format!("{} has no certificate", self.us), "give the host one"))?;
        let config = client_config(Arc::clone(&self.roots), key, tls);
        let config = config.map_err(|error| Fault::last(error.to_string(), "give the host another certificate"))?;
        let connected = TlsConnector::from(Arc::new(config)).connect(name.ok_or_else(unnamed)?, tcp).await;
        connected.map_err(|error| match self.explained(&error) {
            Some(reason) => Fault::here(reason, self.remedy()),
            None => Fault::here(format!("TLS failed: {}", said(&error)), untrusted(&error)),
        })
    }

    /// Whether answers come back on the same stream.
    async fn until_ready(&self, conn: &mut Conn<Stream>, handshake: &mut Handshake) -> Result<bool, Fault> {
        loop {
            let frame = match frame(conn).await {
                Ok(frame) => frame,
                Err(error) => {
                    return Err(match self.explained(&error) {
                        Some(reason) => Fault::last(reason, self.remedy()),
                        None => Fault::here(said(&error), NOT_XMPP),
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
                Ok(Step::Secure) => return Err(Fault::last("the peer wants TLS within TLS", NOT_XMPP)),
                Err(failure) => return Err(self.refused(&failure)),
            }
        }
    }

    fn refused(&self, failure: &Failure) -> Fault {
        let remedy = if failure.is_about_certificate() { self.remedy() } else { NOT_XMPP };
        Fault::last(failure.to_string(), remedy)
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
        ours.contains(alert).then(|| format!("the peer refuses the certificate: {alert:?}"))
    }

    /// What the operator can do about a certificate that is not taken.
    fn remedy(&self) -> &'static str {
        let Some(key) = self.dialer.keys.get(self.us) else { return "give the host a certificate" };
        let defects = certificate::judge(key, self.us, SystemTime::now());
        let names = |what: &[u8]| key.cert.first().is_some_and(|leaf| memchr::memmem::find(leaf, what).is_some());
        if defects.contains(&Defect::Expired) {
            "the host's certificate has expired: renew it"
        } else if defects.contains(&Defect::NotForDomain) {
            "the host's certificate does not name the host: get one that does"
        } else if names(EXTENDED_KEY_USAGE) && !names(CLIENT_AUTH) {
            "the host's certificate is for servers only (no clientAuth usage), which older servers refuse: get one with clientAuth, or put \
             another transport first"
        } else {
            "the host's certificate must be valid for the host and signed by an authority that the peer trusts"
        }
    }

    fn framed(&self, stream: Stream) -> Conn<Stream> {
        Conn::in_namespace(stream, self.limits(self.dialer.config.limits.unauthenticated_stanza), ns::SERVER)
    }

    fn limits(&self, bytes: usize) -> FrameLimits {
        FrameLimits::new(bytes, self.dialer.config.limits.depth)
    }
}

/// What can be done about a TLS handshake that we ended.
fn untrusted(error: &io::Error) -> &'static str {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if let Some(rustls::Error::InvalidCertificate(_)) = inner { AUTHORITY } else { NOT_XMPP }
}

fn client_config(roots: Arc<RootCertStore>, key: &Arc<CertifiedKey>, tls: Tls) -> Result<ClientConfig, rustls::Error> {
    let resolver: Arc<dyn ResolvesClientCert> = Arc::new(SingleCertAndKey::from(CertifiedKey::clone(key)));
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_root_certificates(roots)
        .with_client_cert_resolver(resolver);
    if tls == Tls::Direct {
        config.alpn_protocols = vec![ALPN.to_vec()];
    }
    Ok(config)
}
