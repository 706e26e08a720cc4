//! The address of a client: the peer address of its connection, or the one in the PROXY header of a trusted proxy.

use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio::select;
use tokio::time::timeout_at;
use tracing::Span;
use tracing::field::display;

use super::shared::Relay;
use crate::clock::Instant;
use crate::config::Listen;
use crate::limits::{ConnectionRefusal, Eviction, Permit};
use crate::net::proxy_protocol::{self, Addresses, HeaderError};

/// A connection that was accepted.
pub(super) struct AcceptedConnection {
    pub(super) tcp: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) permit: Permit,
}

/// A connection whose client address is known.
pub(super) struct KnownClient {
    pub(super) tcp: TcpStream,
    pub(super) addresses: Addresses,
    /// The permit, counted for the client's address.
    pub(super) permit: Permit,
    /// Completes when the connection has to make room for another one.
    pub(super) eviction: Eviction,
}

/// Reads the PROXY header where one is required. Logs why a connection is refused.
pub(super) async fn identify(
    relay: &Relay,
    accepted: AcceptedConnection,
    listen: &Listen,
    deadline: Instant,
) -> Option<KnownClient> {
    let AcceptedConnection { mut tcp, peer, mut permit } = accepted;
    let mut eviction = permit.eviction();
    // Fails only if the peer is gone.
    let mut addresses = Addresses::of(&tcp, peer).ok()?;
    if listen.proxies.is_some() {
        Span::current().record("proxy", display(addresses.client));
        let named = select! {
            named = timeout_at(deadline.into(), proxy_protocol::read(&mut tcp)) => named,
            () = eviction.evicted() => return None,
        };
        match named {
            Ok(Ok(Some(named))) => addresses = named,
            Ok(Ok(None)) => {}
            Ok(Err(error @ (HeaderError::Io(_) | HeaderError::Ended(0)))) => {
                tracing::debug!(%error, "connection closed before PROXY header");
                return None;
            }
            Ok(Err(error)) => {
                if let Some(suppressed) = relay.guards().watch().refused(ConnectionRefusal::NoProxyHeader) {
                    tracing::warn!(%error, suppressed, "connection refused: no PROXY header");
                }
                return None;
            }
            Err(_) => {
                if let Some(suppressed) = relay.guards().watch().refused(ConnectionRefusal::NoProxyHeader) {
                    tracing::warn!(suppressed, "connection refused: no PROXY header within handshake_timeout");
                }
                return None;
            }
        }
    }
    Span::current().record("peer", display(addresses.client));
    if let Err(limit) = permit.comes_from(addresses.client.ip()) {
        relay.overload().turn_away(tcp, listen.tls, limit);
        return None;
    }
    Some(KnownClient { tcp, addresses, permit, eviction })
}
