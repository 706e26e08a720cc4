//! [`Exchange`]: the traffic on one of our own streams while it is up. It writes publishes and processes the peer's answers.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use tokio::select;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use super::answers::AnswerPolicy;
use super::error::StreamLost;
use super::namespace;
use super::peer::{CLOSE_TIMEOUT, PeerLink, PublishJob, PublishStream, Reaction, StreamPeer, StreamTimeouts, answer};
use super::pending::{AnsweredPublish, PendingPublishes};
use super::selection::Attempt;
use crate::clock::Instant;
use crate::net::conn::{Conn, ConnEvent, Io};
use crate::push::outcome::Outcome;
use crate::xml::{Element, Frame, Kind, STREAM_CLOSE, StreamCondition, excerpt, ns, stream_error};

/// The time for which a peer that sent something forbidden still gets answers, before the stream ends.
const REFUSING: Duration = Duration::from_secs(1);
/// The limit for unanswered publishes on one stream. Further ones wait in the queue.
const PENDING: usize = 1024;
/// The limit for stanzas that wait for a decision of another task. Further ones are dropped.
const ASKED: usize = 64;

/// The decision of another task about a stanza.
#[derive(Debug, Default)]
pub(super) struct Decision {
    refused: bool,
    /// The error that the sender gets if the stanza is refused.
    error: Option<Bytes>,
}

/// An event of a stream.
#[derive(Debug)]
pub(super) enum ExchangeEvent {
    Conn(std::io::Result<ConnEvent>),
    Decided(Decision),
}

/// A stream in use.
pub(super) struct Exchange {
    conn: Conn<PublishStream>,
    from: String,
    answers: AnswerPolicy,
    idle: Option<Duration>,
    /// The time since which no answer is awaited.
    quiet: Instant,
    pending: PendingPublishes<oneshot::Sender<Attempt>>,
    write: Duration,
    /// The number of elements of the peer that are not stanzas.
    others: u32,
    /// True if our footer was written, after a stream error.
    closed: bool,
    /// The time at which the stream ends, because the peer sent something forbidden.
    refusing: Option<Instant>,
    /// The time since which the peer is not read, because it does not read the replies to it.
    unread: Option<Instant>,
    /// The stanzas that wait for a decision of another task.
    asked: JoinSet<Decision>,
}

impl Exchange {
    pub(super) fn new(link: PeerLink, timeouts: StreamTimeouts) -> Self {
        let PeerLink { conn, from, answers, idle } = link;
        let pending = PendingPublishes::new(rand::random(), timeouts.answer);
        Self {
            conn,
            from,
            answers,
            idle,
            quiet: Instant::now(),
            pending,
            write: timeouts.write,
            others: 0,
            closed: false,
            refusing: None,
            unread: None,
            asked: JoinSet::new(),
        }
    }

    pub(super) fn publish(&mut self, job: PublishJob) {
        let PublishJob { publish, claim, reply, .. } = job;
        if !claim.take() {
            // Another transport has already taken the publish.
            return;
        }
        self.quiet = Instant::now();
        let id = match self.answers {
            AnswerPolicy::OnStream => {
                self.pending.begin(self.quiet, rand::random(), publish.target.service.clone(), reply)
            }
            AnswerPolicy::ToServer => {
                answer(reply, Outcome::Unknown);
                self.pending.id(rand::random())
            }
        };
        self.conn.write(&publish.iq(&id, Some(&self.from)));
    }

    /// Returns whether the peer is read now. While it is not, the timeouts of its answers do not run.
    fn reads(&mut self, now: Instant) -> bool {
        let reads = !self.conn.replies_full();
        match self.unread {
            Some(since) if reads => {
                self.pending.postpone(now.duration_since(since));
                self.unread = None;
            }
            None if !reads => self.unread = Some(now),
            Some(_) | None => {}
        }
        reads
    }

    /// Returns whether another publish may be written. Returns false on a stream that is about to end because the peer sent
    /// something forbidden.
    pub(super) fn takes_more(&self) -> bool {
        self.pending.len() < PENDING && !self.conn.is_full() && self.refusing.is_none()
    }

    /// Returns whether no answer is awaited.
    pub(super) fn is_answered(&self) -> bool {
        self.pending.is_empty()
    }

    /// Waits for the next event. Cancel safe.
    pub(super) async fn next_event(&mut self) -> ExchangeEvent {
        let read = self.reads(Instant::now());
        select! {
            event = self.conn.event(Io::read_if(read)) => ExchangeEvent::Conn(event),
            Some(decided) = self.asked.join_next() => ExchangeEvent::Decided(decided.unwrap_or_default()),
        }
    }

    /// Handles an event.
    ///
    /// # Errors
    /// Returns why the stream has ended.
    pub(super) fn on_event(&mut self, event: ExchangeEvent, peer: &impl StreamPeer) -> Result<(), StreamLost> {
        match event {
            // The framer may hold frames that could not be processed until the peer had read enough.
            ExchangeEvent::Conn(Ok(ConnEvent::Received | ConnEvent::Drained)) => self.frames(peer),
            ExchangeEvent::Conn(Ok(ConnEvent::Closed)) => Err(StreamLost::Closed),
            ExchangeEvent::Conn(Err(error)) => Err(error.into()),
            ExchangeEvent::Decided(Decision { refused, error }) => {
                if refused {
                    self.refuse(peer, error);
                }
                Ok(())
            }
        }
    }

