//! A scripted push service that other servers connect to (RFC 6120 server streams with EXTERNAL and XEP-0288). It
//! authenticates every server, and leaves everything after that to the test.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{Authority, Element, Framer, Item, PATIENCE};

/// A listening push service with direct TLS.
pub(crate) struct AppServer {
    /// The address to which servers connect.
    pub(crate) address: SocketAddr,
    pub(crate) domain: &'static str,
    streams: mpsc::UnboundedReceiver<AppStream>,
}

impl AppServer {
    pub(crate) async fn start(domain: &'static str, authority: &Authority) -> Self {
        Self::saying(domain, authority, domain).await
    }

    /// The same with stream headers from `from`, as written in the XML.
    pub(crate) async fn saying(domain: &'static str, authority: &Authority, from: &str) -> Self {
        let issued = authority.issue(domain);
        let certificate = CertificateDer::from_pem_file(&issued.certificate).unwrap();
        let key = PrivateKeyDer::from_pem_file(&issued.key).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, streams) = mpsc::unbounded_channel();
        let from = from.to_owned();
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (acceptor, sender, from) = (acceptor.clone(), sender.clone(), from.clone());
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    if let Some(stream) = AppStream::let_in(tls, &from).await {
                        // The test may have ended already.
                        drop(sender.send(stream));
                    }
                });
            }
        });
        Self { address, domain, streams }
    }

    /// Returns a `[[push.route]]` to it, with the authority of `ca.pem`.
    pub(crate) fn route(&self) -> String {
        format!("domain = '{}'\naddress = '{}'\ntls = 'direct'\nca = 'ca.pem'", self.domain, self.address)
    }

    /// Returns the next authenticated stream of a server.
    pub(crate) async fn stream(&mut self) -> AppStream {
        timeout(PATIENCE, self.streams.recv()).await.expect("a stream to the push service").unwrap()
    }
}

/// A stream of a push service to a server, as `push.test`.
pub(crate) struct AppClient {
    socket: tokio_rustls::client::TlsStream<TcpStream>,
    framer: Framer,
}

impl AppClient {
    /// Connects to the server of `localhost`.
    pub(crate) async fn dial(address: SocketAddr, authority: &Authority) -> Self {
        let issued = authority.issue_for_both("push.test");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority.file()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_file(&issued.certificate).unwrap()],
                PrivateKeyDer::from_pem_file(&issued.key).unwrap(),
            )
            .unwrap();
        let tcp = TcpStream::connect(address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let socket = connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
        let mut client = Self { socket, framer: Framer::default() };
        client.open().await;
        client.send("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>").await;
        assert!(client.element().await.starts_with("<success"));
        client.framer = Framer::default();
        client.open().await;
        client
    }

    async fn open(&mut self) {
        self.send(
            "<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' from='push.test' \
             to='localhost' version='1.0'>",
        )
        .await;
        assert!(self.element().await.starts_with("<stream:features"));
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).await.unwrap();
        self.socket.flush().await.unwrap();
    }

    async fn element(&mut self) -> String {
        let mut buffer = [0; 4096];
        loop {
            match self.framer.next() {
                Some(Item::Element(xml)) => return xml,
                Some(Item::Header(_)) => {}
                Some(Item::Footer) => panic!("the server closed the stream"),
                None => {
                    let length = timeout(PATIENCE, self.socket.read(&mut buffer)).await.unwrap().unwrap();
                    assert_ne!(length, 0, "the server closed the connection");
                    self.framer.push(&buffer[..length]);
                }
            }
        }
    }
}

/// A stream on which the other server may write stanzas.
pub(crate) struct AppStream {
    socket: TlsStream<TcpStream>,
    framer: Framer,
    /// True if the other server asked for XEP-0288.
    pub(crate) bidi: bool,
}

impl AppStream {
    async fn let_in(socket: TlsStream<TcpStream>, from: &str) -> Option<Self> {
        let mut stream = Self { socket, framer: Framer::default(), bidi: false };
        let header = format!(
            "<?xml version='1.0'?><stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' \
             id='app' from='{from}' to='localhost' version='1.0'>"
        );
        let mut authenticated = false;
        loop {
            let offer = "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>EXTERNAL</mechanism></mechanisms>\
                         <bidi xmlns='urn:xmpp:features:bidi'/>";
            let features = if authenticated { "" } else { offer };
            match stream.item().await? {
                Item::Header(_) => {
                    let answer = format!("{header}<stream:features>{features}</stream:features>");
                    stream.try_send(answer).await.then_some(())?;
                    if authenticated {
                        return Some(stream);
                    }
                }
                Item::Element(xml) if xml.starts_with("<bidi") => stream.bidi = true,
                Item::Element(xml) if xml.starts_with("<auth") => {
                    authenticated = true;
                    stream.framer = Framer::default();
                    stream.try_send("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>").await.then_some(())?;
                }
                Item::Element(_) | Item::Footer => return None,
            }
        }
    }

    async fn item(&mut self) -> Option<Item> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(item) = self.framer.next() {
                return Some(item);
            }
            match self.socket.read(&mut buffer).await {
                Ok(length @ 1..) => self.framer.push(&buffer[..length]),
                Ok(0) | Err(_) => return None,
            }
        }
    }

    /// Writes bytes. Returns `false` if the connection is closed.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.socket.write_all(bytes.as_ref()).await.is_ok() && self.socket.flush().await.is_ok()
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        assert!(self.try_send(bytes).await, "the stream is closed");
    }

    /// Returns the next element. `None` at the footer or the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<Element> {
        match timeout(PATIENCE, self.item()).await.expect("an element or the footer") {
            Some(Item::Element(xml)) => Some(Element::parse(&xml)),
            Some(Item::Footer | Item::Header(_)) | None => None,
        }
    }

    /// Returns the next publish, and accepts it.
    pub(crate) async fn publish(&mut self) -> Element {
        let publish = self.next().await.expect("a publish");
        assert!(!publish.all("publish").is_empty(), "{publish:?}");
        let attribute = |name| publish.attribute(name).unwrap_or_default();
        let (id, from, to) = (attribute("id"), attribute("to"), attribute("from"));
        self.send(format!("<iq type='result' id='{id}' from='{from}' to='{to}'/>")).await;
        publish
    }

    /// Returns all elements until the footer.
    pub(crate) async fn until_footer(&mut self) -> Vec<Element> {
        let mut elements = Vec::new();
        while let Some(element) = self.next().await {
            elements.push(element);
        }
        elements
    }

    /// Returns what comes until the connection ends.
    pub(crate) async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        // The other side may end it without a close_notify.
        drop(timeout(PATIENCE, self.socket.read_to_end(&mut rest)).await.expect("the end of the connection"));
        String::from_utf8(rest).unwrap()
    }

    /// Writes the same bytes repeatedly without reading, until `limit` bytes are written, the connection is closed, or
    /// the other side has accepted nothing for `stalled`. Returns the number of bytes written.
    pub(crate) async fn flood(&mut self, bytes: &str, limit: usize, stalled: Duration) -> usize {
        let (chunk, mut written) = (bytes.repeat(64 * 1024 / bytes.len() + 1), 0);
        let until = Instant::now() + 4 * PATIENCE;
        while written < limit && Instant::now() < until {
            match timeout(stalled, self.socket.write_all(chunk.as_bytes())).await {
                Ok(Ok(())) => written += chunk.len(),
                Ok(Err(_)) | Err(_) => break,
            }
        }
        written
    }
}
