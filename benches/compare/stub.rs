//! The server behind all proxies. It accepts every login, forwards the messages of `sN` to `rN` unchanged, and records
//! the publishes to its push service. It has a thread of its own, and stream management if that is configured.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::link::attribute;
use super::published::Published;
use super::scram;

/// Size of one read in bytes.
const READ: usize = 64 * 1024;
/// Number of connections that may wait to be accepted.
const BACKLOG: u32 = 4096;
/// Maximum wait for users to come online.
const PATIENCE: Duration = Duration::from_secs(30);

const BEFORE: &str = "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>SCRAM-SHA-1</mechanism>\
                      <mechanism>PLAIN</mechanism></mechanisms>";
const AFTER: &str = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>";
const MANAGEMENT: &str = "<sm xmlns='urn:xmpp:sm:3'/>";

/// The running server.
pub(crate) struct Stub {
    /// The address of the listener, without TLS.
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    /// True if stream management is offered.
    managed: bool,
    /// Length of every message that a client sends.
    message: AtomicUsize,
    users: Mutex<HashMap<String, Arc<Peer>>>,
    /// Number of connections that were accepted.
    accepted: AtomicUsize,
    published: Arc<Published>,
}

/// The sending side of one connection.
pub(crate) struct Peer {
    pub(crate) tcp: TcpStream,
    /// Held during a write, so that no other write comes in the middle of an element.
    turn: tokio::sync::Mutex<()>,
}

impl Peer {
    pub(crate) fn new(tcp: TcpStream) -> Arc<Self> {
        Arc::new(Self { tcp, turn: tokio::sync::Mutex::new(()) })
    }

