//! A scripted server ([`StubUpstream`]). It accepts every login by itself, and leaves everything after that to the
//! test.

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

/// The offers and the automatic answers of the server.
#[derive(Clone)]
pub(crate) struct StubOptions {
    /// The content of `<stream:features/>` before authentication.
    pub(crate) before: String,
    /// The content of `<stream:features/>` after authentication.
    pub(crate) after: String,
    /// True if it answers pings by itself.
    pub(crate) pings: bool,
    /// True if it answers `<r/>` by itself.
    pub(crate) acks: bool,
    /// True if it answers `</stream:stream>` by itself.
    pub(crate) footers: bool,
    /// Number of bytes that it reads per second.
    pub(crate) reads: usize,
    /// Elements that begin with one of these get no answer. `<?xml` is the stream header.
    pub(crate) ignores: &'static [&'static str],
    /// Elements that begin with one of these are left to the test, although the script has an answer.
    pub(crate) leaves: &'static [&'static str],
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
            leaves: &[],
        }
    }
}

impl StubOptions {
    /// Options of a server with its own stream management.
    pub(crate) fn managed() -> Self {
        let mut options = Self::default();
        options.after.push_str("<sm xmlns='urn:xmpp:sm:3'/>");
        options
    }

    /// Options of a server with SASL2, Bind 2, FAST and client state indication.
    pub(crate) fn sasl2() -> Self {
        let after = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/><csi xmlns='urn:xmpp:csi:0'/>";
        Self { before: sasl2::OFFER.into(), after: after.into(), ..Self::default() }
    }

    /// Options of a server with stream management that acknowledges only on the test's order.
    pub(crate) fn slow_to_ack() -> Self {
        Self { acks: false, ..Self::managed() }
    }
}

/// The data that one connection has received.
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
    /// Number of `<r/>` received.
    pub(crate) requests: u32,
    /// Number of stanzas received since `<enable/>`.
    pub(crate) handled: Option<u32>,
    /// True if `</stream:stream>` came.
    pub(crate) footer: bool,
    /// True if the connection has ended.
    pub(crate) closed: bool,
}

impl Seen {
    /// Returns the domain to which the latest stream header is addressed.
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
    /// The address of the listener.
    pub(crate) address: SocketAddr,
    connections: mpsc::UnboundedReceiver<StubConnection>,
    options: Arc<Mutex<StubOptions>>,
}

impl StubUpstream {
    pub(crate) async fn start(options: StubOptions) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, connections) = mpsc::unbounded_channel();
        let options = Arc::new(Mutex::new(options));
        let current = Arc::clone(&options);
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                socket.set_nodelay(true).unwrap();
                let options = current.lock().unwrap().clone();
                if sender.send(StubConnection::serve(socket, options)).is_err() {
                    return;
                }
            }
        });
        Self { address, connections, options }
    }

    /// Changes the offers and answers on later connections.
    pub(crate) fn change(&self, change: impl FnOnce(&mut StubOptions)) {
        change(&mut self.options.lock().unwrap());
    }

    /// Fails if a connection has come that the test has not taken yet.
    pub(crate) fn assert_not_connected(&mut self) {
        assert!(self.connections.try_recv().is_err(), "the upstream was connected");
    }

    /// Returns the next connection, in the order in which they came.
    pub(crate) async fn connection(&mut self) -> StubConnection {
        timeout(PATIENCE, self.connections.recv()).await.expect("a connection to the upstream").unwrap()
    }

    /// Returns the next connection that binds, and discards logins that ended otherwise.
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

    /// Returns the next connection, once it is bound.
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

    /// Returns a copy of what it has received.
    pub(crate) fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }

    /// Waits until a resource is bound. Returns the full JID.
    pub(crate) async fn bound(&self) -> String {
        eventually(PATIENCE, || format!("a bind in {:?}", self.seen()), || self.seen().bound).await
    }

    /// Sends bytes to the proxy.
    pub(crate) fn send(&self, bytes: impl Into<Vec<u8>>) {
        self.orders.send(Order::Send(bytes.into())).expect("an open connection to the proxy");
    }

    /// Sends bytes to a proxy that may have closed the connection.
    pub(crate) fn try_send(&self, bytes: impl Into<Vec<u8>>) {
        drop(self.orders.send(Order::Send(bytes.into())));
    }

    /// Accepts a login that was left to the test (RFC 6120 §6.4.6). `data` is that of the `<success/>`.
    pub(crate) fn let_in(&self, user: &str, data: &str) {
        self.seen.lock().unwrap().users.push(user.to_owned());
        self.send(format!("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{data}</success>"));
    }

    /// Limits reading to this many bytes per second from now on.
    pub(crate) fn read_slowly(&self, bytes: usize) {
        self.orders.send(Order::Read(bytes)).expect("an open connection to the proxy");
    }

    /// Ends the TCP connection without a footer.
    pub(crate) fn close(&self) {
        self.orders.send(Order::Close).expect("an open connection to the proxy");
    }

    /// Returns the next element that the script did not answer itself, byte for byte.
    pub(crate) async fn next(&mut self) -> String {
        match timeout(PATIENCE, self.elements.recv()).await {
            Ok(Some(element)) => element,
            end => panic!("no element reached the upstream ({end:?}): {:?}", self.seen()),
        }
    }

    /// Returns the next element that contains `needle`, and discards those before it.
    pub(crate) async fn expect(&mut self, needle: &str) -> String {
        loop {
            let element = self.next().await;
            if element.contains(needle) {
                return element;
            }
        }
    }

    /// Returns the elements that have come and were not returned yet.
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

    /// Fails if the proxy closes the stream or the connection within `observed`. Nothing is synchronised by it.
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

    /// Requests acknowledgements repeatedly until `h` stanzas or more are acknowledged. Returns their number.
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

    /// Requests an acknowledgement (only with [`StubOptions::managed`]) and returns its `h`.
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
    /// Serves the connection. It also reads while the proxy does not read what is written.
    async fn run(self, mut socket: TcpStream, mut commands: mpsc::UnboundedReceiver<Order>) {
        let (mut reader, mut writer) = socket.split();
        let mut framer = Framer::default();
        let mut buffer = vec![0; 65536];
        let mut out = VecDeque::new();
        // A limited stub reads ten times per second.
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
                        // The test may have ended already.
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

    /// Returns the script's own answer, or `None` if the element is left to the test.
    fn element(&self, xml: &str) -> Option<String> {
        if self.options.leaves.iter().any(|start| xml.starts_with(start)) {
            return None;
        }
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
