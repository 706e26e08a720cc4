//! A small XMPP client ([`DemoClient`]): login, stream management with resumption, requests, and waiting with deadlines.
//!
//! Every wait has a deadline, and an error contains the elements that arrived instead.

mod connect;
mod error;
mod login;

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use connect::ClientSocket;
pub use connect::{CertificateFileError, ClientSecurity, ServerAddress, trusting};
pub use error::{ANSWER, ClientError, SeenElements};

use super::trace::{StreamTap, redacted};
use super::wire::{self, FrameReader};
use crate::jid::FullJid;
use crate::session::sm::Handled;
use crate::session::sm::nonza;
use crate::xml::{self, Element, Frame, Kind, XmlWriter, ns};

/// The limit for stanzas in the inbox.
const INBOX: usize = 1024;
/// The number of elements that an error shows.
const SHOWN: usize = 5;

/// A client connection during or after login.
pub struct DemoClient {
    reader: FrameReader<Box<dyn ClientSocket>>,
    place: ServerAddress,
    tap: StreamTap,
    jid: Option<FullJid>,
    managed: Option<Managed>,
    inbox: VecDeque<Element>,
    seen: VecDeque<String>,
    requests: u64,
}

/// The client's side of stream management (XEP-0198).
struct Managed {
    id: String,
    /// The number of received stanzas.
    handled: u32,
    /// The `h` of the server's last `<a/>`, until it is taken.
    confirmed: Option<u32>,
}

/// The content of `<enabled/>` (XEP-0198 §5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnabledResponse {
    /// The time for which the session is held after a disconnect.
    pub max: Option<Duration>,
}

/// The data for resuming a session.
#[derive(Clone, PartialEq, Eq)]
pub struct SavedSession {
    jid: FullJid,
    previd: String,
    handled: u32,
}

impl SavedSession {
    /// Returns the full JID of the session.
    pub fn jid(&self) -> &FullJid {
        &self.jid
    }
}

impl DemoClient {
    /// Returns the full JID, once a resource is bound.
    ///
    /// # Errors
    /// Returns [`ClientError::Unbound`].
    pub fn jid(&self) -> Result<&FullJid, ClientError> {
        self.jid.as_ref().ok_or(ClientError::Unbound)
    }

