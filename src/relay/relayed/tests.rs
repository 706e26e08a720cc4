//! Two relays in one process, in front of one scripted server. Clients of the second one have accounts of the first one.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tempfile::{TempDir, tempdir};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::cluster::directory::{Directory, DirectoryFault, NodeAddress};
use crate::cluster::node_tls::{NodePurpose, NodeTls};
use crate::cluster::testing::{Authority, address, number};
use crate::config::{Config, Listen, ListenTls, TrustedProxies};
use crate::metrics::Measured;
use crate::net::passed_client::PassedClient;
use crate::net::proxy_protocol::{self, Addresses, ProxiedClient};
use crate::net::roots;
use crate::relay::snapshot::Snapshot;
use crate::secret::Secret;
use crate::session::SmIdOrigin;
use crate::store::Store;
use crate::sync::lock;
use crate::xml::{Element, Frame, FrameLimits, ns};

const PATIENCE: Duration = Duration::from_secs(20);
const OFFER: &str = "<mechanism>SCRAM-SHA-256</mechanism><mechanism>PLAIN</mechanism>";
const FOOTER: &str = "</stream:stream>";
const AGENT: &str = "<user-agent id='d4565fa7-4d72-4749-b3d3-740edbf87770'><software>x</software></user-agent>";

/// An XMPP server whose users all have the same password.
struct XmppServer {
    address: SocketAddr,
    /// The client of each connection, as its PROXY header has it.
    clients: Mutex<Vec<SocketAddr>>,
    open: AtomicUsize,
    offer: &'static str,
}

impl XmppServer {
    async fn start(offer: &'static str) -> Arc<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Arc::new(Self { address, clients: Mutex::default(), open: AtomicUsize::new(0), offer });
        let serving = Arc::clone(&server);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&serving).serve(tcp));
            }
        });
        server
    }

    async fn serve(self: Arc<Self>, mut tcp: TcpStream) {
        let client = proxy_protocol::read(&mut tcp).await.unwrap().unwrap().client;
        lock(&self.clients).push(client);
        self.open.fetch_add(1, Ordering::SeqCst);
        let (mut conn, mut user) = (Conn::new(tcp, FrameLimits::server(1 << 16)), None);
        'stream: loop {
            while let Ok(Some(frame)) = conn.next_frame() {
                match frame {
                    Frame::Open(_) => {
                        conn.write(&crate::xml::stream_header("localhost", "s1", None));
                        conn.write(self.features(user.is_some()).as_bytes());
                    }
                    Frame::Element(element) => {
                        let answer = answer(&element, &mut user);
                        if answer.starts_with("<success") {
                            conn.framer().restart();
                        }
                        conn.write(answer.as_bytes());
                    }
                    Frame::Close => {
                        conn.write(FOOTER.as_bytes());
                        drop(conn.flush().await);
                        break 'stream;
                    }
                    Frame::Whitespace | Frame::Skipped(_) => {}
                }
            }
            if !matches!(conn.event(Io::ReadWrite).await, Ok(ConnEvent::Received | ConnEvent::Drained)) {
                break;
            }
        }
        self.open.fetch_sub(1, Ordering::SeqCst);
    }

    fn features(&self, is_authenticated: bool) -> String {
        if is_authenticated {
            return format!("<stream:features><bind xmlns='{}'/></stream:features>", ns::BIND);
        }
        format!("<stream:features><mechanisms xmlns='{}'>{}</mechanisms></stream:features>", ns::SASL, self.offer)
    }

    fn connections(&self) -> usize {
        lock(&self.clients).len()
    }
}

