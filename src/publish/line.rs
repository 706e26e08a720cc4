//! A stream of our own to a server or a push service: the task that connects it when it is wanted, writes publishes to it,
//! and gives everybody who asked an answer.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::select;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::carry;
use super::choice::Attempt;
use super::open::{Answered, Open};
use crate::net::conn::{Conn, ConnEvent, HIGH_WATER};
use crate::push::notification::Publish;
use crate::push::outcome::Outcome;
use crate::xml::{Element, Frame, Kind, STREAM_CLOSE, stream_error};

/// Publishes that wait for one stream; more are for another transport.
pub(super) const QUEUE: usize = 4096;
/// Publishes of one stream whose answers are awaited; more wait in the queue.
const OPEN: usize = 1024;
/// How long a peer may take to read the last bytes and the close.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long a stream that nobody wants is remembered, with its last failure.
const PARKED: Duration = Duration::from_secs(60);
/// The least and the longest pause between two attempts to connect.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5 * 60));

/// Any connection.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Duplex for S {}

/// A connection, whatever is below it.
pub(super) type Stream = Box<dyn Duplex>;

/// A stream that stanzas may be written to.
pub(super) struct Link {
    pub(super) conn: Conn<Stream>,
    /// Whom publishes are from.
    pub(super) from: String,
    /// Whether answers come back on it; else nobody hears of them here.
    pub(super) answers: bool,
    /// How long it stays open when nothing is awaited; `None`: for ever.
    pub(super) idle: Option<Duration>,
}

/// What becomes of a stanza that answers nothing.
pub(super) enum Heard {
    Nothing,
    Reply(bytes::Bytes),
    /// The peer may not send such a stanza: the stream ends with this error.
    Close(&'static str),
}

/// The other end of a [`Line`].
pub(super) trait Peer: Send + 'static {
    /// Connects; the error is what operators are told.
    fn dial(&self) -> impl Future<Output = Result<Link, String>> + Send;
    /// A stanza came, in the namespace of clients, on a link with or without [`Link::answers`].
    fn heard(&self, stanza: Element, answers: bool) -> impl Future<Output = Heard> + Send;
    /// Nobody wants the line: whether it may go, because nothing can come into its queue any more.
    fn retire(&self) -> bool;
    /// Whether it is connected before anybody wants it, and again when it is lost.
    fn is_eager(&self) -> bool;
}

/// Who writes a publish, or gives it up: the first to take it.
#[derive(Clone, Debug, Default)]
pub(super) struct Claim(Arc<AtomicBool>);

impl Claim {
    pub(super) fn take(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}

/// A publish for a line.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) publish: Publish,
    pub(super) claim: Claim,
    pub(super) reply: oneshot::Sender<Attempt>,
}

impl Job {
    fn skip(self, reason: &str) {
        if self.claim.take() {
            // Whoever asked may have stopped waiting.
            drop(self.reply.send(Attempt::Skipped(reason.to_owned())));
        }
    }
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// `publish_timeout`
    pub(super) answer: Duration,
    /// `write_timeout`
    pub(super) write: Duration,
}

/// The pause before the next attempt to connect.
#[derive(Debug, Default)]
struct Backoff {
    failures: u32,
    until: Option<Instant>,
    reason: String,
}

impl Backoff {
    fn failed(&mut self, now: Instant, reason: String) {
        let (least, longest) = PAUSES;
        let pause = least.saturating_mul(1 << self.failures.min(16)).min(longest);
        self.failures += 1;
        self.until = Some(now + pause.mul_f64(rand::random_range(0.5..1.0)));
        self.reason = reason;
    }

    fn is_on(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until > now)
    }
}

/// Why a link was left.
enum Ended {
    Lost(String),
    Idle,
    Shutdown,
}

/// What woke the task.
enum Wake {
    Job(Option<Job>),
    Conn(io::Result<ConnEvent>),
    Deadline,
    Shutdown,
}

