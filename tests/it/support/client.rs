//! A scripted client that reads and writes raw bytes. [`Client`] is one connection.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::ProtocolVersion;
use rustls::pki_types::ServerName;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::prosody::PASSWORD;
use super::{Element, Framer, Item, PATIENCE, Tls, bodies};

/// The header at the start of every stream.
pub(crate) const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
                                 xmlns:stream='http://etherx.jabber.org/streams' to='localhost' version='1.0'>";
/// The request for TLS.
pub(crate) const STARTTLS: &str = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";

enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }

    async fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(buffer).await,
            Self::Tls(tls) => tls.read(buffer).await,
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.write_all(bytes).await,
            Self::Tls(tls) => {
                tls.write_all(bytes).await?;
                tls.flush().await
            }
        }
    }
}

/// An answer to `<enable/>` (XEP-0198 §3).
#[derive(Clone, Debug)]
pub(crate) struct Enabled {
    pub(crate) id: String,
    pub(crate) resume: Option<String>,
    pub(crate) max: Option<u64>,
}

/// One connection. While it is being read, it answers `<r/>` unless `acks` is false.
pub(crate) struct Client {
    socket: Socket,
    framer: Framer,
    inbox: VecDeque<String>,
    transcript: Vec<String>,
    closed: bool,
    /// Number of stanzas received since stream management began, over all connections of the session.
    pub(crate) handled: u32,
    /// True if `<r/>` is answered.
    pub(crate) acks: bool,
    /// Every `h` of an `<a/>` so far.
    pub(crate) acked: Vec<u32>,
    /// Number of `<r/>` received.
    pub(crate) requests: u32,
    managed: bool,
    /// The `to` of its streams.
    domain: &'static str,
}

impl Client {
    fn on(socket: Socket) -> Self {
        Self {
            socket,
            framer: Framer::default(),
            inbox: VecDeque::new(),
            transcript: Vec::new(),
            closed: false,
            handled: 0,
            acks: true,
            acked: Vec::new(),
            requests: 0,
            managed: false,
            domain: "localhost",
        }
    }

    /// Opens a connection without TLS and sends nothing.
    pub(crate) async fn plain(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }

    /// The same on an existing connection.
    pub(crate) fn over(tcp: TcpStream) -> Self {
        tcp.set_nodelay(true).unwrap();
        Self::on(Socket::Plain(tcp))
    }

    /// The same from another address of this machine.
    pub(crate) async fn plain_from(source: Ipv4Addr, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        Self::on(Socket::Plain(socket.connect(address).await.unwrap()))
    }

    /// Opens a connection with direct TLS.
    pub(crate) async fn direct(address: SocketAddr, tls: &Tls) -> Self {
        Self::plain(address).await.handshake(tls).await
    }

    /// Opens a connection and upgrades it by STARTTLS.
    pub(crate) async fn starttls(address: SocketAddr, tls: &Tls) -> Self {
        Self::plain(address).await.upgrade(tls).await
    }

    /// Upgrades the connection by STARTTLS.
    pub(crate) async fn upgrade(mut self, tls: &Tls) -> Self {
        let features = self.open().await;
        assert!(features.contains("urn:ietf:params:xml:ns:xmpp-tls"), "no STARTTLS in {features}");
        self.send(STARTTLS).await;
        self.expect("<proceed").await;
        self.handshake(tls).await
    }

    /// Performs the TLS handshake.
    pub(crate) async fn handshake(self, tls: &Tls) -> Self {
        let domain = self.domain;
        let Socket::Plain(tcp) = self.socket else { panic!("TLS inside TLS") };
        let name = ServerName::try_from(tls.name).unwrap();
        let stream = timeout(PATIENCE, TlsConnector::from(tls.config()).connect(name, tcp))
            .await
            .expect("a TLS handshake in time")
            .expect("a TLS handshake");
        Self::on(Socket::Tls(Box::new(stream))).towards(domain)
    }

    /// Returns the result of the handshake: version and ALPN.
    pub(crate) fn agreed(&self) -> (ProtocolVersion, Option<String>) {
        let Socket::Tls(tls) = &self.socket else { panic!("not TLS") };
        let connection = tls.get_ref().1;
        let alpn = connection.alpn_protocol().map(|name| String::from_utf8(name.to_vec()).unwrap());
        (connection.protocol_version().unwrap(), alpn)
    }

    /// Returns the channel binding `tls-exporter` of the connection (RFC 9266).
    pub(crate) fn exporter(&self) -> Vec<u8> {
        let Socket::Tls(tls) = &self.socket else { panic!("not TLS") };
        tls.get_ref().1.export_keying_material(vec![0; 32], b"EXPORTER-Channel-Binding", None).unwrap()
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        timeout(PATIENCE, self.socket.write(bytes.as_ref())).await.expect("a write in time").expect("a write");
    }

