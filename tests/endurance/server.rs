//! An XMPP server in memory. It accepts every login, keeps messages that nobody has acknowledged, and sends them to the
//! next session.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::ledger::Ledger;
use crate::xml::{Element, Framer, Item};

/// The state of one account.
#[derive(Default)]
struct Account {
    /// Messages that no session has acknowledged.
    offline: VecDeque<usize>,
    /// Sessions that have sent available presence, the newest last.
    sessions: Vec<(u64, mpsc::UnboundedSender<usize>)>,
}

/// The server. Accounts with an even number have stream management.
pub(crate) struct Server {
    pub(crate) ledger: Ledger,
    accounts: Vec<Mutex<Account>>,
    /// Bytes written on open connections of servers without stream management, by the proxy's port.
    written: Mutex<HashMap<u16, Written>>,
}

/// The data written on a connection.
#[derive(Default)]
struct Written {
    bytes: usize,
    /// Messages, each with the number of bytes after it.
    messages: VecDeque<(usize, usize)>,
}

/// Maximum number of messages of a connection that are remembered as possibly unread.
const REMEMBERED: usize = 1 << 16;

pub(crate) fn is_managed(account: usize) -> bool {
    account.is_multiple_of(2)
}

impl Server {
    pub(crate) async fn start(accounts: usize) -> (Arc<Self>, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Arc::new(Self {
            ledger: Ledger::default(),
            accounts: (0..accounts).map(|_| Mutex::default()).collect(),
            written: Mutex::default(),
        });
        let serving = Arc::clone(&server);
        tokio::spawn(async move {
            for number in 0.. {
                let (tcp, peer) = listener.accept().await.unwrap();
                drop(tcp.set_nodelay(true));
                tokio::spawn(Connection::new(Arc::clone(&serving), (number, peer.port())).run(tcp));
            }
        });
        (server, address)
    }

    fn account(&self, account: usize) -> MutexGuard<'_, Account> {
        self.accounts[account].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a message to the account. One with an even number is addressed to the account itself, and all of its
    /// sessions get it, as with equal priorities (RFC 6121 §8.5.2.1). One with an odd number goes to the newest
    /// session. Without a session it waits.
    pub(crate) fn send(&self, number: usize, account: usize) {
        let mut state = self.account(account);
        let ledger = &self.ledger;
        state.sessions.retain(|(_, session)| !session.is_closed());
        let wanted = if is_to_account(number) { usize::MAX } else { 1 };
        for (_, session) in state.sessions.iter().rev().take(wanted) {
            ledger.held(number);
            session.send(number).ok();
        }
        if state.sessions.is_empty() {
            state.offline.push_back(number);
        }
    }

    fn written(&self) -> MutexGuard<'_, HashMap<u16, Written>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the messages that were written and that the proxy has not read.
    pub(crate) fn unread(&self) -> HashSet<usize> {
        let queues = Queues::read();
        let mut unread = HashSet::new();
        for (port, written) in self.written().iter() {
            let beyond = written.bytes.saturating_sub(queues.waiting(*port));
            unread.extend(written.messages.iter().filter(|(_, end)| *end > beyond).map(|(number, _)| *number));
        }
        unread
    }

    /// Returns the number of messages that no session received, or that came back from one.
    pub(crate) fn offline(&self) -> usize {
        (0..self.accounts.len()).map(|account| self.account(account).offline.len()).sum()
    }
}

/// Returns true if a message is addressed to the account rather than to a session.
fn is_to_account(number: usize) -> bool {
    number.is_multiple_of(2)
}

/// Bytes in the kernel that were written and not read, by the ports of both ends of a connection.
struct Queues(HashMap<(u16, u16), usize>);

