//! A push service: an XEP-0114 component that records what is published to it.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::prosody::COMPONENT_SECRET;
use super::{Element, Framer, Item, PATIENCE, Prosody};

const DOMAIN: &str = "push.localhost";

/// The answer to a publish.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    Result,
    /// An error with this `type` and condition (RFC 6120 §8.3).
    Error(&'static str, &'static str),
    Nothing,
    /// `forbidden` to full JIDs, as Conversations' app server does; a result to other addresses.
    DomainsOnly,
}

impl Answer {
    fn to(self, publish: &Element) -> Self {
        let is_full = publish.attribute("from").is_some_and(|from| from.contains('/'));
        match self {
            Self::DomainsOnly if is_full => Self::Error("auth", "forbidden"),
            Self::DomainsOnly => Self::Result,
            other => other,
        }
    }
}

/// A parsed publish (XEP-0357 §7).
#[derive(Clone, Debug)]
pub(crate) struct Publish {
    pub(crate) arrived: Instant,
    pub(crate) xml: String,
    pub(crate) from: String,
    pub(crate) node: Option<String>,
    /// The form inside `<notification/>`. Empty if the notification is encrypted.
    pub(crate) form: Element,
    /// The `tigase:push:encrypt:0` element inside `<notification/>`.
    pub(crate) encrypted: Option<Element>,
    /// The `tigase:push:priority:0` element inside `<notification/>`.
    pub(crate) priority: Option<String>,
    /// The form inside `<publish-options/>`.
    pub(crate) options: Option<Element>,
}

impl Publish {
    fn of(xml: &str) -> Self {
        let iq = Element::parse(xml);
        let publish = iq.all("publish").first().copied().cloned().unwrap_or_else(|| panic!("no publish in {xml}"));
        let notification = publish.all("notification").first().copied().cloned().unwrap_or_default();
        assert_eq!(notification.ns, "urn:xmpp:push:0", "{xml}");
        let part = |name: &str, ns: &str| {
            notification.children.iter().find(|child| child.name == name && child.ns == ns).cloned()
        };
        let form = part("x", "jabber:x:data");
        let encrypted = part("encrypted", "tigase:push:encrypt:0");
        assert!(form.is_some() != encrypted.is_some(), "either a form or something encrypted: {xml}");
        let options = iq.all("publish-options").first().and_then(|options| options.child("x")).cloned();
        Self {
            arrived: Instant::now(),
            xml: xml.to_owned(),
            from: iq.attribute("from").unwrap_or_default().to_owned(),
            node: publish.attribute("node").map(str::to_owned),
            form: form.unwrap_or_default(),
            encrypted,
            priority: part("priority", "tigase:push:priority:0").map(|priority| priority.text),
            options,
        }
    }

    pub(crate) fn count(&self) -> Option<u32> {
        self.form.field("message-count").first().map(|count| count.parse().unwrap())
    }

    pub(crate) fn body(&self) -> Option<&str> {
        self.form.field("last-message-body").first().copied()
    }

    /// Returns the JSON that is encrypted with AES-128-GCM under this key.
    pub(crate) fn decrypted(&self, key: &[u8; 16]) -> Value {
        let encrypted = self.encrypted.as_ref().unwrap_or_else(|| panic!("not encrypted: {}", self.xml));
        let iv = BASE64.decode(encrypted.attribute("iv").unwrap()).unwrap();
        let mut text = BASE64.decode(&encrypted.text).unwrap();
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key).unwrap());
        let nonce = Nonce::try_assume_unique_for_key(&iv).unwrap();
        let plain = key.open_in_place(nonce, Aad::empty(), &mut text).expect("the tag of the ciphertext");
        serde_json::from_slice(plain).unwrap()
    }

    pub(crate) fn sender(&self) -> Option<&str> {
        self.form.field("last-message-sender").first().copied()
    }
}

/// A connected push service.
pub(crate) struct PushService {
    publishes: mpsc::UnboundedReceiver<Publish>,
    answer: Arc<Mutex<Answer>>,
    outgoing: mpsc::UnboundedSender<String>,
    task: JoinHandle<()>,
}

impl PushService {
    /// Connects to the server as `push.localhost`.
    pub(crate) async fn connect(prosody: &Prosody) -> Self {
        Self::at(prosody.components).await
    }

    /// The same at any server that accepts components at this address.
    pub(crate) async fn at(components: SocketAddr) -> Self {
        Self::named(components, DOMAIN).await
    }

