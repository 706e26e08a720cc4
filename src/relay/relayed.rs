//! A client whose stream goes on at another node: all bytes are copied in both directions until one side ends.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio_util::sync::WaitForCancellationFuture;

use super::client::Client;
use super::shared::Relay;
use super::timer::Timer;
use crate::clock::Instant;
use crate::cluster::hop::NodeConn;
use crate::metrics::RelayedConnection;
use crate::net::conn::{Conn, ConnEvent, Io};
use crate::net::wire::Wire;

/// The bytes for one side that wait before the other side is not read any more. What one read has returned can be more.
const WAITING: usize = 16 * 1024;
/// The time that the owner has to end the stream of a client that has ended its own side.
const LAST_BYTES: Duration = Duration::from_secs(10);

/// A client whose stream goes on at another node.
pub(super) struct RelayedClient {
    pub(super) client: Box<Client>,
    pub(super) node: Box<NodeConn>,
}

/// The end of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CopyEnd {
    /// The owner has ended the stream.
    Node,
    /// One connection is lost, or its peer does not read, or the owner does not end its side.
    Lost,
    /// The daemon ends.
    Shutdown,
}

/// Copies the stream of a client until it ends.
pub(super) async fn run(relay: &Relay, relayed: RelayedClient) {
    let RelayedClient { mut client, mut node } = relayed;
    let counted: RelayedConnection = relay.metrics().relayed();
    if let Some(permit) = client.permit() {
        // The owner of the account has the limits for those that do not log in.
        permit.authenticated();
    }
    // No more frames are read here. This frees what the framers remember.
    client.framer().restart();
    node.framer().restart();
    let write_timeout = relay.current().config.stream_management.write_timeout;
    let mut copy = StreamCopy::new(&mut *client, &mut *node, write_timeout);
    let end = copy.run(pin!(relay.shutdown().cancelled())).await;
    drop(counted);
    tracing::debug!(?end, "relayed stream ended");
    // Each side gets what the other one has sent before its end. Nothing is added: the end of the XML stream is for its owner to send.
    relay.background().close_gracefully(*client);
    relay.background().close_gracefully(*node);
}

/// The copy between two connections, in both directions.
struct StreamCopy<'a, C, N> {
    client: &'a mut Conn<C>,
    node: &'a mut Conn<N>,
    client_side: ClientSide,
    timer: Timer,
    write_timeout: Duration,
    last_bytes: Duration,
}

/// The client's direction of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientSide {
    /// The client may send more.
    Open,
    /// The client has ended its side. The end is passed on to the owner, which has this long.
    Ending(Instant),
    /// The owner has the end of the client's side.
    Ended(Instant),
}

enum CopyEvent {
    Client(io::Result<ConnEvent>),
    Node(io::Result<ConnEvent>),
    /// The owner has the end of the client's side.
    EndPassedOn(io::Result<()>),
    Deadline,
    Shutdown,
}

impl<'a, C: Wire, N: Wire> StreamCopy<'a, C, N> {
    fn new(client: &'a mut Conn<C>, node: &'a mut Conn<N>, write_timeout: Duration) -> Self {
        let timer = Timer::new(Instant::now());
        Self { client, node, client_side: ClientSide::Open, timer, write_timeout, last_bytes: LAST_BYTES }
    }

    async fn run(&mut self, mut shutdown: Pin<&mut WaitForCancellationFuture<'_>>) -> CopyEnd {
        loop {
            let from_client = self.client.framer().buffer().split();
            self.node.write(&from_client);
            let from_node = self.node.framer().buffer().split();
            self.client.write(&from_node);
            drop((from_client, from_node));
            let event = poll_fn(|cx| self.poll(cx, shutdown.as_mut())).await;
            match event {
                CopyEvent::Client(Ok(ConnEvent::Received | ConnEvent::Drained))
                | CopyEvent::Node(Ok(ConnEvent::Received | ConnEvent::Drained)) => {}
                CopyEvent::Client(Ok(ConnEvent::Closed)) => {
                    self.client_side = ClientSide::Ending(Instant::now() + self.last_bytes);
                }
                CopyEvent::EndPassedOn(Ok(())) => {
                    if let ClientSide::Ending(deadline) = self.client_side {
                        self.client_side = ClientSide::Ended(deadline);
                    }
                }
                CopyEvent::Node(Ok(ConnEvent::Closed)) => return CopyEnd::Node,
                CopyEvent::Client(Err(_)) | CopyEvent::Node(Err(_)) | CopyEvent::EndPassedOn(Err(_)) => {
                    return CopyEnd::Lost;
                }
                CopyEvent::Deadline if self.is_over(Instant::now()) => return CopyEnd::Lost,
                CopyEvent::Deadline => {}
                CopyEvent::Shutdown => return CopyEnd::Shutdown,
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, shutdown: Pin<&mut WaitForCancellationFuture<'_>>) -> Poll<CopyEvent> {
        loop {
            let reading = self.reading();
            let [client, node] = reading;
            if let Poll::Ready(event) = self.node.poll_event(cx, Io::read_if(node)) {
                return Poll::Ready(CopyEvent::Node(event));
            }
            if let Poll::Ready(event) = self.client.poll_event(cx, Io::read_if(client)) {
                return Poll::Ready(CopyEvent::Client(event));
            }
            if let ClientSide::Ending(_) = self.client_side
                && let Poll::Ready(done) = self.node.poll_end(cx)
            {
                return Poll::Ready(CopyEvent::EndPassedOn(done));
            }
            // A write may have made room, so that the other side can be read now.
            if reading == self.reading() {
                break;
            }
        }
        let deadline = self.deadlines().into_iter().flatten().min();
        if self.timer.poll(cx, deadline).is_ready() {
            return Poll::Ready(CopyEvent::Deadline);
        }
        shutdown.poll(cx).map(|()| CopyEvent::Shutdown)
    }

    /// Returns whether the client and the node are read now.
    fn reading(&self) -> [bool; 2] {
        let is_open = self.client_side == ClientSide::Open;
        [is_open && self.node.backlog() < WAITING, self.client.backlog() < WAITING]
    }

    fn deadlines(&self) -> [Option<Instant>; 3] {
        let end = match self.client_side {
            ClientSide::Open => None,
            ClientSide::Ending(deadline) | ClientSide::Ended(deadline) => Some(deadline),
        };
        [self.client.write_deadline(self.write_timeout), self.node.write_deadline(self.write_timeout), end]
    }

    fn is_over(&self, now: Instant) -> bool {
        self.deadlines().into_iter().flatten().any(|deadline| deadline <= now)
    }
}

#[cfg(test)]
mod tests;
