//! A stanza that waits in memory.

use bytes::Bytes;

use super::number::is_inherited;
use super::spooled::weight;
use crate::clock::UnixMillis;
use crate::seq::{Seq, ServerSeq};
use crate::session::Cause;
use crate::session::stamp::Ahead;
use crate::xml::{Element, Kind, ns};

/// Who was there when a stanza came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Company {
    /// No other client of the account.
    #[default]
    None,
    /// Other clients of the account: they have what was addressed to it.
    Others,
    /// A room that the client is in sent it, or is about to be: it is for this client alone.
    Room,
}

/// One stanza on its way to the client.
#[derive(Clone, Debug)]
pub struct Queued {
    /// The stanza as the server sent it.
    pub element: Element,
    /// When it came.
    pub received: UnixMillis,
    /// How much later that is than the clock said.
    pub ahead: Ahead,
    /// Its number in the queue.
    pub seq: Seq,
    /// Its number on the server's stream management leg, if it has one: they count from one.
    pub server_seq: Option<ServerSeq>,
    /// Of a kind that must not be lost (invariant 2).
    pub durable: bool,
    /// It waited, so it is written with its delay.
    pub waited: bool,
    /// Why it is written.
    pub cause: Cause,
    /// Who was there when it came.
    pub company: Company,
    /// Of a kind that may notify, so that the client is asked whether it has it.
    pub(super) notifies: bool,
    /// The spool was asked to take it, or had it before.
    pub(super) spooled: bool,
    /// The spool has refused it once, and may have it all the same.
    pub(super) doubtful: bool,
    /// The time of its writing to the client, in milliseconds of the session's own count.
    pub(super) written: u32,
    /// It was returned to its sender or set aside, and only keeps the client's count.
    pub(super) gone: bool,
}

impl Queued {
    /// A stanza that came at this time, without a number, and need not be kept.
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
            company: Company::default(),
            spooled: false,
            doubtful: false,
            written: 0,
            gone: false,
        }
    }

    /// A stanza that came at this time and was read back from a spool.
    pub(super) fn read_back(element: Element, seq: Seq, received: UnixMillis) -> Self {
        Self { durable: true, waited: true, spooled: true, ..Self::new(element, seq, received) }
    }

    /// The same for another cause than that somebody has sent it.
    pub fn because(self, cause: Cause) -> Self {
        Self { cause, ..self }
    }

    /// The same if its time is so much later than the clock said.
    pub fn ahead_by(self, ahead: Ahead) -> Self {
        Self { ahead, ..self }
    }

    /// The same with its number on the server's leg.
    pub fn of_leg(self, server_seq: Option<ServerSeq>) -> Self {
        Self { server_seq, ..self }
    }

    /// The same if it must not be lost.
    pub fn durable(self) -> Self {
        Self { durable: true, ..self }
    }

    /// The same with those who were there when it came.
    pub fn in_company(self, company: Company) -> Self {
        Self { company, ..self }
    }

    /// The time of its writing to the client, in milliseconds of the session's own count.
    pub fn written(&self) -> u32 {
        self.written
    }

    /// Returns whether memory has only its number.
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// Returns whether the spool may have it.
    pub fn is_spooled(&self) -> bool {
        self.spooled || self.doubtful
    }

    /// What it takes of the queue's memory, in bytes.
    pub(super) fn weight(&self) -> usize {
        weight(self.element.bytes().len())
    }

    /// The own spool has refused what it was asked to take and has not answered. It may have it all the same.
    pub(super) fn on_refused(&mut self, committed: Seq) {
        if self.spooled && self.seq > committed && !is_inherited(self.seq) {
            (self.spooled, self.doubtful) = (false, true);
        }
    }

    /// Returns whether it has to be spooled and was not handed to the spool yet.
    pub(super) fn must_be_handed(&self) -> bool {
        self.durable && !self.spooled && !is_inherited(self.seq)
    }

    /// Returns whether the own spool has it.
    pub(super) fn is_on_disk(&self, committed: Seq) -> bool {
        self.spooled && self.seq <= committed && !is_inherited(self.seq)
    }

    /// Returns whether it must not be lost, and no disk has it.
    pub(super) fn is_unsaved(&self, committed: Seq) -> bool {
        self.durable && !is_inherited(self.seq) && !(self.spooled && self.seq <= committed)
    }

    /// Returns whether the server need not keep it.
    pub(super) fn is_settled(&self, committed: Seq) -> bool {
        !self.durable || self.server_seq.is_none() || self.spooled && self.seq <= committed
    }

    /// The same in another place, of which no spool knows.
    pub fn anew(self, seq: Seq) -> Self {
        Self { seq, spooled: false, doubtful: false, ..self }
    }

    /// A placeholder without its content, for a stanza that was returned or set aside after it was written.
    pub(super) fn gone(&self) -> Self {
        let element = Element::parse(Bytes::from_static(b"<presence/>"), self.element.header());
        let element = element.unwrap_or_else(|_| self.element.clone());
        Self { gone: true, ..Self::new(element, self.seq, self.received) }
    }
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
