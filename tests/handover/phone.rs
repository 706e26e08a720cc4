//! The session of a client, across its connections: what it sent, what it read, and how it resumes.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::content::{Content, Direction};
use crate::findings::Findings;
use crate::link::{Entrance, Link, OnMessage};
use crate::round::BATCH_DELAY;
use crate::server::Server;
use crate::xml::Element;

/// The maximum time for a login, or for the return of a client.
pub(crate) const LOGIN: Duration = Duration::from_secs(60);
/// The pause after a connection that failed during login.
const PAUSE: Duration = Duration::from_millis(20);
/// The number of stanzas that a dark client has sent before. An iq is among them.
const FIRST: usize = 6;

/// The state that all clients share.
pub(crate) struct World {
    pub(crate) server: Arc<Server>,
    pub(crate) entrance: Entrance,
    pub(crate) seed: u64,
    pub(crate) findings: Arc<Findings>,
    /// Becomes true when clients send nothing more.
    pub(crate) finishing: watch::Sender<bool>,
    /// Number of logins that clients began.
    pub(crate) logins: AtomicUsize,
    /// The times that clients took to resume after their connection was cut.
    pub(crate) returns: Mutex<Vec<Duration>>,
    /// The accounts of live clients that took longer than `batch_delay` in this round: they may be notified.
    pub(crate) late: Mutex<HashSet<usize>>,
    /// The number of comparisons of the notifications of one account in one round, and of those that were not possible.
    pub(crate) compared: AtomicUsize,
    pub(crate) slow: AtomicUsize,
}

impl World {
    /// Returns the number of the current round.
    pub(crate) fn round(&self) -> u32 {
        self.server.round.load(Ordering::Relaxed)
    }
}

/// The messages that a client has read.
pub(crate) struct Inbox {
    account: usize,
    seed: u64,
    findings: Arc<Findings>,
    /// The number of the next message.
    next: u64,
}

impl Inbox {
    fn message(&mut self, xml: &str) {
        let message = Element::parse(xml);
        let Self { account, seed, next, .. } = *self;
        let number = message.attribute("id").and_then(|id| id.strip_prefix('m')?.parse::<u64>().ok());
        let content = Content { seed, account, direction: Direction::ToClient, number: next };
        if number != Some(next) || !content.is_in(&message) {
            let detail = format!("account {account}: {message:?}, expected number {next}");
            self.findings.add("messages to clients arrive once, in order and unchanged", detail);
        }
        self.next = number.map_or(next, |number| number + 1);
    }
}

/// A client.
pub(crate) struct Phone {
    pub(crate) world: Arc<World>,
    pub(crate) account: usize,
    inbox: Arc<Mutex<Inbox>>,
    /// The resumption id.
    id: String,
    handled: u32,
    /// Number of stanzas sent since stream management began, and of those that were acknowledged.
    sent: u32,
    acked: u32,
    unacked: VecDeque<String>,
    /// Number of numbered stanzas sent.
    pub(crate) numbered: u64,
    /// Numbers of the iqs that were not answered.
    pub(crate) unanswered: BTreeSet<u64>,
}

impl Phone {
    /// Logs in, enables notifications and joins a room.
    pub(crate) async fn log_in(world: Arc<World>, account: usize) -> io::Result<(Self, Link)> {
        let (seed, findings) = (world.seed, Arc::clone(&world.findings));
        let mut phone = Self {
            world,
            account,
            inbox: Arc::new(Mutex::new(Inbox { account, seed, findings, next: 0 })),
            id: String::new(),
            handled: 0,
            sent: 0,
            acked: 0,
            unacked: VecDeque::new(),
            numbered: 0,
            unanswered: BTreeSet::new(),
        };
        let mut link = phone.connect().await?;
        phone.id = link.bind("phone").await?;
        for stanza in [
            "<presence/>".to_owned(),
            format!(
                "<iq type='set' id='push'><enable xmlns='urn:xmpp:push:0' jid='push.localhost' node='n{account}'/></iq>"
            ),
            "<presence to='room@muc.localhost/phone'><x xmlns='http://jabber.org/protocol/muc'/></presence>".to_owned(),
        ] {
            phone.send(&mut link, stanza).await?;
        }
        link.expect(&["id='push'", "id=\"push\""]).await?;
        link.expect(&["'110'"]).await?;
        Ok((phone, link))
    }

    /// Logs in, sends some stanzas, reads the answers, and loses the connection.
    pub(crate) async fn go_dark(world: Arc<World>, account: usize) -> io::Result<Self> {
        let (mut phone, mut link) = Self::log_in(world, account).await?;
        for _ in 0..FIRST {
            phone.send_next(&mut link).await?;
        }
        while !phone.unanswered.is_empty() {
            link.read(true).await?;
            phone.process(&mut link);
        }
        phone.handled = link.handled;
        link.reset();
        Ok(phone)
    }

    async fn connect(&self) -> io::Result<Link> {
        self.world.logins.fetch_add(1, Ordering::Relaxed);
        Link::authenticated(&self.world.entrance, self.account, self.on_message()).await
    }