impl Queues {
    fn read() -> Self {
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let hexadecimal = |text: &str| usize::from_str_radix(text, 16).unwrap_or_default();
        let port = |address: &str| {
            u16::try_from(hexadecimal(address.rsplit(':').next().unwrap_or_default())).unwrap_or_default()
        };
        let mut queues = HashMap::new();
        for line in table.lines().skip(1) {
            let fields: Vec<_> = line.split_whitespace().collect();
            let (local, remote) = (port(fields[1]), port(fields[2]));
            let (sent, received) = fields[4].split_once(':').unwrap();
            *queues.entry((local, remote)).or_default() += hexadecimal(sent);
            *queues.entry((remote, local)).or_default() += hexadecimal(received);
        }
        Self(queues)
    }

    /// Returns the number of bytes on their way to the end with this port.
    fn waiting(&self, port: u16) -> usize {
        self.0.iter().filter(|((_, to), _)| *to == port).map(|(_, bytes)| bytes).sum()
    }
}

/// One connection of the proxy.
struct Connection {
    server: Arc<Server>,
    number: u64,
    /// The proxy's port.
    port: u16,
    account: Option<usize>,
    /// The resource, once it is bound.
    resource: Option<String>,
    /// Messages written and not acknowledged, each with its number among the stanzas written.
    unacked: VecDeque<(u32, usize)>,
    managed: bool,
    written: u32,
    handled: u32,
    messages: mpsc::UnboundedReceiver<usize>,
    own: mpsc::UnboundedSender<usize>,
}

impl Connection {
    fn new(server: Arc<Server>, (number, port): (u64, u16)) -> Self {
        let (own, messages) = mpsc::unbounded_channel();
        Self {
            server,
            number,
            port,
            account: None,
            resource: None,
            unacked: VecDeque::new(),
            managed: false,
            written: 0,
            handled: 0,
            messages,
            own,
        }
    }

    async fn run(mut self, mut tcp: TcpStream) {
        let mut framer = Framer::default();
        let mut buffer = vec![0; 65536];
        loop {
            let (out, over) = tokio::select! {
                read = tcp.read(&mut buffer) => match read {
                    Ok(length @ 1..) => {
                        framer.push(&buffer[..length]);
                        self.answers(&mut framer)
                    }
                    Ok(0) | Err(_) => break,
                },
                message = self.messages.recv() => (message.map(|number| self.message(number)).unwrap_or_default(), false),
            };
            if !out.is_empty() && self.account.is_some_and(|account| !is_managed(account)) {
                self.server.written().entry(self.port).or_default().bytes += out.len();
            }
            if tcp.write_all(out.as_bytes()).await.is_err() || over {
                break;
            }
        }
        self.over();
    }

    fn over(mut self) {
        let Some(account) = self.account else { return };
        let mut state = self.server.account(account);
        state.sessions.retain(|(number, _)| *number != self.number);
        self.messages.close();
        let mut back: VecDeque<usize> = self.unacked.iter().map(|(_, message)| *message).collect();
        while let Ok(message) = self.messages.try_recv() {
            back.push_back(message);
        }
        drop(state);
        self.server.written().remove(&self.port);
        // Messages that no other session has or had go to the next session, or wait.
        for message in back {
            if self.server.ledger.comes_back(message) {
                self.server.send(message, account);
            }
        }
    }

    fn message(&mut self, number: usize) -> String {
        self.written = self.written.wrapping_add(1);
        let account = self.account.unwrap_or_default();
        self.server.ledger.handed(number);
        let padding = "x".repeat(number % 700);
        let resource = self.resource.as_ref().filter(|_| !is_to_account(number));
        let to = resource.map_or_else(String::new, |resource| format!("/{resource}"));
        let message = format!(
            "<message type='chat' from='peer@remote.example/x' to='user-{account}@localhost{to}' id='m{number}'>\
             <body>m{number} {padding}</body></message>"
        );
        if is_managed(account) {
            self.unacked.push_back((self.written, number));
        } else {
            self.server.ledger.given_away(number);
            let mut all = self.server.written();
            let written = all.entry(self.port).or_default();
            written.messages.push_back((number, written.bytes + message.len()));
            written.messages.drain(..written.messages.len().saturating_sub(REMEMBERED));
        }
        message
    }