fn answer(element: &Element, user: &mut Option<String>) -> String {
    let node = element.node();
    let id = node.attr("id").unwrap_or_default();
    match node.name() {
        "auth" => {
            let message = String::from_utf8(STANDARD.decode(node.text().as_bytes()).unwrap()).unwrap();
            let fields: Vec<_> = message.split('\0').collect();
            if fields[2] == "secret" {
                *user = Some(fields[1].to_owned());
                return format!("<success xmlns='{}'/>", ns::SASL);
            }
            format!("<failure xmlns='{}'><not-authorized/></failure>", ns::SASL)
        }
        "iq" if node.child("bind", ns::BIND).is_some() => {
            let resource = node.child("bind", ns::BIND).and_then(|bind| bind.child("resource", ns::BIND));
            let resource = resource.map_or("r".to_owned(), |resource| resource.text().into_owned());
            let user = user.as_deref().unwrap_or_default();
            format!(
                "<iq type='result' id='{id}'><bind xmlns='{}'><jid>{user}@localhost/{resource}</jid></bind></iq>",
                ns::BIND
            )
        }
        "iq" if matches!(node.attr("type").as_deref(), Some("get" | "set")) => {
            format!(
                "<iq type='error' id='{id}'><error type='cancel'><service-unavailable xmlns='{}'/></error></iq>",
                ns::STANZA_ERRORS
            )
        }
        "message" => {
            let (from, to) = (node.attr("to").unwrap_or_default(), user.as_deref().unwrap_or_default());
            format!("<message from='{from}' to='{to}@localhost/r' type='chat'><body>{}</body></message>", body(element))
        }
        _ => String::new(),
    }
}

fn body(message: &Element) -> String {
    message.node().child("body", ns::CLIENT).map(|body| body.text().into_owned()).unwrap_or_default()
}

/// A node: a relay with its listeners.
struct Node {
    relay: Arc<Relay>,
    directory: Directory,
    tls: NodeTls,
    /// The listener for clients, with direct TLS.
    clients: SocketAddr,
    /// The same behind a proxy.
    proxied: SocketAddr,
    /// The listener for other nodes.
    nodes: SocketAddr,
    files: TempDir,
}

impl Node {
    async fn start(authority: &Authority, server: &XmppServer) -> Self {
        let (files, tls, directory) = (tempdir().unwrap(), authority.node(), Directory::of([]));
        let file = |name: &str| files.path().join(name).display().to_string();
        let config = format!(
            "[[host]]\ndomain = 'localhost'\ncertificate = '{}'\nkey = '{}'\nupstream = '{}'\n\
             upstream_proxy_protocol = 'v2'",
            file("c.pem"),
            file("c.key"),
            server.address
        );
        let config = Config::parse(&config, Path::new("c")).unwrap();
        let mut snapshot = Snapshot::load(config, 1, Secret::new(1)).unwrap();
        snapshot.node_tls = Some(Arc::new(tls.clone()));
        let store = Store::open(files.path()).unwrap();
        let relay = Relay::new(snapshot, store, CancellationToken::new()).in_cluster(directory.clone());
        let relay = Arc::new(relay);
        let clients = listen(Arc::clone(&relay), None).await;
        let proxied = listen(Arc::clone(&relay), Some(TrustedProxies::default())).await;
        let nodes = listen_for_nodes(Arc::clone(&relay)).await;
        Self { relay, directory, tls, clients, proxied, nodes, files }
    }

    fn address(&self, node: u8) -> NodeAddress {
        address(node, self.nodes, &self.tls)
    }

    fn metric(&self, line: &str) -> bool {
        let text = self.relay.metrics().text(&Measured::default()).unwrap();
        text.lines().any(|is| is == line)
    }

    async fn expect_metric(&self, line: &str) {
        let waited = timeout(PATIENCE, async {
            while !self.metric(line) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("no {line}"));
    }

    fn sessions(&self) -> usize {
        self.relay.registry().all().len()
    }

    /// Connects as a client that does not trust anybody but this node.
    async fn connect(&self) -> Phone {
        Phone::over(TcpStream::connect(self.clients).await.unwrap(), &self.files).await
    }
}

async fn listen(relay: Arc<Relay>, proxies: Option<TrustedProxies>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let is_proxied = proxies.is_some();
    let listen = Arc::new(Listen { address, tls: ListenTls::Direct, proxies });
    tokio::spawn(async move {
        while let Ok((tcp, peer)) = listener.accept().await {
            let admission = relay.guards().gate().admit((!is_proxied).then(|| peer.ip()));
            tokio::spawn(Arc::clone(&relay).serve(tcp, peer, Arc::clone(&listen), admission));
        }
    });
    address
}

async fn listen_for_nodes(relay: Arc<Relay>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, peer)) = listener.accept().await {
            let admission = relay.guards().gate().admit(None);
            tokio::spawn(Arc::clone(&relay).serve_node(tcp, peer, admission));
        }
    });
    address
}

