//! The stream of one client: opening, SASL PLAIN (RFC 4616), bind, then stanzas.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::select;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::answer;
use super::router::{ClientLink, Router};
use super::stanza::{BoundClient, Violation};
use crate::demo::trace::StreamTap;
use crate::demo::wire::{self, FrameReader, WireError};
use crate::jid::{BareJid, FullJid};
use crate::xml::{self, Element, Frame, Header, Kind, Node, StreamCondition, XmlWriter, ns};

/// The limit for stanzas that wait to be written to one client. Over it, the task that delivers waits.
const QUEUE: usize = 1024;
/// The maximum number of stanzas in one write.
const BATCH: usize = 64;
/// The time that a client has from the first byte to the bind.
const LOGIN: Duration = Duration::from_secs(30);
/// The limit for wrong passwords on one stream.
const ATTEMPTS: usize = 3;

/// The reason why a stream ends.
enum ClientStreamEnd {
    /// The client closed it.
    Closed,
    /// The client violated the protocol. Contains the condition of the stream error.
    Refused(StreamCondition),
    /// The connection was lost.
    Lost,
}

impl From<Violation> for ClientStreamEnd {
    fn from(Violation(condition): Violation) -> Self {
        Self::Refused(condition)
    }
}

struct Connection {
    router: Arc<Router>,
    reader: FrameReader<OwnedReadHalf>,
    queue: mpsc::Sender<Bytes>,
    tap: Arc<StreamTap>,
    close: CancellationToken,
    shutdown: CancellationToken,
    opened: bool,
}

/// Serves a connection until it ends.
pub(super) async fn serve(router: Arc<Router>, tcp: TcpStream, shutdown: CancellationToken) {
    if let Err(error) = tcp.set_nodelay(true) {
        return tracing::debug!(%error, "connection to the embedded server lost immediately");
    }
    let (reader, writer) = tcp.into_split();
    let (queue, queued) = mpsc::channel(QUEUE);
    let tap = Arc::new(StreamTap::new(router.observer(), "server", "pushward"));
    let close = CancellationToken::new();
    let writing = tokio::spawn(write(writer, queued, Arc::clone(&tap), close.clone()));
    let reader = FrameReader::new(reader);
    let mut connection = Connection { router, reader, queue, tap, close, shutdown, opened: false };
    let end = match timeout(LOGIN, connection.login()).await {
        Ok(Ok(bound)) => {
            let end = connection.stanzas(&bound).await;
            bound.leave().await;
            end
        }
        Ok(Err(end)) => end,
        Err(_) => ClientStreamEnd::Refused(StreamCondition::ConnectionTimeout),
    };
    connection.finish(end);
    if let Err(error) = writing.await {
        tracing::error!(%error, "writer of the embedded server failed");
    }
}

impl Connection {
    async fn login(&mut self) -> Result<BoundClient, ClientStreamEnd> {
        let mut features = XmlWriter::new();
        features.start("stream:features").start("mechanisms").attr("xmlns", ns::SASL).start("mechanism").text("PLAIN");
        self.open(features.finish()).await?;
        let account = self.authenticate().await?;
        self.tap.belongs_to(account.node().unwrap_or_default());
        self.reader.restart();
        let mut features = XmlWriter::new();
        features.start("stream:features").start("bind").attr("xmlns", ns::BIND).end();
        features.start("session").attr("xmlns", ns::SESSION).start("optional").end().end();
        let header = self.open(features.finish()).await?;
        self.bind(&account, header).await
    }

    async fn open(&mut self, features: Bytes) -> Result<Arc<Header>, ClientStreamEnd> {
        let Frame::Open(theirs) = self.frame().await? else {
            return Err(ClientStreamEnd::Refused(StreamCondition::BadFormat));
        };
        let own = self.header(theirs.lang());
        self.send(own.clone()).await;
        self.opened = true;
        if theirs.to().is_some_and(|to| to != self.router.domain()) {
            return Err(ClientStreamEnd::Refused(StreamCondition::HostUnknown));
        }
        self.send(features).await;
        Header::parse(own).map(Arc::new).map_err(|_| ClientStreamEnd::Refused(StreamCondition::InternalServerError))
    }

    fn header(&self, lang: Option<&str>) -> Bytes {
        xml::stream_header(self.router.domain(), &format!("{:032x}", rand::random::<u128>()), lang)
    }

    async fn authenticate(&mut self) -> Result<BareJid, ClientStreamEnd> {
        for _ in 0..ATTEMPTS {
            let element = self.element().await?;
            if !element.is("auth", ns::SASL) {
                return Err(ClientStreamEnd::Refused(StreamCondition::NotAuthorized));
            }
            let node = element.node();
            let failure = match plain(&node) {
                None => "invalid-mechanism",
                Some((name, password)) => match self.router.authenticate(&name, &password) {
                    None => "not-authorized",
                    Some(account) => {
                        let mut success = XmlWriter::new();
                        success.start("success").attr("xmlns", ns::SASL);
                        self.send(success.finish()).await;
                        return Ok(account);
                    }
                },
            };
            let mut xml = XmlWriter::new();
            xml.start("failure").attr("xmlns", ns::SASL).start(failure);
            self.send(xml.finish()).await;
        }
        Err(ClientStreamEnd::Refused(StreamCondition::PolicyViolation))
    }

