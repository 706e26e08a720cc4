//! One of our own streams to a server or a push service. [`StreamTask`] connects it when it is needed, writes publishes to
//! it, and answers every publish.

use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::answers::AnswerPolicy;
use super::error::{StreamConnectError, StreamLost, UnsentReason};
use super::exchange::{Exchange, ExchangeEvent};
use super::interruption::Interruption;
use super::peer::{CLOSE_TIMEOUT, PeerLink, PublishJob, StreamPeer, StreamTimeouts};
use super::reconnect_backoff::ReconnectBackoff;
use super::selection::Attempt;
use crate::clock::Instant;
use crate::jid::BareJid;
use crate::push::notification::Publish;
use crate::push::outcome::Outcome;
use crate::registry::Claim;

/// The limit for publishes that wait for one stream. Further ones use another transport.
const QUEUE: usize = 4096;
/// The time for which the task of an unused stream keeps running, with its last failure.
const PARKED: Duration = Duration::from_secs(60);

/// The queue of a stream.
pub(super) type PublishQueue = mpsc::Sender<PublishJob>;

/// Creates a queue, and its receiver for the task.
pub(super) fn queue() -> (PublishQueue, mpsc::Receiver<PublishJob>) {
    mpsc::channel(QUEUE)
}

/// Adds a publish to the queue of a stream.
pub(super) fn enqueue(queue: &PublishQueue, job: PublishJob) -> Result<(), UnsentReason> {
    queue.try_send(job).map_err(|error| match error {
        TrySendError::Full(_) => UnsentReason::QueueFull,
        TrySendError::Closed(_) => UnsentReason::StreamOver,
    })
}

/// The reason why a stream ended.
enum StreamEnd {
    Lost(StreamLost),
    Idle,
    Shutdown,
}

/// An event for the task.
enum StreamEvent {
    Job(Option<PublishJob>),
    Exchange(ExchangeEvent),
    Deadline,
    Interrupted,
    Shutdown,
}

/// The task of one stream.
pub(super) struct StreamTask<P> {
    pub(super) peer: Arc<P>,
    pub(super) jobs: mpsc::Receiver<PublishJob>,
    pub(super) timeouts: StreamTimeouts,
    pub(super) interruption: Interruption,
    pub(super) shutdown: CancellationToken,
}

impl<P: StreamPeer> StreamTask<P> {
    /// Runs until no publish needs the stream, publishing is interrupted, or the daemon stops.
    pub(super) async fn run(mut self) {
        let mut backoff = ReconnectBackoff::default();
        while let Some(first) = self.wanted(&backoff).await {
            let permit = match self.peer.admit(first.as_ref().map(|job| &job.account)) {
                Ok(permit) => permit,
                Err(none) => {
                    first.into_iter().for_each(|job| job.skip(&none.into()));
                    continue;
                }
            };
            let dialled = select! {
                dialled = self.peer.dial() => dialled,
                () = self.interruption.begun() => Err(StreamConnectError::Stopping),
                () = self.shutdown.cancelled() => Err(StreamConnectError::Stopping),
            };
            let link = match dialled {
                Ok(link) => link,
                Err(reason) => {
                    tracing::debug!(%reason, "push stream failed");
                    let reason = UnsentReason::from(reason);
                    first.into_iter().for_each(|job| job.skip(&reason));
                    self.skip_all(&reason);
                    backoff.on_failure(Instant::now(), reason);
                    continue;
                }
            };
            let answers = link.answers == AnswerPolicy::OnStream;
            tracing::info!(from = %link.from, answers, "push stream established");
            backoff = ReconnectBackoff::default();
            match self.serve(link, first, permit).await {
                StreamEnd::Idle => tracing::info!("push stream closed: idle"),
                StreamEnd::Lost(reason) => {
                    tracing::info!(%reason, "push stream lost");
                    if self.peer.is_eager() {
                        backoff.on_failure(Instant::now(), reason.into());
                    }
                }
                StreamEnd::Shutdown => break,
            }
        }
        self.jobs.close();
        self.skip_all(&StreamConnectError::Stopping.into());
    }

