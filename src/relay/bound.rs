//! Drives a [`Session`]: the task that owns both legs until the session ends.

use std::collections::VecDeque;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::select;
use tokio::sync::mpsc;
use tokio::time::sleep_until;

use super::login::{self, Login};
use super::registry::{Attach, Command, Handle, Refused};
use super::{Client, Relay};
use crate::net::conn::{ConnEvent, HIGH_WATER};
use crate::net::listener::Permit;
use crate::net::upstream::UpstreamConn;
use crate::publish;
use crate::push::account::{Account, Change, DeviceId};
use crate::session::{Bound, Clock, Closing, EndReason, Event, Input, Output, Owner, Session, SmId, Stored, Token};
use crate::store::StoreError;

type Answer = (Account, Option<DeviceId>);
type StoreJob = Pin<Box<dyn Future<Output = Result<Answer, StoreError>> + Send>>;

/// What woke the task.
enum Wake {
    Client(std::io::Result<ConnEvent>),
    Upstream(std::io::Result<ConnEvent>),
    Command(Command),
    Stored(Result<Answer, StoreError>),
    Deadline,
    Drain,
}

/// What the store is asked.
enum Request {
    Read,
    Change(Option<Token>, Change),
}

struct Driver {
    relay: Arc<Relay>,
    session: Session,
    handle: Arc<Handle>,
    sm_id: Option<SmId>,
    commands: mpsc::Receiver<Command>,
    client: Option<Client>,
    upstream: UpstreamConn,
    /// What the store is to do, one after the other.
    waiting: VecDeque<Request>,
    /// What the store is at.
    job: Option<(Option<Token>, StoreJob)>,
    ended: Option<EndReason>,
}

/// Runs a session from its bind to its end.
pub(super) async fn run(relay: Arc<Relay>, login: Login, permit: Permit) {
    let Login { bound, client, upstream } = login;
    let (handle, commands) = relay.registry.enter(login::held(&bound));
    let owner = owner(&relay, &bound).await;
    let clock = Clock { now: Instant::now(), wall: SystemTime::now() };
    let session = Session::new(Arc::clone(&relay.settings), bound, owner, rand::random, clock);
    tracing::info!("bound");
    let mut driver = Driver {
        relay,
        session,
        handle,
        sm_id: None,
        commands,
        client: Some(client),
        upstream,
        waiting: VecDeque::new(),
        job: None,
        ended: None,
    };
    driver.drive().await;
    driver.leave().await;
    drop(permit);
}

/// Tells the store who logged in. Without a store the session goes on, as a device that is new.
async fn owner(relay: &Relay, bound: &Bound) -> Owner {
    let candidate = DeviceId(rand::random());
    let presented = bound.presented.as_ref().map(|id| id.as_str().to_owned());
    let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let resource = bound.jid.resource().as_str().to_owned();
    let change = Change::Login { candidate, resource, presented: presented.clone(), at };
    let answer = match relay.store.change(&bound.jid.to_bare(), change).await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::error!(%error, "the account cannot be stored");
            Answer::default()
        }
    };
    let device = answer.1.unwrap_or(candidate);
    let known = |id: &String| answer.0.device(device).is_some_and(|d| d.sm_ids.contains(id));
    Owner { device, certain: presented.as_ref().is_some_and(known), account: answer.0 }
}

impl Driver {
    async fn drive(&mut self) {
        // What the client sent right behind its bind.
        self.frames_from_client();
        self.frames_from_upstream();
        while self.ended.is_none() {
            self.take(Input::Quiet);
            let wake = self.next_wake().await;
            self.react(wake);
        }
    }

