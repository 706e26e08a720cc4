//! A scripted server: logs anybody in by itself, and leaves everything after that to the test.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::{Element, Framer, Item, PATIENCE, eventually, sasl2};

/// What the server offers.
#[derive(Clone)]
pub(crate) struct StubOptions {
    /// Inside `<stream:features/>` before authentication.
    pub(crate) before: String,
    /// Inside `<stream:features/>` after authentication.
    pub(crate) after: String,
    /// Whether it answers pings by itself.
    pub(crate) pings: bool,
    /// Whether it answers `<r/>` by itself.
    pub(crate) acks: bool,
    /// Whether it answers `</stream:stream>` by itself.
    pub(crate) footers: bool,
    /// Bytes that it reads in a second.
    pub(crate) reads: usize,
    /// What begins with one of these is left without an answer; `<?xml` is the stream header.
    pub(crate) ignores: &'static [&'static str],
}

impl Default for StubOptions {
    fn default() -> Self {
        Self {
            before: "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>PLAIN</mechanism></mechanisms>"
                .into(),
            after: "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>".into(),
            pings: true,
            acks: true,
            footers: true,
            reads: usize::MAX,
            ignores: &[],
        }
    }
}

impl StubOptions {
    /// A server that does stream management itself.
    pub(crate) fn managed() -> Self {
        let mut options = Self::default();
        options.after.push_str("<sm xmlns='urn:xmpp:sm:3'/>");
        options
    }

    /// A server with SASL2, Bind 2, FAST and client state indication.
    pub(crate) fn sasl2() -> Self {
        let after = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/><csi xmlns='urn:xmpp:csi:0'/>";
        Self { before: sasl2::OFFER.into(), after: after.into(), ..Self::default() }
    }

    /// One that does, and acknowledges only when the test says so.
    pub(crate) fn slow_to_ack() -> Self {
        Self { acks: false, ..Self::managed() }
    }
}

/// What one connection has seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// The latest stream header.
    pub(crate) header: String,
    /// The user names of all logins.
    pub(crate) users: Vec<String>,
    /// Every `<authenticate/>`, byte for byte.
    pub(crate) authenticates: Vec<String>,
    /// The full JID, once bound.
    pub(crate) bound: Option<String>,
    /// Every `h` of an `<a/>`.
    pub(crate) acks: Vec<u32>,
    /// How many `<r/>` came.
    pub(crate) requests: u32,
    /// Stanzas received since `<enable/>`.
    pub(crate) handled: Option<u32>,
    /// Whether `</stream:stream>` came.
    pub(crate) footer: bool,
    /// Whether the connection has ended.
    pub(crate) closed: bool,
}

impl Seen {
    /// The domain that the latest stream header is addressed to.
    fn domain(&self) -> &str {
        let addressed = self.header.split_once(" to='").and_then(|(_, behind)| behind.split_once('\''));
        addressed.map_or("localhost", |(domain, _)| domain)
    }
}

enum Order {
    Send(Vec<u8>),
    Read(usize),
    Close,
}

/// A listening server.
pub(crate) struct StubUpstream {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    connections: mpsc::UnboundedReceiver<StubConnection>,
}

impl StubUpstream {
    pub(crate) async fn start(options: StubOptions) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, connections) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                socket.set_nodelay(true).unwrap();
                if sender.send(StubConnection::serve(socket, options.clone())).is_err() {
                    return;
                }
            }
        });
        Self { address, connections }
    }

    /// The next connection, in the order they came.
    pub(crate) async fn connection(&mut self) -> StubConnection {
        timeout(PATIENCE, self.connections.recv()).await.expect("a connection to the upstream").unwrap()
    }

    /// The next connection that binds; logins that ended otherwise are passed over.
    pub(crate) async fn fresh(&mut self) -> StubConnection {
        loop {
            let connection = self.connection().await;
            let settled = || {
                let seen = connection.seen();
                (seen.bound.is_some() || seen.closed).then_some(seen.bound.is_some())
            };
            if eventually(PATIENCE, || format!("a bind or the end: {:?}", connection.seen()), settled).await {
                return connection;
            }
        }
    }

    /// The next connection, once it is bound.
    pub(crate) async fn session(&mut self) -> StubConnection {
        let connection = self.connection().await;
        connection.bound().await;
        connection
    }
}

/// One connection of the proxy to the server.
pub(crate) struct StubConnection {
    seen: Arc<Mutex<Seen>>,
    elements: mpsc::UnboundedReceiver<String>,
    orders: mpsc::UnboundedSender<Order>,
}

