//! [`probe`]: reads the stream features of a server, over the same kind of connection that clients' sessions use.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;

use crate::net::conn::{ConnEvent, Io};
use crate::net::upstream::{ConnectError, ConnectTerms, UpstreamConn, Way};
use crate::session::fronting::FrontedParts;
use crate::session::mechanism_filter::{Leg, MechanismFilter, UpstreamWarning};
use crate::session::rewrite::fronted::FrontedOffer;
use crate::session::upgrade;
use crate::xml::{self, Element, Frame, FrameError, FrameLimits, Node, XmlWriter, excerpt, ns};

/// The limits before authentication. No server sends more.
const LIMITS: FrameLimits = FrameLimits::new(64 << 10, 32);

/// The features that a server offers before authentication.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ServerOffer {
    /// SASL mechanisms, of RFC 6120 and XEP-0388, each once. Never empty.
    pub(crate) mechanisms: Vec<String>,
    /// The origin of SASL2 (XEP-0388).
    pub(crate) sasl2: Sasl2,
    /// Types of channel binding (XEP-0440).
    pub(crate) bindings: Vec<String>,
    /// The server's certificate, if the connection uses TLS.
    pub(crate) certificate: Option<CertificateDer<'static>>,
}

/// The origin of SASL2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sasl2 {
    /// The server has it.
    Own,
    /// Pushward can offer it.
    Possible,
    /// No mechanism of the server names the account in the clear.
    Impossible,
}

/// The reason why clients could not log in over this connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    #[error(transparent)]
    Unreachable(#[from] ConnectError),
    #[error("it sent no stream features within {}", humantime::format_duration(*.0))]
    Silent(Duration),
    #[error("it closed the connection before it sent stream features: {0}")]
    Ended(#[from] io::Error),
    #[error("it refused the stream: {0}")]
    Refused(String),
    #[error("it did not answer with a valid XML stream: {0}")]
    Frame(#[from] FrameError),
    #[error("it requires TLS, and this connection has none")]
    TlsRequired,
    #[error("it offers no login on this connection")]
    NoMechanisms(Leg),
}

impl ProbeError {
    /// Returns the remedy.
    pub(crate) fn remedy(&self) -> &'static str {
        match self {
            Self::Unreachable(error) => error.remedy(),
            Self::Refused(condition) if condition == "host-unknown" => {
                "configure the domain on the server, or name another server"
            }
            Self::TlsRequired | Self::NoMechanisms(Leg::Plain) => UpstreamWarning::TlsRequired.remedy(),
            Self::NoMechanisms(Leg::Tls(_)) => {
                "configure the server to offer SASL mechanisms to clients over TLS; see its log"
            }
            Self::Silent(_) | Self::Ended(_) | Self::Refused(_) | Self::Frame(_) => {
                "name the server's port for client connections, with upstream_tls = \"direct\" if it starts with TLS"
            }
        }
    }

    /// Returns whether a PROXY header that the server does not expect, or that it misses, may be the cause.
    pub(super) fn may_be_of_a_proxy_header(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        match self {
            Self::Silent(_) | Self::Ended(_) | Self::Frame(_) => true,
            Self::Refused(condition) => condition != "host-unknown",
            Self::Unreachable(ConnectError::Io(error)) => {
                matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
            }
            Self::Unreachable(ConnectError::Tls(fault)) => fault.may_be_of_the_port(),
            Self::Unreachable(ConnectError::Frame(_)) => true,
            Self::Unreachable(
                ConnectError::Timeout(_) | ConnectError::Name(_) | ConnectError::Exposed(_) | ConnectError::Refused(_),
            )
            | Self::TlsRequired
            | Self::NoMechanisms(_) => false,
        }
    }
}

/// Connects, opens a stream and reads the features, each within `terms.connect_timeout`. Sets the stream's id as soon as it
/// is known, even if a later step fails.
pub(crate) async fn probe(
    way: &Way,
    domain: &str,
    terms: &ConnectTerms,
    id: &mut Option<String>,
) -> Result<ServerOffer, ProbeError> {
    let mut conn = way.connect(&ConnectTerms { limits: LIMITS, ..*terms }, None).await?;
    let features = match timeout(terms.connect_timeout, features(&mut conn, domain, id)).await {
        Ok(features) => features?,
        Err(_) => return Err(ProbeError::Silent(terms.connect_timeout)),
    };
    if way.leg() == Leg::Plain && upgrade::requires_tls(&features) {
        return Err(ProbeError::TlsRequired);
    }
    let offer = offer(&features, way.leg());
    // The stream is closed politely. The answer is complete without it.
    conn.write(xml::STREAM_CLOSE);
    drop(timeout(terms.connect_timeout, conn.flush()).await);
    let certificate = conn.into_inner().certificate().cloned();
    if offer.mechanisms.is_empty() {
        Err(ProbeError::NoMechanisms(way.leg()))
    } else {
        Ok(ServerOffer { certificate, ..offer })
    }
}

async fn features(conn: &mut UpstreamConn, domain: &str, id: &mut Option<String>) -> Result<Element, ProbeError> {
    conn.write(&opening(domain));
    loop {
        while let Some(frame) = conn.next_frame()? {
            match frame {
                Frame::Element(element) if element.is("error", ns::STREAMS) => {
                    return Err(ProbeError::Refused(upgrade::stream_error_condition(&element)));
                }
                Frame::Element(element) if element.is("features", ns::STREAMS) => return Ok(element),
                Frame::Close => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Frame::Open(header) => *id = header.id().map(str::to_owned),
                Frame::Element(_) | Frame::Skipped(_) | Frame::Whitespace => {}
            }
        }
        if conn.event(Io::ReadWrite).await? == ConnEvent::Closed {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

/// Returns the header of a client. ejabberd offers SASL2 only if there is a `from`.
fn opening(domain: &str) -> Bytes {
    let mut xml = XmlWriter::new();
    xml.start("stream:stream").attr("xmlns", ns::CLIENT).attr("xmlns:stream", ns::STREAMS);
    xml.attr("to", domain).attr("from", &format!("pushward-check@{domain}")).attr("version", "1.0");
    xml.open()
}

fn offer(features: &Element, leg: Leg) -> ServerOffer {
    let root = features.node();
    let lists = [root.child("mechanisms", ns::SASL), root.child("authentication", ns::SASL2)];
    let mut mechanisms: Vec<String> = Vec::new();
    for mechanism in lists.iter().flatten().flat_map(Node::children).filter(|child| child.name() == "mechanism") {
        let name = excerpt(mechanism.text().trim());
        if !name.is_empty() && !mechanisms.contains(&name) {
            mechanisms.push(name);
        }
    }
    let fronted = FrontedOffer::new(&root, &MechanismFilter::new(&root, leg), FrontedParts::default());
    let sasl2 = match (root.child("authentication", ns::SASL2), fronted) {
        (Some(_), _) => Sasl2::Own,
        (None, Some(_)) => Sasl2::Possible,
        (None, None) => Sasl2::Impossible,
    };
    let types = root.child("sasl-channel-binding", ns::SASL_CB);
    let types = types.iter().flat_map(Node::children).filter_map(|child| child.attr("type").map(|t| t.into_owned()));
    ServerOffer { mechanisms, sasl2, bindings: types.collect(), certificate: None }
}