    async fn bind(&mut self, account: &BareJid, header: Arc<Header>) -> Result<BoundClient, ClientStreamEnd> {
        loop {
            let element = self.element().await?;
            let node = element.node();
            let Some(bind) = node.child("bind", ns::BIND).filter(|_| element.kind() == Kind::Iq) else {
                return Err(ClientStreamEnd::Refused(StreamCondition::NotAuthorized));
            };
            let wanted = bind.child("resource", ns::BIND).map(|resource| resource.text().into_owned());
            let resource = wanted.filter(|resource| !resource.is_empty());
            let resource = resource.unwrap_or_else(|| format!("{:016x}", rand::random::<u64>()));
            let Ok(jid) = FullJid::new(&format!("{}/{resource}", account.as_str())) else {
                self.send(answer::error(&node, "modify", "bad-request")).await;
                continue;
            };
            let link = ClientLink { header, queue: self.queue.clone(), close: self.close.clone() };
            let bound = self.bound(jid, link);
            self.send(answer::bound(&node, bound.jid.as_str())).await;
            return Ok(bound);
        }
    }

    fn bound(&self, jid: FullJid, link: ClientLink) -> BoundClient {
        let binding = self.router.join(&jid, link.clone());
        BoundClient { router: Arc::clone(&self.router), jid, binding, link }
    }

    async fn stanzas(&mut self, bound: &BoundClient) -> ClientStreamEnd {
        loop {
            let handled = match self.element().await {
                Ok(element) => bound.handle(&element).await.map_err(ClientStreamEnd::from),
                Err(end) => Err(end),
            };
            if let Err(end) = handled {
                return end;
            }
        }
    }

    async fn element(&mut self) -> Result<Element, ClientStreamEnd> {
        match self.frame().await? {
            Frame::Element(element) => Ok(element),
            Frame::Close => Err(ClientStreamEnd::Closed),
            Frame::Open(_) | Frame::Skipped(_) | Frame::Whitespace => {
                Err(ClientStreamEnd::Refused(StreamCondition::BadFormat))
            }
        }
    }

    /// Waits for the next frame that is not white space.
    async fn frame(&mut self) -> Result<Frame, ClientStreamEnd> {
        loop {
            let read = select! {
                () = self.close.cancelled() => return Err(ClientStreamEnd::Refused(StreamCondition::Conflict)),
                () = self.shutdown.cancelled() => return Err(ClientStreamEnd::Refused(StreamCondition::SystemShutdown)),
                read = self.reader.next() => read,
            };
            match read {
                Ok(Some(Frame::Whitespace)) => {}
                Ok(Some(frame)) => {
                    match &frame {
                        Frame::Open(header) => self.tap.received(header.bytes()),
                        Frame::Element(element) => self.tap.received(element.bytes()),
                        Frame::Close => self.tap.received(xml::STREAM_CLOSE),
                        Frame::Skipped(_) | Frame::Whitespace => {}
                    }
                    return Ok(frame);
                }
                Err(WireError::Frame(error)) => return Err(ClientStreamEnd::Refused(error.condition())),
                Ok(None) | Err(WireError::Io(_) | WireError::Stalled(_)) => return Err(ClientStreamEnd::Lost),
            }
        }
    }

    async fn send(&self, bytes: Bytes) {
        if self.queue.send(bytes).await.is_err() {
            self.close.cancel();
        }
    }

    /// Queues the stream error and footer if there is room, and lets the writer end.
    fn finish(self, end: ClientStreamEnd) {
        let mut last = BytesMut::new();
        match end {
            ClientStreamEnd::Lost => return,
            ClientStreamEnd::Closed => last.extend_from_slice(xml::STREAM_CLOSE),
            ClientStreamEnd::Refused(condition) => {
                if !self.opened {
                    last.extend_from_slice(&self.header(None));
                }
                last.extend_from_slice(&xml::stream_error(condition, None, None));
            }
        }
        if let Err(error) = self.queue.try_send(last.freeze()) {
            tracing::debug!(%error, "client of the embedded server does not read the end of its stream");
        }
    }
}

/// Returns name and password of SASL PLAIN. `None` for another mechanism, or an authorization identity that differs from the
/// name.
fn plain(auth: &Node<'_>) -> Option<(String, String)> {
    if auth.attr("mechanism").as_deref() != Some("PLAIN") {
        return None;
    }
    let decoded = String::from_utf8(BASE64.decode(auth.text().trim()).ok()?).ok()?;
    match decoded.split('\0').collect::<Vec<_>>().as_slice() {
        ["", name, password] => Some(((*name).to_owned(), (*password).to_owned())),
        _ => None,
    }
}

/// Writes the queued bytes until all senders are dropped, then closes the connection.
async fn write(
    mut writer: OwnedWriteHalf,
    mut queued: mpsc::Receiver<Bytes>,
    tap: Arc<StreamTap>,
    close: CancellationToken,
) {
    let mut batch = Vec::with_capacity(BATCH);
    while queued.recv_many(&mut batch, BATCH).await > 0 {
        let mut bytes = BytesMut::new();
        for part in batch.drain(..) {
            tap.sent(&part);
            bytes.extend_from_slice(&part);
        }
        if let Err(error) = wire::write(&mut writer, &bytes).await {
            tracing::debug!(%error, "cannot write to client of the embedded server");
            return close.cancel();
        }
    }
}