/// The first node owns the account of juliet, and clients connect to the second one.
struct Pair {
    authority: Authority,
    server: Arc<XmppServer>,
    owner: Node,
    other: Node,
}

impl Pair {
    async fn start() -> Self {
        let server = XmppServer::start(OFFER).await;
        Self::with(Arc::clone(&server), &server).await
    }

    async fn with(server: Arc<XmppServer>, other_server: &XmppServer) -> Self {
        let authority = Authority::new();
        let (owner, other) = (Node::start(&authority, &server).await, Node::start(&authority, other_server).await);
        owner.directory.set_nodes([other.address(2)]);
        other.directory.set_nodes([owner.address(1)]);
        other.directory.set_owner("juliet@localhost", number(1));
        Self { authority, server, owner, other }
    }
}

/// A client.
struct Phone {
    tls: TlsStream<TcpStream>,
    read: String,
}

impl Phone {
    async fn over(tcp: TcpStream, files: &TempDir) -> Self {
        let roots: RootCertStore = roots::in_file(&files.path().join("c.pem")).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
        Self { tls, read: String::new() }
    }

    fn local(&self) -> SocketAddr {
        self.tls.get_ref().0.local_addr().unwrap()
    }

    fn exporter(&self) -> [u8; 32] {
        self.tls.get_ref().1.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b"")).unwrap()
    }

    async fn send(&mut self, xml: &str) {
        self.tls.write_all(xml.as_bytes()).await.unwrap();
        self.tls.flush().await.unwrap();
    }

    /// Reads up to this text and returns what was read.
    async fn expect(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = self.read.find(text) {
                return self.read.drain(..at + text.len()).collect();
            }
            let mut chunk = [0; 4096];
            let count = timeout(PATIENCE, self.tls.read(&mut chunk)).await.unwrap_or_else(|_| panic!("{}", self.read));
            let count = count.unwrap();
            assert_ne!(count, 0, "the end, and no {text} in {}", self.read);
            self.read.push_str(std::str::from_utf8(&chunk[..count]).unwrap());
        }
    }

    /// Reads up to the end and returns what was read.
    async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        // A peer that is gone ends without a notice.
        drop(timeout(PATIENCE, self.tls.read_to_end(&mut rest)).await.unwrap());
        std::mem::take(&mut self.read) + std::str::from_utf8(&rest).unwrap()
    }

    async fn open(&mut self, attributes: &str) -> String {
        self.send(&format!(
            "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
             to='localhost' version='1.0'{attributes}>"
        ))
        .await;
        self.expect("</stream:features>").await
    }

    /// Logs in and binds, as RFC 6120 has it.
    async fn log_in(&mut self) {
        self.open("").await;
        self.send(&auth("secret")).await;
        self.expect("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>").await;
        self.open("").await;
        self.send("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>").await;
        assert!(self.expect("</iq>").await.contains("<jid>juliet@localhost/r</jid>"));
    }
}

fn auth(password: &str) -> String {
    let message = STANDARD.encode(format!("\0juliet\0{password}"));
    format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{message}</auth>")
}

fn authenticate(mechanism: &str, initial: &str, inline: &str) -> String {
    format!(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='{mechanism}'><initial-response>{initial}</initial-response>{AGENT}\
         {inline}</authenticate>"
    )
}

/// A token, as the client has it.
struct Held {
    token: String,
    id: String,
}

const FROM: &str = " from='juliet@localhost'";

