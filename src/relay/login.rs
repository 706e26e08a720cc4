//! Drives a [`Negotiation`]: one client over TLS, one fresh stream to the server.

use std::sync::Arc;
use std::time::Instant;

use tokio::select;
use tokio::sync::oneshot;
use tokio::time::{sleep_until, timeout_at};

use super::jobs;
use super::registry::{Attach, Command, Refused};
use super::snapshot::Snapshot;
use super::{Client, Relay};
use crate::limits::{Eviction, Limit, Stage};
use crate::net::conn::{ConnEvent, HIGH_WATER};
use crate::net::proxy_protocol::{self, Addresses, Tls};
use crate::net::upstream::{Terms, UpstreamConn};
use crate::session::negotiate::{CloseReason, Ended, Held, Input, Negotiation, Output, Stop};
use crate::session::{Bound, EndReason, Resumption, SmId, sm};

/// A login that became a session of its own.
pub(super) struct Login {
    pub(super) bound: Bound,
    pub(super) client: Client,
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
    client: Option<Client>,
    upstream: Option<UpstreamConn>,
    eviction: Eviction,
    authenticated: bool,
    bound: Option<Bound>,
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
        client: Some(*client),
        upstream: None,
        eviction,
        authenticated: false,
        bound: None,
        done: false,
    };
    driver.drive().await;
    let Driver { client, upstream, bound, .. } = driver;
    match (bound, client, upstream) {
        (Some(bound), Some(client), Some(upstream)) => Some(Box::new(Login { bound, client, upstream })),
        (_, client, upstream) => {
            if let Some(client) = client {
                relay.farewell(client);
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
        loop {
            self.frames_from_client().await;
            if self.done {
                return;
            }
            match self.next_event().await {
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

    async fn next_event(&mut self) -> Event {
        let wants_client = self.negotiation.wants_client();
        let deadline = self.negotiation.deadline().into();
        let (client, upstream) = (&mut self.client, &mut self.upstream);
        let client_backlog = client.as_ref().map_or(0, Client::backlog);
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
            () = sleep_until(deadline) => Event::Stop(Stop::Timeout),
            () = self.relay.shutdown.cancelled() => Event::Stop(Stop::Shutdown),
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
                return Some(Input::Found(self.find(&id).await));
            }
            Output::HandOver(id, resumption) => {
                return self.hand_over(&id, resumption).await;
            }
            Output::Release(proof, resource) => {
                if let Some(ghost) = self.relay.registry.held_resource(&proof, &resource) {
                    jobs::end(&ghost, EndReason::Superseded).await;
                }
            }
            Output::Bound(bound) => {
                self.bound = Some(*bound);
                self.done = true;
            }
            Output::Notice(domain, notice) => self.relay.notices.tell(domain, notice),
            Output::Close(reason) => {
                self.report_close(reason);
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
        if let Some(handle) = self.relay.registry.find(id) {
            return Ok(handle.held().clone());
        }
        Err(self.ended(id).await)
    }

    async fn ended(&self, id: &SmId) -> Option<Ended> {
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

    async fn connect(&mut self, host: &str) -> Input {
        let Some(way) = self.snapshot.ways.to(host) else {
            return Input::UpstreamLost;
        };
        if let Some(permit) = self.client.as_mut().and_then(Client::permit) {
            permit.reaches(Stage::Opened);
        }
        let terms = Terms {
            connect_timeout: self.snapshot.config.limits.connect_timeout,
            write_timeout: self.snapshot.config.stream_management.write_timeout,
            limits: self.snapshot.limits(true),
        };
        let tls = self.client.as_ref().and_then(|client| Tls::of(client.stream().get_ref().1));
        let client = proxy_protocol::Client { addresses: self.addresses, tls };
        match way.connect(&terms, Some(&client)).await {
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
            return Some(Input::Gone(self.ended(id).await));
        };
        let client = self.client.take()?;
        let (reply, replied) = oneshot::channel();
        let command = Command::Attach(Box::new(Attach { client, resumption, reply }));
        if let Err(Command::Attach(attach)) = handle.send(command).await {
            self.client = Some(attach.client);
            return Some(Input::Gone(self.ended(id).await));
        }
        let deadline: tokio::time::Instant = (Instant::now() + self.snapshot.config.limits.handshake_timeout).into();
        match timeout_at(deadline, replied).await {
            Ok(Ok(Err(Refused { client, too_high }))) => {
                self.client = Some(client);
                match too_high {
                    Some(too_high) => Some(Input::TooHigh(too_high)),
                    None => Some(Input::Gone(self.ended(id).await)),
                }
            }
            // Taken; or the session ended with the connection in its hands.
            Ok(Ok(Ok(())) | Err(_)) | Err(_) => {
                if let Some(upstream) = &mut self.upstream {
                    upstream.write(crate::xml::STREAM_CLOSE);
                }
                self.done = true;
                None
            }
        }
    }
}

/// What a session lets others know, so that a resumption can be proven.
pub(super) fn held(bound: &Bound) -> Held {
    Held { account: bound.jid.to_bare(), identity: bound.identity.clone() }
}
