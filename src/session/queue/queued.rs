//! A stanza that waits in memory for the client's acknowledgement.

use bytes::Bytes;

use super::number::is_inherited;
use super::spooled::weight;
use crate::clock::UnixMillis;
use crate::seq::{Seq, ServerSeq};
use crate::session::Cause;
use crate::session::kind::is_request;
use crate::session::stamp::Ahead;
use crate::xml::{Element, Kind, XmlWriter, ns};

/// The clients that were online when a stanza came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum OnlineClients {
    /// No other client of the account.
    #[default]
    None,
    /// Other clients of the account: they also received a stanza that was addressed to it.
    Others,
    /// The stanza came from a room that the client is in, or is about to join: it is for this client alone.
    Room,
}

/// One stanza on its way to the client.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Queued {
    /// The stanza as the server sent it.
    pub element: Element,
    /// The time of its arrival.
    pub received: UnixMillis,
    /// The difference by which that time is later than the clock.
    pub ahead: Ahead,
    /// Its sequence number in the queue.
    pub seq: Seq,
    /// Its number in the server's stream management, counted from one, if it has one.
    pub server_seq: Option<ServerSeq>,
    /// True if its kind must not be lost (invariant 2).
    pub durable: bool,
    /// True if it waited, so that it is written with a delay stamp.
    pub waited: bool,
    /// The reason why it is written.
    pub cause: Cause,
    /// The clients that were online when it came.
    pub online_clients: OnlineClients,
    /// True if its kind may notify, so that the client is asked to acknowledge it.
    pub(super) notifies: bool,
    /// True if it was handed to the spool, or came from there.
    pub(super) spooled: bool,
    /// True if the spool refused it once and may hold it nevertheless.
    pub(super) doubtful: bool,
    /// The time at which it was written to the client, in milliseconds on the session's own clock.
    pub(super) written: u32,
    /// True for a placeholder: the stanza was returned to its sender or set aside, and only the client's count needs it.
    pub(super) gone: bool,
}

impl Queued {
    /// Creates a stanza without a server number that need not be kept.
    pub fn new(element: Element, seq: Seq, received: UnixMillis) -> Self {
        Self {
            notifies: may_notify(&element),
            element,
            received,
            ahead: Ahead::default(),
            seq,
            server_seq: None,
            durable: false,
            waited: false,
            cause: Cause::Relayed,
            online_clients: OnlineClients::default(),
            spooled: false,
            doubtful: false,
            written: 0,
            gone: false,
        }
    }

    /// Creates a stanza that was read back from a spool.
    pub(super) fn read_back(element: Element, seq: Seq, received: UnixMillis) -> Self {
        Self { durable: true, waited: true, spooled: true, ..Self::new(element, seq, received) }
    }

    /// The same stanza with another cause.
    pub fn because(self, cause: Cause) -> Self {
        Self { cause, ..self }
    }

    /// The same stanza with the difference between its time and the clock.
    pub fn ahead_by(self, ahead: Ahead) -> Self {
        Self { ahead, ..self }
    }

    /// The same stanza with its server number.
    pub fn of_leg(self, server_seq: Option<ServerSeq>) -> Self {
        Self { server_seq, ..self }
    }

    /// The same stanza, marked as one that must not be lost.
    pub fn durable(self) -> Self {
        Self { durable: true, ..self }
    }

    /// The same stanza with the clients that were online when it came.
    pub fn with_online_clients(self, online_clients: OnlineClients) -> Self {
        Self { online_clients, ..self }
    }

    /// The time at which it was written to the client, in milliseconds on the session's own clock.
    pub fn written(&self) -> u32 {
        self.written
    }

    /// Returns whether only a placeholder is in memory.
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// Returns whether the spool may hold it.
    pub fn is_spooled(&self) -> bool {
        self.spooled || self.doubtful
    }

    /// Its memory charge, in bytes.
    pub(super) fn weight(&self) -> usize {
        weight(self.element.bytes().len())
    }

    /// Notes that the own spool refused it without a clear answer. The spool may hold it nevertheless.
    pub(super) fn on_refused(&mut self, committed: Seq) {
        if self.spooled && self.seq > committed && !is_inherited(self.seq) {
            (self.spooled, self.doubtful) = (false, true);
        }
    }

    /// Returns whether it has to be spooled and was not handed to the spool yet.
    pub(super) fn must_be_handed(&self) -> bool {
        self.durable && !self.spooled && !is_inherited(self.seq)
    }

    /// Returns whether the own spool holds it.
    pub(super) fn is_on_disk(&self, committed: Seq) -> bool {
        self.spooled && self.seq <= committed && !is_inherited(self.seq)
    }

    /// Returns whether it must not be lost and is not on disk.
    pub(super) fn is_unsaved(&self, committed: Seq) -> bool {
        self.durable && !is_inherited(self.seq) && !(self.spooled && self.seq <= committed)
    }

    /// Returns whether the server need not keep it.
    pub(super) fn is_settled(&self, committed: Seq) -> bool {
        !self.durable || self.server_seq.is_none() || self.spooled && self.seq <= committed
    }

    /// The same stanza with another number, which no spool knows.
    pub fn renumbered(self, seq: Seq) -> Self {
        Self { seq, spooled: false, doubtful: false, ..self }
    }

    /// A placeholder without its content, for a stanza that was returned or set aside after it was written.
    pub(super) fn gone(&self) -> Self {
        self.reduced_to(Bytes::from_static(b"<presence/>"))
    }

    /// A placeholder for an iq request that keeps what its refusal is made of. `None` for other stanzas.
    pub(super) fn gone_request(&self) -> Option<Self> {
        is_request(&self.element).then(|| self.reduced_to(head(&self.element)))
    }

    fn reduced_to(&self, xml: Bytes) -> Self {
        let element = Element::parse(xml, self.element.header()).unwrap_or_else(|_| self.element.clone());
        Self { gone: true, notifies: false, ..Self::new(element, self.seq, self.received) }
    }
}

/// Returns a stanza with its name, type, id and addresses only.
fn head(element: &Element) -> Bytes {
    let node = element.node();
    let mut xml = XmlWriter::new();
    xml.start(node.name());
    for name in ["type", "id", "from", "to"] {
        if let Some(value) = node.attr(name) {
            xml.attr(name, &value);
        }
    }
    xml.finish()
}

/// Returns whether a stanza is of a kind that may notify: messages, requests for subscription, and the iqs of calls and of
/// UnifiedPush.
fn may_notify(element: &Element) -> bool {
    let is = |kind: &str| element.node().attr("type").as_deref() == Some(kind);
    match element.kind() {
        Kind::Message => true,
        Kind::Presence => element.mentions("subscribe") && is("subscribe"),
        Kind::Iq => (element.mentions(ns::JINGLE) || element.mentions(ns::UNIFIED_PUSH)) && is("set"),
        Kind::Other => false,
    }
}