/// The task of one stream.
pub(super) struct Line<P> {
    pub(super) peer: P,
    pub(super) jobs: mpsc::Receiver<Job>,
    pub(super) patience: Patience,
    pub(super) shutdown: CancellationToken,
}

impl<P: Peer> Line<P> {
    /// Runs until nobody wants the line, or the daemon stops.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::default();
        while let Some(first) = self.wanted(&backoff).await {
            let dialled = select! {
                dialled = self.peer.dial() => dialled,
                () = self.shutdown.cancelled() => Err("the daemon stops".to_owned()),
            };
            let link = match dialled {
                Ok(link) => link,
                Err(reason) => {
                    tracing::debug!(%reason, "no stream");
                    self.refuse(first, &reason);
                    backoff.failed(Instant::now(), reason);
                    continue;
                }
            };
            tracing::info!(from = %link.from, answers = link.answers, "stream is up");
            backoff = Backoff::default();
            match self.serve(link, first).await {
                Ended::Idle => tracing::info!("stream closed: nobody needs it"),
                Ended::Lost(reason) => {
                    tracing::info!(%reason, "stream lost");
                    if self.peer.is_eager() {
                        backoff.failed(Instant::now(), reason);
                    }
                }
                Ended::Shutdown => break,
            }
        }
        self.jobs.close();
        self.refuse(None, "the daemon stops");
    }

    /// Waits until a stream is wanted, and says for what; `None`: the line is over.
    async fn wanted(&mut self, backoff: &Backoff) -> Option<Option<Job>> {
        let parked = Instant::now() + PARKED;
        loop {
            let now = Instant::now();
            if self.shutdown.is_cancelled() {
                return None;
            }
            if self.peer.is_eager() && !backoff.is_on(now) {
                return Some(None);
            }
            let until = backoff.until.filter(|until| *until > now).unwrap_or(parked.max(now));
            select! {
                job = self.jobs.recv() => match job? {
                    job if backoff.is_on(Instant::now()) => job.skip(&backoff.reason),
                    job => return Some(Some(job)),
                },
                () = sleep_until(until.into()) => if until >= parked && self.peer.retire() {
                    return None;
                },
                () = self.shutdown.cancelled() => return None,
            }
        }
    }

    /// All that waits is for another transport.
    fn refuse(&mut self, first: Option<Job>, reason: &str) {
        if let Some(job) = first {
            job.skip(reason);
        }
        while let Ok(job) = self.jobs.try_recv() {
            job.skip(reason);
        }
    }

    async fn serve(&mut self, link: Link, first: Option<Job>) -> Ended {
        let mut talk = Talk::new(link, self.patience);
        if let Some(job) = first {
            talk.publish(job);
        }
        let mut leaving = None;
        let ended = loop {
            if let Some(until) = leaving
                && (talk.open.is_empty() && self.jobs.is_empty() || until <= Instant::now())
            {
                break Ended::Shutdown;
            }
            let wake = self.wake(&mut talk, leaving).await;
            let now = Instant::now();
            match wake {
                Wake::Job(Some(job)) => talk.publish(job),
                Wake::Job(None) => break Ended::Shutdown,
                Wake::Conn(Ok(ConnEvent::Drained)) => {}
                Wake::Conn(Ok(ConnEvent::Received)) => match talk.frames(&self.peer).await {
                    Ok(()) => {}
                    Err(reason) => break Ended::Lost(reason),
                },
                Wake::Conn(Ok(ConnEvent::Closed)) => break Ended::Lost("closed by the peer".to_owned()),
                Wake::Conn(Err(error)) => break Ended::Lost(error.to_string()),
                Wake::Shutdown => leaving = Some(now + FAREWELL),
                Wake::Deadline => match talk.overdue(now) {
                    Some(reason) => break Ended::Lost(reason),
                    // Only if nothing has come into the queue meanwhile: what is in it needs the stream.
                    None if talk.is_idle(now) && self.jobs.is_empty() => break Ended::Idle,
                    None => {}
                },
            }
        };
        talk.end();
        ended
    }

    async fn wake(&mut self, talk: &mut Talk, leaving: Option<Instant>) -> Wake {
        let deadline = talk.deadline().into_iter().chain(leaving).min();
        let room = talk.open.len() < OPEN && talk.conn.backlog() < HIGH_WATER;
        select! {
            job = self.jobs.recv(), if room => Wake::Job(job),
            event = talk.conn.event(true) => Wake::Conn(event),
            () = async { match deadline {
                Some(at) => sleep_until(at.into()).await,
                None => std::future::pending().await,
            } } => Wake::Deadline,
            () = self.shutdown.cancelled(), if leaving.is_none() => Wake::Shutdown,
        }
    }
}

