//! A client connection of low cost: one read and one write per wake-up, however many messages they contain.

use std::cell::RefCell;
use std::io::{self, IoSlice, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::tls::DOMAIN;

/// Size of one read in bytes.
const READ: usize = 64 * 1024;
/// Maximum wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// The password of every user.
pub(crate) const PASSWORD: &str = "bench";
/// Number of addresses that clients connect from, in turn. One address has only 28,000 ports.
const SOURCES: u32 = 64;

const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
                      xmlns:stream='http://etherx.jabber.org/streams' to='localhost' version='1.0'>";

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
}

/// The address that clients connect to, with its settings.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// `None` for a connection without TLS, directly to the server.
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// True if clients enable stream management, because the proxy or server at the address offers it.
    pub(crate) managed: bool,
}

/// A client connection.
pub(crate) struct Link {
    pub(crate) tcp: TcpStream,
    pub(crate) tls: Option<Box<ClientConnection>>,
    /// Bytes that were read and not processed yet.
    pub(crate) inbox: Vec<u8>,
}

impl Link {
    /// Connects, and performs the TLS handshake.
    pub(crate) async fn connect(target: &Target) -> io::Result<Self> {
        let mut link = Self::open(target).await?;
        link.secure().await?;
        Ok(link)
    }

    /// Connects. The TLS handshake follows with [`Link::secure`].
    pub(crate) async fn open(target: &Target) -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let source = Ipv4Addr::from_bits(0x7f00_0101 + NEXT.fetch_add(1, Ordering::Relaxed) % SOURCES);
        let socket = TcpSocket::new_v4()?;
        if target.address.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) {
            socket.bind(SocketAddr::new(source.into(), 0))?;
        }
        let tcp = socket.connect(target.address).await?;
        tcp.set_nodelay(true)?;
        let tls = target.tls.clone().map(|config| {
            let mut tls = ClientConnection::new(config, ServerName::try_from(DOMAIN).unwrap()).unwrap();
            tls.set_buffer_limit(None);
            Box::new(tls)
        });
        Ok(Self { tcp, tls, inbox: Vec::new() })
    }

    /// Performs the TLS handshake, if there is one. Returns its round trips.
    pub(crate) async fn secure(&mut self) -> io::Result<u32> {
        self.patient(Self::handshake).await
    }

    async fn handshake(&mut self) -> io::Result<u32> {
        let mut round_trips = 0;
        while let Some(tls) = self.tls.as_ref().filter(|tls| tls.is_handshaking()) {
            round_trips += u32::from(tls.wants_write());
            self.flush().await?;
            self.read().await?;
        }
        self.flush().await?;
        Ok(round_trips)
    }

    /// Logs in with SASL PLAIN, up to the features after it.
    pub(crate) async fn authenticate(&mut self, user: &str) -> io::Result<()> {
        self.request(HEADER, b"</stream:features>").await?;
        let proof = BASE64.encode(format!("\0{user}\0{PASSWORD}"));
        let auth = format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{proof}</auth>");
        self.request(&auth, b"<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>").await?;
        self.request(HEADER, b"</stream:features>").await.map(drop)
    }

    /// Logs in, up to the result of the bind.
    pub(crate) async fn log_in(target: &Target, user: &str) -> io::Result<Self> {
        let mut link = Self::connect(target).await?;
        link.authenticate(user).await?;
        let bind = "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
                    <resource>bench</resource></bind></iq>";
        link.request(bind, b"</iq>").await?;
        Ok(link)
    }

    /// Logs in, enables stream management if it is offered, and sends the client's first stanzas.
    pub(crate) async fn session(target: &Target, user: &str) -> io::Result<(Self, Option<String>)> {
        let mut link = Self::log_in(target, user).await?;
        if let Some(tickets) = link.tls.as_ref().map(|tls| tls.tls13_tickets_received()).filter(|tickets| *tickets != 1)
        {
            static UNEQUAL: Once = Once::new();
            UNEQUAL.call_once(|| eprintln!("  one of them gives {tickets} tickets instead of 1"));
        }
        let mut id = None;
        if target.managed {
            let enabled = link.request("<enable xmlns='urn:xmpp:sm:3' resume='true'/>", b"/>").await?;
            id = attribute(&enabled, "id");
            assert!(id.is_some(), "stream management is not enabled: {enabled}");
        }
        link.send(b"<presence/>").await?;
        Ok((link, id))
    }

    /// Sends bytes and returns what comes up to `end`.
    pub(crate) async fn request(&mut self, bytes: &str, end: &[u8]) -> io::Result<String> {
        self.send(bytes.as_bytes()).await?;
        self.until(end).await
    }

    /// Returns what comes up to `end`.
    pub(crate) async fn until(&mut self, end: &[u8]) -> io::Result<String> {
        self.patient(async |link| {
            loop {
                if let Some(at) = memchr::memmem::find(&link.inbox, end) {
                    let taken = link.inbox.drain(..at + end.len()).collect();
                    return Ok(String::from_utf8(taken).unwrap());
                }
                link.read().await?;
            }
        })
        .await
    }

    async fn patient<T>(&mut self, work: impl AsyncFnOnce(&mut Self) -> io::Result<T>) -> io::Result<T> {
        match timeout(PATIENCE, work(self)).await {
            Ok(done) => done,
            Err(_) => {
                let inbox = String::from_utf8_lossy(&self.inbox);
                Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer in {PATIENCE:?}; there is {inbox:?}")))
            }
        }
    }

    /// Sends bytes as one record.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => {
                tls.writer().write_all(bytes)?;
                self.flush().await
            }
            None => {
                let mut at = 0;
                while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
                    self.tcp.writable().await?;
                    at += again(self.tcp.try_write(rest))?;
                }
                Ok(())
            }
        }
    }

    /// Writes the encrypted bytes.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        while tls.wants_write() {
            if again(tls.write_tls(&mut Socket(&self.tcp)))? == 0 {
                self.tcp.writable().await?;
            }
        }
        Ok(())
    }

    /// Waits for bytes and puts them into the inbox. Returns an error at the end of the connection. Cancel safe.
    pub(crate) async fn read(&mut self) -> io::Result<()> {
        loop {
            self.tcp.readable().await?;
            match self.take() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    }

    fn take(&mut self) -> io::Result<()> {
        SCRATCH.with_borrow_mut(|scratch| {
            let read = self.tcp.try_read(scratch)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let Some(tls) = &mut self.tls else {
                self.inbox.extend_from_slice(&scratch[..read]);
                return Ok(());
            };
            let mut encrypted = &scratch[..read];
            while !encrypted.is_empty() {
                tls.read_tls(&mut encrypted)?;
                let state = tls.process_new_packets().map_err(io::Error::other)?;
                if state.plaintext_bytes_to_read() > 0 {
                    let at = self.inbox.len();
                    self.inbox.resize(at + state.plaintext_bytes_to_read(), 0);
                    tls.reader().read_exact(&mut self.inbox[at..])?;
                }
            }
            Ok(())
        })
    }

    /// Resets the connection, like a phone that loses its network.
    pub(crate) fn reset(self) {
        // A connection that has already ended needs no reset.
        socket2::SockRef::from(&self.tcp).set_linger(Some(Duration::ZERO)).ok();
    }

    /// Ends the stream and the connection.
    pub(crate) async fn leave(mut self) {
        if let Some(tls) = &mut self.tls {
            tls.writer().write_all(b"</stream:stream>").unwrap();
            tls.send_close_notify();
        }
        // The other side may have closed first.
        self.flush().await.ok();
    }
}

/// Returns the value of the first attribute of that name.
pub(crate) fn attribute(xml: &str, name: &str) -> Option<String> {
    for quote in ['\'', '"'] {
        if let Some((_, rest)) = xml.split_once(&format!(" {name}={quote}")) {
            return rest.split_once(quote).map(|(value, _)| value.to_owned());
        }
    }
    None
}

/// Returns 0 for a write that found no room.
fn again(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        result => result,
    }
}

/// A writer that writes as far as there is room.
pub(crate) struct Socket<'a>(pub(crate) &'a TcpStream);

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
