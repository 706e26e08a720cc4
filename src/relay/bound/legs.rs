//! [`SessionLegs`]: the two connections of a session. They read, write and limit the rate of the client.

use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use super::turn::TaskEvent;
use crate::clock::Instant;
use crate::limits::{Rates, Throttle, Watch};
use crate::metrics::{MeteredLeg, Tap};
use crate::net::conn::{ConnEvent, Departure, Io};
use crate::net::upstream::UpstreamConn;
use crate::relay::backpressure::{PeerBacklog, ReadableLegs, Stops};
use crate::relay::client::Client;
use crate::session::Peer;
use crate::xml::{Frame, FrameError};

/// The connections of a session. The client may be gone. The upstream connection exists until the session ends.
pub(super) struct SessionLegs {
    client: Option<Box<Client>>,
    upstream: UpstreamConn,
    throttle: Throttle,
    tap: Tap,
    /// True if the session was informed that many replies wait for the client.
    replies_wait: bool,
    /// True if the session was informed that the client is not read.
    client_paused: bool,
    /// True if the session was informed that the server is not read.
    server_paused: bool,
}

/// The peers whose write deadline has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stalled {
    pub(super) client: bool,
    pub(super) server: bool,
}

impl SessionLegs {
    pub(super) fn new(client: Option<Box<Client>>, upstream: UpstreamConn, tap: Tap) -> Self {
        Self {
            client,
            upstream,
            throttle: Throttle::default(),
            tap,
            replies_wait: false,
            client_paused: false,
            server_paused: false,
        }
    }

    /// Attaches a client connection, and returns the previous one.
    pub(super) fn attach(&mut self, client: Box<Client>) -> Option<Box<Client>> {
        self.client.replace(client)
    }

    /// Removes the client connection and returns it.
    pub(super) fn detach(&mut self) -> Option<Box<Client>> {
        self.client.take()
    }

    /// Returns whether another process can go on with the upstream connection.
    pub(super) fn can_be_handed_over(&self) -> bool {
        self.upstream.stream().certificate().is_none() && self.upstream.stream().version().is_none()
    }

    /// Returns the upstream connection when the session has ended.
    pub(super) fn into_upstream(self) -> UpstreamConn {
        self.upstream
    }

    // Writing

    pub(super) fn write_client(&mut self, bytes: &[u8]) {
        if let Some(client) = &mut self.client {
            self.tap.went(MeteredLeg::Client, bytes);
            client.write(bytes);
        }
    }

    pub(super) fn reply_to_client(&mut self, bytes: &[u8]) {
        if let Some(client) = &mut self.client {
            self.tap.went(MeteredLeg::Client, bytes);
            client.reply(bytes);
        }
    }

    pub(super) fn write_upstream(&mut self, bytes: &[u8]) {
        self.tap.went(MeteredLeg::Upstream, bytes);
        self.upstream.write(bytes);
    }

    pub(super) fn reply_to_upstream(&mut self, bytes: &[u8]) {
        self.tap.went(MeteredLeg::Upstream, bytes);
        self.upstream.reply(bytes);
    }

    /// Starts to watch the last written bytes until they are sent.
    pub(super) fn watch(&mut self, peer: Peer) {
        match peer {
            Peer::Client => self.client.iter_mut().for_each(|client| client.watch()),
            Peer::Server => self.upstream.watch(),
        }
    }

    /// Returns the state of the watched requests, for each peer.
    pub(super) fn departures(&mut self) -> [(Peer, Option<Departure>); 2] {
        let client = self.client.as_mut().and_then(|client| client.departure());
        [(Peer::Client, client), (Peer::Server, self.upstream.departure())]
    }

    /// Returns whether many replies wait for the client, if that has changed since the last call.
    pub(super) fn take_replies_wait(&mut self) -> Option<bool> {
        let many = self.client.as_ref().is_some_and(|client| client.has_many_replies());
        let before = std::mem::replace(&mut self.replies_wait, many);
        (many != before).then_some(many)
    }

    /// Returns whether the relayed bytes that wait for the client are over their limit.
    pub(super) fn is_client_full(&self) -> bool {
        self.client.as_ref().is_some_and(|client| client.is_full())
    }

    /// Returns the earliest time at which a peer that does not read is given up.
    pub(super) fn write_deadline(&self, write_timeout: Duration) -> Option<Instant> {
        let [client, server] = self.write_deadlines(write_timeout);
        client.into_iter().chain(server).min()
    }

