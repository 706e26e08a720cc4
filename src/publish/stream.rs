//! A stream of our own to a server or a push service: the task that connects it when it is wanted, writes publishes to it,
//! and gives everybody who asked an answer.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::select;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::exchange::Talk;
use super::selection::Attempt;
use crate::jid::BareJid;
use crate::net::conn::{Conn, ConnEvent, Io};
use crate::push::notification::Publish;
use crate::push::outcome::Outcome;
use crate::xml::{Element, Frame};

/// Publishes that wait for one stream; more are for another transport.
pub(super) const QUEUE: usize = 4096;
/// Publishes of one stream whose answers are awaited; more wait in the queue.
const OPEN: usize = 1024;
/// How long a peer may take to read the last bytes and the close.
pub(super) const FAREWELL: Duration = Duration::from_secs(2);
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

/// What becomes of a stanza that answers no publish.
#[derive(Debug)]
pub(super) enum Heard {
    Nothing,
    Reply(Bytes),
    /// The peer may not send such a stanza: the stream ends, and the sender gets this error.
    Refuse(Option<Bytes>),
    /// Another task decides. `false` means [`Heard::Refuse`].
    Ask(oneshot::Receiver<bool>, Option<Bytes>),
    /// The peer may not send such a thing: the stream ends at once with this error.
    Close(&'static str),
}

/// The other end of a [`Line`].
pub(super) trait Peer: Send + Sync + 'static {
    /// The right to one stream.
    type Place: Send;
    /// Gives the account that wants the stream the right to it; the error says why it has none.
    fn admit(&self, account: Option<&BareJid>) -> Result<Self::Place, String>;
    /// Connects; the error is what operators are told.
    fn dial(&self) -> impl Future<Output = Result<Link, String>> + Send;
    /// Takes a stanza, in the namespace of clients, from a link with or without [`Link::answers`]. Waits for nobody.
    fn heard(&self, stanza: Element, answers: bool) -> Heard;
    /// Takes an element that is no stanza, behind so many others of this link.
    fn heard_other(&self, before: u32) -> Heard;
    /// The peer has sent what it may not, which is the first time on this link.
    fn misused(&self);
    /// Counts a stanza that is refused.
    fn refused(&self);
    /// Counts a stanza that is dropped, since too many wait to be decided about.
    fn dropped(&self);
    /// Counts stanzas that came behind our footer.
    fn late(&self, stanzas: u64);
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
    /// Whose device is notified.
    pub(super) account: BareJid,
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
        self.failures = self.failures.saturating_add(1);
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
    /// Whether a stanza is refused, and the error that its sender gets.
    Decided((bool, Option<Bytes>)),
    Deadline,
    Shutdown,
}

/// The task of one stream.
pub(super) struct Line<P> {
    pub(super) peer: Arc<P>,
    pub(super) jobs: mpsc::Receiver<Job>,
    pub(super) patience: Patience,
    pub(super) shutdown: CancellationToken,
}