    /// Processes the frames of the peer, as long as it reads the replies.
    fn frames(&mut self, peer: &impl StreamPeer) -> Result<(), StreamLost> {
        while !self.conn.replies_full() {
            match self.conn.next_frame() {
                Ok(None) => return Ok(()),
                Ok(Some(Frame::Element(element))) => self.element(element, peer)?,
                // The rest of a skipped stanza is enough for an answer.
                Ok(Some(Frame::Skipped(skipped))) => self.element(skipped.element, peer)?,
                Ok(Some(Frame::Whitespace)) => {}
                Ok(Some(Frame::Close)) => return Err(StreamLost::Closed),
                Ok(Some(Frame::Open(_))) => return Err(StreamLost::Reopened),
                Err(error) => {
                    self.fail(error.condition());
                    return Err(StreamLost::NotXml(error));
                }
            }
        }
        Ok(())
    }

    fn element(&mut self, element: Element, peer: &impl StreamPeer) -> Result<(), StreamLost> {
        if element.kind() == Kind::Other {
            let node = element.node();
            if !node.is("error", ns::STREAMS) {
                let reaction = peer.on_other(self.others);
                self.others = self.others.saturating_add(1);
                return self.react(reaction, peer);
            }
            let condition = node.children().find(|child| child.ns() == ns::STREAM_ERRORS && child.name() != "text");
            return Err(StreamLost::StreamError(excerpt(condition.map_or("nothing", |condition| condition.name()))));
        }
        let Some(stanza) = namespace::to_client(&element) else { return Ok(()) };
        if self.answers == AnswerPolicy::OnStream && self.is_answer(&stanza) {
            return Ok(());
        }
        self.react(peer.on_stanza(stanza, self.answers), peer)
    }

    fn react(&mut self, reaction: Reaction, peer: &impl StreamPeer) -> Result<(), StreamLost> {
        match reaction {
            Reaction::Nothing => {}
            Reaction::Reply(bytes) => self.conn.reply(&bytes),
            Reaction::Refuse(error) => self.refuse(peer, error),
            Reaction::Ask(decided, error) if self.asked.len() < ASKED => {
                // Without a decision the stanza is not refused.
                self.asked.spawn(async move { Decision { refused: decided.await == Ok(false), error } });
            }
            Reaction::Ask(..) => peer.count_dropped(),
            Reaction::Close(condition) => {
                peer.count_refused();
                self.fail(condition);
                return Err(StreamLost::Misused(condition));
            }
        }
        Ok(())
    }

    /// Writes a stream error. It includes our footer.
    fn fail(&mut self, condition: StreamCondition) {
        self.conn.reply(&stream_error(condition, None, None));
        self.closed = true;
    }

    /// Refuses a stanza, and ends the stream soon.
    fn refuse(&mut self, peer: &impl StreamPeer, error: Option<Bytes>) {
        if self.refusing.is_none() {
            self.refusing = Some(Instant::now() + REFUSING);
            peer.on_misuse();
        }
        peer.count_refused();
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
        match self.pending.answer(&id, node.attr("from").as_deref()) {
            AnsweredPublish::NotOurs => return false,
            AnsweredPublish::NotAwaited => {}
            AnsweredPublish::To(asker) => {
                self.quiet = Instant::now();
                answer(asker, Outcome::of(&node));
            }
        }
        true
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let idle = self.idle.filter(|_| self.pending.is_empty()).map(|idle| self.quiet + idle);
        let answer = self.pending.deadline().filter(|_| self.unread.is_none());
        [answer, self.conn.write_deadline(self.write), idle, self.refusing].into_iter().flatten().min()
    }

    /// Completes publishes whose answers are late. Returns why the stream has ended, if it has.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<StreamLost> {
        while let Some(late) = self.unread.is_none().then(|| self.pending.take_late(now)).flatten() {
            self.quiet = now;
            answer(late, Outcome::Unknown);
        }
        if self.refusing.is_some_and(|at| at <= now) {
            return Some(StreamLost::MoreThanAnswers);
        }
        let stalled = self.conn.write_deadline(self.write).is_some_and(|at| at <= now);
        stalled.then_some(StreamLost::Stalled)
    }

    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.pending.is_empty() && self.idle.is_some_and(|idle| self.quiet + idle <= now)
    }

    /// Closes the stream when the returned future is awaited. The outcome of unanswered publishes is unknown. The future
    /// reads until the peer's own footer and returns the number of stanzas before it.
    pub(super) fn end(mut self) -> impl Future<Output = u64> + Send + 'static {
        for asker in self.pending.into_askers() {
            answer(asker, Outcome::Unknown);
        }
        if !self.closed {
            self.conn.write(STREAM_CLOSE);
        }
        let (mut conn, answers) = (self.conn, self.answers);
        async move {
            let mut late = 0;
            let until = tokio::time::Instant::now() + CLOSE_TIMEOUT;
            if answers == AnswerPolicy::OnStream {
                // Cancel safe: the stanzas counted until the deadline are reported.
                drop(timeout_at(until, behind_footer(&mut conn, &mut late)).await);
            }
            conn.finish(until.saturating_duration_since(tokio::time::Instant::now())).await;
            late
        }
    }
}

/// Counts the stanzas that arrive before the peer's footer.
async fn behind_footer(conn: &mut Conn<PublishStream>, late: &mut u64) {
    loop {
        match conn.next_frame() {
            Ok(Some(Frame::Element(element))) if element.kind() != Kind::Other => *late = late.saturating_add(1),
            Ok(Some(Frame::Element(_) | Frame::Skipped(_) | Frame::Whitespace)) => {}
            Ok(Some(Frame::Close | Frame::Open(_))) | Err(_) => return,
            // None of these stanzas is answered, so no backpressure is needed.
            Ok(None) => match conn.event(Io::ReadWrite).await {
                Ok(ConnEvent::Received | ConnEvent::Drained) => {}
                Ok(ConnEvent::Closed) | Err(_) => return,
            },
        }
    }
}