    async fn next_wake(&mut self) -> Wake {
        let write_timeout = self.relay.config.stream_management.write_timeout;
        let stalls = [
            self.client.as_ref().and_then(|client| client.write_deadline(write_timeout)),
            self.upstream.write_deadline(write_timeout),
            self.session.deadline(),
        ];
        let deadline = stalls.into_iter().flatten().min();
        // A peer that does not read slows down only the one that writes to it.
        let read_client = self.upstream.backlog() < HIGH_WATER;
        let read_upstream = self.client.as_ref().is_none_or(|client| client.backlog() < HIGH_WATER);
        let (client, job) = (&mut self.client, &mut self.job);
        select! {
            event = self.upstream.event(read_upstream) => Wake::Upstream(event),
            event = async { match client {
                Some(client) => client.event(read_client).await,
                None => pending().await,
            } } => Wake::Client(event),
            Some(command) = self.commands.recv() => Wake::Command(command),
            result = async { match job {
                Some((_, job)) => job.await,
                None => pending().await,
            } } => Wake::Stored(result),
            () = async { match deadline {
                Some(at) => sleep_until(at.into()).await,
                None => pending().await,
            } } => Wake::Deadline,
            () = self.relay.shutdown.cancelled() => Wake::Drain,
        }
    }

    fn react(&mut self, wake: Wake) {
        match wake {
            Wake::Upstream(Ok(ConnEvent::Drained)) | Wake::Client(Ok(ConnEvent::Drained)) => {}
            Wake::Upstream(Ok(ConnEvent::Received)) => self.frames_from_upstream(),
            Wake::Upstream(Ok(ConnEvent::Closed) | Err(_)) => self.take(Input::UpstreamLost),
            Wake::Client(Ok(ConnEvent::Received)) => self.frames_from_client(),
            Wake::Client(Ok(ConnEvent::Closed)) => self.client_lost("closed without a stream footer"),
            Wake::Client(Err(error)) => {
                tracing::debug!(%error, "the client's connection broke");
                self.client_lost("broken");
            }
            Wake::Command(Command::Attach(attach)) => self.attach(*attach),
            Wake::Command(Command::AccountChanged) => {
                self.waiting.push_back(Request::Read);
                self.next_job();
            }
            Wake::Stored(result) => self.stored(result),
            Wake::Deadline => self.deadline(),
            Wake::Drain => self.take(Input::Drain),
        }
    }

    fn deadline(&mut self) {
        let now = Instant::now();
        let write_timeout = self.relay.config.stream_management.write_timeout;
        let over = |deadline: Option<Instant>| deadline.is_some_and(|at| at <= now);
        if self.client.as_ref().is_some_and(|client| over(client.write_deadline(write_timeout))) {
            self.client_lost("does not read");
        }
        if over(self.upstream.write_deadline(write_timeout)) {
            tracing::warn!("the server does not read");
            self.take(Input::UpstreamLost);
        }
        self.take(Input::Timeout);
    }

    fn client_lost(&mut self, how: &str) {
        tracing::debug!(how, "the client's connection is lost");
        self.client = None;
        self.take(Input::ClientLost(self.session.attachment()));
    }

    fn frames_from_client(&mut self) {
        while self.ended.is_none() {
            let Some(client) = &mut self.client else {
                return;
            };
            match client.next_frame() {
                Ok(Some(frame)) => self.take(Input::Client(self.session.attachment(), frame)),
                Ok(None) => return,
                Err(error) => {
                    tracing::info!(%error, "the client's bytes are no XML stream");
                    self.session.refuse_bytes(&error);
                    self.perform();
                }
            }
        }
    }

