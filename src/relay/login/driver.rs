//! [`LoginDriver`] drives a [`Negotiation`]: one client over TLS and one new stream to the server.

mod outputs;
mod resume;

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::select;
use tokio::time::sleep_until;
use tokio_util::sync::WaitForCancellationFuture;

use super::patience::{OperationDeadline, STORE};
use super::server_clock::{RequestState, ServerClock};
use crate::clock::Instant;
use crate::cluster::directory::NodeAddress;
use crate::cluster::hop::NodeConn;
use crate::limits::{ConnectionRefusal, Eviction};
use crate::metrics::{LoginOutcome, ResumeOutcome};
use crate::net::conn::{ConnEvent, Io};
use crate::net::proxy_protocol::Addresses;
use crate::net::upstream::UpstreamConn;
use crate::relay::backpressure::{PeerBacklog, ReadableLegs, Stops};
use crate::relay::client::Client;
use crate::relay::handshake::Secured;
use crate::relay::read_ahead::{ReadAhead, while_there};
use crate::relay::relayed::RelayedClient;
use crate::relay::shared::Relay;
use crate::relay::snapshot::{Authentication, Snapshot};
use crate::relay::timer::Timer;
use crate::session::Bound;
use crate::session::negotiate::{HeldSession, Lockout, LoginInput, Negotiation, Stop};
use crate::session::sasl::LoginMethod;
use crate::store::AccountOwnership;

/// A login that has become a new session.
pub(in crate::relay) struct Login {
    pub(in crate::relay) bound: Bound,
    pub(in crate::relay) client: Box<Client>,
    pub(in crate::relay) peer: SocketAddr,
    pub(in crate::relay) upstream: UpstreamConn,
    pub(in crate::relay) method: Option<LoginMethod>,
    /// Keeps the account that was likely to be the login's with this node.
    pub(in crate::relay) ownership: Option<AccountOwnership>,
}

/// The result of a login.
pub(in crate::relay) enum LoginResult {
    /// A new session.
    Session(Box<Login>),
    /// The client's stream goes on at another node.
    Relayed(RelayedClient),
}

enum LoginEvent {
    Client(std::io::Result<ConnEvent>),
    Upstream(std::io::Result<ConnEvent>),
    /// A deadline has passed.
    Deadline,
    Stop(Stop),
}

/// The progress of a login, for its limits and for metrics.
struct LoginProgress {
    /// The time at which the client's connection was secured.
    began: Instant,
    authentication: Authentication,
    /// The method by which the client has logged in.
    method: Option<LoginMethod>,
    /// The outcome of the client's last resumption attempt. It counts as proven only once the session has the connection.
    resumption: Option<ResumeOutcome>,
    outcome: LoginOutcome,
}

struct LoginDriver<'a> {
    relay: &'a Relay,
    /// The snapshot that was in force when the client connected.
    snapshot: Arc<Snapshot>,
    negotiation: Negotiation,
    addresses: Addresses,
    /// `None` once the connection was handed over.
    client: Option<Box<Client>>,
    upstream: Option<UpstreamConn>,
    eviction: Eviction,
    timer: Timer,
    server_clock: ServerClock,
    progress: LoginProgress,
    bound: Option<Bound>,
    hop: Hop,
    /// Keeps the account with this node until the session has it.
    ownership: Option<AccountOwnership>,
    /// An event that came during another wait.
    interrupted: Option<LoginEvent>,
    done: bool,
}

/// The way to another node that owns the account.
#[derive(Default)]
struct Hop {
    /// The node.
    owner: Option<NodeAddress>,
    /// The connection to it, once it has the stream.
    conn: Option<Box<NodeConn>>,
}

/// Performs the login of a client. Returns `None` if the connection was handed to a held session, or has ended.
pub(in crate::relay) async fn run(
    relay: &Relay,
    snapshot: Arc<Snapshot>,
    secured: Secured,
    addresses: Addresses,
) -> Option<LoginResult> {
    let Secured { client, eviction, elements } = secured;
    let mut negotiation = snapshot.negotiation();
    negotiation.sent_before(elements);
    negotiation.set_channel(client.stream().channel_binding());
    // Nobody passes a client on twice.
    if relay.directory().is_some() && !client.stream().is_passed() {
        negotiation.locate_logins();
    }
    let mut driver = LoginDriver {
        relay,
        negotiation,
        snapshot,
        addresses,
        client: Some(client),
        upstream: None,
        eviction,
        timer: Timer::new(Instant::now()),
        server_clock: ServerClock::default(),
        progress: LoginProgress {
            began: Instant::now(),
            authentication: Authentication::Pending,
            method: None,
            resumption: None,
            outcome: LoginOutcome::Lost,
        },
        bound: None,
        hop: Hop::default(),
        ownership: None,
        interrupted: None,
        done: false,
    };
    driver.drive().await;
    driver.count_resumption();
    relay.metrics().login(driver.progress.outcome, driver.progress.method);
    let LoginDriver { client, upstream, bound, hop, ownership, progress: LoginProgress { method, .. }, .. } = driver;
    match (bound, client, upstream, hop.conn) {
        (Some(bound), Some(client), Some(upstream), _) => {
            let peer = addresses.client;
            Some(LoginResult::Session(Box::new(Login { bound, client, peer, upstream, method, ownership })))
        }
        (_, Some(client), _, Some(node)) => Some(LoginResult::Relayed(RelayedClient { client, node })),
        (_, client, upstream, _) => {
            if let Some(client) = client {
                relay.background().close_gracefully(*client);
            }
            if let Some(upstream) = upstream {
                relay.background().close_gracefully(upstream);
            }
            None
        }
    }
}

