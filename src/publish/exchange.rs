//! A stream of our own while it is up: what is written to it, and what comes back.

use std::future::Future;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use super::namespace;
use super::pending::{Answered, Open};
use super::selection::Attempt;
use super::stream::{FAREWELL, Heard, Job, Link, Patience, Peer, Stream};
use crate::net::conn::{Conn, ConnEvent, Io};
use crate::push::outcome::Outcome;
use crate::xml::{Element, Frame, Kind, STREAM_CLOSE, excerpt, ns, stream_error};

/// How long what a peer may not send is answered, before the stream ends.
const REFUSING: Duration = Duration::from_secs(1);
/// Stanzas that somebody else decides about at once; more are dropped.
const ASKED: usize = 64;

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
    /// Elements of the peer that are no stanzas.
    others: u32,
    /// Our footer was written, behind a stream error.
    closed: bool,
    /// The peer has sent what it may not: when the stream ends.
    refusing: Option<Instant>,
    /// Since when the peer is not read, because it does not read what it is answered.
    unread: Option<Instant>,
    /// Stanzas that somebody else decides about: whether each is refused, and the error that its sender gets.
    pub(super) asked: JoinSet<(bool, Option<Bytes>)>,
}

impl Talk {
    pub(super) fn new(link: Link, patience: Patience) -> Self {
        let Link { conn, from, answers, idle } = link;
        let open = Open::new(rand::random(), patience.answer);
        Self {
            conn,
            from,
            answers,
            idle,
            quiet: Instant::now(),
            open,
            write: patience.write,
            others: 0,
            closed: false,
            refusing: None,
            unread: None,
            asked: JoinSet::new(),
        }
    }

