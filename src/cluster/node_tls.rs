//! [`NodeTls`]: TLS between the nodes of a cluster. Both nodes show a certificate that chains to the authority of the cluster and
//! whose fingerprint the directory has.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{ClientConfig, CommonState, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client};

use super::fingerprint::Fingerprint;
use crate::net::certificate::{self, CertificateError};
use crate::net::roots::{self, RootsError};
use crate::net::tls_stream::TlsStream;

/// The purpose of a connection between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodePurpose {
    /// The stream of a client, which is passed on.
    Client,
    /// A request of the node itself.
    Request,
}

impl NodePurpose {
    const ALL: [Self; 2] = [Self::Client, Self::Request];

    /// Returns its name in ALPN (RFC 7301).
    fn alpn(self) -> &'static [u8] {
        match self {
            Self::Client => b"pushward-hop",
            Self::Request => b"pushward-request",
        }
    }

    /// Returns the purpose that both sides of a connection have agreed on.
    fn of(state: &CommonState) -> io::Result<Self> {
        let agreed = Self::ALL.into_iter().find(|purpose| state.alpn_protocol() == Some(purpose.alpn()));
        agreed.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the other side is no node"))
    }
}

/// The certificate of this node, or the authority of the cluster, cannot be used. The operator has to fix it.
#[derive(Debug, thiserror::Error)]
pub enum NodeTlsError {
    /// The certificate or the key.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The authority.
    #[error("[cluster] ca: {0}")]
    Authority(#[from] RootsError),
    /// The authority cannot be used to verify certificates.
    #[error("[cluster] ca: {0}")]
    Verifier(#[from] VerifierBuilderError),
    /// The TLS library cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Library(#[from] Error),
}

/// The TLS of this node with other nodes.
#[derive(Clone, Debug)]
pub struct NodeTls {
    client: Arc<ClientConfig>,
    request: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    fingerprint: Fingerprint,
    key: Arc<CertifiedKey>,
    authorities: Arc<RootCertStore>,
}

impl NodeTls {
    /// Loads the files of `[cluster]`.
    ///
    /// # Errors
    /// [`NodeTlsError`], which names the file.
    pub fn load(certificate: &Path, key: &Path, ca: &Path) -> Result<Self, NodeTlsError> {
        Self::new(certificate::load_pair(certificate, key)?, roots::in_file(ca)?)
    }

    /// Creates the TLS of a node with this certificate, which trusts only these authorities.
    ///
    /// # Errors
    /// [`NodeTlsError`]
    pub fn new(key: Arc<CertifiedKey>, authorities: RootCertStore) -> Result<Self, NodeTlsError> {
        let leaf = key.cert.first().ok_or(Error::NoCertificatesPresented)?;
        let (fingerprint, authorities) = (Fingerprint::of(leaf), Arc::new(authorities));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let own = Arc::new(SingleCertAndKey::from((*key).clone()));
        let client = client_config(&provider, Arc::clone(&own), Arc::clone(&authorities), NodePurpose::Client)?;
        let request = client_config(&provider, Arc::clone(&own), Arc::clone(&authorities), NodePurpose::Request)?;
        let server = server_config(&provider, own, Arc::clone(&authorities))?;
        let [client, request] = [client, request].map(Arc::new);
        Ok(Self { client, request, server: Arc::new(server), fingerprint, key, authorities })
    }

    /// Verifies the certificate of this node as the others do.
    ///
    /// # Errors
    /// The reason why they refuse it now.
    pub fn judge_own(&self) -> Result<(), NodeTlsError> {
        let [leaf, chain @ ..] = self.key.cert.as_slice() else { return Err(Error::NoCertificatesPresented.into()) };
        let (provider, now) = (Arc::new(aws_lc_rs::default_provider()), UnixTime::now());
        let authorities = Arc::clone(&self.authorities);
        let algorithms = provider.signature_verification_algorithms;
        NodeVerifier { authorities, algorithms }.judge(leaf, chain, now)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.authorities), provider).build()?;
        verifier.verify_client_cert(leaf, chain, now)?;
        Ok(())
    }

