//! A stream of our own while it is up: what is written to it, and what comes back.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::carry;
use super::choice::Attempt;
use super::line::{FAREWELL, Heard, Job, Link, Patience, Peer, Stream};
use super::open::{Answered, Open};
use crate::net::conn::Conn;
use crate::push::outcome::Outcome;
use crate::xml::{Element, Frame, Kind, STREAM_CLOSE, stream_error};

/// A link in use.
pub(super) struct Talk {
    pub(super) conn: Conn<Stream>,
    from: String,
    answers: bool,
    idle: Option<Duration>,
    /// Since when nothing is awaited.
    quiet: Instant,
    pub(super) open: Open<oneshot::Sender<Attempt>>,
    write: Duration,
}

impl Talk {
    pub(super) fn new(link: Link, patience: Patience) -> Self {
        let Link { conn, from, answers, idle } = link;
        let open = Open::new(rand::random(), patience.answer);
        Self { conn, from, answers, idle, quiet: Instant::now(), open, write: patience.write }
    }

    pub(super) fn publish(&mut self, job: Job) {
        let Job { publish, claim, reply } = job;
        if !claim.take() {
            // Another transport has it by now.
            return;
        }
        self.quiet = Instant::now();
        let id = if self.answers {
            self.open.begin(self.quiet, rand::random(), (publish.target.service.clone(), reply))
        } else {
            answer(reply, Outcome::Unknown);
            self.open.id(rand::random())
        };
        self.conn.write(&publish.iq(&id, Some(&self.from)));
    }

    /// Takes what the peer has sent; the error is why the stream is over.
    pub(super) async fn frames(&mut self, peer: &impl Peer) -> Result<(), String> {
        loop {
            match self.conn.next_frame() {
                Ok(None) => return Ok(()),
                Ok(Some(Frame::Element(element))) => self.element(element, peer).await?,
                Ok(Some(Frame::Whitespace)) => {}
                Ok(Some(Frame::Close)) => return Err("closed by the peer".to_owned()),
                Ok(Some(Frame::Open(_))) => return Err("the peer began anew".to_owned()),
                Err(error) => {
                    self.conn.write(&stream_error(error.condition(), None, None));
                    return Err(format!("not an XML stream: {error}"));
                }
            }
        }
    }

    async fn element(&mut self, element: Element, peer: &impl Peer) -> Result<(), String> {
        if element.kind() == Kind::Other {
            let node = element.node();
            let condition = node.children().next().map_or("nothing", |child| child.name());
            return if node.name() == "error" { Err(format!("the peer says {condition}")) } else { Ok(()) };
        }
        let Some(stanza) = carry::to_client(&element) else { return Ok(()) };
        if self.answers && self.is_answer(&stanza) {
            return Ok(());
        }
        match peer.heard(stanza, self.answers).await {
            Heard::Nothing => Ok(()),
            Heard::Reply(bytes) => {
                self.conn.write(&bytes);
                Ok(())
            }
            Heard::Close(condition) => {
                self.conn.write(&stream_error(condition, None, None));
                Err(format!("closed with {condition}: the peer sent what it may not"))
            }
        }
    }

    fn is_answer(&mut self, stanza: &Element) -> bool {
        let node = stanza.node();
        let (Some(id), Some("result" | "error")) = (node.attr("id"), node.attr("type").as_deref()) else {
            return false;
        };
        if stanza.kind() != Kind::Iq {
            return false;
        }
        match self.open.answer(&id, node.attr("from").as_deref()) {
            Answered::NotOurs => return false,
            Answered::Nobody => {}
            Answered::To(asker) => {
                self.quiet = Instant::now();
                answer(asker, Outcome::of(&node));
            }
        }
        true
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let idle = self.idle.filter(|_| self.open.is_empty()).map(|idle| self.quiet + idle);
        [self.open.deadline(), self.conn.write_deadline(self.write), idle].into_iter().flatten().min()
    }

    /// Tells those whose answers are late; returns why the stream is over, if the peer does not read.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<String> {
        while let Some(late) = self.open.take_late(now) {
            self.quiet = now;
            answer(late, Outcome::Unknown);
        }
        let stalled = self.conn.write_deadline(self.write).is_some_and(|at| at <= now);
        stalled.then(|| "the peer does not read".to_owned())
    }

    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.open.is_empty() && self.idle.is_some_and(|idle| self.quiet + idle <= now)
    }

    /// Closes the stream, by what it returns; of what was written and not answered nothing more is known.
    pub(super) fn end(mut self) -> impl Future<Output = ()> + Send + 'static {
        for asker in self.open.into_askers() {
            answer(asker, Outcome::Unknown);
        }
        self.conn.write(STREAM_CLOSE);
        self.conn.finish(FAREWELL)
    }
}

pub(super) fn answer(asker: oneshot::Sender<Attempt>, outcome: Outcome) {
    // Whoever asked may have stopped waiting.
    drop(asker.send(Attempt::Done(outcome)));
}