impl StubConnection {
    fn serve(socket: TcpStream, options: StubOptions) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (forward, elements) = mpsc::unbounded_channel();
        let (orders, commands) = mpsc::unbounded_channel();
        let script = Script { options, seen: seen.clone(), forward };
        tokio::spawn(script.run(socket, commands));
        Self { seen, elements, orders }
    }

    /// A copy of what it has seen.
    pub(crate) fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }

    /// Waits until a resource is bound; returns the full JID.
    pub(crate) async fn bound(&self) -> String {
        eventually(PATIENCE, || format!("a bind in {:?}", self.seen()), || self.seen().bound).await
    }

    /// Sends bytes to the proxy.
    pub(crate) fn send(&self, bytes: impl Into<Vec<u8>>) {
        self.orders.send(Order::Send(bytes.into())).expect("an open connection to the proxy");
    }

    /// Sends where the proxy may have closed the connection.
    pub(crate) fn try_send(&self, bytes: impl Into<Vec<u8>>) {
        drop(self.orders.send(Order::Send(bytes.into())));
    }

    /// Reads so many bytes in a second from now on.
    pub(crate) fn read_slowly(&self, bytes: usize) {
        self.orders.send(Order::Read(bytes)).expect("an open connection to the proxy");
    }

    /// Ends the TCP connection without a word.
    pub(crate) fn close(&self) {
        self.orders.send(Order::Close).expect("an open connection to the proxy");
    }

    /// The next element that the script did not answer itself, byte for byte.
    pub(crate) async fn next(&mut self) -> String {
        match timeout(PATIENCE, self.elements.recv()).await {
            Ok(Some(element)) => element,
            end => panic!("no element reached the upstream ({end:?}): {:?}", self.seen()),
        }
    }

    /// The next element that contains `needle`.
    pub(crate) async fn expect(&mut self, needle: &str) -> String {
        loop {
            let element = self.next().await;
            if element.contains(needle) {
                return element;
            }
        }
    }

    /// What has come and was not taken yet.
    pub(crate) fn rest(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.elements.try_recv().ok()).collect()
    }

    /// Waits for the proxy's `</stream:stream>`.
    pub(crate) async fn footer(&self, deadline: Duration) {
        eventually(deadline, || format!("a footer: {:?}", self.seen()), || self.seen().footer.then_some(())).await;
    }

    /// Waits for the end of the connection.
    pub(crate) async fn closed(&self, deadline: Duration) {
        eventually(deadline, || format!("the end: {:?}", self.seen()), || self.seen().closed.then_some(())).await;
    }

    /// Fails if the proxy has closed the stream or the connection.
    pub(crate) fn assert_open(&self) {
        let seen = self.seen();
        assert!(!seen.footer && !seen.closed, "the upstream leg was closed: {seen:?}");
    }

    /// Fails if the proxy closes the stream or the connection within `observed`; nothing is synchronised by it.
    pub(crate) async fn assert_open_for(&self, observed: Duration) {
        let ended = || (self.seen().footer || self.seen().closed).then_some(());
        let until = Instant::now() + observed;
        while Instant::now() < until && ended().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.assert_open();
    }

    /// Acknowledges `h` stanzas.
    pub(crate) fn ack(&self, h: u32) {
        self.send(format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>"));
    }

    /// Waits until the proxy has enabled stream management.
    pub(crate) async fn managed(&self) {
        eventually(PATIENCE, || format!("<enable/>: {:?}", self.seen()), || self.seen().handled).await;
    }

    /// Asks again and again until `h` stanzas or more are acknowledged; returns how many.
    pub(crate) async fn acked(&self, h: u32, deadline: Duration) -> u32 {
        let until = Instant::now() + deadline;
        loop {
            let acked = self.request_ack().await;
            if acked >= h {
                return acked;
            }
            let now = Instant::now();
            assert!(now < until, "only {acked} of {h} stanzas are acknowledged after {deadline:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Asks for an acknowledgement (only with [`StubOptions::managed`]) and returns its `h`.
    pub(crate) async fn request_ack(&self) -> u32 {
        let before = self.seen().acks.len();
        self.send("<r xmlns='urn:xmpp:sm:3'/>");
        eventually(
            PATIENCE,
            || format!("an answer to <r/>: {:?}", self.seen()),
            || self.seen().acks.get(before..).and_then(|acks| acks.last().copied()),
        )
        .await
    }
}

struct Script {
    options: StubOptions,
    seen: Arc<Mutex<Seen>>,
    forward: mpsc::UnboundedSender<String>,
}

impl Script {
    /// Reads also while the proxy does not read what is written.
    async fn run(self, mut socket: TcpStream, mut commands: mpsc::UnboundedReceiver<Order>) {
        let (mut reader, mut writer) = socket.split();
        let mut framer = Framer::default();
        let mut buffer = vec![0; 65536];
        let mut out = VecDeque::new();
        // It reads ten times in a second where it reads slowly.
        let (mut speed, mut next_read) = (self.options.reads, Instant::now());
        loop {
            let chunk = (speed / 10).clamp(1, buffer.len());
            tokio::select! {
                biased;
                written = async { writer.write(out.as_slices().0).await }, if !out.is_empty() => match written {
                    Ok(length) => drop(out.drain(..length)),
                    Err(_) => break,
                },
                read = async {
                    tokio::time::sleep_until(next_read).await;
                    reader.read(&mut buffer[..chunk]).await
                }, if speed > 0 => match read {
                    Ok(length @ 1..) => {
                        if speed < usize::MAX {
                            next_read = Instant::now() + Duration::from_millis(100);
                        }
                        framer.push(&buffer[..length]);
                        out.extend(self.answers(&mut framer));
                    }
                    Ok(0) | Err(_) => break,
                },
                order = commands.recv() => match order {
                    Some(Order::Send(bytes)) => out.extend(bytes),
                    Some(Order::Read(bytes)) => (speed, next_read) = (bytes, Instant::now()),
                    Some(Order::Close) | None => break,
                },
            }
        }
        self.seen.lock().unwrap().closed = true;
    }

    fn answers(&self, framer: &mut Framer) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some(item) = framer.next() {
            let answer = match item {
                Item::Header(header) if self.ignores(&header) => continue,
                Item::Element(xml) if self.ignores(&xml) => continue,
                Item::Header(header) => self.header(header),
                Item::Footer => {
                    self.seen.lock().unwrap().footer = true;
                    if self.options.footers { "</stream:stream>".into() } else { String::new() }
                }
                Item::Element(xml) => match self.element(&xml) {
                    Some(answer) => answer,
                    None => {
                        // The test may have lost interest.
                        drop(self.forward.send(xml));
                        String::new()
                    }
                },
            };
            out.extend_from_slice(answer.as_bytes());
        }
        out
    }

    fn ignores(&self, xml: &str) -> bool {
        self.options.ignores.iter().any(|start| xml.starts_with(start))
    }

    fn header(&self, header: String) -> String {
        let mut seen = self.seen.lock().unwrap();
        let features = if seen.users.is_empty() { &self.options.before } else { &self.options.after };
        seen.header = header;
        let domain = seen.domain();
        format!(
            "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
             xmlns:stream='http://etherx.jabber.org/streams' id='stub-id' from='{domain}' version='1.0' \
             xml:lang='en'><stream:features>{features}</stream:features>"
        )
    }

    /// The script's own answer, or `None` where the element is the test's.
    fn element(&self, xml: &str) -> Option<String> {
        let mut seen = self.seen.lock().unwrap();
        if xml.starts_with("<auth ") {
            let user = BASE64.decode(Element::parse(xml).text).unwrap();
            let user = String::from_utf8(user).unwrap().split('\0').nth(1).unwrap().to_owned();
            seen.users.push(user);
            return Some("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>".into());
        }
        if let Some(answer) = sasl2::answer(&mut seen, xml, &self.options.after) {
            return Some(answer);
        }
        if xml.contains("urn:xmpp:sm:3") && !xml.starts_with("<iq") {
            return managed(&mut seen, xml, self.options.acks);
        }
        if let Some(handled) = seen.handled.as_mut() {
            *handled += 1;
        }
        if seen.bound.is_none() && xml.contains("xmpp-bind") {
            return Some(bind(&mut seen, xml));
        }
        if self.options.pings && xml.contains("urn:xmpp:ping") && xml.starts_with("<iq") {
            let ping = Element::parse(xml);
            let from = ping.attribute("to").map(|to| format!(" from='{to}'")).unwrap_or_default();
            return Some(format!("<iq type='result' id='{}'{from}/>", ping.attribute("id").unwrap()));
        }
        None
    }
}

fn bind(seen: &mut Seen, xml: &str) -> String {
    let request = Element::parse(xml);
    let resource = request.all("resource").first().map_or("made-up", |resource| resource.text.as_str());
    let jid = format!("{}@{}/{resource}", seen.users.last().unwrap(), seen.domain());
    seen.bound = Some(jid.clone());
    format!(
        "<iq type='result' id='{}'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>{jid}</jid></bind></iq>",
        request.attribute("id").unwrap()
    )
}

fn managed(seen: &mut Seen, xml: &str, acks: bool) -> Option<String> {
    let nonza = Element::parse(xml);
    match nonza.name.as_str() {
        "enable" => {
            seen.handled = Some(0);
            Some("<enabled xmlns='urn:xmpp:sm:3'/>".into())
        }
        "r" => {
            seen.requests += 1;
            let h = seen.handled.unwrap_or(0);
            Some(if acks { format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>") } else { String::new() })
        }
        "a" => {
            seen.acks.push(nonza.attribute("h").unwrap().parse().unwrap());
            Some(String::new())
        }
        _ => None,
    }
}