    pub(super) fn publish(&mut self, job: Job) {
        let Job { publish, claim, reply, .. } = job;
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

    /// Whether the peer is read now. No clock runs for its answers while it is not.
    pub(super) fn reads(&mut self, now: Instant) -> bool {
        let reads = !self.conn.owes_too_much();
        match self.unread {
            Some(since) if reads => {
                self.open.postpone(now.saturating_duration_since(since));
                self.unread = None;
            }
            None if !reads => self.unread = Some(now),
            Some(_) | None => {}
        }
        reads
    }

    /// Whether the stream is about to end, because the peer has sent what it may not.
    pub(super) fn is_refusing(&self) -> bool {
        self.refusing.is_some()
    }

    /// Takes what the peer has sent, as long as it reads its answers; the error is why the stream is over.
    pub(super) fn frames(&mut self, peer: &impl Peer) -> Result<(), String> {
        while !self.conn.owes_too_much() {
            match self.conn.next_frame() {
                Ok(None) => return Ok(()),
                Ok(Some(Frame::Element(element))) => self.element(element, peer)?,
                // What is left of it is enough for an answer.
                Ok(Some(Frame::Skipped(skipped))) => self.element(skipped.element, peer)?,
                Ok(Some(Frame::Whitespace)) => {}
                Ok(Some(Frame::Close)) => return Err("closed by the peer".to_owned()),
                Ok(Some(Frame::Open(_))) => return Err("the peer began anew".to_owned()),
                Err(error) => {
                    self.fail(error.condition().name());
                    return Err(format!("not an XML stream: {error}"));
                }
            }
        }
        Ok(())
    }

    fn element(&mut self, element: Element, peer: &impl Peer) -> Result<(), String> {
        if element.kind() == Kind::Other {
            let node = element.node();
            if !node.is("error", ns::STREAMS) {
                let heard = peer.heard_other(self.others);
                self.others = self.others.saturating_add(1);
                return self.obey(heard, peer);
            }
            let condition = node.children().find(|child| child.ns() == ns::STREAM_ERRORS && child.name() != "text");
            return Err(format!(
                "the peer says {}",
                excerpt(condition.map_or("nothing", |condition| condition.name()))
            ));
        }
        let Some(stanza) = namespace::to_client(&element) else { return Ok(()) };
        if self.answers && self.is_answer(&stanza) {
            return Ok(());
        }
        self.obey(peer.heard(stanza, self.answers), peer)
    }

    fn obey(&mut self, heard: Heard, peer: &impl Peer) -> Result<(), String> {
        match heard {
            Heard::Nothing => {}
            Heard::Reply(bytes) => self.conn.reply(&bytes),
            Heard::Refuse(error) => self.refuse(peer, error),
            Heard::Ask(decided, error) if self.asked.len() < ASKED => {
                // Whoever does not answer has not refused it.
                self.asked.spawn(async move { (decided.await == Ok(false), error) });
            }
            Heard::Ask(..) => peer.dropped(),
            Heard::Close(condition) => {
                peer.refused();
                self.fail(condition);
                return Err(format!("closed with {condition}: the peer sent what it may not"));
            }
        }
        Ok(())
    }

    /// Writes a stream error, which ends with our footer.
    fn fail(&mut self, condition: &str) {
        self.conn.reply(&stream_error(condition, None, None));
        self.closed = true;
    }

    /// Refuses a stanza, and ends the stream soon.
    pub(super) fn refuse(&mut self, peer: &impl Peer, error: Option<Bytes>) {
        if self.refusing.is_none() {
            self.refusing = Some(Instant::now() + REFUSING);
            peer.misused();
        }
        peer.refused();
        error.into_iter().for_each(|error| self.conn.reply(&error));
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
        let answer = self.open.deadline().filter(|_| self.unread.is_none());
        [answer, self.conn.write_deadline(self.write), idle, self.refusing].into_iter().flatten().min()
    }

    /// Tells those whose answers are late; returns why the stream is over, if it is.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<String> {
        while let Some(late) = self.unread.is_none().then(|| self.open.take_late(now)).flatten() {
            self.quiet = now;
            answer(late, Outcome::Unknown);
        }
        if self.refusing.is_some_and(|at| at <= now) {
            return Some("the peer sent more than answers".to_owned());
        }
        let stalled = self.conn.write_deadline(self.write).is_some_and(|at| at <= now);
        stalled.then(|| "the peer does not read".to_owned())
    }

    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.open.is_empty() && self.idle.is_some_and(|idle| self.quiet + idle <= now)
    }

    /// Closes the stream, by what it returns; of what was written and not answered nothing more is known. Reads until the
    /// peer's own footer, and returns how many stanzas came before it.
    pub(super) fn end(mut self) -> impl Future<Output = u64> + Send + 'static {
        for asker in self.open.into_askers() {
            answer(asker, Outcome::Unknown);
        }
        if !self.closed {
            self.conn.write(STREAM_CLOSE);
        }
        let (mut conn, answers) = (self.conn, self.answers);
        async move {
            let mut late = 0;
            let until = tokio::time::Instant::now() + FAREWELL;
            if answers {
                // Cancel safe: what was counted until then counts.
                drop(timeout_at(until, behind_footer(&mut conn, &mut late)).await);
            }
            conn.finish(until.saturating_duration_since(tokio::time::Instant::now())).await;
            late
        }
    }
}

/// Counts the stanzas that come until the peer's footer.
async fn behind_footer(conn: &mut Conn<Stream>, late: &mut u64) {
    loop {
        match conn.next_frame() {
            Ok(Some(Frame::Element(element))) if element.kind() != Kind::Other => *late = late.saturating_add(1),
            Ok(Some(Frame::Element(_) | Frame::Skipped(_) | Frame::Whitespace)) => {}
            Ok(Some(Frame::Close | Frame::Open(_))) | Err(_) => return,
            // Nothing of it is answered, so all of it is read.
            Ok(None) => match conn.event(Io::ReadWrite).await {
                Ok(ConnEvent::Received | ConnEvent::Drained) => {}
                Ok(ConnEvent::Closed) | Err(_) => return,
            },
        }
    }
}

pub(super) fn answer(asker: oneshot::Sender<Attempt>, outcome: Outcome) {
    // Whoever asked may have stopped waiting.
    drop(asker.send(Attempt::Done(outcome)));
}
