//! Drives a [`Session`]: the task that owns both legs until the session ends.

mod begin;
mod leave;
mod membership;
mod predecessors;
mod published;
mod turn;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use tokio::runtime;
use tracing::Instrument;

use super::alarm::Alarm;
use super::jobs::{Done, Jobs, Request, Spooling};
use super::login::Login;
use super::mailbox;
use super::registry::{Attach, Command, Handle, Refused, Routed};
use super::remembered::Share;
use super::seen::Seen;
use super::{Client, Relay};
use crate::limits::Throttle;
use crate::metrics::{Fate, Leg};
use crate::net::conn::{ConnEvent, Departure};
use crate::net::upstream::UpstreamConn;
use crate::publish::Way;
use crate::publish::session::{Asker, Carried};
use crate::push::notification::Publish;
use crate::session::liveness::Reach;
use crate::session::{Attachment, Closing, EndReason, Input, Output, Peer, Session, Stored};
use crate::store::StoreError;
use membership::Membership;
use predecessors::Predecessors;
use published::Published;
use turn::{Turn, Wake};

/// Bytes of a stanza whose work keeps others of the same worker waiting.
const LARGE: usize = 1 << 20;

struct Driver {
    relay: Arc<Relay>,
    session: Session,
    device_memory: Share,
    handle: Arc<Handle>,
    membership: Membership,
    published: Published,
    /// Older sessions of the device that have not given way yet.
    predecessors: Predecessors,
    commands: mailbox::Receiver<Command>,
    client: Option<Box<Client>>,
    throttle: Throttle,
    upstream: UpstreamConn,
    jobs: Jobs,
    carried: Carried,
    seen: Seen,
    turn: Turn,
    /// Many replies wait for the client, as the session knows.
    replies_wait: bool,
    alarm: Alarm,
    /// When the current wake-up began: what came together came then.
    now: Instant,
    ended: Option<EndReason>,
}

/// Runs a session from its bind to its end. Both have boxes of their own: what they need is not kept in between.
pub(super) async fn run(relay: Arc<Relay>, login: Box<Login>) {
    let Some((mut driver, wakes)) = Box::pin(Driver::begin(relay, login)).await else { return };
    driver.drive(wakes).await;
    Box::pin(driver.leave()).await;
}

impl Driver {
    /// `wakes`: what has become of the connections meanwhile.
    async fn drive(&mut self, wakes: Vec<Wake>) {
        // What came right behind the bind.
        self.perform();
        self.look();
        self.frames_from_client();
        self.frames_from_upstream();
        let mut wakes = wakes.into_iter();
        while self.ended.is_none() {
            self.take(Input::Quiet);
            self.settle();
            self.note_replies();
            // What had to wait may be wanted now.
            self.frames_from_client();
            if self.frames_from_upstream() {
                continue;
            }
            if self.ended.is_some() {
                return;
            }
            let wake = match wakes.next() {
                Some(wake) => wake,
                None => self.next_wake().await,
            };
            self.now = Instant::now();
            self.note_departures();
            self.react(wake);
        }
    }

    /// Lets others see how the session is at the end of a wake-up.
    fn settle(&mut self) {
        if let Some(reach) = self.seen.settle(&self.handle, &self.session) {
            self.relay.registry.notify_same(&self.handle);
            if reach == Reach::Dark {
                self.relay.hold_no_more_than_allowed(&self.handle);
            }
        }
    }

    fn react(&mut self, wake: Wake) {
        match wake {
            Wake::Upstream(Ok(ConnEvent::Drained)) | Wake::Client(Ok(ConnEvent::Drained)) => {}
            Wake::Upstream(Ok(ConnEvent::Received)) => {
                self.session.note_company(self.relay.registry.has_company(&self.handle));
                self.frames_from_upstream();
            }
            Wake::Upstream(Ok(ConnEvent::Closed) | Err(_)) => self.take(Input::UpstreamLost),
            Wake::Client(Ok(ConnEvent::Received)) => {
                let received = self.client.as_mut().map_or(0, |client| client.take_received());
                self.throttle.bytes(self.now, self.relay.guards.rates(), received);
                self.frames_from_client();
            }
            Wake::Client(Ok(ConnEvent::Closed)) => {
                self.client_lost("closed without a stream footer", Input::ClientBroke);
            }
            Wake::Client(Err(error)) => {
                tracing::debug!(%error, "the client's connection broke");
                self.client_lost("broken", if is_of_peer(&error) { Input::ClientBroke } else { Input::ClientLost });
            }
            Wake::Command(Command::Attach(attach)) => self.attach(*attach),
            Wake::Command(Command::Carry(publish, reply)) => {
                let number = self.carried.begin(Asker::Other(reply));
                self.take(Input::Carry(number, publish));
            }
            Wake::Command(Command::Published(published)) => self.take(Input::Published(published)),
            Wake::Command(Command::Routed(routed)) => self.routed(&routed),
            Wake::Changed => self.look(),
            Wake::OlderSettled => self.take(Input::OlderSettled),
            Wake::Store(done) => self.done(done),
            Wake::Deadline => self.deadline(),
        }
    }

