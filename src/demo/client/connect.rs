//! Where a client connects to, and TLS that trusts one certificate.

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

/// A stream of bytes, encrypted or not.
pub(super) trait ClientSocket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ClientSocket for S {}

/// When TLS starts.
#[derive(Clone)]
pub enum ClientSecurity {
    /// Never.
    Plain,
    /// After `<starttls/>` (RFC 6120 §5).
    Starttls(TlsConnector),
    /// At once (XEP-0368).
    Direct(TlsConnector),
}

/// Where a client connects to.
#[derive(Clone)]
pub struct ServerAddress {
    /// The listener.
    pub address: SocketAddr,
    /// When TLS starts on it.
    pub security: ClientSecurity,
    /// The domain, for the stream and the certificate.
    pub domain: String,
    /// What an observer calls the client.
    pub name: String,
    /// What an observer calls the other end.
    pub peer: String,
    /// Who is told of everything on the stream.
    pub observer: Option<Observer>,
}

/// A certificate that cannot be trusted.
#[derive(Debug, Error)]
pub enum CertificateFileError {
    /// The file.
    #[error("cannot read the certificate: {0}")]
    Pem(#[from] pem::Error),
    /// What is in it.
    #[error("cannot use the certificate: {0}")]
    Tls(#[from] rustls::Error),
}

/// TLS that trusts the certificate in a PEM file and no other, and offers `xmpp-client` (XEP-0368).
///
/// # Errors
/// [`CertificateFileError`] for a file that is none.
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

/// Goes on with TLS.
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
