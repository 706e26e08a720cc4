//! Drives a [`Negotiation`]: one client over TLS, one fresh stream to the server.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Instant;

use tokio::select;
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep_until, timeout_at};
use tokio_util::sync::WaitForCancellationFuture;

use super::registry::{Attach, Command, Refused};
use super::snapshot::Snapshot;
use super::{Client, Relay};
use crate::limits::{Eviction, Limit, Stage};
use crate::metrics::{LoginOutcome, ResumeOutcome, Wait};
use crate::net::conn::{ConnEvent, HIGH_WATER};
use crate::net::proxy_protocol::{self, Addresses, Tls};
use crate::net::upstream::{Terms, UpstreamConn};
use crate::session::negotiate::{CloseReason, Ended, Held, Input, Negotiation, Output, Stop};
use crate::session::{Bound, EndReason, Resumption, SmId, sm};

/// A login that became a session of its own.
pub(super) struct Login {
    pub(super) bound: Bound,
    pub(super) client: Box<Client>,
    pub(super) peer: SocketAddr,
    pub(super) upstream: UpstreamConn,
}

enum Event {
    Client(std::io::Result<ConnEvent>),
    Upstream(std::io::Result<ConnEvent>),
    Stop(Stop),
}

struct Driver<'a> {
    relay: &'a Relay,
    /// What was current as the connection came.
    snapshot: Arc<Snapshot>,
    negotiation: Negotiation,
    addresses: Addresses,
    /// `None` once the connection was handed over.
    client: Option<Box<Client>>,
    upstream: Option<UpstreamConn>,
    eviction: Eviction,
    authenticated: bool,
    bound: Option<Bound>,
    /// What has come of the client's last wish to resume a session; nothing proves one until the session has the connection.
    resumption: Option<ResumeOutcome>,
    outcome: LoginOutcome,
    done: bool,
}

/// Takes a client through login. `None` when it was handed to a held session, or has ended.
pub(super) async fn run(
    relay: &Relay,
    snapshot: Arc<Snapshot>,
    client: Box<Client>,
    (addresses, eviction): (Addresses, Eviction),
) -> Option<Box<Login>> {
    let mut driver = Driver {
        relay,
        negotiation: snapshot.negotiation(),
        snapshot,
        addresses,
        client: Some(client),
        upstream: None,
        eviction,
        authenticated: false,
        bound: None,
        resumption: None,
        outcome: LoginOutcome::Lost,
        done: false,
    };
    driver.drive().await;
    driver.count_resumption();
    relay.metrics.login(driver.outcome);
    let Driver { client, upstream, bound, .. } = driver;
    match (bound, client, upstream) {
        (Some(bound), Some(client), Some(upstream)) => {
            Some(Box::new(Login { bound, client, peer: addresses.client, upstream }))
        }
        (_, client, upstream) => {
            if let Some(client) = client {
                relay.farewell(*client);
            }
            if let Some(upstream) = upstream {
                relay.farewell(upstream);
            }
            None
        }
    }
}