    /// Appends what has come, at least one byte, to `buffer`. Returns an error at the end.
    pub(crate) async fn read(&self, buffer: &mut Vec<u8>) -> io::Result<()> {
        loop {
            self.tcp.readable().await?;
            buffer.reserve(READ);
            match self.tcp.try_read_buf(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes all bytes.
    pub(crate) async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        let _turn = self.turn.lock().await;
        while !bytes.is_empty() {
            match self.tcp.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.tcp.writable().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Stub {
    pub(crate) fn start(published: Arc<Published>, managed: bool) -> Self {
        let users = Mutex::new(HashMap::new());
        let (message, accepted) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let shared = Arc::new(Shared { managed, message, users, accepted, published });
        let (say, address) = std::sync::mpsc::channel();
        let serving = Arc::clone(&shared);
        let thread = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let socket = TcpSocket::new_v4().unwrap();
                socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
                let listener = socket.listen(BACKLOG).unwrap();
                say.send(listener.local_addr().unwrap()).unwrap();
                accept(listener, serving).await;
            });
        };
        std::thread::Builder::new().name("stub".into()).spawn(thread).unwrap();
        Self { address: address.recv().unwrap(), shared }
    }

    /// Sets the length of later messages.
    pub(crate) fn expect(&self, message: usize) {
        self.shared.message.store(message, Ordering::Relaxed);
    }

    /// Returns the number of connections since the start.
    pub(crate) fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Returns the connection of a user who is online.
    pub(crate) fn user(&self, name: &str) -> Arc<Peer> {
        self.shared.users.lock().unwrap().get(name).cloned().unwrap_or_else(|| panic!("{name} is not here"))
    }

    /// Returns the number of users who are online.
    pub(crate) fn online(&self) -> usize {
        self.shared.users.lock().unwrap().len()
    }

    /// Waits until this many users are online.
    pub(crate) async fn until_online(&self, users: usize) {
        let until = Instant::now() + PATIENCE;
        while self.online() != users {
            assert!(Instant::now() < until, "{} users are here instead of {users}", self.online());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        tcp.set_nodelay(true).unwrap();
        shared.accepted.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(Connection::new(Arc::clone(&shared), Peer::new(tcp)).serve());
    }
}

struct Connection {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    user: Option<String>,
    /// Its login, if that is not complete.
    scram: Option<scram::Server>,
    /// The receiver of its messages.
    partner: Option<Arc<Peer>>,
    bound: bool,
    /// Number of stanzas since stream management was enabled, or since the beginning.
    handled: u32,
}

/// The first item in the read buffer.
enum Item<'a> {
    /// Complete messages.
    Messages(&'a [u8]),
    /// Any other complete item.
    Other(&'a str),
}

impl Connection {
    fn new(shared: Arc<Shared>, peer: Arc<Peer>) -> Self {
        Self { shared, peer, user: None, scram: None, partner: None, bound: false, handled: 0 }
    }

    async fn serve(mut self) {
        // A proxy may end a connection in any way.
        self.serve_stream().await.ok();
        let Some(user) = self.user.filter(|_| self.bound) else { return };
        let mut users = self.shared.users.lock().unwrap();
        if users.get(&user).is_some_and(|peer| Arc::ptr_eq(peer, &self.peer)) {
            users.remove(&user);
        }
    }

    async fn serve_stream(&mut self) -> io::Result<()> {
        // An idle connection holds no buffer, because many of them would fill the machine's memory.
        let (mut rest, mut answers) = (Vec::new(), Vec::new());
        loop {
            if rest.is_empty() {
                self.peer.tcp.readable().await?;
            }
            let mut buffer = std::mem::take(&mut rest);
            self.peer.read(&mut buffer).await?;
            let mut at = 0;
            while let Some((item, len)) = self.item(&buffer[at..]) {
                at += len;
                match item {
                    Item::Messages(bytes) => self.hand_on(bytes).await?,
                    Item::Other(text) => self.answer(text, &mut answers),
                }
            }
            if !answers.is_empty() {
                self.peer.write(&answers).await?;
                answers = Vec::new();
            }
            if at < buffer.len() {
                buffer.drain(..at);
                rest = buffer;
            }
        }
    }

    fn item<'a>(&self, bytes: &'a [u8]) -> Option<(Item<'a>, usize)> {
        let message = self.shared.message.load(Ordering::Relaxed);
        if self.bound && bytes.starts_with(b"<m") && message > 0 {
            let mut end = 0;
            while bytes.get(end..end + message).is_some_and(|next| next.starts_with(b"<m")) {
                end += message;
            }
            return (end > 0).then(|| (Item::Messages(&bytes[..end]), end));
        }
        let len = element(bytes)?;
        Some((Item::Other(std::str::from_utf8(&bytes[..len]).unwrap()), len))
    }

    async fn hand_on(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.partner.is_none() {
            let name = format!("r{}", self.user.as_ref().unwrap().strip_prefix('s').expect("a sender"));
            self.partner = self.shared.users.lock().unwrap().get(&name).cloned();
        }
        self.handled += (bytes.len() / self.shared.message.load(Ordering::Relaxed)) as u32;
        self.partner.as_ref().expect("a receiver").write(bytes).await
    }

    fn answer(&mut self, text: &str, out: &mut Vec<u8>) {
        let answer = if text.starts_with("<stream:stream") {
            let features = if self.user.is_some() { AFTER } else { BEFORE };
            // As ejabberd: the language of the client.
            let lang = attribute(text, "xml:lang").map(|lang| format!(" xml:lang='{lang}'")).unwrap_or_default();
            let management = if self.user.is_some() && self.shared.managed { MANAGEMENT } else { "" };
            format!(
                "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
                 id='stub' from='localhost' version='1.0'{lang}><stream:features>{features}{management}</stream:features>"
            )
        } else if text.starts_with("<auth") || text.starts_with("<response") {
            self.log_in(text)
        } else if text.starts_with("<enable ") {
            self.handled = 0;
            "<enabled xmlns='urn:xmpp:sm:3'/>".into()
        } else if text.starts_with("<r ") {
            format!("<a xmlns='urn:xmpp:sm:3' h='{}'/>", self.handled)
        } else if text.starts_with("<presence") {
            self.handled += 1;
            return;
        } else if text.starts_with("<iq") {
            self.handled += 1;
            self.request(text)
        } else if text.starts_with("</stream:stream") {
            "</stream:stream>".into()
        } else {
            return;
        };
        out.extend_from_slice(answer.as_bytes());
    }

    fn log_in(&mut self, text: &str) -> String {
        let data = text.split(['>', '<']).nth(2).unwrap();
        if let Some(scram) = self.scram.take() {
            let proof = scram.finish(data);
            self.user = Some(scram.user);
            return format!("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{proof}</success>");
        }
        if attribute(text, "mechanism").as_deref() == Some(scram::MECHANISM) {
            let (scram, challenge) = scram::Server::begin(data);
            self.scram = Some(scram);
            return format!("<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{challenge}</challenge>");
        }
        self.user = Some(user(data));
        "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>".into()
    }

    fn request(&mut self, text: &str) -> String {
        let kind = attribute(text, "type").unwrap();
        if kind != "get" && kind != "set" {
            return String::new();
        }
        let id = attribute(text, "id").unwrap();
        let user = self.user.as_ref().unwrap();
        if text.contains("xmpp-bind") {
            self.bound = true;
            self.shared.users.lock().unwrap().insert(user.clone(), Arc::clone(&self.peer));
            return format!(
                "<iq type='result' id='{id}'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
                 <jid>{user}@localhost/bench</jid></bind></iq>"
            );
        }
        if text.contains("<publish ") {
            self.shared.published.arrived(text);
        }
        let from = attribute(text, "to").map(|to| format!(" from='{to}'")).unwrap_or_default();
        if text.contains("disco#info") {
            return format!(
                "<iq type='result' id='{id}'{from}><query xmlns='http://jabber.org/protocol/disco#info'>\
                 <identity category='pubsub' type='push'/><feature var='urn:xmpp:push:0'/></query></iq>"
            );
        }
        format!("<iq type='result' id='{id}'{from}/>")
    }
}

/// Returns the length of the first complete item: a tag of the stream, an element, or white space.
pub(crate) fn element(bytes: &[u8]) -> Option<usize> {
    if !bytes.starts_with(b"<") {
        return (!bytes.is_empty()).then(|| memchr::memchr(b'<', bytes).unwrap_or(bytes.len()));
    }
    let tag = memchr::memchr(b'>', bytes)? + 1;
    let lone = bytes.starts_with(b"<?") || bytes.starts_with(b"</") || bytes.starts_with(b"<stream:stream");
    if lone || bytes[..tag].ends_with(b"/>") {
        return Some(tag);
    }
    let name = bytes[1..tag].split(|byte| b" >\n\t".contains(byte)).next()?;
    let end = [b"</", name, b">"].concat();
    memchr::memmem::find(bytes, &end).map(|at| at + end.len())
}

/// Returns the user of SASL PLAIN.
fn user(proof: &str) -> String {
    let proof = String::from_utf8(BASE64.decode(proof).unwrap()).unwrap();
    proof.split('\0').nth(1).unwrap().to_owned()
}