    /// An answer from a push service's stream, which serves many users: one that does not take it does not stop the stream.
    fn routed(&mut self, routed: &Routed) {
        if self.client.as_ref().is_some_and(|client| client.is_full()) || !self.session.wants_upstream() {
            self.relay.metrics.fates().count(Fate::Dropped);
            tracing::debug!("an answer of a push service is dropped: the client takes no more");
            return;
        }
        self.take(Input::Routed(routed.stanza.clone()));
    }

    fn deadline(&mut self) {
        let now = self.now;
        let write_timeout = self.session.settings().stream_management.write_timeout;
        let over = |deadline: Option<Instant>| deadline.is_some_and(|at| at <= now);
        if self.client.as_ref().is_some_and(|client| over(client.write_deadline(write_timeout))) {
            self.client_lost("does not read", Input::ClientLost);
        }
        if over(self.upstream.write_deadline(write_timeout)) {
            tracing::warn!("the server does not read");
            self.take(Input::UpstreamLost);
        }
        self.take(Input::Timeout);
    }

    fn client_lost(&mut self, how: &str, input: impl FnOnce(Attachment) -> Input) {
        tracing::debug!(how, "the client's connection is lost");
        self.client = None;
        self.take(input(self.session.attachment()));
    }

    /// Takes what the client has sent, up to where the session wants no more; the loop comes back for the rest.
    fn frames_from_client(&mut self) {
        let (rates, now) = (self.relay.guards.rates(), self.now);
        while self.ended.is_none() && self.reading().client {
            self.note_replies();
            let Some(client) = &mut self.client else { return };
            match client.next_frame() {
                Ok(Some(frame)) => {
                    if frame.is_stanza() {
                        self.throttle.stanza(now, rates);
                    }
                    self.seen.tap.came(Leg::Client, &frame);
                    self.take(Input::Client(self.session.attachment(), frame));
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::info!(%error, "the client's bytes are no XML stream");
                    self.relay.too_much(&error, true);
                    self.session.refuse_bytes(now, &error);
                    self.perform();
                }
            }
        }
    }

    /// Lets the session know when many replies begin to wait for the client, and when all have left.
    fn note_replies(&mut self) {
        let many = self.client.as_ref().is_some_and(|client| client.owes_much());
        if many != self.replies_wait {
            self.replies_wait = many;
            self.take(Input::RepliesWait(many));
        }
    }

    /// Lets the session know of questions that had to wait behind other bytes, before the time for their answers is looked at.
    fn note_departures(&mut self) {
        let client = self.client.as_mut().and_then(|client| client.departure());
        let server = self.upstream.departure();
        for (peer, departure) in [(Peer::Client, client), (Peer::Server, server)] {
            match departure {
                Some(Departure::Waits) => self.take(Input::Waits(peer)),
                Some(Departure::Left) => self.take(Input::Left(peer)),
                None => {}
            }
        }
    }

    /// Takes what the server has sent, up to where the session wants no more. Returns whether there was anything.
    fn frames_from_upstream(&mut self) -> bool {
        let is_large = self.upstream.framer().buffer().len() > LARGE;
        let workers = runtime::Handle::current().runtime_flavor() == runtime::RuntimeFlavor::MultiThread;
        if is_large && workers {
            // Other sessions of this worker go on meanwhile.
            return tokio::task::block_in_place(|| self.read_upstream());
        }
        self.read_upstream()
    }

