//! The way of a client's stream to the node that owns its account: [`pass_on`] connects to the owner, and gives it the client's
//! header and first SASL message.

use std::io;
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::directory::NodeAddress;
use super::fingerprint::Fingerprint;
use super::node_tls::{NodePurpose, NodeTls, shown};
use crate::metrics::HopOutcome;
use crate::net::conn::{Conn, ConnEvent, Io};
use crate::net::passed_client::PassedClient;
use crate::session::negotiate::PassedStream;
use crate::xml::{Element, Frame, FrameError, FrameLimits, excerpt, ns};

/// The time that the owner has to accept the connection and to offer the client the login.
pub const OWNER: Duration = Duration::from_secs(2);

/// A framed connection to another node.
pub type NodeConn = Conn<TlsStream<TcpStream>>;

/// Limits of a connection to another node.
#[derive(Clone, Copy, Debug)]
pub struct HopTerms {
    /// `[stream_management] write_timeout`.
    pub write_timeout: Duration,
    /// The limits on the features that the owner sends.
    pub limits: FrameLimits,
}

/// A stream could not be passed on.
#[derive(Debug, Error)]
pub enum HopError {
    /// The owner cannot be reached.
    #[error("cannot connect: {0}")]
    Unreachable(io::Error),
    /// The handshake failed.
    #[error("TLS failed: {0}")]
    Tls(io::Error),
    /// The peer that answers there has another certificate than the owner.
    #[error("the certificate shown there is {}, which is not that of the node", shown.map_or("none".to_owned(), |shown| shown.to_string()))]
    Untrusted {
        /// The certificate.
        shown: Option<Fingerprint>,
    },
    /// The owner has closed the connection, perhaps because it does not know the certificate of this node.
    #[error("the node closed the connection{}", .0.as_ref().map_or_else(String::new, |error| format!(": {error}")))]
    Closed(Option<io::Error>),
    /// The owner has refused the stream. Contains the condition of its stream error.
    #[error("the node refused the stream: {0}")]
    Refused(String),
    /// The bytes of the owner are not an XML stream.
    #[error("the node sent an invalid XML stream: {0}")]
    Frame(#[from] FrameError),
    /// The owner offers the client something else than this node.
    #[error("the node offers another login than this one")]
    OtherOffer(Box<Element>),
    /// The owner has not answered within [`OWNER`].
    #[error("no answer within {}", humantime::format_duration(OWNER))]
    Late,
}

impl HopError {
    /// Returns the outcome for the metrics.
    pub fn outcome(&self) -> HopOutcome {
        match self {
            Self::Unreachable(_) => HopOutcome::Unreachable,
            Self::Tls(_) | Self::Untrusted { .. } => HopOutcome::Untrusted,
            Self::Closed(_) | Self::Refused(_) | Self::Frame(_) => HopOutcome::Refused,
            Self::OtherOffer(_) => HopOutcome::OtherOffer,
            Self::Late => HopOutcome::Late,
        }
    }

    /// Returns the remedy for the operator.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Unreachable(_) | Self::Late => "check that the node runs, and [cluster] advertise there",
            Self::Tls(_) | Self::Untrusted { .. } => {
                "check [cluster] certificate and ca of both nodes, and that nothing else answers at the address"
            }
            Self::Closed(_) | Self::Refused(_) | Self::Frame(_) => "see the log of the node",
            Self::OtherOffer(_) => "use the same configuration and the same XMPP server for all nodes",
        }
    }
}

/// Passes a client's stream on to the owner of its account. Returns the connection, which continues the client's: the message is
/// gathered, and what the owner answers to it comes next. The client has the owner's header and features already.
///
/// # Errors
/// [`HopError`]. Nothing was said to the client.
pub async fn pass_on(
    tls: &NodeTls,
    owner: &NodeAddress,
    client: &PassedClient,
    stream: &PassedStream,
    terms: HopTerms,
) -> Result<NodeConn, HopError> {
    let opened = async {
        let mut conn = connect(tls, owner, terms).await?;
        conn.write(&client.header().map_err(HopError::Unreachable)?);
        conn.write(stream.header.bytes());
        check_offer(&mut conn, stream).await?;
        Ok(conn)
    };
    let mut conn = timeout(OWNER, opened).await.unwrap_or(Err(HopError::Late))?;
    conn.write(stream.message.bytes());
    Ok(conn)
}

async fn connect(tls: &NodeTls, owner: &NodeAddress, terms: HopTerms) -> Result<NodeConn, HopError> {
    Ok(Conn::new(dial(tls, owner, NodePurpose::Client, terms.write_timeout).await?, terms.limits))
}

/// Connects to another node, which has to show the certificate that the directory has for it. The caller sets the time limit.
///
/// # Errors
/// [`HopError::Unreachable`], [`HopError::Tls`], [`HopError::Untrusted`].
pub(super) async fn dial(
    tls: &NodeTls,
    owner: &NodeAddress,
    purpose: NodePurpose,
    write_timeout: Duration,
) -> Result<TlsStream<TcpStream>, HopError> {
    let tcp = TcpStream::connect(&owner.address).await.map_err(HopError::Unreachable)?;
    crate::net::tune_for_node(&tcp, write_timeout).map_err(HopError::Unreachable)?;
    let tls = tls.connect(tcp, purpose).await.map_err(HopError::Tls)?;
    match shown(tls.get_ref().1) {
        Some(shown) if shown == owner.certificate => Ok(tls),
        shown => Err(HopError::Untrusted { shown }),
    }
}

/// Reads the header and the features of the owner. The client has to have got the same, so that its choice is a choice of them.
async fn check_offer(conn: &mut NodeConn, stream: &PassedStream) -> Result<(), HopError> {
    let mut header = None;
    loop {
        while let Some(frame) = conn.next_frame()? {
            match (frame, header.take()) {
                (Frame::Open(opened), _) => header = Some(opened),
                (Frame::Whitespace, opened) => header = opened,
                (Frame::Element(element), _) if element.is("error", ns::STREAMS) => {
                    return Err(HopError::Refused(condition(&element)));
                }
                (Frame::Element(features), Some(opened)) => {
                    let is_same = features.is("features", ns::STREAMS) && stream.shown.is_same(&opened, &features);
                    return if is_same { Ok(()) } else { Err(HopError::OtherOffer(Box::new(features))) };
                }
                (Frame::Element(_) | Frame::Skipped(_) | Frame::Close, _) => return Err(HopError::Closed(None)),
            }
        }
        match conn.event(Io::ReadWrite).await {
            Ok(ConnEvent::Received | ConnEvent::Drained) => {}
            Ok(ConnEvent::Closed) => return Err(HopError::Closed(None)),
            Err(error) => return Err(HopError::Closed(Some(error))),
        }
    }
}

fn condition(error: &Element) -> String {
    let node = error.node();
    let condition = node.children().find(|child| child.ns() == ns::STREAM_ERRORS && child.name() != "text");
    excerpt(condition.map_or("", |condition| condition.name()))
}