impl Held {
    /// Logs in by password and gets a token that is bound to TLS connections.
    async fn get(phone: &mut Phone) -> Self {
        assert!(phone.open(FROM).await.contains("HT-SHA-256-EXPR"));
        let bind = "<bind xmlns='urn:xmpp:bind:0'><tag>Phone</tag><enable xmlns='urn:xmpp:sm:3' resume='true'/></bind>";
        let wish = "<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-EXPR'/>";
        let initial = STANDARD.encode("\0juliet\0secret");
        phone.send(&authenticate("PLAIN", &initial, &format!("{bind}{wish}"))).await;
        let success = phone.expect("</success>").await;
        let attribute = |name: &str| {
            let (_, rest) = success.split_once(&format!(" {name}='")).unwrap_or_else(|| panic!("{name} in {success}"));
            rest.split('\'').next().unwrap().to_owned()
        };
        phone.expect("</stream:features>").await;
        Self { token: attribute("token"), id: attribute("id") }
    }

    /// Returns the login by token on a connection with this channel binding.
    fn login(&self, channel: &[u8; 32]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.token.as_bytes());
        let hash = hmac::sign(&key, &[&b"Initiator"[..], channel].concat());
        let initial = STANDARD.encode([b"juliet\0", hash.as_ref()].concat());
        let resume = format!("<resume xmlns='urn:xmpp:sm:3' previd='{}' h='0'/>", self.id);
        authenticate("HT-SHA-256-EXPR", &initial, &format!("{resume}<fast xmlns='urn:xmpp:fast:0'/>"))
    }
}

#[tokio::test]
async fn a_client_of_another_node_has_its_session_at_the_owner() {
    let pair = Pair::start().await;
    let mut phone = pair.other.connect().await;
    phone.log_in().await;
    assert_eq!((pair.owner.sessions(), pair.other.sessions()), (1, 0));
    assert_eq!(*lock(&pair.server.clients), [phone.local(); 2], "the server gets the address of the client");
    assert_eq!(pair.owner.relay.guards().gate().len(), 1, "it counts as a connection");
    phone.send("<message to='romeo@localhost' type='chat'><body>hello</body></message>").await;
    assert!(phone.expect("</message>").await.contains("<body>hello</body>"));
    pair.other.expect_metric("pushward_hops_total{outcome=\"passed_on\"} 1").await;
    pair.other.expect_metric("pushward_relayed_connections 1").await;
    pair.owner.expect_metric("pushward_node_connections_total{outcome=\"accepted\"} 1").await;
    // Its own end, and then that of the owner.
    phone.send(FOOTER).await;
    phone.tls.shutdown().await.unwrap();
    assert!(phone.rest().await.ends_with(FOOTER));
    pair.other.expect_metric("pushward_relayed_connections 0").await;
    assert_eq!(pair.server.connections(), 2);
}

#[tokio::test]
async fn other_accounts_stay_and_a_client_that_was_passed_on_is_not_passed_on_again() {
    let pair = Pair::start().await;
    // Each node takes the other for the owner.
    pair.owner.directory.set_owner("juliet@localhost", number(2));
    let mut phone = pair.other.connect().await;
    phone.log_in().await;
    assert_eq!((pair.owner.sessions(), pair.other.sessions()), (1, 0));
    let mut romeo = pair.other.connect().await;
    romeo.open("").await;
    romeo
        .send(&auth("secret").replace(&STANDARD.encode("\0juliet\0secret"), &STANDARD.encode("\0romeo\0secret")))
        .await;
    romeo.expect("<success").await;
    assert!(pair.other.metric("pushward_hops_total{outcome=\"passed_on\"} 1"));
}

#[tokio::test]
async fn a_refused_password_is_answered_and_the_next_attempt_goes_on() {
    let pair = Pair::start().await;
    let mut phone = pair.other.connect().await;
    phone.open("").await;
    phone.send(&auth("wrong")).await;
    phone.expect("<not-authorized/></failure>").await;
    phone.send(&auth("secret")).await;
    phone.expect("<success").await;
    assert!(pair.other.metric("pushward_hops_total{outcome=\"passed_on\"} 1"), "the stream is passed on once");
}

