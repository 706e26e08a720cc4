//! An XMPP server in memory, with one session for each account. It counts logins, connections and what arrives.

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

/// The connections and logins of a server so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Census {
    pub(crate) accepted: usize,
    pub(crate) closed: usize,
    pub(crate) logins: usize,
    pub(crate) presences: usize,
}

/// The server.
pub(crate) struct Server {
    accounts: Vec<Mutex<Account>>,
    accepted: AtomicUsize,
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
                tokio::spawn(Connection { server: Arc::clone(&serving), account: None, out: String::new() }.run(tcp));
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
            accepted: self.accepted.load(Ordering::Relaxed),
            closed: self.closed.load(Ordering::Relaxed),
            logins: self.each(|account| account.logins).iter().sum(),
            presences: self.each(|account| account.presences).iter().sum(),
        }
    }
}

/// One connection of the proxy.
struct Connection {
    server: Arc<Server>,
    account: Option<usize>,
    /// Bytes to write that belong to no session yet.
    out: String,
}

impl Connection {
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
        self.server.closed.fetch_add(1, Ordering::Relaxed);
    }

    /// Processes what has been read. Returns false at the end of the stream.
    fn read(&mut self, framer: &mut Framer, own: &mpsc::UnboundedSender<String>) -> bool {
        while let Some(item) = framer.next() {
            match item {
                Item::Header(_) => self.header(),
                Item::Footer => return false,
                Item::Element(xml) => match self.account {
                    Some(account) => self.element(account, &xml),
                    None => self.login(&xml, own),
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

    fn login(&mut self, xml: &str, own: &mpsc::UnboundedSender<String>) {
        let user = BASE64.decode(Element::parse(xml).text).unwrap_or_default();
        let user = String::from_utf8_lossy(&user).into_owned();
        let number = user.split('\0').nth(1).and_then(|name| name.strip_prefix("user-")?.parse::<usize>().ok());
        match number {
            Some(number) => {
                self.account = Some(number);
                self.server.account(number).attach(own.clone());
                self.out.push_str("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
            }
            None => self.server.findings.add("only logins come first", xml),
        }
    }

    fn element(&self, account: usize, xml: &str) {
        let round = self.server.round.load(Ordering::Relaxed);
        self.server.account(account).element(xml, round, &self.server.findings);
    }
}
