//! [`SessionDriver`] drives a [`Session`]: it is the task that owns both legs until the session ends.

mod admission;
pub(super) mod begin;
pub(super) mod go_on;
mod leave;
mod outputs;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::runtime;

use super::legs::SessionLegs;
use super::membership::Membership;
use super::place::Place;
use super::siblings::Siblings;
use super::turn::{FirstEvents, TaskEvent, TaskTurn};
use super::watched::WatchedValues;
use crate::clock::Instant;
use crate::metrics::Fate;
use crate::net::conn::{ConnEvent, Departure};
use crate::publish::session::SessionPublishes;
use crate::registry::mailbox;
use crate::registry::{AttachRefusal, Mail, Routed};
use crate::relay::backpressure::{ReadableLegs, Stops};
use crate::relay::client::{Attach, Command, Handle, Refused};
use crate::relay::jobs::Jobs;
use crate::relay::shared::Relay;
use crate::relay::snapshot::Authentication;
use crate::relay::status::SessionStatus;
use crate::relay::timer::Timer;
use crate::session::liveness::Reach;
use crate::session::sasl::LoginMethod;
use crate::session::{Attachment, EndReason, Input, Replies, Session};

/// The size of a stanza, in bytes, above which its processing delays other sessions on the same worker.
const LARGE: usize = 1 << 20;

pub(super) struct SessionDriver {
    relay: Arc<Relay>,
    session: Session,
    handle: Arc<Handle>,
    membership: Membership,
    watched: WatchedValues,
    siblings: Siblings,
    commands: mailbox::Receiver<Command>,
    legs: SessionLegs,
    jobs: Jobs,
    publishes: SessionPublishes,
    status: SessionStatus,
    turn: TaskTurn,
    timer: Timer,
    /// The time at which the current wake-up began. All events of one wake-up have this time.
    now: Instant,
    ended: Option<TaskEnd>,
}

/// The reason why a task stops to drive its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TaskEnd {
    /// The session has ended.
    Ended(EndReason),
    /// Another process goes on with it.
    HandedOver,
}

impl SessionDriver {
    fn new(
        relay: Arc<Relay>,
        session: Session,
        place: Place,
        siblings: Siblings,
        watched: WatchedValues,
        legs: SessionLegs,
        now: Instant,
    ) -> Self {
        let Place { handle, membership, commands } = place;
        Self {
            status: SessionStatus::new(relay.metrics()),
            jobs: Jobs::new(Arc::clone(&relay), Arc::clone(&handle)),
            relay,
            session,
            handle,
            membership,
            watched,
            siblings,
            commands,
            legs,
            publishes: SessionPublishes::default(),
            turn: TaskTurn::default(),
            timer: Timer::new(now),
            now,
            ended: None,
        }
    }

    /// Drives the session until it ends, or passes it to another process.
    pub(super) async fn go_on(mut self: Box<Self>, first: FirstEvents) {
        self.drive(first).await;
        match self.ended {
            Some(TaskEnd::HandedOver) => Box::pin(self.hand_over()).await,
            Some(TaskEnd::Ended(_)) | None => Box::pin(self.leave()).await,
        }
    }

    async fn drive(&mut self, first: FirstEvents) {
        // Frames that arrived directly after the bind.
        self.perform();
        self.take_published();
        for frame in first.frames {
            self.take(Input::Upstream(frame));
        }
        self.frames_from_client();
        self.frames_from_upstream();
        let mut events = first.events.into_iter();
        while self.ended.is_none() {
            self.take(Input::Quiet);
            self.publish_status();
            self.note_replies();
            // The session may now accept frames that had to wait.
            self.frames_from_client();
            if self.frames_from_upstream() {
                continue;
            }
            if self.ended.is_some() {
                return;
            }
            let event = match events.next() {
                Some(event) => event,
                None => self.next_event().await,
            };
            self.now = Instant::now();
            self.note_departures();
            self.react(event);
        }
    }

    /// Publishes the state of the session at the end of a wake-up.
    fn publish_status(&mut self) {
        self.legs.count_traffic();
        if let Some(reach) = self.status.publish(&self.handle, &self.session) {
            self.relay.registry().notify_same(&self.handle);
            if reach == Reach::Dark {
                self.relay.overload().limit_held_sessions(&self.handle);
            }
        }
    }

    // Events

