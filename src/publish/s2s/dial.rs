//! [`Dialer`]: connects to a push service as one of our hosts. It tries each address, over TLS, with the host's own
//! certificate.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::dns::Dns;
use super::endpoints::{Candidate, TlsMode, is_here, is_open, is_open_here};
use super::error::{AUTHORITY, NOT_XMPP, ReachCause, ReachError, describe_io};
use super::handshake::{HandshakeError, HandshakeStep, ServerHandshake};
use crate::clock;
use crate::config::{Config, Route};
use crate::jid;
use crate::net::certificate::{self, Defect};
use crate::net::conn::Conn;
use crate::net::lookup::look_up;
use crate::net::roots::{self, RootsError};
use crate::publish::answers::AnswerPolicy;
use crate::publish::peer::{PeerLink, PublishStream, next_frame};
use crate::xml::{FrameLimits, excerpt, ns};

/// The ALPN name of server connections (XEP-0368 §4).
const ALPN: &[u8] = b"xmpp-server";
/// The time limit for one address.
const ATTEMPT: Duration = Duration::from_secs(10);
/// The time limit for all addresses together.
const DIAL: Duration = Duration::from_secs(30);
/// The time for which a stream stays open after the last answer, if the peer also uses it for its stanzas to us.
const IDLE_BIDI: Duration = Duration::from_secs(10);
/// The time for which a stream stays open after the last publish.
const IDLE: Duration = Duration::from_secs(60);
/// The DER encoding of the purpose clientAuth (RFC 5280 §4.2.1.12), and of the extension that lists purposes.
const CLIENT_AUTH: &[u8] = &[0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];
const EXTENDED_KEY_USAGE: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x25];

/// A connection to a push service that has accepted us.
pub(in crate::publish) struct Reached {
    pub(in crate::publish) conn: Conn<PublishStream>,
    pub(in crate::publish) address: SocketAddr,
    pub(in crate::publish) tls: TlsMode,
    /// `OnStream` if XEP-0288 was negotiated.
    pub(in crate::publish) answers: AnswerPolicy,
    /// True if the push service offers XEP-0288.
    pub(in crate::publish) offers_bidi: bool,
}

/// Connects to push services.
pub(crate) struct Dialer {
    config: Arc<Config>,
    dns: Dns,
    keys: HashMap<String, Arc<CertifiedKey>>,
    system: OnceCell<Arc<RootCertStore>>,
    routed: HashMap<PathBuf, Arc<RootCertStore>>,
}

impl Dialer {
    /// Loads the certificate authorities of all routes.
    ///
    /// # Errors
    /// Returns the error of the first route whose file cannot be used.
    pub(crate) fn new(config: Arc<Config>, keys: HashMap<String, Arc<CertifiedKey>>) -> Result<Self, RootsError> {
        let files = config.push.routes.iter().filter_map(|route| route.ca.clone());
        let routed =
            files.map(|file| Ok((file.clone(), Arc::new(roots::in_file(&file)?)))).collect::<Result<_, _>>()?;
        Ok(Self { dns: Dns::new(&config.dns), system: OnceCell::new(), keys, routed, config })
    }

    /// Connects from a host to a domain. Requests answers on the stream if `wanted` says so and the configuration allows it.
    pub(super) async fn dial(&self, us: &str, peer: &str, wanted: AnswerPolicy) -> Result<PeerLink, ReachError> {
        let wanted = if self.config.push.s2s_bidi { wanted } else { AnswerPolicy::ToServer };
        let Reached { conn, answers, .. } = self.reach(us, peer, wanted).await?;
        let idle = Some(match answers {
            AnswerPolicy::OnStream => IDLE_BIDI,
            AnswerPolicy::ToServer => IDLE,
        });
        Ok(PeerLink { conn, from: us.to_owned(), answers, idle })
    }

    /// Connects like [`Dialer::dial`], and also returns details of the connection. `wanted`: the requested path of the
    /// answers.
    pub(in crate::publish) async fn reach(
        &self,
        us: &str,
        peer: &str,
        wanted: AnswerPolicy,
    ) -> Result<Reached, ReachError> {
        let dialled = timeout(DIAL, self.reach_patiently(us, peer, wanted)).await;
        dialled.unwrap_or_else(|_| Err(ReachCause::Late { peer: peer.to_owned(), within: DIAL }.into()))
    }

    async fn reach_patiently(&self, us: &str, peer: &str, wanted: AnswerPolicy) -> Result<Reached, ReachError> {
        let route = self.config.push.routes.iter().find(|route| route.domain == peer);
        let roots = self.roots(route).await?;
        let attempt = ReachAttempt { dialer: self, us, peer, wanted, roots };
        match route {
            Some(route) => attempt.by_route(route).await,
            None => attempt.by_dns().await,
        }
    }

