//! Simulated phones. In random order, a [`Phone`] binds, enables stream management, drops its connection, resumes,
//! closes its stream, floods and stops reading.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::server::Server;
use crate::xml::{Element, Framer, Item};

const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
                      xmlns:stream='http://etherx.jabber.org/streams' to='localhost' version='1.0'>";
/// The maximum duration of a login.
const LOGIN: Duration = Duration::from_secs(40);

/// The state that all phones share.
pub(crate) struct World {
    pub(crate) server: Arc<Server>,
    pub(crate) proxy: SocketAddr,
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) over: AtomicBool,
    /// The accounts and resources that have been bound. The final collection logs in exactly these.
    pub(crate) devices: Mutex<BTreeSet<(usize, String)>>,
}

impl World {
    fn has_bound(&self, account: usize, resource: &str) {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner).insert((account, resource.to_owned()));
    }

    pub(crate) fn devices_of(&self, account: usize) -> Vec<String> {
        let devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        devices.iter().filter(|(owner, _)| *owner == account).map(|(_, resource)| resource.clone()).collect()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// One connection of a phone.
struct Link {
    tls: TlsStream<TcpStream>,
    framer: Framer,
    /// Number of stanzas read since stream management began.
    handled: u32,
    counts: bool,
    /// Elements read and not yet processed.
    inbox: Vec<String>,
}

impl Link {
    async fn connect(world: &World) -> io::Result<Self> {
        let tcp = TcpStream::connect(world.proxy).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").unwrap();
        let tls = TlsConnector::from(Arc::clone(&world.tls)).connect(name, tcp).await?;
        Ok(Self { tls, framer: Framer::default(), handled: 0, counts: false, inbox: Vec::new() })
    }

    async fn send(&mut self, xml: &str) -> io::Result<()> {
        self.tls.write_all(xml.as_bytes()).await?;
        self.tls.flush().await
    }

    /// Reads once and processes the complete elements. Answers `<r/>` if `acks`.
    async fn read(&mut self, world: &World, acks: bool) -> io::Result<()> {
        let mut buffer = [0; 16384];
        let length = self.tls.read(&mut buffer).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.framer.push(&buffer[..length]);
        let mut asked = false;
        while let Some(item) = self.framer.next() {
            match item {
                Item::Header(_) => {}
                Item::Footer => return Err(io::ErrorKind::UnexpectedEof.into()),
                Item::Element(xml) => asked |= self.element(world, xml),
            }
        }
        if asked && acks {
            self.ack().await?;
        }
        Ok(())
    }

    /// Processes an element. Returns true if it asks for an acknowledgement.
    fn element(&mut self, world: &World, xml: String) -> bool {
        if xml.starts_with("<enabled") {
            (self.counts, self.handled) = (true, 0);
        } else if xml.starts_with("<resumed") {
            self.counts = true;
        }
        let is_stanza = ["<message", "<presence", "<iq"].iter().any(|name| xml.starts_with(name));
        if is_stanza && self.counts {
            self.handled = self.handled.wrapping_add(1);
        }
        if xml.starts_with("<message") {
            let message = Element::parse(&xml);
            if let Some(number) = message.attribute("id").and_then(|id| id.strip_prefix('m')?.parse().ok()) {
                world.server.ledger.received(number);
            }
            return false;
        }
        let asks = xml.starts_with("<r ");
        if !asks {
            self.inbox.push(xml);
        }
        asks
    }

    async fn ack(&mut self) -> io::Result<()> {
        if !self.counts {
            return Ok(());
        }
        self.send(&format!("<a xmlns='urn:xmpp:sm:3' h='{}'/>", self.handled)).await
    }

    /// Returns the next element that contains one of these strings.
    async fn expect(&mut self, world: &World, needles: &[&str]) -> io::Result<String> {
        loop {
            let found = self.inbox.iter().position(|xml| needles.iter().any(|needle| xml.contains(needle)));
            if let Some(at) = found {
                return Ok(self.inbox.swap_remove(at));
            }
            self.read(world, true).await?;
        }
    }

    /// Reads for this period.
    async fn live(&mut self, world: &World, period: Duration, acks: bool) -> io::Result<()> {
        let until = Instant::now() + period;
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            match timeout(left, self.read(world, acks)).await {
                Ok(read) => read?,
                Err(_) => break,
            }
            self.inbox.clear();
        }
        Ok(())
    }

    fn reset(self) {
        let tcp = self.tls.get_ref().0;
        drop(SockRef::from(tcp).set_linger(Some(Duration::ZERO)));
    }
}

/// A phone, across its connections.
pub(crate) struct Phone {
    world: Arc<World>,
    account: usize,
    resource: String,
    /// True if the phone sometimes uses another resource.
    renames: bool,
    random: StdRng,
    /// The resumption id, and the number of stanzas handled under it.
    resumable: Option<(String, u32)>,
}

impl Phone {
    pub(crate) fn new(world: Arc<World>, (account, number): (usize, usize), seed: u64) -> Self {
        let mixed = seed ^ ((account as u64) << 32) ^ number as u64;
        let random = StdRng::seed_from_u64(mixed);
        Self { world, account, resource: format!("phone-{number}"), renames: number < 10, random, resumable: None }
    }

    /// Acts until the run is over.
    pub(crate) async fn live(mut self) {
        while !self.world.is_over() {
            let lived = self.connection().await;
            let pause = if lived.is_err() { 50..1500 } else { 0..400 };
            sleep(Duration::from_millis(self.random.random_range(pause))).await;
        }
    }