impl<P: Peer> Line<P> {
    /// Runs until nobody wants the line, or the daemon stops.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::default();
        while let Some(first) = self.wanted(&backoff).await {
            let place = match self.peer.admit(first.as_ref().map(|job| &job.account)) {
                Ok(place) => place,
                Err(reason) => {
                    first.into_iter().for_each(|job| job.skip(&reason));
                    continue;
                }
            };
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
            match self.serve(link, (first, place)).await {
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

    async fn serve(&mut self, link: Link, (first, place): (Option<Job>, P::Place)) -> Ended {
        let mut talk = Talk::new(link, self.patience);
        if let Some(job) = first {
            talk.publish(job);
        }
        let mut leaving = None;
        let ended = loop {
            if leaving.is_none() && self.jobs.is_closed() {
                // Nobody brings more; those who have asked still get their answers.
                leaving = Some(Instant::now() + self.patience.answer);
            }
            if let Some(until) = leaving
                && (talk.open.is_empty() && self.jobs.is_empty() || until <= Instant::now())
            {
                break Ended::Shutdown;
            }
            let wake = self.wake(&mut talk, leaving).await;
            let now = Instant::now();
            match wake {
                Wake::Job(Some(job)) => talk.publish(job),
                Wake::Job(None) => {}
                // What had to wait in the framer comes once the peer has read enough.
                Wake::Conn(Ok(ConnEvent::Received | ConnEvent::Drained)) => match talk.frames(&*self.peer) {
                    Ok(()) => {}
                    Err(reason) => break Ended::Lost(reason),
                },
                Wake::Decided((refused, error)) => {
                    if refused {
                        talk.refuse(&*self.peer, error);
                    }
                }
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
        let (peer, span) = (Arc::clone(&self.peer), tracing::Span::current());
        let farewell = async move {
            let late = talk.end().await;
            peer.late(late);
            drop(place);
        };
        if let Ended::Shutdown = ended {
            farewell.await;
        } else {
            tokio::spawn(farewell.instrument(span));
        }
        ended
    }

    async fn wake(&mut self, talk: &mut Talk, leaving: Option<Instant>) -> Wake {
        let deadline = talk.deadline().into_iter().chain(leaving).min();
        let room = talk.open.len() < OPEN && !talk.conn.is_full() && !talk.is_refusing();
        let read = talk.reads(Instant::now());
        let more = !(self.jobs.is_closed() && self.jobs.is_empty());
        let hurried = leaving.is_some_and(|until| until <= Instant::now() + FAREWELL);
        select! {
            job = self.jobs.recv(), if room && more => Wake::Job(job),
            event = talk.conn.event(Io::read_if(read)) => Wake::Conn(event),
            Some(decided) = talk.asked.join_next() => Wake::Decided(decided.unwrap_or_default()),
            () = async { match deadline {
                Some(at) => sleep_until(at.into()).await,
                None => std::future::pending().await,
            } } => Wake::Deadline,
            () = self.shutdown.cancelled(), if !hurried => Wake::Shutdown,
        }
    }
}

/// The next frame, while a stream is set up.
pub(super) async fn frame<S: Duplex>(conn: &mut Conn<S>) -> io::Result<Frame> {
    loop {
        let next = conn.next_frame();
        if let Some(frame) = next.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))? {
            return Ok(frame);
        }
        if conn.event(Io::read_if(!conn.owes_too_much())).await? == ConnEvent::Closed {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Gives a publish to a line, by `send`, and waits for what becomes of it; a line that is not ready within `patience` does
/// not get it.
pub(super) async fn submit(
    (account, publish): (&BareJid, Publish),
    patience: Duration,
    send: impl FnOnce(Job) -> Result<(), String>,
) -> Attempt {
    let (reply, mut replied) = oneshot::channel();
    let claim = Claim::default();
    if let Err(reason) = send(Job { account: account.clone(), publish, claim: claim.clone(), reply }) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::exchange::answer;
    use crate::push::notification::Summary;
    use crate::push::registration::Registration;

    fn publish() -> Publish {
        let registration: Registration =
            serde_json::from_str(r#"{"target":{"service":"push.example","node":"n"},"device":1,"last_seen":0}"#)
                .unwrap();
        Publish::new(&registration, Summary::wake(&crate::push::settings::Settings::default(), false), 1)
    }

    fn account() -> BareJid {
        BareJid::new("juliet@example.org").unwrap()
    }

    const SOON: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_publish_that_was_given_up_is_written_by_nobody() {
        let mut kept = None;
        let keep = |job| {
            kept = Some(job);
            Ok(())
        };
        assert!(matches!(submit((&account(), publish()), SOON, keep).await, Attempt::Skipped(_)));
        assert!(!kept.unwrap().claim.take());
    }

    #[tokio::test]
    async fn a_publish_that_was_written_is_waited_for() {
        let write = |job: Job| {
            assert!(job.claim.take());
            tokio::spawn(async move {
                tokio::time::sleep(3 * SOON).await;
                answer(job.reply, Outcome::Accepted);
            });
            Ok(())
        };
        assert_eq!(submit((&account(), publish()), SOON, write).await, Attempt::Done(Outcome::Accepted));
    }

    #[tokio::test]
    async fn what_a_task_that_is_gone_had_taken_may_have_been_written() {
        let lost = |job: Job| {
            drop(job);
            Ok(())
        };
        assert!(matches!(submit((&account(), publish()), SOON, lost).await, Attempt::Skipped(_)));
        let lost = |job: Job| {
            job.claim.take();
            Ok(())
        };
        assert_eq!(submit((&account(), publish()), SOON, lost).await, Attempt::Done(Outcome::Unknown));
    }

    #[test]
    fn pauses_grow_and_are_bounded() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        for failures in 0..40 {
            backoff.failed(now, String::new());
            let pause = backoff.until.unwrap() - now;
            let most = PAUSES.0.saturating_mul(1 << failures.min(16)).min(PAUSES.1);
            assert!(pause <= most && pause >= most / 2, "{pause:?} after {failures}");
        }
    }
}