/// A link in use.
struct Talk {
    conn: Conn<Stream>,
    from: String,
    answers: bool,
    idle: Option<Duration>,
    /// Since when nothing is awaited.
    quiet: Instant,
    open: Open<oneshot::Sender<Attempt>>,
    write: Duration,
}

impl Talk {
    fn new(link: Link, patience: Patience) -> Self {
        let Link { conn, from, answers, idle } = link;
        let open = Open::new(rand::random(), patience.answer);
        Self { conn, from, answers, idle, quiet: Instant::now(), open, write: patience.write }
    }

    fn publish(&mut self, job: Job) {
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
    async fn frames(&mut self, peer: &impl Peer) -> Result<(), String> {
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

    fn deadline(&self) -> Option<Instant> {
        let idle = self.idle.filter(|_| self.open.is_empty()).map(|idle| self.quiet + idle);
        [self.open.deadline(), self.conn.write_deadline(self.write), idle].into_iter().flatten().min()
    }

    /// Tells those whose answers are late; returns why the stream is over, if the peer does not read.
    fn overdue(&mut self, now: Instant) -> Option<String> {
        while let Some(late) = self.open.take_late(now) {
            self.quiet = now;
            answer(late, Outcome::Unknown);
        }
        let stalled = self.conn.write_deadline(self.write).is_some_and(|at| at <= now);
        stalled.then(|| "the peer does not read".to_owned())
    }

    fn is_idle(&self, now: Instant) -> bool {
        self.open.is_empty() && self.idle.is_some_and(|idle| self.quiet + idle <= now)
    }

    /// Closes the stream; of what was written and not answered nothing more is known.
    fn end(mut self) {
        for asker in self.open.into_askers() {
            answer(asker, Outcome::Unknown);
        }
        self.conn.write(STREAM_CLOSE);
        tokio::spawn(self.conn.finish(FAREWELL));
    }
}

/// The next frame, while a stream is set up.
pub(super) async fn frame<S: Duplex>(conn: &mut Conn<S>) -> io::Result<Frame> {
    loop {
        let next = conn.next_frame();
        if let Some(frame) = next.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))? {
            return Ok(frame);
        }
        if conn.event(true).await? == ConnEvent::Closed {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn answer(asker: oneshot::Sender<Attempt>, outcome: Outcome) {
    // Whoever asked may have stopped waiting.
    drop(asker.send(Attempt::Done(outcome)));
}

/// Gives a publish to a line, by `send`, and waits for what becomes of it; a line that is not ready within `patience` does
/// not get it.
pub(super) async fn submit(
    publish: Publish,
    patience: Duration,
    send: impl FnOnce(Job) -> Result<(), String>,
) -> Attempt {
    let (reply, mut replied) = oneshot::channel();
    let claim = Claim::default();
    if let Err(reason) = send(Job { publish, claim: claim.clone(), reply }) {
        return Attempt::Skipped(reason);
    }
    let answered = match timeout(patience, &mut replied).await {
        Ok(answered) => answered,
        Err(_) if claim.take() => return Attempt::Skipped(format!("not ready within {patience:?}")),
        Err(_) => replied.await,
    };
    // Without an answer the task is gone: what it had taken may have been written.
    let lost = || {
        if claim.take() { Attempt::Skipped("its stream is over".to_owned()) } else { Attempt::Done(Outcome::Unknown) }
    };
    answered.unwrap_or_else(|_| lost())
}