#[tokio::test]
async fn a_client_may_send_everything_at_once() {
    let pair = Pair::start().await;
    let mut phone = pair.other.connect().await;
    let header = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
        xmlns:stream='http://etherx.jabber.org/streams' to='localhost' version='1.0'>";
    phone
        .send(&format!("{header}{}{header}<iq type='set' id='b'><bind xmlns='{}'/></iq>", auth("secret"), ns::BIND))
        .await;
    phone.expect("<jid>juliet@localhost/r</jid>").await;
    assert_eq!(pair.owner.sessions(), 1);
}

#[tokio::test]
async fn a_token_is_bound_to_the_tls_connection_of_the_client_itself() {
    let pair = Pair::start().await;
    pair.owner.relay.current().settings.sm_ids.set(SmIdOrigin::new(number(1), 7));
    let held = Held::get(&mut pair.other.connect().await).await;
    assert!(held.id.starts_with("010007") && held.id.len() == 38, "{}", held.id);
    let asked = pair.server.connections();
    // The value of another connection: what the owner knows is not that of the TLS between the nodes either.
    let (mut phone, other) = (pair.other.connect().await, pair.other.connect().await);
    phone.open(FROM).await;
    phone.send(&held.login(&other.exporter())).await;
    phone.expect("<not-authorized").await;
    let mut phone = pair.other.connect().await;
    phone.open(FROM).await;
    phone.send(&held.login(&phone.exporter())).await;
    let success = phone.expect("</success>").await;
    assert!(success.contains("<resumed ") && success.contains("juliet@localhost/"), "{success}");
    assert_eq!(pair.server.connections(), asked, "no server is asked");
    assert_eq!((pair.owner.sessions(), pair.other.sessions()), (1, 0));
    // The session is where the account is, whatever node the client comes to.
    let mut phone = Phone::over(TcpStream::connect(pair.owner.clients).await.unwrap(), &pair.owner.files).await;
    phone.open(FROM).await;
    phone.send(&held.login(&phone.exporter())).await;
    assert!(phone.expect("</success>").await.contains("<resumed "));
}

/// Checks that a client loses its connection after its first SASL message, without a word.
async fn check_lost(pair: &Pair, outcome: &str) {
    let mut phone = pair.other.connect().await;
    phone.open("").await;
    phone.send(&auth("secret")).await;
    assert_eq!(phone.rest().await, "", "{outcome}");
    pair.other.expect_metric(&format!("pushward_hops_total{{outcome=\"{outcome}\"}} 1")).await;
    assert_eq!((pair.owner.sessions(), pair.other.sessions()), (0, 0));
}

#[tokio::test]
async fn a_client_whose_owner_cannot_be_reached_loses_its_connection_without_a_word() {
    let pair = Pair::start().await;
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address_at = |at: SocketAddr| address(1, at, &pair.owner.tls);
    let closed = free.local_addr().unwrap();
    drop(free);
    pair.other.directory.set_nodes([address_at(closed)]);
    check_lost(&pair, "unreachable").await;
    pair.other.directory.set_nodes([address_at(silent.local_addr().unwrap())]);
    check_lost(&pair, "late").await;
}

#[tokio::test]
async fn a_client_whose_owner_is_not_known_loses_its_connection_without_a_word() {
    let pair = Pair::start().await;
    pair.other.directory.set_fault(DirectoryFault::Refuses);
    check_lost(&pair, "owner_unknown").await;
    let pair = Pair::start().await;
    pair.other.directory.set_fault(DirectoryFault::Silent);
    check_lost(&pair, "owner_unknown").await;
}

#[tokio::test]
async fn nodes_that_do_not_know_each_others_certificates_pass_nothing_on() {
    let pair = Pair::start().await;
    let other = pair.authority.node();
    pair.other.directory.set_nodes([address(1, pair.owner.nodes, &other)]);
    check_lost(&pair, "untrusted").await;
    pair.owner.expect_metric("pushward_node_connections_total{outcome=\"invalid\"} 1").await;
    let pair = Pair::start().await;
    pair.owner.directory.set_nodes([]);
    check_lost(&pair, "refused").await;
    assert!(pair.owner.metric("pushward_node_connections_total{outcome=\"stranger\"} 1"));
    let pair = Pair::start().await;
    pair.owner.directory.set_fault(DirectoryFault::Refuses);
    check_lost(&pair, "refused").await;
    assert!(pair.owner.metric("pushward_node_connections_total{outcome=\"unchecked\"} 1"));
}