    /// Waits for the next event.
    async fn next_event(&mut self) -> TaskEvent {
        let write_timeout = self.session.settings().stream_management.write_timeout;
        let guards = self.relay.guards();
        let client_resumes = self.legs.resumes_at(self.now, guards.rates(), guards.watch());
        let reading = self.reading();
        self.note_pauses(reading);
        let event = poll_fn(|cx| {
            let (commands_first, legs_first) = (self.turn.commands_first(), self.turn.legs_first());
            if commands_first && let Poll::Ready(event) = self.poll_commands(cx) {
                return Poll::Ready(event);
            }
            if legs_first && let Poll::Ready(event) = self.legs.poll(cx, reading, self.turn.first_leg()) {
                return Poll::Ready(event);
            }
            if !self.siblings.are_settled() && pin!(self.siblings.settled()).poll(cx).is_ready() {
                return Poll::Ready(TaskEvent::OlderSettled);
            }
            if let Poll::Ready(done) = pin!(self.jobs.done()).poll(cx) {
                return Poll::Ready(TaskEvent::Store(done));
            }
            // A write may have stalled just now.
            let deadlines = [client_resumes, self.legs.write_deadline(write_timeout), self.session.deadline()];
            if self.timer.poll(cx, deadlines.into_iter().flatten().min()).is_ready() {
                return Poll::Ready(TaskEvent::Deadline);
            }
            if !legs_first && let Poll::Ready(event) = self.legs.poll(cx, reading, self.turn.first_leg()) {
                return Poll::Ready(event);
            }
            if commands_first { Poll::Pending } else { self.poll_commands(cx) }
        })
        .await;
        self.turn.on_event(&event);
        event
    }