    /// Returns the peers that have not read for too long.
    pub(super) fn stalled(&self, now: Instant, write_timeout: Duration) -> Stalled {
        let [client, server] = self.write_deadlines(write_timeout).map(|deadline| deadline.is_some_and(|at| at <= now));
        Stalled { client, server }
    }

    fn write_deadlines(&self, write_timeout: Duration) -> [Option<Instant>; 2] {
        let client = self.client.as_ref().and_then(|client| client.write_deadline(write_timeout));
        [client, self.upstream.write_deadline(write_timeout)]
    }

    // Reading

    /// Returns which of the two legs are read now.
    pub(super) fn reading(&self, now: Instant, rates: Rates, stops: Stops) -> ReadableLegs {
        let slowed = self.throttle.resumes_at(now, rates).is_some();
        let stops = Stops { client: stops.client || slowed, ..stops };
        ReadableLegs::decide(self.client.as_deref().map(PeerBacklog::of), Some(PeerBacklog::of(&self.upstream)), stops)
    }

    /// Returns the peers that are not read any more (`true`) or are read again (`false`) since the last call.
    pub(super) fn take_pauses(&mut self, reading: ReadableLegs) -> [Option<(Peer, bool)>; 2] {
        let client = self.client.is_some() && !reading.client;
        let client_before = std::mem::replace(&mut self.client_paused, client);
        let server = !reading.server;
        let server_before = std::mem::replace(&mut self.server_paused, server);
        [
            (client != client_before).then_some((Peer::Client, client)),
            (server != server_before).then_some((Peer::Server, server)),
        ]
    }

    /// Returns the time at which the client is read again, if it has exceeded its rate. Counts a limit that was just reached.
    pub(super) fn resumes_at(&mut self, now: Instant, rates: Rates, watch: &Watch) -> Option<Instant> {
        if rates == Rates::default() {
            return None;
        }
        if let Some(limit) = self.throttle.newly_held(now, rates) {
            watch.reached(limit, "a client");
        }
        self.throttle.resumes_at(now, rates)
    }

    /// Polls both legs, `first` before the other. Only legs that are read return received bytes.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, reading: ReadableLegs, first: Peer) -> Poll<TaskEvent> {
        let client_first = first == Peer::Client;
        if client_first && let Poll::Ready(event) = self.poll_client(cx, reading) {
            return Poll::Ready(TaskEvent::Client(event));
        }
        if let Poll::Ready(event) = self.upstream.poll_event(cx, Io::read_if(reading.server)) {
            return Poll::Ready(TaskEvent::Upstream(event));
        }
        if client_first { Poll::Pending } else { self.poll_client(cx, reading).map(TaskEvent::Client) }
    }

    fn poll_client(&mut self, cx: &mut Context<'_>, reading: ReadableLegs) -> Poll<io::Result<ConnEvent>> {
        match &mut self.client {
            Some(client) => client.poll_event(cx, Io::read_if(reading.client)),
            None => Poll::Pending,
        }
    }

    /// Counts bytes received from the client.
    pub(super) fn on_client_received(&mut self, now: Instant, rates: Rates) {
        let received = self.client.as_mut().map_or(0, |client| client.take_received());
        self.throttle.bytes(now, rates, received);
    }

    /// Takes the client's next frame.
    pub(super) fn next_client_frame(&mut self, now: Instant, rates: Rates) -> Result<Option<Frame>, FrameError> {
        let Some(client) = &mut self.client else { return Ok(None) };
        let frame = client.next_frame()?;
        if let Some(frame) = &frame {
            if frame.is_stanza() {
                self.throttle.stanza(now, rates);
            }
            self.tap.came(MeteredLeg::Client, frame);
        }
        Ok(frame)
    }

    /// Takes the server's next frame.
    pub(super) fn next_upstream_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let frame = self.upstream.next_frame()?;
        if let Some(frame) = &frame {
            self.tap.came(MeteredLeg::Upstream, frame);
        }
        Ok(frame)
    }

    /// Returns the number of bytes that were received from the server and not taken.
    pub(super) fn upstream_buffered(&mut self) -> usize {
        self.upstream.framer().buffer().len()
    }

    /// Adds the traffic since the last call to the metrics.
    pub(super) fn count_traffic(&mut self) {
        self.tap.settle();
    }
}
