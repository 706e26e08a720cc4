//! A slow connection does not mean that the client is gone, and a proxy that accepts all bytes does not mean that the
//! client is there.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

use crate::support::{
    Client, Element, PATIENCE, Pushward, Scene, Setup, StubOptions, StubUpstream, World, enable_push, lost,
    push_enable, quick, request,
};

/// Bytes per second on a slow connection.
const RATE: usize = 60_000;

/// Size of the buffers at each end of the connection, in bytes.
const BUFFER: usize = 8 << 10;

/// The treatment of the bytes from Pushward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// They pass at [`RATE`].
    Slow,
    /// They pass at once.
    Fast,
    /// They are accepted and discarded. So are the bytes from the client.
    Swallowed,
}

/// A forwarder to Pushward with small buffers.
struct Line {
    address: SocketAddr,
    fate: watch::Sender<Fate>,
}

impl Line {
    async fn to(pushward: &Pushward) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (fate, watched) = watch::channel(Fate::Fast);
        let target = pushward.direct;
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                SockRef::from(&client).set_send_buffer_size(BUFFER).unwrap();
                client.set_nodelay(true).unwrap();
                let socket = TcpSocket::new_v4().unwrap();
                socket.set_recv_buffer_size(u32::try_from(BUFFER).unwrap()).unwrap();
                let (from_client, to_client) = client.into_split();
                let (from_proxy, to_proxy) = socket.connect(target).await.unwrap().into_split();
                tokio::spawn(forward(from_proxy, to_client, watched.clone()));
                tokio::spawn(forward_back(from_client, to_proxy, watched.clone()));
            }
        });
        Self { address, fate }
    }

    fn be(&self, fate: Fate) {
        self.fate.send_replace(fate);
    }

    async fn client(&self, pushward: &Pushward) -> Client {
        Client::over(TcpStream::connect(self.address).await.unwrap()).handshake(&pushward.tls()).await
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, fate: watch::Receiver<Fate>) {
    let mut buffer = [0; 1200];
    let mut due = tokio::time::Instant::now();
    while let Ok(count) = from.read(&mut buffer).await
        && count > 0
    {
        let now = *fate.borrow();
        if now == Fate::Slow {
            due = due.max(tokio::time::Instant::now())
                + Duration::from_secs(1) * u32::try_from(count).unwrap() / u32::try_from(RATE).unwrap();
            tokio::time::sleep_until(due).await;
        }
        if now != Fate::Swallowed && to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

async fn forward_back(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, fate: watch::Receiver<Fate>) {
    let mut buffer = [0; 4096];
    while let Ok(count) = from.read(&mut buffer).await
        && count > 0
    {
        if *fate.borrow() != Fate::Swallowed && to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// Sets timeouts that are far shorter than the slow connection needs for the waiting stanzas, but longer than the
/// buffered bytes need.
fn impatient(setup: Setup) -> Setup {
    let setup = setup.set("stream_management.max_ack_delay", "'3s'").set("stream_management.ack_timeout", "'1s'");
    setup.set("stream_management.write_timeout", "'3s'")
}

/// Returns this many messages of 4 KB, and their ids.
fn large(count: usize) -> (String, Vec<String>) {
    let ids: Vec<String> = (0..count).map(|n| format!("large-{n}")).collect();
    let text = "x".repeat(4000);
    let message = |id: &String| {
        format!(
            "<message type='chat' from='bob@localhost/desk' to='alice@localhost/phone' id='{id}'><body>{text}</body></message>"
        )
    };
    (ids.iter().map(message).collect(), ids)
}

fn id(stanza: &str) -> String {
    Element::parse(stanza).attribute("id").unwrap_or_default().to_owned()
}

fn assert_never_suspected(pushward: &Pushward) {
    let log = pushward.log().join("\n");
    assert!(!log.contains("suspect") && log.matches("dark").count() <= 1, "{log}");
}

#[tokio::test]
async fn a_client_that_resumes_over_a_slow_line_is_not_closed_while_it_reads_its_backlog() {
    let Scene { stub: _stub, pushward, client, server, enabled } = Scene::with(StubOptions::default(), impatient).await;
    lost(&pushward, client, "alice@localhost/phone").await;
    let (messages, sent) = large(200);
    server.send(messages);
    pushward.stored("id='large-199'").await;
    let line = Line::to(&pushward).await;
    let mut client = line.client(&pushward).await;
    client.authenticated("alice").await;
    line.be(Fate::Slow);
    let begun = Instant::now();
    assert_eq!(client.resume(&enabled.id, 0).await.name, "resumed");
    let came: Vec<String> = client.messages(sent.len()).await.iter().map(|stanza| id(stanza)).collect();
    assert_eq!(came, sent);
    assert!(begun.elapsed() > Duration::from_secs(8), "{:?}: the line is not slow", begun.elapsed());
    assert_never_suspected(&pushward);
}

#[tokio::test]
async fn a_pinged_client_does_not_become_suspect_while_it_reads_over_a_slow_line() {
    let mut stub = StubUpstream::start(StubOptions::default()).await;
    let pushward = Pushward::start(impatient(Setup::new(stub.address))).await;
    let line = Line::to(&pushward).await;
    let mut client = line.client(&pushward).await;
    client.login("alice", "phone").await;
    let server = stub.session().await;
    enable_push(&mut client, "n").await;
    line.be(Fate::Slow);
    let (messages, sent) = large(200);
    server.send(messages);
    let (mut came, mut pings) = (Vec::new(), 0);
    while came.len() < sent.len() {
        let stanza = client.next().await;
        if stanza.contains("urn:xmpp:ping") {
            pings += 1;
            client.send(format!("<iq type='result' id='{}' to='localhost'/>", id(&stanza))).await;
        } else if stanza.starts_with("<message") {
            came.push(id(&stanza));
        }
    }
    assert_eq!(came, sent);
    assert!(pings > 1, "{pings} pings");
    assert_never_suspected(&pushward);
}

/// Tests a proxy in front that acknowledges each byte, while messages keep coming.
async fn check_swallowed(counts: bool) {
    let short = |setup: Setup| quick(setup).set("stream_management.max_ack_delay", "'1s'");
    let mut world = World::with(|setup| short(setup).set("stream_management.ack_timeout", "'1h'")).await;
    let line = Line::to(&world.pushward).await;
    let mut alice = line.client(&world.pushward).await;
    alice.login("alice", "phone").await;
    if counts {
        alice.enable().await;
    }
    alice.available().await;
    request(&mut alice, "push-enable", &push_enable("n")).await;
    line.be(Fate::Swallowed);
    let begun = Instant::now();
    let publish = loop {
        world.bob.say("alice@localhost", &"x".repeat(3000)).await;
        if let Some(publish) = world.service.next(Duration::from_millis(50)).await {
            break publish;
        }
        assert!(begun.elapsed() < PATIENCE, "no push for a client that does not answer");
    };
    assert_eq!(publish.node.as_deref(), Some("n"));
    assert!((900..5000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    world.pushward.logged(&["suspect"]).await;
}

#[tokio::test]
async fn a_lost_client_behind_a_proxy_that_accepts_everything_is_pushed_for() {
    check_swallowed(true).await;
}

#[tokio::test]
async fn a_lost_pinged_client_behind_a_proxy_that_accepts_everything_is_pushed_for() {
    check_swallowed(false).await;
}
