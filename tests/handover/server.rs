//! An XMPP server in memory, with one session for each account. It counts logins, connections and what arrives.
//!
//! A client that resumes with a password makes Pushward log in at the server to check it, bind nothing, and close that connection.
//! So there is one login for each login of a client, and one bind for each session.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::account::{Account, is_managed};
use crate::findings::Findings;
use crate::xml::{Element, Framer, Item};

/// The sessions of a server so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Census {
    pub(crate) bound: usize,
    /// Connections with a session that were closed.
    pub(crate) closed: usize,
    pub(crate) presences: usize,
}

/// The server.
pub(crate) struct Server {
    accounts: Vec<Mutex<Account>>,
    pub(crate) accepted: AtomicUsize,
    pub(crate) logins: AtomicUsize,
    closed: AtomicUsize,
    /// The number of the current round.
    pub(crate) round: AtomicU32,
    pub(crate) findings: Arc<Findings>,
}

impl Server {
    pub(crate) async fn start(accounts: usize, seed: u64, findings: Arc<Findings>) -> (Arc<Self>, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Arc::new(Self {
            accounts: (0..accounts).map(|number| Mutex::new(Account::new(number, seed))).collect(),
            accepted: AtomicUsize::new(0),
            logins: AtomicUsize::new(0),
            closed: AtomicUsize::new(0),
            round: AtomicU32::new(0),
            findings,
        });
        let serving = Arc::clone(&server);
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                drop(tcp.set_nodelay(true));
                serving.accepted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(Connection::new(Arc::clone(&serving)).run(tcp));
            }
        });
        (server, address)
    }

    pub(crate) fn account(&self, account: usize) -> MutexGuard<'_, Account> {
        self.accounts[account].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a value of each account.
    pub(crate) fn each<T>(&self, value: impl Fn(&Account) -> T) -> Vec<T> {
        (0..self.accounts.len()).map(|account| value(&self.account(account))).collect()
    }

    pub(crate) fn census(&self) -> Census {
        Census {
            bound: self.each(|account| account.binds).iter().sum(),
            closed: self.closed.load(Ordering::Relaxed),
            presences: self.each(|account| account.presences).iter().sum(),
        }
    }
}

/// One connection of the proxy.
struct Connection {
    server: Arc<Server>,
    account: Option<usize>,
    is_bound: bool,
    /// Bytes to write that belong to no session yet.
    out: String,
}

impl Connection {
    fn new(server: Arc<Server>) -> Self {
        Self { server, account: None, is_bound: false, out: String::new() }
    }

    async fn run(mut self, mut tcp: TcpStream) {
        let mut framer = Framer::default();
        let mut buffer = vec![0; 16384];
        let (own, mut to_client) = mpsc::unbounded_channel::<String>();
        loop {
            let event = tokio::select! {
                read = tcp.read(&mut buffer) => Err(read),
                out = to_client.recv() => Ok(out),
            };
            match event {
                Err(Ok(length @ 1..)) => framer.push(&buffer[..length]),
                Err(Ok(0) | Err(_)) | Ok(None) => break,
                Ok(Some(out)) => self.out.push_str(&out),
            }
            if !self.read(&mut framer, &own) {
                break;
            }
            while let Ok(out) = to_client.try_recv() {
                self.out.push_str(&out);
            }
            if tcp.write_all(self.out.as_bytes()).await.is_err() {
                break;
            }
            self.out.clear();
        }
        self.server.closed.fetch_add(usize::from(self.is_bound), Ordering::Relaxed);
    }

    /// Processes what has been read. Returns false at the end of the stream.
    fn read(&mut self, framer: &mut Framer, own: &mpsc::UnboundedSender<String>) -> bool {
        while let Some(item) = framer.next() {
            match item {
                Item::Header(_) => self.header(),
                Item::Footer => return false,
                Item::Element(xml) => match self.account {
                    Some(account) => self.element(account, &xml, own),
                    None => self.login(&xml),
                },
            }
        }
        true
    }

    fn header(&mut self) {
        let features = match self.account {
            None => "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>PLAIN</mechanism></mechanisms>",
            Some(account) if is_managed(account) => {
                "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/><sm xmlns='urn:xmpp:sm:3'/>"
            }
            Some(_) => "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>",
        };
        self.out.push_str(&format!(
            "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
             id='s' from='localhost' version='1.0'><stream:features>{features}</stream:features>"
        ));
    }

    fn login(&mut self, xml: &str) {
        let user = BASE64.decode(Element::parse(xml).text).unwrap_or_default();
        let user = String::from_utf8_lossy(&user).into_owned();
        let number = user.split('\0').nth(1).and_then(|name| name.strip_prefix("user-")?.parse::<usize>().ok());
        match number {
            Some(number) => {
                self.account = Some(number);
                self.server.logins.fetch_add(1, Ordering::Relaxed);
                self.out.push_str("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
            }
            None => self.server.findings.add("only logins come first", xml),
        }
    }

    fn element(&mut self, number: usize, xml: &str, own: &mpsc::UnboundedSender<String>) {
        let round = self.server.round.load(Ordering::Relaxed);
        let mut account = self.server.account(number);
        if !std::mem::replace(&mut self.is_bound, true) {
            account.attach(own.clone());
        }
        account.element(xml, round, &self.server.findings);
    }
}