    /// Waits until a stream is needed. Returns the publish that needs it, if there is one. `None`: the task must end.
    async fn wanted(&mut self, backoff: &ReconnectBackoff) -> Option<Option<PublishJob>> {
        let parked = Instant::now() + PARKED;
        loop {
            let now = Instant::now();
            if self.shutdown.is_cancelled() || self.interruption.has_begun() {
                return None;
            }
            if self.peer.is_eager() && backoff.until(now).is_none() {
                return Some(None);
            }
            let until = backoff.until(now).unwrap_or(parked.max(now));
            select! {
                job = self.jobs.recv() => {
                    let job = job?;
                    match backoff.reason(Instant::now()) {
                        Some(reason) => job.skip(reason),
                        None => return Some(Some(job)),
                    }
                },
                () = sleep_until(until.into()) => if until >= parked && self.peer.retire() {
                    return None;
                },
                () = self.interruption.begun() => return None,
                () = self.shutdown.cancelled() => return None,
            }
        }
    }

    /// Rejects all waiting publishes, so that they use other transports.
    fn skip_all(&mut self, reason: &UnsentReason) {
        while let Ok(job) = self.jobs.try_recv() {
            job.skip(reason);
        }
    }

    /// Writes a publish, unless publishing is interrupted.
    fn publish(&self, exchange: &mut Exchange, job: PublishJob) {
        if self.interruption.has_begun() {
            return job.skip(&StreamConnectError::Stopping.into());
        }
        exchange.publish(job);
    }

    async fn serve(&mut self, link: PeerLink, first: Option<PublishJob>, permit: P::Permit) -> StreamEnd {
        let mut exchange = Exchange::new(link, self.timeouts);
        first.into_iter().for_each(|job| self.publish(&mut exchange, job));
        let (mut leaving, mut interrupted) = (None, false);
        let ended = loop {
            if leaving.is_none() && self.jobs.is_closed() {
                // No more publishes will come. Those that were written still get their answers.
                leaving = Some(Instant::now() + self.timeouts.answer);
            }
            if let Some(until) = leaving
                && (exchange.is_answered() && self.jobs.is_empty() || until <= Instant::now())
            {
                break StreamEnd::Shutdown;
            }
            let event = self.next_event(&mut exchange, leaving, interrupted).await;
            let now = Instant::now();
            match event {
                StreamEvent::Job(Some(job)) => self.publish(&mut exchange, job),
                StreamEvent::Job(None) => {}
                StreamEvent::Exchange(event) => match exchange.on_event(event, &*self.peer) {
                    Ok(()) => {}
                    Err(reason) => break StreamEnd::Lost(reason),
                },
                StreamEvent::Interrupted => {
                    interrupted = true;
                    self.jobs.close();
                    self.skip_all(&StreamConnectError::Stopping.into());
                    let until = self.interruption.deadline();
                    leaving = Some(leaving.map_or(until, |leaving: Instant| leaving.min(until)));
                }
                StreamEvent::Shutdown => leaving = Some(now + CLOSE_TIMEOUT),
                StreamEvent::Deadline => match exchange.overdue(now) {
                    Some(reason) => break StreamEnd::Lost(reason),
                    // Only if the queue is still empty: a publish in it needs the stream.
                    None if exchange.is_idle(now) && self.jobs.is_empty() => break StreamEnd::Idle,
                    None => {}
                },
            }
        };
        let (peer, span) = (Arc::clone(&self.peer), tracing::Span::current());
        let close = async move {
            let late = exchange.end().await;
            peer.count_late(late);
            drop(permit);
        };
        if let StreamEnd::Shutdown = ended {
            close.await;
        } else {
            tokio::spawn(close.instrument(span));
        }
        ended
    }

