//! A connection that came to the listener for other nodes: [`accept`] returns the client that a node has passed on, or a request.
//! Strangers get nothing but the end of a TLS handshake.

use std::io;

use bytes::BytesMut;
use thiserror::Error;
use tokio::net::TcpStream;

use super::directory::{Directory, LocateError};
use super::fingerprint::Fingerprint;
use super::node_tls::{NodePurpose, NodeTls, shown};
use crate::metrics::NodeArrival;
use crate::net::client_tls::ClientTls;
use crate::net::passed_client::PassedClient;
use crate::net::proxy_protocol::{Addresses, HeaderError};
use crate::net::tls_stream::TlsStream;

/// A client that another node has passed on.
#[derive(Debug)]
pub struct ArrivedClient {
    /// Its stream.
    pub stream: ClientTls<TcpStream>,
    /// The addresses of its connection to the other node.
    pub addresses: Addresses,
    /// The bytes that have come already.
    pub received: BytesMut,
}

/// A connection of another node.
#[derive(Debug)]
pub enum NodeConnection {
    /// It passes a client on.
    Client(Box<ArrivedClient>),
    /// It has a request of its own. Nothing of it has been read.
    Request(Box<TlsStream<TcpStream>>),
}

/// A connection is not that of a client which another node has passed on.
#[derive(Debug, Error)]
pub enum ArrivalError {
    /// The handshake failed: without a certificate, with one of another authority, or without TLS.
    #[error("TLS failed: {0}")]
    Tls(io::Error),
    /// The certificate is of the authority, and not of a node.
    #[error("no node has the certificate {}", shown.map_or("none".to_owned(), |shown| shown.to_string()))]
    Stranger {
        /// The certificate.
        shown: Option<Fingerprint>,
    },
    /// The directory cannot say whether the certificate is that of a node.
    #[error(transparent)]
    Directory(#[from] LocateError),
    /// The node has not passed a client on.
    #[error(transparent)]
    Header(#[from] HeaderError),
}

impl ArrivalError {
    /// Returns the outcome for the metrics.
    pub fn outcome(&self) -> NodeArrival {
        match self {
            Self::Tls(_) | Self::Stranger { .. } => NodeArrival::Stranger,
            Self::Directory(_) => NodeArrival::Unchecked,
            Self::Header(_) => NodeArrival::Invalid,
        }
    }
}

/// Accepts a connection of another node. The caller sets the time limit.
///
/// # Errors
/// [`ArrivalError`]. The connection is closed.
pub async fn accept(tls: &NodeTls, directory: &Directory, tcp: TcpStream) -> Result<NodeConnection, ArrivalError> {
    // No TLS state is allocated for a peer that has sent nothing.
    tcp.readable().await.map_err(ArrivalError::Tls)?;
    let (mut stream, purpose) = Box::pin(tls.accept(tcp)).await.map_err(ArrivalError::Tls)?;
    match shown(stream.state()) {
        Some(certificate) if directory.knows_certificate(&certificate).await? => {}
        shown => return Err(ArrivalError::Stranger { shown }),
    }
    if purpose == NodePurpose::Request {
        return Ok(NodeConnection::Request(Box::new(stream)));
    }
    let (client, received) = PassedClient::read(&mut stream).await?;
    let addresses = client.proxied.addresses;
    let stream = ClientTls::passed(stream, client);
    Ok(NodeConnection::Client(Box::new(ArrivedClient { stream, addresses, received })))
}