    fn answers(&mut self, framer: &mut Framer) -> (String, bool) {
        let mut out = String::new();
        while let Some(item) = framer.next() {
            match item {
                Item::Header(_) => out.push_str(&self.header()),
                Item::Footer => {
                    out.push_str("</stream:stream>");
                    return (out, true);
                }
                Item::Element(xml) => out.push_str(&self.element(&xml)),
            }
        }
        (out, false)
    }

    fn header(&self) -> String {
        let features = match self.account {
            None => "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>PLAIN</mechanism></mechanisms>",
            Some(account) if is_managed(account) => {
                "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/><sm xmlns='urn:xmpp:sm:3'/>"
            }
            Some(_) => "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>",
        };
        format!(
            "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
             id='s{}' from='localhost' version='1.0'><stream:features>{features}</stream:features>",
            self.number
        )
    }

    fn element(&mut self, xml: &str) -> String {
        if xml.starts_with("<auth ") {
            let user = BASE64.decode(Element::parse(xml).text).unwrap();
            let user = String::from_utf8(user).unwrap().split('\0').nth(1).unwrap().to_owned();
            self.account = user.strip_prefix("user-").and_then(|number| number.parse().ok());
            return "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>".into();
        }
        if xml.contains("urn:xmpp:sm:3") && !xml.starts_with("<iq") {
            return self.nonza(xml);
        }
        self.handled = self.handled.wrapping_add(1);
        if xml.starts_with("<presence") && !xml.contains(" to=") {
            self.presence(xml);
        } else if xml.starts_with("<iq") {
            return self.iq(xml);
        } else if xml.starts_with("<message") && xml.contains("error") {
            let message = Element::parse(xml);
            let number = message.attribute("id").and_then(|id| id.strip_prefix('m')?.parse().ok());
            if let (Some("error"), Some(number)) = (message.attribute("type"), number) {
                self.server.ledger.returned(number);
            }
        }
        String::new()
    }

    fn nonza(&mut self, xml: &str) -> String {
        let nonza = Element::parse(xml);
        match nonza.name.as_str() {
            "enable" => {
                (self.managed, self.handled, self.written) = (true, 0, 0);
                return "<enabled xmlns='urn:xmpp:sm:3'/>".into();
            }
            "r" => return format!("<a xmlns='urn:xmpp:sm:3' h='{}'/>", self.handled),
            "a" => {
                let h: u32 = nonza.attribute("h").and_then(|h| h.parse().ok()).unwrap_or_default();
                while let Some((_, message)) = self.unacked.front().copied().filter(|(place, _)| *place <= h) {
                    self.server.ledger.given_away(message);
                    self.unacked.pop_front();
                }
            }
            _ => {}
        }
        String::new()
    }

    fn presence(&mut self, xml: &str) {
        let (Some(account), Some(_)) = (self.account, &self.resource) else { return };
        let mut state = self.server.account(account);
        state.sessions.retain(|(number, _)| *number != self.number);
        if !xml.contains("unavailable") {
            state.sessions.push((self.number, self.own.clone()));
            for message in std::mem::take(&mut state.offline) {
                self.server.ledger.held(message);
                self.own.send(message).ok();
            }
        }
    }

    fn iq(&mut self, xml: &str) -> String {
        let iq = Element::parse(xml);
        let id = iq.attribute("id").unwrap_or_default();
        if !matches!(iq.attribute("type"), Some("get" | "set")) {
            return String::new();
        }
        self.written = self.written.wrapping_add(u32::from(self.managed));
        if xml.contains("xmpp-bind") {
            let resource = iq.all("resource").first().map_or("r".to_owned(), |resource| resource.text.clone());
            let account = self.account.unwrap_or_default();
            self.resource = Some(resource.clone());
            return format!(
                "<iq type='result' id='{id}'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
                 <jid>user-{account}@localhost/{resource}</jid></bind></iq>"
            );
        }
        let from = iq.attribute("to").map(|to| format!(" from='{to}'")).unwrap_or_default();
        format!("<iq type='result' id='{id}'{from}/>")
    }
}