    fn read_upstream(&mut self) -> bool {
        let mut any = false;
        while self.ended.is_none() && self.session.wants_upstream() {
            match self.upstream.next_frame() {
                Ok(Some(frame)) => {
                    any = true;
                    self.seen.tap.came(Leg::Upstream, &frame);
                    self.relay.note_skipped(&frame);
                    self.take(Input::Upstream(frame));
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "the server's bytes are no XML stream");
                    self.take(Input::UpstreamLost);
                }
            }
        }
        any
    }

    /// Puts a proven connection in the place of the one there is, which closes silently.
    fn attach(&mut self, attach: Attach) {
        if self.session.is_ending() {
            // Once the count is final, the login learns from the tombstone how far the session came.
            drop(attach.reply.send(Err(Refused { client: attach.client, too_high: None })));
            return;
        }
        let Attach { mut client, peer, mut resumption, reply } = attach;
        if let Err(too_high) = self.session.check_resume(resumption.h) {
            // If the login is gone too, nobody is left to tell.
            drop(reply.send(Err(Refused { client, too_high: Some(too_high) })));
            return;
        }
        client.framer().make_lean();
        resumption.server_header = resumption.server_header.lean();
        if let Some(old) = self.client.replace(client) {
            self.relay.farewell(*old);
        }
        drop(reply.send(Ok(())));
        self.handle.note(|notes| notes.peer = Some(peer));
        self.take(Input::Attach(Box::new(resumption)));
        // What the client sent right behind its `<resume/>`.
        self.frames_from_client();
    }

    fn take(&mut self, input: Input) {
        self.session.handle(self.now, input);
        self.perform();
        self.session.charge_store(self.jobs.bytes_at_work());
    }

    /// Performs what the session wants, and tells it what comes of it at once.
    fn perform(&mut self) {
        let mut answers = VecDeque::new();
        loop {
            while let Some(output) = self.session.poll() {
                answers.extend(self.perform_one(output));
            }
            let Some(answer) = answers.pop_front() else { return self.note_ending() };
            self.session.handle(self.now, answer);
        }
    }

    fn note_ending(&self) {
        if self.session.is_ending() {
            self.handle.set_ending();
        }
    }

    fn perform_one(&mut self, output: Output) -> Option<Input> {
        match output {
            Output::ToClient(bytes) => self.write_client(&bytes, Client::write),
            Output::ReplyToClient(bytes) => self.write_client(&bytes, Client::reply),
            Output::ToUpstream(bytes) => {
                self.seen.tap.went(Leg::Upstream, &bytes);
                self.upstream.write(&bytes);
            }
            Output::ReplyToUpstream(bytes) => {
                self.seen.tap.went(Leg::Upstream, &bytes);
                self.upstream.reply(&bytes);
            }
            Output::Watch(Peer::Client) => self.client.iter_mut().for_each(|client| client.watch()),
            Output::Watch(Peer::Server) => self.upstream.watch(),
            Output::Resumable(id) => self.relay.registry.resumable(id, &self.handle),
            Output::Store(token, change) => self.jobs.ask(Request::Change(token, *change)),
            Output::Spool(items) => {
                let last = items.last().map_or(0, |item| item.seq);
                self.jobs.ask(Request::Spool(items, last));
            }
            Output::Unspool { spool, places } => self.jobs.ask(Request::Unspool(spool, vec![places])),
            Output::Load(load) => self.jobs.ask(Request::Load(load)),
            Output::TakeOver => self.jobs.ask(Request::TakeOver),
            Output::Adopt { registered, places } => self.jobs.ask(Request::Adopt(registered, places)),
            Output::Wake(reason) => self.jobs.ask(Request::Wake(reason)),
            Output::Bury(id, h) => {
                if !self.session.is_ending() {
                    self.relay.registry.not_resumable(&self.handle);
                }
                self.jobs.ask(Request::Tombstone(id, h));
            }
            Output::Publish(publish) => return self.publish(publish),
            Output::Carried(number, outcome) => match self.carried.done(number)? {
                Asker::Own(target, since) => {
                    self.relay.published_by_session(&self.handle, (&target, since), &outcome);
                    return Some(Input::Published(Box::new((target, *outcome))));
                }
                // Whoever asked may have stopped waiting.
                Asker::Other(reply) => drop(reply.send(*outcome)),
            },
            Output::Elsewhere(notice) => self.relay.elsewhere(self.handle.account(), *notice),
            Output::Answered => {
                if let Some(newer) = self.relay.registry.newer(&self.handle) {
                    self.handle.answer(newer.login());
                }
            }
            Output::CloseClient(closing) => self.close_client(closing),
            Output::Event(event) => {
                self.seen.heard(&self.handle, &event);
                self.relay.report(&event, self.seen.may_say(self.now, &event));
            }
            Output::End(reason) => self.ended = Some(reason),
        }
        None
    }

    fn write_client(&mut self, bytes: &[u8], gather: impl FnOnce(&mut Client, &[u8])) {
        if let Some(client) = &mut self.client {
            self.seen.tap.went(Leg::Client, bytes);
            gather(client, bytes);
        }
    }

    /// Where there is but the user's own stream, and this is it, the publish takes the short way.
    fn publish(&mut self, publish: Box<Publish>) -> Option<Input> {
        self.seen.notified(&self.relay.metrics);
        let account = self.handle.account();
        match self.relay.publisher.way(account, &publish.target) {
            Way::Session => {
                let number = self.carried.begin(Asker::Own(publish.target.clone(), Instant::now()));
                return Some(Input::Carry(number, publish));
            }
            Way::NotAllowed | Way::Choice => {
                let publishing = Arc::clone(&self.relay).publish_for_session(Arc::clone(&self.handle), *publish);
                self.relay.farewells.spawn(publishing.in_current_span());
            }
        }
        None
    }

    fn close_client(&mut self, closing: Closing) {
        let Some(client) = self.client.take() else { return };
        match closing {
            Closing::Orderly => self.relay.farewell(*client),
            Closing::Abrupt => drop(client),
        }
    }

    fn note_services(&self) {
        self.handle.note(|notes| notes.services = self.session.services());
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Changed(token, Ok((account, device))) => {
                if device.is_some_and(|device| device != self.session.device()) {
                    self.predecessors = Predecessors::of(&self.relay, &self.handle);
                    if !self.predecessors.are_settled() {
                        self.session.expect_older();
                    }
                    self.share_device_memory();
                    self.look_at_device();
                }
                self.published.has_revision(account.revision);
                self.take(Input::Changed(Some(Box::new(account))));
                self.note_services();
                if let Some(token) = token {
                    self.take(Input::Stored(token, Stored::Durable(device)));
                }
            }
            Done::Changed(token, Err(error)) => {
                self.relay.not_stored(&error);
                self.take(Input::Changed(None));
                if let Some(token) = token {
                    self.take(Input::Stored(token, Stored::Failed));
                }
            }
            Done::Spooled(Spooling { last, result, .. }) => self.spooled(last, result),
            Done::Loaded(Ok(items)) => self.take(Input::Loaded(items)),
            Done::Loaded(Err(error)) => {
                tracing::error!(%error, "stanzas that wait cannot be read, trying again in 5 s");
                self.take(Input::LoadFailed);
            }
            Done::TookOver(Ok(spools)) => self.take(Input::TookOver(spools)),
            Done::TookOver(Err(StoreError::AccountRemoved { .. })) => {
                self.take(Input::AccountRemoved);
                self.take(Input::TookOver(Vec::new()));
            }
            Done::TookOver(Err(error)) => {
                tracing::error!(%error, "stanzas of earlier sessions cannot be taken over, trying again in 5 s");
                self.take(Input::TakeOverFailed);
            }
            Done::Quiet(Ok(()) | Err(StoreError::AccountRemoved { .. })) => {}
            Done::Quiet(Err(error)) => tracing::error!(%error, "the store failed"),
        }
    }

    /// The session has turned out to be of a device that was known before.
    fn share_device_memory(&mut self) {
        let share = self.relay.memories.share(&self.handle);
        self.session.share_device_memory(share.memory());
        self.device_memory = share;
    }

    fn spooled(&mut self, last: u64, result: Result<(), StoreError>) {
        match result {
            Ok(()) => self.take(Input::Spooled(last)),
            // Nothing is kept of it, and nobody need be alarmed.
            Err(StoreError::AccountRemoved { .. }) => {
                self.take(Input::AccountRemoved);
                self.take(Input::Spooled(last));
            }
            Err(error) => {
                self.relay.spool_refuses(&error);
                if self.session.spool_accepts() {
                    tracing::error!(%error, "spool_failed: stanzas stay in memory, trying again every 5 s");
                }
                self.take(Input::SpoolRefused);
            }
        }
    }
}

/// Returns whether an error means that the peer itself has ended the connection. Other errors are failures of the network.
fn is_of_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}