    /// Sends bytes to a peer that may already be gone.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) {
        drop(timeout(PATIENCE, self.socket.write(bytes.as_ref())).await);
    }

    /// Sends the same bytes repeatedly without reading, until `total` bytes are sent, none is accepted for five
    /// seconds, or the connection is gone. Calls `look` after each write. Returns the number of bytes sent.
    pub(crate) async fn pour(&mut self, stanzas: &str, total: usize, mut look: impl FnMut()) -> usize {
        let mut sent = 0;
        while sent < total {
            match timeout(Duration::from_secs(5), self.socket.write(stanzas.as_bytes())).await {
                Ok(Ok(())) => sent += stanzas.len(),
                Ok(Err(_)) | Err(_) => break,
            }
            look();
        }
        look();
        sent
    }

    /// Reads one item within `deadline`: `Ok(None)` at the end of the connection, `Err` at the deadline.
    async fn item(&mut self, deadline: Instant) -> Result<Option<Item>, tokio::time::error::Elapsed> {
        let mut buffer = vec![0; 16384];
        loop {
            if let Some(item) = self.framer.next() {
                self.transcript.push(format!("{item:?}"));
                return Ok(Some(item));
            }
            if self.closed {
                return Ok(None);
            }
            match timeout_at(deadline, self.socket.read(&mut buffer)).await? {
                Ok(length @ 1..) => self.framer.push(&buffer[..length]),
                Ok(0) | Err(_) => self.closed = true,
            }
        }
    }

    /// Returns the next element that does not belong to stream management, or the footer. `None` at the end of the
    /// connection.
    async fn element(&mut self, deadline: Instant) -> Result<Option<String>, tokio::time::error::Elapsed> {
        if let Some(element) = self.inbox.pop_front() {
            return Ok(Some(element));
        }
        loop {
            let element = match self.item(deadline).await? {
                None => return Ok(None),
                Some(Item::Header(_)) => continue,
                Some(Item::Footer) => return Ok(Some("</stream:stream>".into())),
                Some(Item::Element(element)) => element,
            };
            if !self.manage(&element).await {
                return Ok(Some(element));
            }
        }
    }

    /// Counts stanzas, and consumes `<r/>` and `<a/>`. Returns true if the element was consumed.
    async fn manage(&mut self, xml: &str) -> bool {
        if ["<message", "<presence", "<iq"].iter().any(|name| xml.starts_with(name)) {
            self.handled += u32::from(self.managed);
            return false;
        }
        if !xml.contains("urn:xmpp:sm:3") {
            return false;
        }
        if xml.starts_with("<r ") {
            self.requests += 1;
            if self.acks {
                self.ack().await;
            }
            return true;
        }
        if xml.starts_with("<a ") {
            let h = Element::parse(xml).attribute("h").unwrap().parse().unwrap();
            assert!(self.acked.last() <= Some(&h), "h went back: {:?} then {h}", self.acked);
            self.acked.push(h);
            return true;
        }
        let success = xml.starts_with("<success");
        let enabled = xml.starts_with("<enabled") || success && xml.contains("<enabled xmlns='urn:xmpp:sm:3'");
        if enabled {
            self.handled = 0;
        }
        self.managed |= enabled || xml.starts_with("<resumed") || success && xml.contains("<resumed ");
        false
    }

    /// Sends `<a/>` for everything read so far.
    pub(crate) async fn ack(&mut self) {
        let ack = format!("<a xmlns='urn:xmpp:sm:3' h='{}'/>", self.handled);
        self.try_send(ack).await;
    }

    /// Returns the next element. The test fails if none comes.
    pub(crate) async fn next(&mut self) -> String {
        match self.element(Instant::now() + PATIENCE).await {
            Ok(Some(element)) => element,
            Ok(None) => panic!("the connection ended after\n{}", self.transcript.join("\n")),
            Err(_) => panic!("nothing more came after\n{}", self.transcript.join("\n")),
        }
    }

    /// Returns the next element that contains `needle`, and discards those before it.
    pub(crate) async fn expect(&mut self, needle: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.element(deadline).await {
                Ok(Some(element)) if element.contains(needle) => return element,
                Ok(Some(_)) => {}
                end => panic!("no {needle} ({end:?}) in\n{}", self.transcript.join("\n")),
            }
        }
    }

    /// Returns the next element that contains `needle`. Those before it can still be read.
    pub(crate) async fn answer(&mut self, needle: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut others = VecDeque::new();
        let found = loop {
            match self.element(deadline).await {
                Ok(Some(element)) if element.contains(needle) => break element,
                Ok(Some(element)) => others.push_back(element),
                end => panic!("no {needle} ({end:?}) in\n{}", self.transcript.join("\n")),
            }
        };
        others.append(&mut self.inbox);
        self.inbox = others;
        found
    }

    /// Returns the next element, including those of stream management.
    pub(crate) async fn next_item(&mut self) -> String {
        match self.item(Instant::now() + PATIENCE).await {
            Ok(Some(Item::Element(element))) => {
                self.manage(&element).await;
                element
            }
            end => panic!("no element ({end:?}) after\n{}", self.transcript.join("\n")),
        }
    }

    /// Reads until the next `<a/>`. Other elements can still be read.
    pub(crate) async fn next_ack(&mut self) -> u32 {
        let before = self.acked.len();
        let mut others = VecDeque::new();
        while self.acked.len() == before {
            let element = self.next_item().await;
            if !element.contains("urn:xmpp:sm:3") {
                others.push_back(element);
            }
        }
        self.inbox.append(&mut others);
        self.acked[before]
    }

    /// Returns the next `count` messages.
    pub(crate) async fn messages(&mut self, count: usize) -> Vec<String> {
        let mut messages = Vec::new();
        while messages.len() < count {
            messages.push(self.expect("<message").await);
        }
        messages
    }

    /// Reads until all of `wanted` have come as bodies of messages. Returns the bodies of all messages that came.
    pub(crate) async fn bodies_until(&mut self, wanted: &[String]) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut seen: Vec<String> = Vec::new();
        while !wanted.iter().all(|body| seen.contains(body)) {
            match self.element(deadline).await {
                Ok(Some(element)) => seen.extend(bodies(&[element])),
                end => panic!("{wanted:?} expected ({end:?}), got {seen:?} in\n{}", self.transcript.join("\n")),
            }
        }
        seen
    }

    /// Returns everything that comes until nothing has come for that long, or the connection has ended.
    pub(crate) async fn until_quiet(&mut self, quiet: Duration) -> Vec<String> {
        self.until_quiet_or_closed(quiet).await.0
    }

    /// The same, and whether the connection is still open.
    pub(crate) async fn until_quiet_or_closed(&mut self, quiet: Duration) -> (Vec<String>, bool) {
        let mut seen = Vec::new();
        while let Ok(Some(element)) = self.element(Instant::now() + quiet).await {
            seen.push(element);
        }
        (seen, !self.closed)
    }

    /// Reads and answers `<r/>` for that long, like a live client. Returns what came.
    pub(crate) async fn live_for(&mut self, observed: Duration) -> Vec<String> {
        let deadline = Instant::now() + observed;
        let mut seen = Vec::new();
        while let Ok(Some(element)) = self.element(deadline).await {
            seen.push(element);
        }
        seen
    }

    /// Reads and answers `<r/>` for that long, and passes what comes to `take` at once. Returns whether the connection is still
    /// open.
    #[allow(dead_code, reason = "the campaign of failures in a cluster uses it")]
    pub(crate) async fn read_for(&mut self, observed: Duration, mut take: impl FnMut(&str)) -> bool {
        let deadline = Instant::now() + observed;
        loop {
            match self.element(deadline).await {
                Ok(Some(element)) => take(&element),
                Ok(None) => return false,
                Err(_) => return true,
            }
        }
    }

    /// Waits until the proxy ends the connection. Returns what came before.
    pub(crate) async fn closed(&mut self, deadline: Duration) -> Vec<String> {
        let until = Instant::now() + deadline;
        let mut seen = Vec::new();
        loop {
            match self.element(until).await {
                Ok(Some(element)) => seen.push(element),
                Ok(None) => return seen,
                Err(_) => panic!("still open after {deadline:?}:\n{}", self.transcript.join("\n")),
            }
        }
    }

    /// Requests an acknowledgement and reads until it covers exactly `h`.
    pub(crate) async fn acked_up_to(&mut self, h: u32) {
        self.send("<r xmlns='urn:xmpp:sm:3'/>").await;
        self.ack_reaches(h).await;
    }

    /// Reads until an `<a/>` covers exactly `h`. Other elements can still be read.
    pub(crate) async fn ack_reaches(&mut self, h: u32) {
        let deadline = Instant::now() + PATIENCE;
        let mut others = VecDeque::new();
        while self.acked.last() != Some(&h) {
            assert!(self.acked.last() <= Some(&h), "more acked than sent: {:?}, sent {h}", self.acked);
            match self.item(deadline).await {
                Ok(Some(Item::Element(element))) => {
                    if !self.manage(&element).await {
                        others.push_back(element);
                    }
                }
                end => panic!("{end:?} before h={h}:\n{}", self.transcript.join("\n")),
            }
        }
        self.inbox.append(&mut others);
    }

    /// Returns everything that came on this connection, for an assertion's message.
    pub(crate) fn transcript(&self) -> String {
        self.transcript.join("\n")
    }

    /// Returns the number of whitespace bytes between elements.
    pub(crate) fn whitespace(&self) -> usize {
        self.framer.whitespace()
    }

    /// Sets the domain of later streams. The default is `localhost`.
    pub(crate) fn towards(mut self, domain: &'static str) -> Self {
        self.domain = domain;
        self
    }

    /// Opens a stream and returns the features.
    pub(crate) async fn open(&mut self) -> String {
        self.send(HEADER.replace("localhost", self.domain)).await;
        self.expect("<stream:features").await
    }

    /// Authenticates with SASL PLAIN (RFC 4616) up to `<success/>`, without the restart.
    pub(crate) async fn authenticate(&mut self, user: &str) {
        self.send(plain(user, PASSWORD)).await;
        let answer = self.next().await;
        assert!(answer.starts_with("<success"), "{user} is refused: {answer}");
    }

    /// Logs in up to the point where `<resume/>` or a bind may be sent. Returns the features.
    pub(crate) async fn authenticated(&mut self, user: &str) -> String {
        self.open().await;
        self.authenticate(user).await;
        self.open().await
    }

    /// Binds and returns the full JID.
    pub(crate) async fn bind(&mut self, resource: &str) -> String {
        self.send(format!(
            "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>{resource}</resource>\
             </bind></iq>"
        ))
        .await;
        let answer = Element::parse(&self.answer("xmpp-bind").await);
        answer.all("jid").first().map(|jid| jid.text.clone()).unwrap_or_else(|| panic!("no JID in {answer:?}"))
    }

    /// Logs in and returns the full JID.
    pub(crate) async fn login(&mut self, user: &str, resource: &str) -> String {
        self.authenticated(user).await;
        self.bind(resource).await
    }

    /// Enables stream management.
    pub(crate) async fn enable(&mut self) -> Enabled {
        self.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>").await;
        let answer = self.answer("urn:xmpp:sm:3").await;
        let enabled = Element::parse(&answer);
        assert_eq!(enabled.name, "enabled", "{answer}");
        Enabled {
            id: enabled.attribute("id").unwrap_or_default().to_owned(),
            resume: enabled.attribute("resume").map(str::to_owned),
            max: enabled.attribute("max").map(|max| max.parse().unwrap()),
        }
    }

    /// Requests resumption and returns the answer, `<resumed/>` or `<failed/>`.
    pub(crate) async fn resume(&mut self, previous: &str, handled: u32) -> Element {
        self.handled = handled;
        self.send(format!("<resume xmlns='urn:xmpp:sm:3' previd='{previous}' h='{handled}'/>")).await;
        Element::parse(&self.expect("urn:xmpp:sm:3").await)
    }

    /// Sends `<presence/>` and waits until the server has it.
    pub(crate) async fn available(&mut self) {
        self.send("<presence/>").await;
        self.roundtrip().await;
    }

    /// Sends a ping to the server and waits for the answer. Everything sent before has then reached the server.
    pub(crate) async fn roundtrip(&mut self) {
        self.ping("localhost").await;
    }

    /// Sends a ping to `to` and waits for the answer. Other elements can still be read.
    pub(crate) async fn ping(&mut self, to: &str) {
        let id = format!("ping-{}", self.transcript.len());
        self.send(format!("<iq type='get' id='{id}' to='{to}'><ping xmlns='urn:xmpp:ping'/></iq>")).await;
        self.answer(&id).await;
    }

    /// Sends a chat message and waits until the server has it.
    pub(crate) async fn say(&mut self, to: &str, body: &str) {
        self.send(format!("<message type='chat' to='{to}' id='{body}'><body>{body}</body></message>")).await;
        self.roundtrip().await;
    }

    /// Ends the sending side of TLS, with its close_notify.
    pub(crate) async fn close_notify(&mut self) {
        let Socket::Tls(tls) = &mut self.socket else { panic!("not TLS") };
        // The peer may have closed already.
        drop(timeout(PATIENCE, tls.shutdown()).await);
    }

    /// Ends the sending side of the TCP connection by FIN, with neither footer nor TLS close_notify.
    pub(crate) fn fin(self) -> Half {
        SockRef::from(self.socket.tcp()).shutdown(std::net::Shutdown::Write).unwrap();
        Half { _client: self }
    }

    /// Resets the TCP connection.
    pub(crate) fn reset(self) {
        SockRef::from(self.socket.tcp()).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// A connection whose sending side has ended.
pub(crate) struct Half {
    _client: Client,
}

/// Returns `<auth/>` with PLAIN.
pub(crate) fn plain(user: &str, password: &str) -> String {
    let secret = BASE64.encode(format!("\0{user}\0{password}"));
    format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{secret}</auth>")
}