    async fn connection(&mut self) -> io::Result<()> {
        let world = Arc::clone(&self.world);
        let link = timeout(LOGIN, self.login()).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
        let mut link = link?;
        let steps = self.random.random_range(1..25);
        for _ in 0..steps {
            if world.is_over() {
                break;
            }
            let step = timeout(Duration::from_secs(20), self.step(&mut link)).await;
            if let Some((_, handled)) = &mut self.resumable {
                *handled = link.handled;
            }
            match step {
                Ok(step) => step?,
                Err(_) => break,
            }
        }
        match self.random.random_range(0..10) {
            0..5 => link.reset(),
            // A half-open connection: nobody reads it, and the phone comes back on another one.
            5 => {
                let period = Duration::from_millis(self.random.random_range(100..6000));
                tokio::spawn(async move {
                    sleep(period).await;
                    drop(link);
                });
            }
            6 | 7 => {
                self.resumable = None;
                link.send("</stream:stream>").await?;
                drop(timeout(Duration::from_secs(3), link.live(&world, Duration::from_secs(3), true)).await);
            }
            _ => drop(link),
        }
        Ok(())
    }

    async fn login(&mut self) -> io::Result<Link> {
        let world = Arc::clone(&self.world);
        let mut link = authenticated(&world, self.account).await?;
        if let Some((id, handled)) = self.resumable.clone().filter(|_| self.random.random_bool(0.75)) {
            link.send(&format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='{handled}'/>")).await?;
            link.handled = handled;
            let answer = link.expect(&world, &["<resumed", "<failed"]).await?;
            if answer.starts_with("<resumed") {
                return Ok(link);
            }
        }
        self.resumable = None;
        // Pushward remembers 32 devices per account.
        if self.renames && self.random.random_bool(0.1) {
            self.resource = format!("{}x", self.resource.trim_end_matches('x'));
        }
        world.has_bound(self.account, &self.resource);
        self.resumable = Some((bound(&world, &mut link, &self.resource).await?, 0));
        if self.random.random_bool(0.3) {
            let node = self.resource.trim_end_matches('x');
            link.send(&format!(
                "<iq type='set' id='push'><enable xmlns='urn:xmpp:push:0' jid='push.localhost' node='{node}'/></iq>"
            ))
            .await?;
        }
        link.send("<presence/>").await?;
        Ok(link)
    }

    async fn step(&mut self, link: &mut Link) -> io::Result<()> {
        let world = Arc::clone(&self.world);
        let period = Duration::from_millis(self.random.random_range(10..1500));
        match self.random.random_range(0..12) {
            0..6 => link.live(&world, period, true).await,
            6 => link.live(&world, period, false).await,
            // The phone reads nothing.
            7 => {
                sleep(period).await;
                Ok(())
            }
            8 => link.send("<message to='peer@remote.example'><body>hi</body></message>").await,
            9 => {
                link.send("<iq type='get' id='ping' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>").await?;
                link.expect(&world, &["id='ping'"]).await.map(drop)
            }
            10 => {
                let what = [
                    "<r xmlns='urn:xmpp:sm:3'/>",
                    "<x xmlns='urn:xmpp:sm:3'/>",
                    "<iq type='get' id='d'><query xmlns='urn:nothing'/></iq>",
                ];
                let one = what[self.random.random_range(0..what.len())];
                // Most phones send a few requests, some send very many.
                let most = if self.random.random_bool(0.1) { 2000 } else { 20 };
                link.send(&one.repeat(self.random.random_range(1..most))).await
            }
            _ => link.send(" ").await,
        }
    }
}

/// Opens an authenticated connection, which may bind or resume.
async fn authenticated(world: &World, account: usize) -> io::Result<Link> {
    let mut link = Link::connect(world).await?;
    link.send(HEADER).await?;
    link.expect(world, &["<stream:features"]).await?;
    let plain = BASE64.encode(format!("\0user-{account}\0secret"));
    link.send(&format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{plain}</auth>")).await?;
    link.expect(world, &["<success"]).await?;
    link.send(HEADER).await?;
    link.expect(world, &["<stream:features"]).await?;
    Ok(link)
}

/// Binds and enables stream management. Returns the resumption id.
async fn bound(world: &World, link: &mut Link, resource: &str) -> io::Result<String> {
    link.send(&format!(
        "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>{resource}</resource></bind></iq>\
         <enable xmlns='urn:xmpp:sm:3' resume='true'/>"
    ))
    .await?;
    link.expect(world, &["xmpp-bind"]).await?;
    let enabled = link.expect(world, &["<enabled"]).await?;
    Ok(Element::parse(&enabled).attribute("id").unwrap_or_default().to_owned())
}

/// Fetches all messages that wait for a device until no more come, and closes the stream in order.
pub(crate) async fn collect(world: Arc<World>, account: usize, resource: String, quiet: Duration) -> io::Result<()> {
    let mut link = authenticated(&world, account).await?;
    bound(&world, &mut link, &resource).await?;
    link.send("<iq type='set' id='off'><disable xmlns='urn:xmpp:push:0' jid='push.localhost'/></iq><presence/>")
        .await?;
    loop {
        let before = world.server.ledger.sum().received;
        link.live(&world, quiet, true).await?;
        link.ack().await?;
        if world.server.ledger.sum().received == before {
            break;
        }
    }
    link.live(&world, Duration::from_millis(200), true).await?;
    link.send("</stream:stream>").await?;
    drop(link.live(&world, Duration::from_secs(3), true).await);
    Ok(())
}