    async fn next_event(
        &mut self,
        exchange: &mut Exchange,
        leaving: Option<Instant>,
        interrupted: bool,
    ) -> StreamEvent {
        let deadline = exchange.deadline().into_iter().chain(leaving).min();
        let room = exchange.takes_more();
        let more = !(self.jobs.is_closed() && self.jobs.is_empty());
        let hurried = leaving.is_some_and(|until| until <= Instant::now() + CLOSE_TIMEOUT);
        select! {
            () = self.interruption.begun(), if !interrupted => StreamEvent::Interrupted,
            job = self.jobs.recv(), if room && more => StreamEvent::Job(job),
            event = exchange.next_event() => StreamEvent::Exchange(event),
            () = async { match deadline {
                Some(at) => sleep_until(at.into()).await,
                None => std::future::pending().await,
            } } => StreamEvent::Deadline,
            () = self.shutdown.cancelled(), if !hurried => StreamEvent::Shutdown,
        }
    }
}

/// Passes a publish to a stream with `send`, and waits for its outcome. If the stream is not ready within `ready`, or
/// publishing is interrupted first, the publish is withdrawn.
pub(super) async fn submit(
    account: &BareJid,
    publish: Publish,
    ready: Duration,
    interruption: &Interruption,
    send: impl FnOnce(PublishJob) -> Result<(), UnsentReason>,
) -> Attempt {
    let (reply, mut replied) = oneshot::channel();
    let claim = Claim::default();
    if let Err(reason) = send(PublishJob { account: account.clone(), publish, claim: claim.clone(), reply }) {
        return Attempt::Skipped(reason);
    }
    let answered = select! {
        answered = &mut replied => Some(answered),
        () = sleep(ready) => None,
        () = interruption.begun() => None,
    };
    let answered = match answered {
        Some(answered) => answered,
        None if claim.take() => return Attempt::Skipped(UnsentReason::NotReady(ready)),
        None => replied.await,
    };
    // If there is no answer, the task has ended. A publish that it had taken may have been written.
    let lost = || {
        if claim.take() { Attempt::Skipped(UnsentReason::StreamOver) } else { Attempt::Done(Outcome::Unknown) }
    };
    answered.unwrap_or_else(|_| lost())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::peer::answer;
    use crate::push::notification::Summary;
    use crate::push::registration::Registration;

    fn publish() -> Publish {
        let registration: Registration =
            serde_json::from_str(r#"{"target":{"service":"push.example","node":"n"},"device":1,"last_seen":0}"#)
                .unwrap();
        Publish::new(&registration, Summary::wake(&crate::push::settings::PushSettings::default()), 1)
    }

    fn account() -> BareJid {
        BareJid::new("juliet@example.org").unwrap()
    }

    const SOON: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_publish_that_was_given_up_is_not_written() {
        let mut kept = None;
        let keep = |job| {
            kept = Some(job);
            Ok(())
        };
        assert!(matches!(
            submit(&account(), publish(), SOON, &Interruption::default(), keep).await,
            Attempt::Skipped(_)
        ));
        assert!(!kept.unwrap().claim.take());
    }

    #[tokio::test]
    async fn a_publish_that_was_written_is_waited_for() {
        let write = |job: PublishJob| {
            assert!(job.claim.take());
            tokio::spawn(async move {
                tokio::time::sleep(3 * SOON).await;
                answer(job.reply, Outcome::Accepted);
            });
            Ok(())
        };
        assert_eq!(
            submit(&account(), publish(), SOON, &Interruption::default(), write).await,
            Attempt::Done(Outcome::Accepted)
        );
    }

    #[tokio::test]
    async fn a_publish_that_an_ended_task_had_taken_may_have_been_written() {
        let lost = |job: PublishJob| {
            drop(job);
            Ok(())
        };
        assert!(matches!(
            submit(&account(), publish(), SOON, &Interruption::default(), lost).await,
            Attempt::Skipped(_)
        ));
        let lost = |job: PublishJob| {
            assert!(job.claim.take());
            Ok(())
        };
        assert_eq!(
            submit(&account(), publish(), SOON, &Interruption::default(), lost).await,
            Attempt::Done(Outcome::Unknown)
        );
    }
}