    fn poll_commands(&mut self, cx: &mut Context<'_>) -> Poll<TaskEvent> {
        match pin!(self.commands.recv()).poll(cx) {
            Poll::Ready(Some(Mail::Message(command))) => Poll::Ready(TaskEvent::Command(command)),
            Poll::Ready(Some(Mail::Changed)) => Poll::Ready(TaskEvent::Changed),
            // The channel stays open, because the session's own handle holds a sender.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    fn react(&mut self, event: TaskEvent) {
        match event {
            TaskEvent::Upstream(Ok(ConnEvent::Drained)) | TaskEvent::Client(Ok(ConnEvent::Drained)) => {}
            TaskEvent::Upstream(Ok(ConnEvent::Received)) => {
                self.session.note_other_clients(self.relay.registry().has_other_clients(&self.handle));
                self.frames_from_upstream();
            }
            TaskEvent::Upstream(Ok(ConnEvent::Closed) | Err(_)) => self.take(Input::UpstreamLost),
            TaskEvent::Client(Ok(ConnEvent::Received)) => {
                self.legs.on_client_received(self.now, self.relay.guards().rates());
                self.frames_from_client();
            }
            TaskEvent::Client(Ok(ConnEvent::Closed)) => {
                self.client_lost("closed without a stream footer", Input::ClientBroke);
            }
            TaskEvent::Client(Err(error)) => {
                tracing::debug!(%error, "client connection failed");
                self.client_lost("broken", if is_of_peer(&error) { Input::ClientBroke } else { Input::ClientLost });
            }
            TaskEvent::Command(command) => self.on_command(command),
            TaskEvent::Changed => self.take_published(),
            TaskEvent::OlderSettled => self.take(Input::OlderSettled),
            TaskEvent::Store(done) => self.on_job_done(done),
            TaskEvent::Deadline => self.on_deadline(),
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Attach(attach) => self.attach(*attach),
            Command::PublishOnStream(publish) => self.publish_on_stream(*publish),
            Command::Published(published) => self.take(Input::Published(published)),
            Command::Unpublished(publish) => self.publishes.on_unpublished(*publish),
            Command::Routed(routed) => self.on_routed(&routed),
        }
    }

    /// Handles an answer from a push service's stream. The stream serves many users, so it does not wait for a session that
    /// cannot take the answer.
    fn on_routed(&mut self, routed: &Routed) {
        if self.legs.is_client_full() || !self.session.can_read_upstream() {
            self.relay.metrics().fates().count(Fate::Dropped);
            tracing::debug!("push service answer dropped: client is not reading");
            return;
        }
        self.take(Input::Routed(routed.stanza.clone()));
    }

    fn on_deadline(&mut self) {
        let write_timeout = self.session.settings().stream_management.write_timeout;
        if self.legs.stalled(self.now, write_timeout).client {
            self.client_lost("does not read", Input::ClientLost);
        }
        if self.legs.stalled(self.now, write_timeout).server {
            tracing::warn!("upstream server is not reading");
            self.take(Input::UpstreamLost);
        }
        self.take(Input::Timeout);
    }

    fn client_lost(&mut self, how: &str, input: impl FnOnce(Attachment) -> Input) {
        tracing::debug!(how, "client connection lost");
        drop(self.legs.detach());
        self.take(input(self.session.attachment()));
    }

    /// Attaches a connection that has proved the resumption. The previous connection is closed silently.
    fn attach(&mut self, attach: Attach) {
        if self.session.is_ending() {
            // The count is not final yet. Once it is, the login reads it from the tombstone.
            drop(attach.reply.send(Err(Refused { client: attach.client, reason: AttachRefusal::Ended })));
            return;
        }
        let Attach { mut client, peer, login, began, mut resumption, reply } = attach;
        let admitted = admission::admit(&self.relay, &self.handle, &self.session, &mut resumption, began);
        if let Err(reason) = admitted {
            // The login may have ended, too.
            drop(reply.send(Err(Refused { client, reason })));
            return;
        }
        if login == Some(LoginMethod::FrontedToken) {
            self.relay.current().admit(&mut client);
        }
        {
            let mut headers = self.relay.headers();
            client.framer().intern_header(&mut headers);
            resumption.server_header = resumption.server_header.interned(&mut headers);
        }
        if let Some(old) = self.legs.attach(client) {
            self.relay.background().close_gracefully(*old);
        }
        drop(reply.send(Ok(())));
        self.handle.note(|notes| (notes.peer, notes.login) = (Some(peer), login));
        self.take(Input::Attach(Box::new(resumption)));
        // Frames that the client sent directly after its `<resume/>`.
        self.frames_from_client();
    }

    // Received frames

    /// Returns which of the two legs are read now.
    fn reading(&self) -> ReadableLegs {
        let stops = Stops {
            client: !self.session.can_read_client(),
            server: !self.session.can_read_upstream(),
            held: self.session.held_bytes(),
        };
        self.legs.reading(self.now, self.relay.guards().rates(), stops)
    }

    /// Informs the session about a peer that is not read, so that no timeout runs for that peer's answers.
    fn note_pauses(&mut self, reading: ReadableLegs) {
        for (peer, paused) in self.legs.take_pauses(reading).into_iter().flatten() {
            self.take(if paused { Input::Paused(peer) } else { Input::Unpaused(peer) });
        }
    }

    /// Informs the session when many replies begin to wait for the client, and when all have been sent.
    fn note_replies(&mut self) {
        if let Some(many) = self.legs.take_replies_wait() {
            self.take(Input::RepliesWait(if many { Replies::Many } else { Replies::Few }));
        }
    }

    /// Informs the session about requests that had to wait behind other bytes, before the deadlines of their answers are
    /// checked.
    fn note_departures(&mut self) {
        for (peer, departure) in self.legs.departures() {
            match departure {
                Some(Departure::Waits) => self.take(Input::Waits(peer)),
                Some(Departure::Left) => self.take(Input::Left(peer)),
                None => {}
            }
        }
    }

    /// Processes the frames of the client until the session accepts no more. The loop comes back for the rest.
    fn frames_from_client(&mut self) {
        let (rates, now) = (self.relay.guards().rates(), self.now);
        while self.ended.is_none() && self.reading().client {
            self.note_replies();
            match self.legs.next_client_frame(now, rates) {
                Ok(Some(frame)) => self.take(Input::Client { attachment: self.session.attachment(), frame }),
                Ok(None) => return,
                Err(error) => {
                    tracing::info!(%error, "client sent an invalid XML stream");
                    self.relay.overload().on_frame_error(&error, Authentication::Done);
                    self.session.refuse_bytes(now, &error);
                    self.perform();
                }
            }
        }
    }

    /// Processes the frames of the server until the session accepts no more. Returns whether there were any.
    fn frames_from_upstream(&mut self) -> bool {
        let is_large = self.legs.upstream_buffered() > LARGE;
        let workers = runtime::Handle::current().runtime_flavor() == runtime::RuntimeFlavor::MultiThread;
        if is_large && workers {
            // Other sessions on this worker continue meanwhile.
            return tokio::task::block_in_place(|| self.read_upstream());
        }
        self.read_upstream()
    }

    fn read_upstream(&mut self) -> bool {
        let mut any = false;
        while self.ended.is_none() && self.session.can_read_upstream() {
            match self.legs.next_upstream_frame() {
                Ok(Some(frame)) => {
                    any = true;
                    self.relay.reports().on_frame(&frame);
                    self.take(Input::Upstream(frame));
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "upstream server sent an invalid XML stream");
                    self.take(Input::UpstreamLost);
                }
            }
        }
        any
    }
}

/// Returns whether an error means that the peer itself has closed the connection. Other errors are network failures.
fn is_of_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}