#[tokio::test]
async fn an_owner_with_another_offer_gets_no_password() {
    let (server, other) = (XmppServer::start("<mechanism>PLAIN</mechanism>").await, XmppServer::start(OFFER).await);
    let pair = Pair::with(server, &other).await;
    check_lost(&pair, "other_offer").await;
}

#[tokio::test]
async fn strangers_get_nothing_at_the_listener_for_nodes() {
    let pair = Pair::start().await;
    let stranger = NodeTls::new(Authority::new().issue(), pair.authority.roots()).unwrap();
    let mut tls =
        stranger.connect(TcpStream::connect(pair.owner.nodes).await.unwrap(), NodePurpose::Client).await.unwrap();
    drop(tls.write_all(&passed([7; 32]).header().unwrap()).await);
    assert!(tls.read_u8().await.is_err());
    let mut plain = TcpStream::connect(pair.owner.nodes).await.unwrap();
    plain.write_all(&passed([7; 32]).header().unwrap()).await.unwrap();
    plain.read_to_end(&mut Vec::new()).await.unwrap_or_default();
    pair.owner.expect_metric("pushward_node_connections_total{outcome=\"stranger\"} 2").await;
    // A node that passes no client on.
    for bytes in [&b"<?xml version='1.0'?><stream:stream"[..], b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2\r\n"] {
        let mut tls = pair
            .other
            .tls
            .connect(TcpStream::connect(pair.owner.nodes).await.unwrap(), NodePurpose::Client)
            .await
            .unwrap();
        tls.write_all(bytes).await.unwrap();
        assert!(tls.read_u8().await.is_err());
    }
    pair.owner.expect_metric("pushward_node_connections_total{outcome=\"invalid\"} 2").await;
    assert!(pair.owner.metric("pushward_node_connections_total{outcome=\"accepted\"} 0"));
    assert_eq!(pair.server.connections(), 0);
}

fn passed(channel: [u8; 32]) -> PassedClient {
    let addresses =
        Addresses { client: "192.0.2.7:4660".parse().unwrap(), server: "198.51.100.1:5222".parse().unwrap() };
    PassedClient { proxied: ProxiedClient { addresses, tls: None }, channel: Some(Secret::new(channel)) }
}

/// A proxy in front of a listener for clients names the client's address, and nothing else.
#[tokio::test]
async fn the_mark_of_a_node_has_no_effect_at_other_listeners() {
    const CHANNEL: [u8; 32] = [7; 32];
    let pair = Pair::start().await;
    let proxied = || async {
        let mut tcp = TcpStream::connect(pair.other.proxied).await.unwrap();
        tcp.write_all(&passed(CHANNEL).header().unwrap()).await.unwrap();
        Phone::over(tcp, &pair.other.files).await
    };
    // The login is passed on, as that of any client.
    let held = Held::get(&mut proxied().await).await;
    assert_eq!((pair.owner.sessions(), pair.other.sessions()), (1, 0));
    assert_eq!(lock(&pair.server.clients).last().unwrap().to_string(), "192.0.2.7:4660");
    let mut phone = proxied().await;
    phone.open(FROM).await;
    phone.send(&held.login(&CHANNEL)).await;
    phone.expect("<not-authorized").await;
    let mut phone = proxied().await;
    phone.open(FROM).await;
    phone.send(&held.login(&phone.exporter())).await;
    assert!(phone.expect("</success>").await.contains("<resumed "));
    // Without a proxy in front, the bytes are no TLS.
    let mut tcp = TcpStream::connect(pair.other.clients).await.unwrap();
    tcp.write_all(&passed(CHANNEL).header().unwrap()).await.unwrap();
    assert!(tcp.read_to_end(&mut Vec::new()).await.is_ok_and(|count| count < 50));
}