    fn frames_from_upstream(&mut self) {
        while self.ended.is_none() {
            match self.upstream.next_frame() {
                Ok(Some(frame)) => self.take(Input::Upstream(frame)),
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "the server's bytes are no XML stream");
                    self.take(Input::UpstreamLost);
                }
            }
        }
    }

    /// Puts a proven connection in the place of the one there is, which closes silently.
    fn attach(&mut self, attach: Attach) {
        let Attach { client, resumption, reply } = attach;
        if let Err(too_high) = self.session.check_resume(resumption.h) {
            // If the login is gone too, nobody is left to tell.
            drop(reply.send(Err(Refused { client, too_high: Some(too_high) })));
            return;
        }
        if let Some(old) = self.client.replace(client) {
            self.relay.farewell(old);
        }
        drop(reply.send(Ok(())));
        self.take(Input::Attach(resumption));
        // What the client sent right behind its `<resume/>`.
        self.frames_from_client();
    }

    fn take(&mut self, input: Input) {
        self.session.handle(Instant::now(), input);
        self.perform();
    }

    fn perform(&mut self) {
        let mut publishes = Vec::new();
        while let Some(output) = self.session.poll() {
            match output {
                Output::ToClient(bytes) => {
                    if let Some(client) = &mut self.client {
                        client.write(&bytes);
                    }
                }
                Output::ToUpstream(bytes) => self.upstream.write(&bytes),
                Output::Resumable(id) => {
                    self.relay.registry.resumable(id.clone(), &self.handle);
                    self.sm_id = Some(id);
                }
                Output::Store(token, change) => self.waiting.push_back(Request::Change(token, change)),
                Output::Publish(publish) => publishes.push(publish),
                Output::CloseClient(closing) => self.close_client(closing),
                Output::Event(event) => log(&event),
                Output::End(reason) => self.ended = Some(reason),
            }
        }
        self.next_job();
        if !publishes.is_empty() {
            for publish in publishes {
                publish::publish(&mut self.session, Instant::now(), publish);
            }
            self.perform();
        }
    }

    fn close_client(&mut self, closing: Closing) {
        let Some(client) = self.client.take() else {
            return;
        };
        match closing {
            Closing::Orderly => self.relay.farewell(client),
            Closing::Abrupt => drop(client),
        }
    }

    // The store

    fn next_job(&mut self) {
        if self.job.is_some() {
            return;
        }
        let (store, account) = (self.relay.store.clone(), self.handle.held().account.clone());
        self.job = match self.waiting.pop_front() {
            None => None,
            Some(Request::Read) => Some((None, Box::pin(async move { Ok((store.account(&account).await?, None)) }))),
            Some(Request::Change(token, change)) => {
                let siblings = self.relay.registry.siblings(&self.handle);
                let job = async move {
                    let answer = store.change(&account, change).await?;
                    for sibling in siblings {
                        // A session that has just ended needs no news.
                        drop(sibling.send(Command::AccountChanged).await);
                    }
                    Ok(answer)
                };
                Some((token, Box::pin(job)))
            }
        };
    }

    fn stored(&mut self, result: Result<Answer, StoreError>) {
        let token = self.job.take().and_then(|(token, _)| token);
        let stored = match result {
            Ok((account, device)) => {
                self.take(Input::Account(account));
                Stored::Durable(device)
            }
            Err(error) => {
                tracing::error!(%error, "the account cannot be stored");
                Stored::Failed
            }
        };
        if let Some(token) = token {
            self.take(Input::Stored(token, stored));
        }
        self.next_job();
    }

    // The end

    /// Leaves the registry first, so that nobody is sent here any more; then finishes what the store was told.
    async fn leave(mut self) {
        let reason = self.ended;
        self.relay.registry.leave(&self.handle, self.sm_id.as_ref());
        tracing::info!(?reason, "session ended");
        self.commands.close();
        while let Some(command) = self.commands.recv().await {
            if let Command::Attach(attach) = command {
                drop(attach.reply.send(Err(Refused { client: attach.client, too_high: None })));
            }
        }
        if let Some(client) = self.client.take() {
            self.relay.farewell(client);
        }
        while let Some((_, job)) = self.job.take() {
            if let Err(error) = job.await {
                tracing::error!(%error, "registrations cannot be stored");
            }
            self.next_job();
        }
        self.relay.farewell(self.upstream);
    }
}

fn log(event: &Event) {
    match event {
        Event::Dark { queued } => tracing::info!(queued, "dark: the session is held"),
        Event::Suspect => tracing::info!("suspect: an ack is overdue"),
        Event::Resumed { replayed } => tracing::info!(replayed, "resumed"),
        Event::PushEnabled(target) => tracing::info!(service = %target, "push enabled"),
        Event::PushDisabled => tracing::info!("push disabled"),
        Event::NotPushed(noise) => tracing::debug!(verdict = %noise, "not pushed"),
        Event::Published(target) => tracing::info!(service = %target, "published"),
        Event::PublishOutcome(target, outcome) => {
            tracing::info!(service = %target, ?outcome, "publish outcome")
        }
        Event::QueueFull { limit } => {
            tracing::warn!(limit, "session_queue is full: the session ends")
        }
    }
}