impl LoginDriver<'_> {
    async fn drive(&mut self) {
        // One future for all events, because registering it takes locks that all connections share.
        let mut shutdown = pin!(self.relay.shutdown().cancelled());
        loop {
            self.frames_from_client().await;
            if self.done {
                return;
            }
            let event = match self.interrupted.take() {
                Some(event) => event,
                None => self.next_event(shutdown.as_mut()).await,
            };
            match event {
                LoginEvent::Client(Ok(ConnEvent::Received | ConnEvent::Drained))
                | LoginEvent::Upstream(Ok(ConnEvent::Drained)) => {}
                LoginEvent::Client(Ok(ConnEvent::Closed) | Err(_)) => {
                    tracing::debug!("client disconnected before login");
                    if self.client.take().is_some_and(|client| client.stream().is_passed()) {
                        self.negotiation.forget_unused_offer();
                    }
                    return;
                }
                LoginEvent::Upstream(Ok(ConnEvent::Received)) => self.frames_from_upstream().await,
                LoginEvent::Upstream(Ok(ConnEvent::Closed) | Err(_)) => {
                    self.upstream = None;
                    self.take(LoginInput::UpstreamLost).await;
                }
                LoginEvent::Deadline => self.deadline().await,
                LoginEvent::Stop(stop) => self.take(LoginInput::Stop(stop)).await,
            }
        }
    }

    async fn next_event(&mut self, mut shutdown: Pin<&mut WaitForCancellationFuture<'_>>) -> LoginEvent {
        let reading = self.reading();
        poll_fn(|cx| {
            if let Poll::Ready(event) = self.poll_legs(cx, reading) {
                return Poll::Ready(event);
            }
            if pin!(self.eviction.evicted()).poll(cx).is_ready() {
                return Poll::Ready(LoginEvent::Stop(Stop::Crowded));
            }
            // A write may have completed or stalled just now.
            let deadline = self.next_deadline(reading);
            if self.timer.poll(cx, Some(deadline)).is_ready() {
                return Poll::Ready(LoginEvent::Deadline);
            }
            shutdown.as_mut().poll(cx).map(|()| LoginEvent::Stop(stop_of(self.relay)))
        })
        .await
    }

    /// Returns which of the two legs are read now.
    fn reading(&self) -> ReadableLegs {
        let stops = Stops { client: !self.negotiation.can_read_client(), ..Stops::default() };
        ReadableLegs::decide(
            self.client.as_deref().map(PeerBacklog::of),
            self.upstream.as_ref().map(PeerBacklog::of),
            stops,
        )
    }

    fn poll_legs(&mut self, cx: &mut Context<'_>, reading: ReadableLegs) -> Poll<LoginEvent> {
        if let Some(client) = &mut self.client
            && let Poll::Ready(event) = client.poll_event(cx, Io::read_if(reading.client))
        {
            return Poll::Ready(LoginEvent::Client(event));
        }
        match &mut self.upstream {
            Some(upstream) => upstream.poll_event(cx, Io::read_if(reading.server)).map(LoginEvent::Upstream),
            None => Poll::Pending,
        }
    }

    /// Returns the earliest deadline: of a peer that does not read, of a server that does not answer, or of the whole login.
    fn next_deadline(&mut self, reading: ReadableLegs) -> Instant {
        let [client, upstream] = self.write_deadlines();
        let has_left = self.upstream.as_ref().is_some_and(|upstream| upstream.backlog() == 0);
        let request = if reading.server && has_left { RequestState::Sent } else { RequestState::Waits };
        let patience = self.snapshot.config.limits.timeouts.server;
        let server = self.server_clock.deadline(Instant::now(), self.negotiation.awaits(), request, patience);
        let over = self.negotiation.deadline();
        [client, upstream, server].into_iter().flatten().fold(over, Instant::min)
    }

    fn write_deadlines(&self) -> [Option<Instant>; 2] {
        let write_timeout = self.snapshot.config.stream_management.write_timeout;
        [
            self.client.as_ref().and_then(|client| client.write_deadline(write_timeout)),
            self.upstream.as_ref().and_then(|upstream| upstream.write_deadline(write_timeout)),
        ]
    }

    async fn deadline(&mut self) {
        let now = Instant::now();
        let over = |deadline: Option<Instant>| deadline.is_some_and(|at| at <= now);
        let [client, upstream] = self.write_deadlines();
        if over(client) {
            tracing::debug!("client is not reading before login");
            self.client = None;
            self.done = true;
        } else if over(upstream) {
            tracing::debug!("upstream server is not reading");
            self.upstream = None;
            self.take(LoginInput::UpstreamLost).await;
        } else if self.negotiation.deadline() <= now {
            self.take(LoginInput::Stop(Stop::Timeout)).await;
        } else if self.server_clock.is_over(now, self.snapshot.config.limits.timeouts.server) {
            self.take(LoginInput::Stop(Stop::ServerSilent)).await;
        }
    }

    async fn frames_from_client(&mut self) {
        while !self.done && self.reading().client {
            let Some(client) = &mut self.client else {
                return;
            };
            match client.next_frame() {
                Ok(Some(frame)) => {
                    let locked_out =
                        self.relay.guards().logins().is_locked_out(Instant::now(), self.addresses.client.ip());
                    let lockout = if locked_out { Lockout::Active } else { Lockout::Inactive };
                    self.negotiation.set_lockout(lockout);
                    self.relay.reports().on_client_frame(&frame, &self.snapshot.domains);
                    self.take(LoginInput::Client(frame)).await;
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%error, "client sent an invalid XML stream");
                    self.relay.overload().on_frame_error(&error, self.progress.authentication);
                    self.negotiation.refuse_bytes(&error);
                    self.perform().await;
                }
            }
        }
    }

    async fn frames_from_upstream(&mut self) {
        while !self.done {
            let Some(upstream) = &mut self.upstream else {
                return;
            };
            match upstream.next_frame() {
                Ok(Some(frame)) => {
                    self.relay.reports().on_frame(&frame);
                    self.take(LoginInput::Upstream(frame)).await;
                }
                Ok(None) => return,
                Err(error) => {
                    if let Some(suppressed) = self.relay.guards().watch().refused(ConnectionRefusal::ServerError) {
                        tracing::warn!(%error, suppressed, "upstream server sent an invalid XML stream");
                    }
                    self.upstream = None;
                    self.take(LoginInput::UpstreamLost).await;
                }
            }
        }
    }

    fn count_resumption(&mut self) {
        if let Some(outcome) = self.progress.resumption.take() {
            self.relay.metrics().resumption(outcome);
        }
    }

    async fn take(&mut self, input: LoginInput) {
        self.negotiation.handle(input);
        self.perform().await;
    }

    /// Waits for `work`. `None` if the login ends first: [`LoginDriver::interrupted`] has the event.
    async fn wait_for<T>(&mut self, work: impl Future<Output = T>, deadline: OperationDeadline) -> Option<T> {
        let relay = self.relay;
        let mut near = ReadAhead::new(self.client.as_deref_mut()?);
        let mut far = self.upstream.as_mut().map(ReadAhead::new);
        let over = self.negotiation.deadline();
        let late = match deadline {
            OperationDeadline::Bounded => over,
            OperationDeadline::Store => over.min(Instant::now() + STORE),
        };
        let stop = select! {
            biased;
            done = while_there(&mut near, far.as_mut(), work) => match done {
                Some(done) => return Some(done),
                None => None,
            },
            () = self.eviction.evicted() => Some(Stop::Crowded),
            () = relay.shutdown().cancelled() => Some(stop_of(relay)),
            () = sleep_until(late.into()) => Some(if late < over { Stop::StoreLate } else { Stop::Timeout }),
        };
        self.interrupted = match stop {
            Some(stop) => Some(LoginEvent::Stop(stop)),
            None => near.into_end().map(LoginEvent::Client),
        };
        None
    }
}

/// Returns the way in which a stop of the daemon ends a login.
fn stop_of(relay: &Relay) -> Stop {
    if relay.node_end().is_fenced() { Stop::OtherOwner } else { Stop::Shutdown }
}

/// Returns the data that a client must prove to resume the session.
pub(in crate::relay) fn held(bound: &Bound) -> HeldSession {
    HeldSession { account: bound.jid.to_bare(), identity: bound.identity.clone() }
}