    /// Returns the fingerprint of this node's certificate, for the directory.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Performs the handshake with another node at which this one has connected. The caller compares the fingerprint, and sets the
    /// time limit.
    ///
    /// # Errors
    /// The connection is broken, or the certificate does not chain to the authority.
    pub(crate) async fn connect(
        &self,
        tcp: TcpStream,
        purpose: NodePurpose,
    ) -> io::Result<client::TlsStream<TcpStream>> {
        let config = match purpose {
            NodePurpose::Client => &self.client,
            NodePurpose::Request => &self.request,
        };
        // The name is not sent, and nobody compares it: see `NodeVerifier`.
        let name = ServerName::try_from("node.invalid").map_err(io::Error::other)?;
        let tls = TlsConnector::from(Arc::clone(config)).connect(name, tcp).await?;
        NodePurpose::of(tls.get_ref().1)?;
        Ok(tls)
    }

    /// Performs the handshake with another node that has connected. The caller looks the fingerprint up, and sets the time limit.
    ///
    /// # Errors
    /// The connection is broken, or there is no certificate that chains to the authority.
    pub(super) async fn accept(&self, tcp: TcpStream) -> io::Result<(TlsStream<TcpStream>, NodePurpose)> {
        let tls = TlsStream::accept(tcp, Arc::clone(&self.server)).await?;
        let purpose = NodePurpose::of(tls.state())?;
        Ok((tls, purpose))
    }
}

/// Returns the fingerprint of the certificate that the other side has shown.
pub(super) fn shown(state: &CommonState) -> Option<Fingerprint> {
    state.peer_certificates().and_then(<[_]>::first).map(Fingerprint::of)
}

