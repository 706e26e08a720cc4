//! Clients that another node has passed on, because this node owns their account.

use tokio::net::TcpStream;
use tokio::select;
use tokio::time::timeout_at;
use tracing::Span;
use tracing::field::display;

use super::client_address::AcceptedConnection;
use super::handshake::Secured;
use super::shared::Relay;
use super::snapshot::{Authentication, Snapshot};
use crate::clock::Instant;
use crate::cluster::arrival::{self, ArrivalError, ArrivedClient, NodeConnection};
use crate::limits::{ConnectionRefusal, Limit, Stage};
use crate::metrics::NodeArrival;
use crate::net::conn::Conn;
use crate::net::proxy_protocol::{Addresses, HeaderError};
use crate::net::tls_stream::TlsStream;

/// A connection of another node.
pub(super) enum Arrived {
    /// It passes a client on.
    Client(Box<PassedOn>),
    /// It has a request.
    Request(Box<TlsStream<TcpStream>>),
}

/// A client that another node has passed on.
pub(super) struct PassedOn {
    pub(super) secured: Secured,
    pub(super) addresses: Addresses,
}

/// Accepts a connection of another node, before the deadline. Logs why a connection is refused. Also returns `None` if the
/// connection has to make room for another one.
pub(super) async fn identify(
    relay: &Relay,
    snapshot: &Snapshot,
    accepted: AcceptedConnection,
    deadline: Instant,
) -> Option<Arrived> {
    let AcceptedConnection { tcp, peer, mut permit } = accepted;
    let (directory, tls) = (relay.directory()?, snapshot.node_tls.as_ref()?);
    let mut eviction = permit.eviction();
    Span::current().record("proxy", display(peer));
    // Fails only if the peer is gone.
    crate::net::tune_for_node(&tcp, snapshot.config.stream_management.write_timeout).ok()?;
    let arrived = select! {
        arrived = timeout_at(deadline.into(), Box::pin(arrival::accept(tls, directory, tcp))) => arrived,
        () = eviction.evicted() => return None,
    };
    let arrived = match arrived {
        Ok(Ok(NodeConnection::Client(arrived))) => arrived,
        Ok(Ok(NodeConnection::Request(stream))) => {
            relay.metrics().node_arrival(NodeArrival::Accepted);
            return Some(Arrived::Request(stream));
        }
        Ok(Err(error)) => {
            report(relay, &error);
            return None;
        }
        Err(_) => {
            relay.guards().watch().reached(Limit::HandshakeTimeout, peer.ip());
            relay.metrics().node_arrival(NodeArrival::Timeout);
            return None;
        }
    };
    let ArrivedClient { stream, addresses, received } = *arrived;
    Span::current().record("peer", display(addresses.client));
    if permit.comes_from(addresses.client.ip()).is_err() {
        relay.metrics().node_arrival(NodeArrival::Limited);
        return None;
    }
    relay.metrics().node_arrival(NodeArrival::Accepted);
    permit.reaches(Stage::Secured);
    let mut client = Conn::new(stream, snapshot.limits(Authentication::Pending)).with_permit(permit);
    *client.framer().buffer() = received;
    let secured = Secured { client: Box::new(client), eviction, elements: 0 };
    Some(Arrived::Client(Box::new(PassedOn { secured, addresses })))
}

fn report(relay: &Relay, error: &ArrivalError) {
    relay.metrics().node_arrival(error.outcome());
    if let ArrivalError::Header(HeaderError::Io(_) | HeaderError::Ended(0)) = error {
        tracing::debug!(%error, "connection of another node closed before PROXY header");
        return;
    }
    if let Some(suppressed) = relay.guards().watch().refused(ConnectionRefusal::NotOfNode) {
        tracing::warn!(%error, suppressed, "connection refused: not of a node of the cluster");
    }
}