#[tokio::test]
async fn an_end_of_the_node_ends_the_streams_that_it_passes_on() {
    let pair = Pair::start().await;
    let (mut phone, mut second) = (pair.other.connect().await, pair.other.connect().await);
    phone.log_in().await;
    pair.other.relay.drain();
    assert_eq!(phone.rest().await, "", "the stream is that of the owner, which goes on with the session");
    assert_eq!(pair.owner.sessions(), 1);
    assert!(second.rest().await.is_empty() || !second.read.contains("relayed"));

    let pair = Pair::start().await;
    let mut phone = pair.other.connect().await;
    phone.log_in().await;
    pair.other.relay.freeze();
    assert_eq!(phone.rest().await, "");
    pair.other.expect_metric("pushward_relayed_connections 0").await;

    let pair = Pair::start().await;
    let mut phone = pair.other.connect().await;
    phone.log_in().await;
    pair.owner.relay.drain();
    let last = phone.rest().await;
    assert!(last.contains("<system-shutdown") && last.ends_with(FOOTER), "{last}");
}

// The copy

const LIMITS: FrameLimits = FrameLimits::new(1 << 20, 32);

/// A copy, and both ends of it.
struct Ends {
    client: DuplexStream,
    node: DuplexStream,
    end: tokio::task::JoinHandle<CopyEnd>,
}

fn copy(patience: Duration) -> Ends {
    let ((client, near), (node, far)) = (duplex(1000), duplex(1000));
    let end = tokio::spawn(async move {
        let (mut near, mut far) = (Conn::new(near, LIMITS), Conn::new(far, LIMITS));
        let never = CancellationToken::new();
        let mut copy = StreamCopy::new(&mut near, &mut far, patience);
        copy.last_bytes = patience;
        copy.run(pin!(never.cancelled())).await
    });
    Ends { client, node, end }
}

#[tokio::test]
async fn bytes_pass_in_both_directions_at_once() {
    let Ends { client, node, end } = copy(PATIENCE);
    let bytes: Vec<u8> = (0..251).cycle().take(300_000).collect();
    let (mut from_node, mut to_node) = tokio::io::split(client);
    let (mut from_client, mut to_client) = tokio::io::split(node);
    let (mut at_node, mut at_client) = (vec![0; bytes.len()], vec![0; bytes.len()]);
    let (one, two, three, four) = tokio::join!(
        to_node.write_all(&bytes),
        to_client.write_all(&bytes),
        from_client.read_exact(&mut at_node),
        from_node.read_exact(&mut at_client)
    );
    assert!(one.is_ok() && two.is_ok() && three.is_ok() && four.is_ok());
    assert!(at_node == bytes && at_client == bytes);
    drop((from_client, to_client));
    assert_eq!(end.await.unwrap(), CopyEnd::Node);
}

#[tokio::test]
async fn the_end_of_the_clients_side_is_passed_on_and_the_answer_to_it_too() {
    let Ends { mut client, mut node, end } = copy(PATIENCE);
    client.write_all(b"last").await.unwrap();
    client.shutdown().await.unwrap();
    let mut read = Vec::new();
    node.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, b"last");
    node.write_all(b"answer").await.unwrap();
    let mut answer = [0; 6];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"answer");
    drop(node);
    assert_eq!(end.await.unwrap(), CopyEnd::Node);
}

#[tokio::test]
async fn an_owner_that_does_not_end_its_side_and_a_peer_that_does_not_read_are_given_up() {
    let short = Duration::from_millis(300);
    let Ends { mut client, node, end } = copy(short);
    client.shutdown().await.unwrap();
    assert_eq!(end.await.unwrap(), CopyEnd::Lost);
    drop(node);
    let Ends { mut client, mut node, end } = copy(short);
    // Nothing but a bounded number of bytes is taken for a client that does not read.
    let mut taken = 0;
    while node.write_all(&[b' '; 1000]).await.is_ok() {
        taken += 1000;
    }
    assert!(taken <= WAITING + 4000, "{taken} bytes");
    assert_eq!(end.await.unwrap(), CopyEnd::Lost);
    assert!(client.read_to_end(&mut Vec::new()).await.is_ok());
}
