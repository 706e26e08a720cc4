//! An XMPP server in memory: logs everybody in, keeps what nobody has acknowledged, and hands it to the next session.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::ledger::Ledger;
use crate::xml::{Element, Framer, Item};

/// What is known of one account.
#[derive(Default)]
struct Account {
    /// Messages that no session has acknowledged.
    offline: VecDeque<usize>,
    /// Sessions that have sent available presence, the newest last.
    sessions: Vec<(u64, mpsc::UnboundedSender<usize>)>,
}

/// The server; accounts with an even number have stream management.
pub(crate) struct Server {
    pub(crate) ledger: Ledger,
    accounts: Vec<Mutex<Account>>,
}

pub(crate) fn is_managed(account: usize) -> bool {
    account.is_multiple_of(2)
}

impl Server {
    pub(crate) async fn start(accounts: usize) -> (Arc<Self>, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server =
            Arc::new(Self { ledger: Ledger::default(), accounts: (0..accounts).map(|_| Mutex::default()).collect() });
        let serving = Arc::clone(&server);
        tokio::spawn(async move {
            for number in 0.. {
                let (tcp, _) = listener.accept().await.unwrap();
                drop(tcp.set_nodelay(true));
                tokio::spawn(Connection::new(Arc::clone(&serving), number).run(tcp));
            }
        });
        (server, address)
    }

    fn account(&self, account: usize) -> MutexGuard<'_, Account> {
        self.accounts[account].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message for the account: it goes to one of its sessions, or waits.
    pub(crate) fn send(&self, number: usize, account: usize) {
        let mut state = self.account(account);
        while let Some((_, session)) = state.sessions.last() {
            if session.send(number).is_ok() {
                return;
            }
            state.sessions.pop();
        }
        state.offline.push_back(number);
    }

    /// Messages that no session was given, or that came back from one.
    pub(crate) fn offline(&self) -> usize {
        (0..self.accounts.len()).map(|account| self.account(account).offline.len()).sum()
    }
}

/// One connection of the proxy.
struct Connection {
    server: Arc<Server>,
    number: u64,
    account: Option<usize>,
    bound: bool,
    /// Messages written and not acknowledged: their places among the stanzas written.
    unacked: VecDeque<(u32, usize)>,
    managed: bool,
    written: u32,
    handled: u32,
    messages: mpsc::UnboundedReceiver<usize>,
    own: mpsc::UnboundedSender<usize>,
}

impl Connection {
    fn new(server: Arc<Server>, number: u64) -> Self {
        let (own, messages) = mpsc::unbounded_channel();
        Self {
            server,
            number,
            account: None,
            bound: false,
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
        // As RFC 6121 §8.5.2 has it, another session gets them, or they wait.
        back.into_iter().for_each(|message| self.server.send(message, account));
    }

    fn message(&mut self, number: usize) -> String {
        self.written = self.written.wrapping_add(1);
        let account = self.account.unwrap_or_default();
        if is_managed(account) {
            self.unacked.push_back((self.written, number));
        }
        self.server.ledger.handed(number);
        let padding = "x".repeat(number % 700);
        format!(
            "<message type='chat' from='peer@remote.example/x' to='user-{account}@localhost' id='m{number}'>\
             <body>m{number} {padding}</body></message>"
        )
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
                while self.unacked.front().is_some_and(|(place, _)| *place <= h) {
                    self.unacked.pop_front();
                }
            }
            _ => {}
        }
        String::new()
    }

    fn presence(&mut self, xml: &str) {
        let (Some(account), true) = (self.account, self.bound) else { return };
        let mut state = self.server.account(account);
        state.sessions.retain(|(number, _)| *number != self.number);
        if !xml.contains("unavailable") {
            state.sessions.push((self.number, self.own.clone()));
            for message in std::mem::take(&mut state.offline) {
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
            self.bound = true;
            let resource = iq.all("resource").first().map_or("r".to_owned(), |resource| resource.text.clone());
            let account = self.account.unwrap_or_default();
            return format!(
                "<iq type='result' id='{id}'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
                 <jid>user-{account}@localhost/{resource}</jid></bind></iq>"
            );
        }
        let from = iq.attribute("to").map(|to| format!(" from='{to}'")).unwrap_or_default();
        format!("<iq type='result' id='{id}'{from}/>")
    }
}
