//! One connection of a client, with the client's half of stream management.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::xml::{Element, Framer, Item};

const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
                      xmlns:stream='http://etherx.jabber.org/streams' to='localhost' version='1.0'>";

/// The address to which clients connect, and the certificates that they trust.
#[derive(Clone)]
pub(crate) struct Entrance {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Arc<ClientConfig>,
}

/// The function that gets each message of a connection.
pub(crate) type OnMessage = Box<dyn FnMut(&str) + Send>;

/// One connection of a client.
pub(crate) struct Link {
    tls: TlsStream<TcpStream>,
    framer: Framer,
    /// Number of stanzas read since stream management began.
    pub(crate) handled: u32,
    counts: bool,
    /// Elements read and not yet processed. Messages and `<r/>` are not among them.
    pub(crate) inbox: Vec<String>,
    on_message: OnMessage,
}

impl Link {
    async fn connect(entrance: &Entrance, on_message: OnMessage) -> io::Result<Self> {
        let tcp = TcpStream::connect(entrance.address).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").unwrap();
        let tls = TlsConnector::from(Arc::clone(&entrance.tls)).connect(name, tcp).await?;
        Ok(Self { tls, framer: Framer::default(), handled: 0, counts: false, inbox: Vec::new(), on_message })
    }

    /// Opens an authenticated connection, which may bind or resume.
    pub(crate) async fn authenticated(entrance: &Entrance, account: usize, on_message: OnMessage) -> io::Result<Self> {
        let mut link = Self::connect(entrance, on_message).await?;
        link.send(HEADER).await?;
        link.expect(&["<stream:features"]).await?;
        let plain = BASE64.encode(format!("\0user-{account}\0secret"));
        link.send(&format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{plain}</auth>")).await?;
        link.expect(&["<success"]).await?;
        link.send(HEADER).await?;
        link.expect(&["<stream:features"]).await?;
        Ok(link)
    }

    /// Binds and enables stream management. Returns the resumption id.
    pub(crate) async fn bind(&mut self, resource: &str) -> io::Result<String> {
        self.send(&format!(
            "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>{resource}</resource></bind></iq>\
             <enable xmlns='urn:xmpp:sm:3' resume='true'/>"
        ))
        .await?;
        self.expect(&["xmpp-bind"]).await?;
        let enabled = self.expect(&["<enabled"]).await?;
        Ok(Element::parse(&enabled).attribute("id").unwrap_or_default().to_owned())
    }

    /// Resumes a session of which `handled` stanzas were read. Returns `<resumed/>` or `<failed/>`.
    pub(crate) async fn resume(&mut self, id: &str, handled: u32) -> io::Result<String> {
        self.send(&format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='{handled}'/>")).await?;
        self.handled = handled;
        self.expect(&["<resumed", "<failed"]).await
    }

    pub(crate) async fn send(&mut self, xml: &str) -> io::Result<()> {
        self.tls.write_all(xml.as_bytes()).await?;
        self.tls.flush().await
    }

    /// Reads once and processes the complete elements. Returns true if an acknowledgement is requested. Cancel safe.
    pub(crate) async fn receive(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 4096];
        let length = self.tls.read(&mut buffer).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.framer.push(&buffer[..length]);
        let mut asked = false;
        while let Some(item) = self.framer.next() {
            match item {
                Item::Header(_) => {}
                Item::Footer => return Err(io::ErrorKind::UnexpectedEof.into()),
                Item::Element(xml) => asked |= self.element(xml),
            }
        }
        Ok(asked)
    }

    /// Reads once and processes the complete elements. Answers `<r/>` if `acks`.
    pub(crate) async fn read(&mut self, acks: bool) -> io::Result<()> {
        if self.receive().await? && acks {
            self.ack().await?;
        }
        Ok(())
    }

    /// Processes an element. Returns true if it asks for an acknowledgement.
    fn element(&mut self, xml: String) -> bool {
        if xml.starts_with("<enabled") {
            (self.counts, self.handled) = (true, 0);
        } else if xml.starts_with("<resumed") {
            self.counts = true;
        }
        let is_stanza = ["<message", "<presence", "<iq"].iter().any(|name| xml.starts_with(name));
        if is_stanza && self.counts {
            self.handled = self.handled.wrapping_add(1);
        }
        if xml.starts_with("<message") {
            (self.on_message)(&xml);
            return false;
        }
        let asks = xml.starts_with("<r ");
        if !asks {
            self.inbox.push(xml);
        }
        asks
    }

    pub(crate) async fn ack(&mut self) -> io::Result<()> {
        if !self.counts {
            return Ok(());
        }
        self.send(&format!("<a xmlns='urn:xmpp:sm:3' h='{}'/>", self.handled)).await
    }

    /// Returns the next element that contains one of these strings.
    pub(crate) async fn expect(&mut self, needles: &[&str]) -> io::Result<String> {
        loop {
            let found = self.inbox.iter().position(|xml| needles.iter().any(|needle| xml.contains(needle)));
            if let Some(at) = found {
                return Ok(self.inbox.swap_remove(at));
            }
            self.read(true).await?;
        }
    }

    /// Reads for this period.
    pub(crate) async fn live(&mut self, period: Duration, acks: bool) -> io::Result<()> {
        let until = Instant::now() + period;
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            match timeout(left, self.read(acks)).await {
                Ok(read) => read?,
                Err(_) => break,
            }
            self.inbox.clear();
        }
        Ok(())
    }

    /// Breaks the connection.
    pub(crate) fn reset(self) {
        let tcp = self.tls.get_ref().0;
        drop(SockRef::from(tcp).set_linger(Some(Duration::ZERO)));
    }
}