fn client_config(
    provider: &Arc<CryptoProvider>,
    own: Arc<SingleCertAndKey>,
    authorities: Arc<RootCertStore>,
    purpose: NodePurpose,
) -> Result<ClientConfig, Error> {
    let verifier = NodeVerifier { authorities, algorithms: provider.signature_verification_algorithms };
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(own);
    config.alpn_protocols = vec![purpose.alpn().to_vec()];
    config.enable_sni = false;
    // Each connection verifies the certificates as they are now.
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn server_config(
    provider: &Arc<CryptoProvider>,
    own: Arc<SingleCertAndKey>,
    authorities: Arc<RootCertStore>,
) -> Result<ServerConfig, NodeTlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(authorities, Arc::clone(provider)).build()?;
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(own);
    config.alpn_protocols = NodePurpose::ALL.map(|purpose| purpose.alpn().to_vec()).to_vec();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// Verifies that the certificate of a node chains to the authority of the cluster, as the verifier of the library does, without the
/// comparison of names. The node is not known by a name but by the fingerprint that the directory has for it, which is
/// compared after the handshake and before any byte is sent. That is stricter: it allows one certificate, not all of a name.
#[derive(Debug)]
struct NodeVerifier {
    authorities: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl NodeVerifier {
    fn judge(&self, leaf: &CertificateDer<'_>, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
        let (certificate, algorithms) = (ParsedCertificate::try_from(leaf)?, self.algorithms.all);
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.authorities, chain, now, algorithms)
    }
}

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::ExtendedKeyUsagePurpose;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::cluster::testing::Authority;

    type Handshake = (io::Result<client::TlsStream<TcpStream>>, io::Result<TlsStream<TcpStream>>);

    /// Performs a handshake between two nodes. TLS 1.3 shows a client the refusal of its certificate when it reads.
    async fn handshake(client: &NodeTls, server: &NodeTls) -> Handshake {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connect = async { client.connect(TcpStream::connect(address).await.unwrap(), NodePurpose::Client).await };
        let accept = async { server.accept(listener.accept().await.unwrap().0).await.map(|(tls, _)| tls) };
        tokio::join!(connect, accept)
    }

    async fn refused_by_server(client: &NodeTls, server: &NodeTls) {
        let (connected, accepted) = handshake(client, server).await;
        let error = accepted.expect_err("no handshake");
        assert!(error.get_ref().is_some_and(|inner| inner.is::<Error>()), "{error:?}");
        if let Ok(mut tls) = connected {
            drop(tls.write_all(b"x").await);
            assert!(tls.read_u8().await.is_err());
        }
    }

    #[tokio::test]
    async fn nodes_of_one_authority_see_each_others_certificates() {
        let authority = Authority::new();
        let (one, two) = (authority.node(), authority.node());
        assert_ne!(one.fingerprint(), two.fingerprint());
        for _ in 0..2 {
            let (connected, accepted) = handshake(&one, &two).await;
            let (connected, accepted) = (connected.unwrap(), accepted.unwrap());
            assert_eq!(shown(connected.get_ref().1), Some(two.fingerprint()));
            assert_eq!(shown(accepted.state()), Some(one.fingerprint()));
            assert_eq!(accepted.channel_binding(), None, "it would be taken for that of a client");
            assert_eq!(connected.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
        }
    }

    #[tokio::test]
    async fn certificates_of_strangers_are_refused_by_both_sides() {
        let (authority, other) = (Authority::new(), Authority::new());
        let node = authority.node();
        let stranger = NodeTls::new(other.issue(), authority.roots()).unwrap();
        refused_by_server(&stranger, &node).await;
        let (connected, _) = handshake(&node, &stranger).await;
        let error = connected.unwrap_err().to_string();
        assert!(error.contains("invalid peer certificate"), "{error}");
    }

    #[tokio::test]
    async fn expired_certificates_and_those_for_other_purposes_are_refused_by_both_sides() {
        let authority = Authority::new();
        let node = authority.node();
        let with = |purposes: &[ExtendedKeyUsagePurpose], until| {
            NodeTls::new(authority.issue_for(purposes, until), authority.roots()).unwrap()
        };
        let expired = with(&[], 2011);
        refused_by_server(&expired, &node).await;
        assert!(handshake(&node, &expired).await.0.is_err());
        let (for_servers, for_clients) =
            (with(&[ExtendedKeyUsagePurpose::ServerAuth], 2090), with(&[ExtendedKeyUsagePurpose::ClientAuth], 2090));
        refused_by_server(&for_servers, &node).await;
        assert!(handshake(&node, &for_servers).await.0.is_ok());
        assert!(handshake(&node, &for_clients).await.0.is_err());
        let for_all = with(&[], 2090);
        let (connected, accepted) = handshake(&for_all, &node).await;
        assert!(connected.is_ok() && accepted.is_ok());
    }

    #[test]
    fn a_certificate_that_the_others_refuse_is_known_before() {
        let (authority, other) = (Authority::new(), Authority::new());
        assert!(authority.node().judge_own().is_ok());
        assert!(NodeTls::new(other.issue(), authority.roots()).unwrap().judge_own().is_err());
        for (purposes, until) in [
            (&[ExtendedKeyUsagePurpose::ServerAuth][..], 2090),
            (&[ExtendedKeyUsagePurpose::ClientAuth], 2090),
            (&[], 2011),
        ] {
            let issued = NodeTls::new(authority.issue_for(purposes, until), authority.roots()).unwrap();
            assert!(issued.judge_own().is_err(), "{purposes:?} {until}");
        }
    }

    #[tokio::test]
    async fn peers_without_a_certificate_or_the_protocol_are_refused() {
        let authority = Authority::new();
        let node = authority.node();
        let with = |change: &dyn Fn(&mut ClientConfig)| {
            let mut other = authority.node();
            change(Arc::make_mut(&mut other.client));
            other
        };
        let nameless = with(&|config| config.client_auth_cert_resolver = Arc::new(NoCertificate));
        refused_by_server(&nameless, &node).await;
        let (connected, accepted) = handshake(&with(&|config| config.alpn_protocols.clear()), &node).await;
        assert!(connected.is_err() && accepted.is_err());
        let (connected, accepted) =
            handshake(&with(&|config| config.alpn_protocols = vec![b"x".to_vec()]), &node).await;
        assert!(connected.is_err() && accepted.is_err());
        // Another server of the authority, such as one for clients.
        let mut other = authority.node();
        Arc::make_mut(&mut other.server).alpn_protocols.clear();
        assert!(handshake(&node, &other).await.0.is_err());
    }

    #[derive(Debug)]
    struct NoCertificate;

    impl rustls::client::ResolvesClientCert for NoCertificate {
        fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            None
        }

        fn has_certs(&self) -> bool {
            false
        }
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named() {
        let missing = Path::new("/nonexistent/a.pem");
        let error = NodeTls::load(missing, missing, missing).unwrap_err().to_string();
        assert!(error.starts_with("cannot read /nonexistent/a.pem"), "{error}");
        assert!(NodeTls::new(Authority::new().issue(), RootCertStore::empty()).is_err());
    }
}