    async fn roots(&self, route: Option<&Route>) -> Result<Arc<RootCertStore>, ReachError> {
        if let Some(roots) = route.and_then(|route| route.ca.as_ref()).and_then(|file| self.routed.get(file)) {
            return Ok(Arc::clone(roots));
        }
        let load = || async {
            let loaded = tokio::task::spawn_blocking(roots::system).await.map_err(|error| no_roots(&error))?;
            loaded.map(Arc::new).map_err(|error| no_roots(&error))
        };
        self.system.get_or_try_init(load).await.cloned()
    }
}

fn no_roots(error: &impl ToString) -> ReachError {
    ReachError::fatal(ReachCause::Roots(error.to_string()))
}

/// One attempt to reach a push service.
struct ReachAttempt<'a> {
    dialer: &'a Dialer,
    us: &'a str,
    peer: &'a str,
    wanted: AnswerPolicy,
    roots: Arc<RootCertStore>,
}

impl ReachAttempt<'_> {
    async fn by_route(&self, route: &Route) -> Result<Reached, ReachError> {
        let tls = if route.direct_tls { TlsMode::Direct } else { TlsMode::Starttls };
        let found = look_up(&route.address).await.map_err(ReachCause::RouteAddress)?;
        self.first_of(found, tls).await
    }

    async fn by_dns(&self) -> Result<Reached, ReachError> {
        let mut last = ReachError::from(ReachCause::NoAddress);
        for candidate in self.dialer.dns.candidates(self.peer).await? {
            let addresses = match self.addresses(&candidate).await {
                Ok(addresses) => addresses,
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            match self.first_of(addresses, candidate.tls).await {
                Err(error) if !error.is_final() => last = error,
                reached => return reached,
            }
        }
        Err(last)
    }

    /// Returns the addresses of a candidate. The owner of a domain chooses the port, so ports of other services are refused,
    /// and on this machine all but server ports.
    async fn addresses(&self, candidate: &Candidate) -> Result<Vec<SocketAddr>, ReachError> {
        let port = candidate.port;
        let host = excerpt(&candidate.host);
        if !is_open(port) {
            return Err(ReachCause::PortOfOthers { host, port }.into());
        }
        let found = self.dialer.dns.addresses(&candidate.host).await?;
        let elsewhere = |address: &IpAddr| is_open_here(port) || !is_here(*address);
        let addresses: Vec<_> = found.into_iter().filter(elsewhere).map(|ip| SocketAddr::new(ip, port)).collect();
        if addresses.is_empty() {
            return Err(ReachCause::ThisMachine { host, port }.into());
        }
        Ok(addresses)
    }

    async fn first_of(&self, addresses: Vec<SocketAddr>, tls: TlsMode) -> Result<Reached, ReachError> {
        let mut last = ReachError::from(ReachCause::NoAddress);
        for address in addresses {
            last = match timeout(ATTEMPT, self.connect(address, tls)).await {
                Ok(Err(error)) if !error.is_final() => error.at(address),
                Ok(reached) => return reached,
                Err(_) => ReachError::from(ReachCause::NotReady(ATTEMPT)).at(address),
            };
        }
        Err(last)
    }

    async fn connect(&self, address: SocketAddr, tls: TlsMode) -> Result<Reached, ReachError> {
        let tcp = TcpStream::connect(address).await?;
        crate::net::tune(&tcp, self.dialer.config.stream_management.write_timeout)?;
        let mut handshake = ServerHandshake::new(self.us, self.peer, self.wanted);
        let tcp = match tls {
            TlsMode::Direct => tcp,
            TlsMode::Starttls => self.starttls(tcp, &mut handshake).await?,
        };
        let secured = self.secure(tcp, tls).await?;
        let mut conn = self.framed(Box::new(secured) as PublishStream);
        conn.write(&handshake.secured());
        let answers = self.until_ready(&mut conn, &mut handshake).await?;
        conn.framer().set_limits(self.limits(self.dialer.config.limits.stanzas.client));
        Ok(Reached { conn, address, tls, answers, offers_bidi: handshake.offers_bidi() })
    }

    async fn starttls(&self, tcp: TcpStream, handshake: &mut ServerHandshake) -> Result<TcpStream, ReachError> {
        let mut conn =
            Conn::in_namespace(tcp, self.limits(self.dialer.config.limits.stanzas.unauthenticated), ns::SERVER);
        conn.write(&handshake.open());
        loop {
            let frame = next_frame(&mut conn).await?;
            match handshake.handle(&frame).map_err(ReachCause::Handshake)? {
                HandshakeStep::Wait => {}
                HandshakeStep::Write(bytes) | HandshakeStep::Restart(bytes) => conn.write(&bytes),
                HandshakeStep::Secure => return Ok(conn.into_inner()),
                HandshakeStep::Ready { .. } => return Err(ReachCause::SkipsTls.into()),
            }
        }
    }

    async fn secure(
        &self,
        tcp: TcpStream,
        tls: TlsMode,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, ReachError> {
        let name = jid::ascii(self.peer).and_then(|ascii| ServerName::try_from(ascii).ok());
        let unnamed = || ReachError::fatal(ReachCause::NoCertificateName(self.peer.to_owned()));
        let key = self.dialer.keys.get(self.us);
        let key = key.ok_or_else(|| ReachError::fatal(ReachCause::NoCertificate(self.us.to_owned())))?;
        let config = client_config(Arc::clone(&self.roots), key, tls);
        let config = config.map_err(|error| ReachError::fatal(ReachCause::OwnCertificate(error.to_string())))?;
        let connected = TlsConnector::from(Arc::new(config)).connect(name.ok_or_else(unnamed)?, tcp).await;
        connected.map_err(|error| {
            let failed = || ReachCause::Tls { cause: describe_io(&error), remedy: untrusted(&error) };
            self.explained(&error).unwrap_or_else(failed).into()
        })
    }

    /// Returns the negotiated path of the answers.
    async fn until_ready(
        &self,
        conn: &mut Conn<PublishStream>,
        handshake: &mut ServerHandshake,
    ) -> Result<AnswerPolicy, ReachError> {
        loop {
            let frame = match next_frame(conn).await {
                Ok(frame) => frame,
                Err(error) => {
                    let refused = self.explained(&error).map(ReachError::fatal);
                    return Err(refused.unwrap_or_else(|| ReachCause::Broken(describe_io(&error)).into()));
                }
            };
            match handshake.handle(&frame) {
                Ok(HandshakeStep::Wait) => {}
                Ok(HandshakeStep::Write(bytes)) => conn.write(&bytes),
                Ok(HandshakeStep::Restart(bytes)) => {
                    conn.framer().restart();
                    conn.write(&bytes);
                }
                Ok(HandshakeStep::Ready { answers }) => return Ok(answers),
                Ok(HandshakeStep::Secure) => return Err(ReachError::fatal(ReachCause::TlsInTls)),
                Err(error) => return Err(self.refused(error)),
            }
        }
    }

    fn refused(&self, error: HandshakeError) -> ReachError {
        ReachError::fatal(if error.is_about_certificate() {
            ReachCause::NotAuthenticated { error, remedy: self.remedy() }
        } else {
            ReachCause::Handshake(error)
        })
    }

    /// Returns the cause if the peer's TLS alert says that it does not accept the host's certificate. TLS 1.3 sends the alert
    /// only after the handshake.
    fn explained(&self, error: &io::Error) -> Option<ReachCause> {
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
        ours.contains(alert).then(|| ReachCause::CertificateRefused { alert: *alert, remedy: self.remedy() })
    }

    /// Returns the remedy for a host certificate that the peer does not accept.
    fn remedy(&self) -> &'static str {
        let Some(key) = self.dialer.keys.get(self.us) else { return "set a certificate for the host" };
        let defects = certificate::judge(key, self.us, clock::now());
        let names = |what: &[u8]| key.cert.first().is_some_and(|leaf| memchr::memmem::find(leaf, what).is_some());
        if defects.contains(&Defect::Expired) {
            "the host's certificate has expired: renew it"
        } else if defects.contains(&Defect::NotForDomain) {
            "the host's certificate does not name the host: get a certificate for its domain"
        } else if names(EXTENDED_KEY_USAGE) && !names(CLIENT_AUTH) {
            "the host's certificate is for servers only (no clientAuth usage), and older servers refuse such \
                certificates: get one with clientAuth, or put another transport first"
        } else {
            "the host's certificate must be valid for the host and signed by an authority that the peer trusts"
        }
    }

    fn framed(&self, stream: PublishStream) -> Conn<PublishStream> {
        Conn::in_namespace(stream, self.limits(self.dialer.config.limits.stanzas.unauthenticated), ns::SERVER)
    }

    fn limits(&self, bytes: usize) -> FrameLimits {
        FrameLimits::new(bytes, self.dialer.config.limits.stanzas.depth)
    }
}

/// Returns the remedy for a TLS handshake that we ended.
fn untrusted(error: &io::Error) -> &'static str {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if let Some(rustls::Error::InvalidCertificate(_)) = inner { AUTHORITY } else { NOT_XMPP }
}

fn client_config(
    roots: Arc<RootCertStore>,
    key: &Arc<CertifiedKey>,
    tls: TlsMode,
) -> Result<ClientConfig, rustls::Error> {
    let resolver: Arc<dyn ResolvesClientCert> = Arc::new(SingleCertAndKey::from(CertifiedKey::clone(key)));
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_root_certificates(roots)
        .with_client_cert_resolver(resolver);
    if tls == TlsMode::Direct {
        config.alpn_protocols = vec![ALPN.to_vec()];
    }
    Ok(config)
}