    /// Writes bytes unchanged.
    ///
    /// # Errors
    /// Returns [`ClientError::Wire`].
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.tap.sent(bytes);
        Ok(wire::write(self.reader.inner(), bytes).await?)
    }

    /// Sends a chat message.
    ///
    /// # Errors
    /// Returns [`ClientError::Wire`].
    pub async fn say(&mut self, to: &str, id: &str, body: &str) -> Result<(), ClientError> {
        let mut xml = XmlWriter::new();
        xml.start("message").attr("type", "chat").attr("to", to).attr("id", id).start("body").text(body);
        self.send(&xml.finish()).await
    }

    /// Sends the initial presence.
    ///
    /// # Errors
    /// Returns [`ClientError::Wire`].
    pub async fn appear(&mut self) -> Result<(), ClientError> {
        self.send(b"<presence/>").await
    }

    /// Sends an iq request of type `kind` and returns the result. `to`: the recipient, if there is one. `payload`: one
    /// element.
    ///
    /// # Errors
    /// Returns [`ClientError::Refused`] if the answer is an error, or any other error.
    pub async fn request(&mut self, kind: &str, to: Option<&str>, payload: &[u8]) -> Result<Element, ClientError> {
        self.requests += 1;
        let id = format!("q{}", self.requests);
        let mut xml = XmlWriter::new();
        xml.start("iq").attr("type", kind).attr("id", &id);
        if let Some(to) = to {
            xml.attr("to", to);
        }
        xml.raw(payload);
        self.send(&xml.finish()).await?;
        // RFC 6120 §8.1.2.1: the server may answer on behalf of the account without a `from`.
        let own = self.jid.as_ref().map(|jid| jid.to_bare());
        let is_asked = |from: &str| to.or(own.as_ref().map(|own| own.as_str())).is_some_and(|to| to == from);
        let is_answer = |element: &Element| {
            let node = element.node();
            let kind = node.attr("type");
            element.kind() == Kind::Iq
                && node.attr("from").is_none_or(|from| is_asked(&from))
                && node.attr("id").as_deref() == Some(&id)
                && matches!(kind.as_deref(), Some("result" | "error"))
        };
        let answer = self.expect("an answer to the request", ANSWER, is_answer).await?;
        match answer.node().attr("type").as_deref() {
            Some("result") => Ok(answer),
            _ => Err(ClientError::Refused { what: "the request", answer: shown(&answer) }),
        }
    }

    /// Pings the server. After the answer, all stanzas that the server sent before are in the inbox.
    ///
    /// # Errors
    /// As [`DemoClient::request`].
    pub async fn ping(&mut self) -> Result<(), ClientError> {
        let domain = self.place.domain.clone();
        self.request("get", Some(&domain), format!("<ping xmlns='{}'/>", ns::PING).as_bytes()).await.map(drop)
    }

    /// Waits for the next stanza that matches. Others stay in the inbox, in order. `awaited` is its name in errors.
    ///
    /// # Errors
    /// Returns [`ClientError::TooLate`] after `patience`, or any other error.
    pub async fn expect(
        &mut self,
        awaited: &'static str,
        patience: Duration,
        fits: impl Fn(&Element) -> bool,
    ) -> Result<Element, ClientError> {
        if let Some(found) = self.inbox.iter().position(&fits).and_then(|at| self.inbox.remove(at)) {
            return Ok(found);
        }
        let deadline = Deadline::new(awaited, patience);
        loop {
            let element = self.stanza(&deadline).await?;
            if fits(&element) {
                return Ok(element);
            }
            self.keep(element)?;
        }
    }

    /// Waits for the next message.
    ///
    /// # Errors
    /// As [`DemoClient::expect`].
    pub async fn message(&mut self, patience: Duration) -> Result<Element, ClientError> {
        self.expect("message", patience, |element| element.kind() == Kind::Message).await
    }

    /// Removes and returns the messages in the inbox.
    pub fn messages(&mut self) -> Vec<Element> {
        let (messages, others) = self.inbox.drain(..).partition(|element| element.kind() == Kind::Message);
        self.inbox = others;
        messages.into()
    }

    /// Continues to read for a time.
    ///
    /// # Errors
    /// Returns an error if the stream ends or too many stanzas arrive.
    pub async fn listen(&mut self, duration: Duration) -> Result<(), ClientError> {
        match self.expect("end of the time", duration, |_| false).await {
            Ok(_) | Err(ClientError::TooLate { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Sends the number of handled stanzas to the server (XEP-0198 §4), and requests the server's number. The server's answer
    /// shows that it has processed ours. Returns the sent `h`.
    ///
    /// # Errors
    /// Returns [`ClientError::Unmanaged`] without stream management, or any other error.
    pub async fn acknowledge(&mut self) -> Result<u32, ClientError> {
        let managed = self.managed.as_mut().ok_or(ClientError::Unmanaged)?;
        managed.confirmed = None;
        let handled = managed.handled;
        self.send(&[&nonza::ack(Handled::new(handled))[..], &nonza::request()].concat()).await?;
        let deadline = Deadline::new("<a/>", ANSWER);
        while self.managed.as_ref().is_some_and(|managed| managed.confirmed.is_none()) {
            let element = self.element(&deadline).await?;
            if let Some(element) = self.manage(element).await? {
                self.keep(element)?;
            }
        }
        Ok(handled)
    }

    /// Drops the connection with the stream open. Returns the data for resuming the session. Stanzas that were sent and not
    /// acknowledged are not kept.
    ///
    /// # Errors
    /// Returns [`ClientError::Unmanaged`] or [`ClientError::Unbound`].
    pub fn vanish(self) -> Result<SavedSession, ClientError> {
        let managed = self.managed.ok_or(ClientError::Unmanaged)?;
        let jid = self.jid.ok_or(ClientError::Unbound)?;
        Ok(SavedSession { jid, previd: managed.id, handled: managed.handled })
    }

    /// Closes the stream in order and waits for the server's footer (RFC 6120 §4.4).
    ///
    /// # Errors
    /// As [`DemoClient::expect`].
    pub async fn close(mut self) -> Result<(), ClientError> {
        self.send(xml::STREAM_CLOSE).await?;
        let deadline = Deadline::new("end of the stream", ANSWER);
        loop {
            match self.frame(&deadline).await? {
                Frame::Close => return Ok(()),
                Frame::Open(_) | Frame::Element(_) | Frame::Skipped(_) | Frame::Whitespace => {}
            }
        }
    }

    // Reading

    async fn frame(&mut self, deadline: &Deadline) -> Result<Frame, ClientError> {
        let read = timeout_at(deadline.at, self.reader.next()).await;
        let frame = match read {
            Err(_) => return Err(deadline.missed(self.what_came())),
            Ok(Ok(None)) => return Err(ClientError::Ended { awaited: deadline.awaited, seen: self.what_came() }),
            Ok(Ok(Some(frame))) => frame,
            Ok(Err(error)) => return Err(error.into()),
        };
        match &frame {
            Frame::Open(header) => self.tap.received(header.bytes()),
            Frame::Element(element) => {
                self.tap.received(element.bytes());
                if self.seen.len() == SHOWN {
                    self.seen.pop_front();
                }
                self.seen.push_back(shown(element));
            }
            Frame::Close => self.tap.received(xml::STREAM_CLOSE),
            Frame::Skipped(_) | Frame::Whitespace => {}
        }
        Ok(frame)
    }

    async fn element(&mut self, deadline: &Deadline) -> Result<Element, ClientError> {
        loop {
            match self.frame(deadline).await? {
                Frame::Element(element) if element.is("error", ns::STREAMS) => {
                    return Err(ClientError::Refused { what: "the stream", answer: shown(&element) });
                }
                Frame::Element(element) => return Ok(element),
                Frame::Skipped(_) | Frame::Whitespace | Frame::Open(_) => {}
                Frame::Close => {
                    return Err(ClientError::Ended { awaited: deadline.awaited, seen: self.what_came() });
                }
            }
        }
    }

    async fn stanza(&mut self, deadline: &Deadline) -> Result<Element, ClientError> {
        loop {
            let element = self.element(deadline).await?;
            if let Some(element) = self.manage(element).await? {
                return Ok(element);
            }
        }
    }

    /// Counts a stanza and returns it. Handles the nonzas of stream management.
    async fn manage(&mut self, element: Element) -> Result<Option<Element>, ClientError> {
        let Some(managed) = &mut self.managed else { return Ok(Some(element)) };
        if element.kind() != Kind::Other {
            managed.handled = managed.handled.wrapping_add(1);
            return Ok(Some(element));
        }
        let node = element.node();
        if node.is("r", ns::SM) {
            let answer = nonza::ack(Handled::new(managed.handled));
            self.send(&answer).await?;
            return Ok(None);
        }
        if node.is("a", ns::SM) {
            managed.confirmed = node.attr("h").and_then(|h| h.parse().ok());
            return Ok(None);
        }
        Ok(Some(element))
    }

    fn keep(&mut self, element: Element) -> Result<(), ClientError> {
        if self.inbox.len() == INBOX {
            return Err(ClientError::InboxFull(INBOX));
        }
        self.inbox.push_back(element);
        Ok(())
    }

    fn what_came(&self) -> SeenElements {
        SeenElements(self.seen.iter().cloned().collect())
    }
}

/// The deadline of a wait.
struct Deadline {
    awaited: &'static str,
    patience: Duration,
    at: Instant,
}

impl Deadline {
    fn new(awaited: &'static str, patience: Duration) -> Self {
        Self { awaited, patience, at: Instant::now() + patience }
    }

    fn missed(&self, seen: SeenElements) -> ClientError {
        ClientError::TooLate { awaited: self.awaited, patience: self.patience, seen }
    }
}

fn shown(element: &Element) -> String {
    redacted(element.bytes()).into_owned()
}