    /// The same with another domain.
    pub(crate) async fn named(components: SocketAddr, domain: &str) -> Self {
        let (mut socket, mut framer) = handshake(components, domain).await;
        let answer = Arc::new(Mutex::new(Answer::Result));
        let (sender, publishes) = mpsc::unbounded_channel();
        let answers = answer.clone();
        let (outgoing, mut to_send) = mpsc::unbounded_channel::<String>();
        let task = tokio::spawn(async move {
            loop {
                let item = tokio::select! {
                    item = read(&mut socket, &mut framer) => item,
                    Some(stanza) = to_send.recv() => {
                        socket.write_all(stanza.as_bytes()).await.unwrap();
                        continue;
                    }
                };
                let Some(Item::Element(xml)) = item else { return };
                let stanza = Element::parse(&xml);
                if stanza.name != "iq" || !matches!(stanza.attribute("type"), Some("get" | "set")) {
                    continue;
                }
                let answer = answers.lock().unwrap().to(&stanza);
                let publish = !stanza.all("publish").is_empty();
                socket
                    .write_all(reply(&stanza, if publish { answer } else { Answer::Result }).as_bytes())
                    .await
                    .unwrap();
                if publish && sender.send(Publish::of(&xml)).is_err() {
                    return;
                }
            }
        });
        Self { publishes, answer, outgoing, task }
    }

    /// Sets the answer to later publishes.
    pub(crate) fn answer_with(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    /// Sends a stanza of its own.
    pub(crate) fn send(&self, stanza: impl Into<String>) {
        self.outgoing.send(stanza.into()).unwrap();
    }

    /// Returns the next publish that has not been returned yet.
    pub(crate) async fn publish(&mut self, deadline: Duration) -> Publish {
        self.next(deadline).await.unwrap_or_else(|| panic!("no publish within {deadline:?}"))
    }

    /// The same, but `None` if there is none within `deadline`.
    pub(crate) async fn next(&mut self, deadline: Duration) -> Option<Publish> {
        match tokio::time::timeout(deadline, self.publishes.recv()).await {
            Ok(None) => panic!("the push service lost its connection"),
            Ok(publish) => publish,
            Err(_) => None,
        }
    }

    /// Discards what was published so far.
    pub(crate) fn forget(&mut self) {
        while self.publishes.try_recv().is_ok() {}
    }

    /// Fails if anything is published within `observed`.
    ///
    /// The absence of an event can only be observed for a time. This is the one place where tests let time pass.
    /// Nothing is synchronised by it, so a slow machine can hide a failure here but never cause one.
    pub(crate) async fn assert_quiet(&mut self, observed: Duration) {
        if let Ok(Some(publish)) = tokio::time::timeout(observed, self.publishes.recv()).await {
            panic!("published, though it should have been quiet: {}", publish.xml);
        }
    }
}

impl Drop for PushService {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn handshake(address: SocketAddr, domain: &str) -> (TcpStream, Framer) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let mut framer = Framer::default();
    let header = format!(
        "<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' to='{domain}'>"
    );
    socket.write_all(header.as_bytes()).await.unwrap();
    let Some(Item::Header(header)) = read(&mut socket, &mut framer).await else { panic!("no header for a component") };
    // The header is still open. Once closed here, it is an element that can be parsed.
    let id = Element::parse(&format!("{header}</stream:stream>")).attribute("id").unwrap().to_owned();
    let proof = digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{id}{COMPONENT_SECRET}").as_bytes());
    let mut hex = String::new();
    for byte in proof.as_ref() {
        write!(hex, "{byte:02x}").unwrap();
    }
    socket.write_all(format!("<handshake>{hex}</handshake>").as_bytes()).await.unwrap();
    let accepted = tokio::time::timeout(PATIENCE, read(&mut socket, &mut framer)).await.unwrap();
    assert!(
        matches!(&accepted, Some(Item::Element(xml)) if xml.starts_with("<handshake")),
        "the component was refused: {accepted:?}"
    );
    (socket, framer)
}

async fn read(socket: &mut TcpStream, framer: &mut Framer) -> Option<Item> {
    let mut buffer = [0; 8192];
    loop {
        if let Some(item) = framer.next() {
            return Some(item);
        }
        match socket.read(&mut buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(length) => framer.push(&buffer[..length]),
        }
    }
}

fn reply(iq: &Element, answer: Answer) -> String {
    let name = |key| iq.attribute(key).unwrap_or_default();
    let (id, from, to) = (name("id"), name("to"), name("from"));
    match answer {
        Answer::Result | Answer::DomainsOnly => format!("<iq type='result' id='{id}' from='{from}' to='{to}'/>"),
        Answer::Error(kind, condition) => format!(
            "<iq type='error' id='{id}' from='{from}' to='{to}'><error type='{kind}'>\
             <{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
        ),
        Answer::Nothing => String::new(),
    }
}