    fn on_message(&self) -> OnMessage {
        let inbox = Arc::clone(&self.inbox);
        Box::new(move |xml| inbox.lock().unwrap_or_else(PoisonError::into_inner).message(xml))
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the client has read all that the server sent.
    pub(crate) fn has_read_all(&self) -> bool {
        let messages = self.world.server.account(self.account).messages;
        self.inbox().next == messages
    }

    /// Returns whether the server has confirmed and answered all that the client sent.
    pub(crate) fn is_settled(&self) -> bool {
        self.unacked.is_empty() && self.unanswered.is_empty()
    }

    pub(crate) fn state(&self) -> String {
        let (next, messages) = (self.inbox().next, self.world.server.account(self.account).messages);
        let Self { account, sent, acked, unanswered, .. } = self;
        format!("account {account}: {next} of {messages} read, {acked} of {sent} acknowledged, iqs {unanswered:?}")
    }

    async fn send(&mut self, link: &mut Link, stanza: String) -> io::Result<()> {
        self.sent = self.sent.wrapping_add(1);
        self.unacked.push_back(stanza.clone());
        link.send(&stanza).await
    }

    /// Sends the next numbered stanza.
    pub(crate) async fn send_next(&mut self, link: &mut Link) -> io::Result<()> {
        let content = self.next_stanza();
        self.send(link, content).await
    }

    fn next_stanza(&mut self) -> String {
        let (seed, account, number) = (self.world.seed, self.account, self.numbered);
        let stanza = Content { seed, account, direction: Direction::ToServer, number }.stanza();
        self.numbered += 1;
        if stanza.starts_with("<iq") {
            self.unanswered.insert(number);
        }
        stanza
    }

    /// Processes what the connection has read, other than messages.
    pub(crate) fn process(&mut self, link: &mut Link) {
        for xml in std::mem::take(&mut link.inbox) {
            let element = Element::parse(&xml);
            if element.name == "a" {
                self.on_ack(&element, "an acknowledgement to a client");
            }
            let id = element.attribute("id").filter(|_| element.name == "iq");
            if let Some(number) = id.and_then(|id| id.strip_prefix("client-")?.parse().ok()) {
                let is_whole = element.children.iter().any(|child| child.ns == "jabber:iq:version");
                if !self.unanswered.remove(&number) || !is_whole {
                    let detail = format!("account {}: {xml}", self.account);
                    self.world.findings.add("each iq of a client is answered once", detail);
                }
            }
        }
    }

    fn on_ack(&mut self, element: &Element, what: &str) {
        let Some(h) = element.attribute("h").and_then(|h| h.parse::<u32>().ok()) else { return };
        if h < self.acked || h > self.sent {
            let detail = format!("{what}: h={h}, {}", self.state());
            self.world.findings.add("the client's stanzas are counted right", detail);
            return;
        }
        self.unacked.drain(..usize::try_from(h - self.acked).unwrap());
        self.acked = h;
    }

    /// Resumes at once, and sends again what was not acknowledged.
    pub(crate) async fn come_back(&mut self, handled: u32) -> io::Result<Link> {
        let cut = Instant::now();
        self.handled = handled;
        // A stanza from the time without a connection.
        let stanza = self.next_stanza();
        self.sent = self.sent.wrapping_add(1);
        self.unacked.push_back(stanza);
        let mut link = timeout(LOGIN, async {
            loop {
                match self.resume().await {
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        self.world.findings.add("no connection is refused", self.state());
                    }
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {}
                    resumed => return resumed,
                }
                sleep(PAUSE).await;
            }
        })
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let took = cut.elapsed();
        self.world.returns.lock().unwrap_or_else(PoisonError::into_inner).push(took);
        if took > BATCH_DELAY {
            self.world.late.lock().unwrap_or_else(PoisonError::into_inner).insert(self.account);
        }
        for stanza in &self.unacked {
            link.send(stanza).await?;
        }
        Ok(link)
    }

    async fn resume(&mut self) -> io::Result<Link> {
        let mut link = self.connect().await?;
        let answer = link.resume(&self.id, self.handled).await?;
        if !answer.starts_with("<resumed") {
            self.world.findings.add("every client resumes", format!("{}: {answer}", self.state()));
            return Err(io::ErrorKind::NotFound.into());
        }
        self.on_ack(&Element::parse(&answer), "<resumed/>");
        Ok(link)
    }

    /// Resumes a dark session, reads all that waits, and makes a round trip to the server.
    pub(crate) async fn wake(&mut self) -> io::Result<Link> {
        let mut link = self.resume().await?;
        if self.acked != self.sent {
            self.world.findings.add("<resumed/> has the count of what the client sent", self.state());
        }
        while !self.has_read_all() {
            link.read(true).await?;
            self.process(&mut link);
        }
        while self.unanswered.is_empty() {
            self.send_next(&mut link).await?;
        }
        while !self.unanswered.is_empty() {
            link.read(true).await?;
            self.process(&mut link);
        }
        link.ack().await?;
        Ok(link)
    }
}
