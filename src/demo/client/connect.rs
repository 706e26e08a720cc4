//! The address of a server, and a TLS connector that trusts one certificate.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::error::{ANSWER, ClientError};
use crate::demo::trace::Observer;

/// A stream of bytes, with or without TLS.
pub(super) trait ClientSocket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ClientSocket for S {}

/// The TLS mode of a connection.
#[derive(Clone)]
pub enum ClientSecurity {
    /// No TLS.
    Plain,
    /// TLS starts after `<starttls/>` (RFC 6120 §5).
    Starttls(TlsConnector),
    /// The connection starts with TLS (XEP-0368).
    Direct(TlsConnector),
}

/// The server that a client connects to.
#[derive(Clone)]
pub struct ServerAddress {
    /// The address of the listener.
    pub address: SocketAddr,
    /// The TLS mode of the listener.
    pub security: ClientSecurity,
    /// The domain, for the stream and the certificate.
    pub domain: String,
    /// The name of the client, for an observer.
    pub name: String,
    /// The name of the other end, for an observer.
    pub peer: String,
    /// The observer of the stream.
    pub observer: Option<Observer>,
}

/// A certificate that cannot be trusted.
#[derive(Debug, Error)]
pub enum CertificateFileError {
    /// The file cannot be read.
    #[error("cannot read the certificate: {0}")]
    Pem(#[from] pem::Error),
    /// The certificate in it is invalid.
    #[error("cannot use the certificate: {0}")]
    Tls(#[from] rustls::Error),
}

/// Returns a TLS connector that trusts only the certificate in a PEM file, and offers `xmpp-client` (XEP-0368).
///
/// # Errors
/// Returns [`CertificateFileError`] for an invalid file.
pub fn trusting(certificate: &Path) -> Result<TlsConnector, CertificateFileError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(certificate)? {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"xmpp-client".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Connects, without TLS.
pub(super) async fn dial(place: &ServerAddress) -> Result<Box<dyn ClientSocket>, ClientError> {
    let fail = |source| ClientError::Connect { address: place.address, source };
    let connect = async {
        let tcp = TcpStream::connect(place.address).await?;
        tcp.set_nodelay(true)?;
        Ok(tcp)
    };
    let tcp = timeout(ANSWER, connect).await.map_err(|late| fail(late.into()))?.map_err(fail)?;
    Ok(Box::new(tcp))
}

/// Establishes TLS on a connection.
pub(super) async fn encrypt(
    place: &ServerAddress,
    tls: &TlsConnector,
    socket: Box<dyn ClientSocket>,
) -> Result<Box<dyn ClientSocket>, ClientError> {
    let fail = |source| ClientError::Connect { address: place.address, source };
    let name = ServerName::try_from(place.domain.clone()).map_err(|error| fail(io::Error::other(error)))?;
    let handshake = timeout(ANSWER, tls.connect(name, socket)).await;
    Ok(Box::new(handshake.map_err(|late| fail(late.into()))?.map_err(fail)?))
}