impl Driver<'_> {
    async fn drive(&mut self) {
        // One of each for all events: they are entered with locks that all connections share.
        let mut timeout = pin!(sleep_until(self.negotiation.deadline().into()));
        let mut shutdown = pin!(self.relay.shutdown.cancelled());
        loop {
            self.frames_from_client().await;
            if self.done {
                return;
            }
            match self.next_event(timeout.as_mut(), shutdown.as_mut()).await {
                Event::Client(Ok(ConnEvent::Received | ConnEvent::Drained))
                | Event::Upstream(Ok(ConnEvent::Drained)) => {}
                Event::Client(Ok(ConnEvent::Closed) | Err(_)) => {
                    tracing::debug!("the client left before it logged in");
                    self.client = None;
                    return;
                }
                Event::Upstream(Ok(ConnEvent::Received)) => self.frames_from_upstream().await,
                Event::Upstream(Ok(ConnEvent::Closed) | Err(_)) => {
                    self.upstream = None;
                    self.take(Input::UpstreamLost).await;
                }
                Event::Stop(stop) => self.take(Input::Stop(stop)).await,
            }
        }
    }

    async fn next_event(
        &mut self,
        timeout: Pin<&mut Sleep>,
        shutdown: Pin<&mut WaitForCancellationFuture<'_>>,
    ) -> Event {
        let wants_client = self.negotiation.wants_client();
        let (client, upstream) = (&mut self.client, &mut self.upstream);
        let client_backlog = client.as_ref().map_or(0, |client| client.backlog());
        select! {
            event = async { match client {
                Some(client) => client.event(wants_client).await,
                None => std::future::pending().await,
            } } => Event::Client(event),
            event = async { match upstream {
                Some(upstream) => upstream.event(client_backlog < HIGH_WATER).await,
                None => std::future::pending().await,
            } } => Event::Upstream(event),
            () = self.eviction.evicted() => Event::Stop(Stop::Crowded),
            () = timeout => Event::Stop(Stop::Timeout),
            () = shutdown => Event::Stop(Stop::Shutdown),
        }
    }

    async fn frames_from_client(&mut self) {
        while !self.done && self.negotiation.wants_client() {
            let Some(client) = &mut self.client else {
                return;
            };
            match client.next_frame() {
                Ok(Some(frame)) => {
                    let locked_out =
                        self.relay.guards.logins().is_locked_out(Instant::now(), self.addresses.client.ip());
                    self.negotiation.lock_out(locked_out);
                    self.take(Input::Client(frame)).await;
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%error, "the client's bytes are no XML stream");
                    self.relay.too_much(&error, self.authenticated);
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
                Ok(Some(frame)) => self.take(Input::Upstream(frame)).await,
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "the server's bytes are no XML stream");
                    self.upstream = None;
                    self.take(Input::UpstreamLost).await;
                }
            }
        }
    }

    fn count_resumption(&mut self) {
        if let Some(outcome) = self.resumption.take() {
            self.relay.metrics.resumption(outcome);
        }
    }

    async fn take(&mut self, input: Input) {
        self.negotiation.handle(input);
        self.perform().await;
    }

    /// Performs outputs; what one of them answers is the next input, once all are drained.
    async fn perform(&mut self) {
        loop {
            let mut answer = None;
            while let Some(output) = self.negotiation.poll() {
                if let Some(input) = self.perform_one(output).await {
                    answer = Some(input);
                }
            }
            match answer {
                Some(input) => self.negotiation.handle(input),
                None => return,
            }
        }
    }

    async fn perform_one(&mut self, output: Output) -> Option<Input> {
        match output {
            Output::ToClient(bytes) => self.client.as_mut()?.write(&bytes),
            Output::ToUpstream(bytes) => self.upstream.as_mut()?.write(&bytes),
            Output::Connect(host) => return Some(self.connect(&host).await),
            Output::Authenticated => {
                let limits = self.snapshot.limits(true);
                self.authenticated = true;
                let client = self.client.as_mut()?;
                client.framer().set_limits(limits);
                client.permit()?.authenticated();
            }
            Output::SaslFailed => self.relay.metrics.sasl_failure(),
            Output::LoginFailed => self.relay.guards.logins().failed(Instant::now(), self.addresses.client.ip()),
            Output::LoginRefused => {
                self.relay.guards.watch().reached(Limit::FailedLoginsPerAddress, self.addresses.client.ip())
            }
            Output::Restart => {
                if let Some(client) = &mut self.client {
                    client.framer().restart();
                }
                if let Some(upstream) = &mut self.upstream {
                    upstream.framer().restart();
                }
            }
            Output::Find(id) => {
                self.count_resumption();
                let found = self.find(&id).await;
                self.resumption = Some(match &found {
                    Ok(_) => ResumeOutcome::NotProven,
                    Err(ended) => no_session(ended),
                });
                return Some(Input::Found(found));
            }
            Output::HandOver(id, resumption) => {
                return self.hand_over(&id, resumption).await;
            }
            Output::Release(proof, resource) => {
                if let Some(ghost) = self.relay.registry.held_resource(&proof, &resource) {
                    self.relay.end(&ghost, EndReason::Superseded).await;
                }
            }
            Output::Bound(bound) => {
                self.bound = Some(*bound);
                self.outcome = LoginOutcome::Bound;
                self.done = true;
            }
            Output::Notice(domain, notice) => self.relay.notices.tell(domain, notice),
            Output::Close(reason) => {
                self.report_close(reason);
                self.outcome = LoginOutcome::Closed(reason);
                self.done = true;
            }
        }
        None
    }

    /// What anybody can make happen as often as they like is logged as its limit is.
    fn report_close(&self, reason: CloseReason) {
        if reason == CloseReason::Timeout {
            self.relay.guards.watch().reached(Limit::AuthenticationTimeout, self.addresses.client.ip());
        }
        if matches!(reason, CloseReason::Timeout | CloseReason::Crowded | CloseReason::LockedOut) {
            tracing::debug!(?reason, "closed before login");
        } else {
            tracing::info!(?reason, "closed before login");
        }
    }

    /// A session that can be resumed, or what is remembered of one that has ended in order.
    async fn find(&self, id: &SmId) -> Result<Held, Option<Ended>> {
        match self.relay.registry.find(id) {
            Some(handle) if !handle.is_ending() => Ok(handle.held().clone()),
            Some(_) | None => Err(self.ended(id).await),
        }
    }

    /// What is remembered of a session that has ended in order, or is ending: then once its count is final.
    async fn ended(&self, id: &SmId) -> Option<Ended> {
        if let Some(handle) = self.relay.registry.find(id)
            && !handle.ended().await
        {
            self.relay.metrics.deadline_passed(Wait::Tombstone);
            return None;
        }
        match self.relay.store.tombstone(id.as_str()).await {
            Ok(tombstone) => {
                tombstone.map(|tombstone| Ended { account: tombstone.account, h: sm::Handled::new(tombstone.h) })
            }
            Err(error) => {
                tracing::error!(%error, "tombstones cannot be read");
                None
            }
        }
    }

    /// The session was there a moment ago.
    async fn gone(&mut self, id: &SmId) -> Input {
        let ended = self.ended(id).await;
        self.resumption = Some(no_session(&ended));
        Input::Gone(ended)
    }

    async fn connect(&mut self, host: &str) -> Input {
        let Some(way) = self.snapshot.ways.to(host) else {
            return Input::UpstreamLost;
        };
        if let Some(permit) = self.client.as_mut().and_then(|client| client.permit()) {
            permit.reaches(Stage::Opened);
        }
        let terms = Terms {
            connect_timeout: self.snapshot.config.limits.connect_timeout,
            write_timeout: self.snapshot.config.stream_management.write_timeout,
            limits: self.snapshot.limits(true),
        };
        let tls = self.client.as_ref().and_then(|client| Tls::of(client.stream().state()));
        let client = proxy_protocol::Client { addresses: self.addresses, tls };
        let connected = way.connect(&terms, Some(&client)).await;
        self.relay.metrics.upstream(host, connected.is_ok());
        match connected {
            Ok(conn) => {
                self.upstream = Some(conn);
                Input::Connected(way.leg())
            }
            Err(error) => {
                let (upstream, remedy) = (way.upstream(), error.remedy());
                tracing::warn!(domain = host, %upstream, %error, remedy, "the server cannot be reached");
                Input::UpstreamLost
            }
        }
    }

    /// `None` once the session has the connection.
    async fn hand_over(&mut self, id: &SmId, resumption: Resumption) -> Option<Input> {
        let Some(handle) = self.relay.registry.find(id) else {
            return Some(self.gone(id).await);
        };
        let client = self.client.take()?;
        let (reply, replied) = oneshot::channel();
        let command = Command::Attach(Box::new(Attach { client, peer: self.addresses.client, resumption, reply }));
        if let Err(Command::Attach(attach)) = handle.deliver(command) {
            self.client = Some(attach.client);
            return Some(self.gone(id).await);
        }
        let deadline: tokio::time::Instant = (Instant::now() + self.snapshot.config.limits.handshake_timeout).into();
        match timeout_at(deadline, replied).await {
            Ok(Ok(Err(Refused { client, too_high }))) => {
                self.client = Some(client);
                match too_high {
                    Some(too_high) => {
                        self.resumption = Some(ResumeOutcome::TooHigh);
                        Some(Input::TooHigh(too_high))
                    }
                    None => Some(self.gone(id).await),
                }
            }
            // Taken; or the session ended with the connection in its hands.
            Ok(Ok(Ok(())) | Err(_)) | Err(_) => {
                if let Some(upstream) = &mut self.upstream {
                    upstream.write(crate::xml::STREAM_CLOSE);
                }
                (self.resumption, self.outcome) = (Some(ResumeOutcome::Resumed), LoginOutcome::Resumed);
                self.done = true;
                None
            }
        }
    }
}

fn no_session(ended: &Option<Ended>) -> ResumeOutcome {
    if ended.is_some() { ResumeOutcome::Ended } else { ResumeOutcome::Unknown }
}

/// What a session lets others know, so that a resumption can be proven.
pub(super) fn held(bound: &Bound) -> Held {
    Held { account: bound.jid.to_bare(), identity: bound.identity.clone() }
}
